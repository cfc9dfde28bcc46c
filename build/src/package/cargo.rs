//! Programs that cargo builds in the package's workspace.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::cross::Cross;
use super::error::{PackageError, io_error};
use super::program::Program;
use super::recipe::{Bin, Cargo};
use super::stage::Stage;
use super::workspace::Workspace;
use crate::cancel::Cancel;
use crate::tree::TreePath;

const MODE_PROGRAM: u32 = 0o755;
/// Longest name of a dynamic linker that is shown.
const INTERPRETER_BYTES_MAX: u64 = 256;

/// Builds the crate for Go's `architecture` and puts its programs into the stage.
pub(super) fn add(cargo: &Cargo, architecture: &str, cancel: &Cancel, stage: &mut Stage) -> Result<(), PackageError> {
    let workspace = Workspace::above(stage.package())?;
    let mut call = Program::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")), "cargo")
        .until(cancel)
        .folder(&workspace.root)
        .args(["build", "--locked", "--message-format=json-render-diagnostics", "--package", &cargo.package])
        .args(["--profile", &cargo.profile]);
    if architecture != host_architecture() {
        let cross = Cross::find(architecture, &workspace.root, cancel)?;
        call = call.args(["--target", &cross.target]);
        call = cross.variable.iter().fold(call, |call, (name, value)| call.env(name, value));
    }
    for bin in &cargo.bins {
        call = call.arg("--bin").arg(&bin.bin);
    }
    let made = programs(&call.run()?, &cargo.package);
    for bin in &cargo.bins {
        let missing = || PackageError::NoBinary { package: cargo.package.clone(), bin: bin.bin.clone() };
        let path = made.get(&bin.bin).ok_or_else(missing)?;
        let interpreter = interpreter(path, &bin.bin)?;
        if let Some(interpreter) = interpreter.filter(|_| !cargo.dynamic) {
            return Err(PackageError::Dynamic { bin: bin.bin.clone(), interpreter });
        }
        install(bin, path, stage)?;
    }
    Ok(())
}

fn install(bin: &Bin, from: &Path, stage: &mut Stage) -> Result<(), PackageError> {
    stage.copy(&bin.path.0, from, bin.mode.map_or(MODE_PROGRAM, |mode| mode.bits()))?;
    let target = [b"/", bin.path.0.as_bytes()].concat();
    bin.links.iter().try_for_each(|link| stage.symlink(&link.0, &link_target(&link.0, &bin.path.0, &target)))
}

/// In the same folder the bare name, else the path from the root.
fn link_target(link: &TreePath, program: &TreePath, absolute: &[u8]) -> Vec<u8> {
    match (link.split(), program.split()) {
        (Some((one, _)), Some((other, name))) if one == other => name.to_vec(),
        _ => absolute.to_vec(),
    }
}

#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    package_id: String,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// The programs that cargo says it made, by name.
fn programs(messages: &[u8], package: &str) -> BTreeMap<String, PathBuf> {
    let mut made = BTreeMap::new();
    for line in messages.split(|&byte| byte == b'\n') {
        let Ok(message) = serde_json::from_slice::<Message>(line) else { continue };
        // `path+file:///…/NAME#VERSION`, or `…#NAME@VERSION` where folder and crate differ in name.
        let mut words = message.package_id.split(['/', '#', '@']);
        if message.reason != "compiler-artifact" || !words.any(|word| word == package) {
            continue;
        }
        if let (Some(target), Some(path)) = (message.target, message.executable)
            && target.kind.iter().any(|kind| kind == "bin")
        {
            made.insert(target.name, path);
        }
    }
    made
}

/// The dynamic linker that an ELF program asks for (`PT_INTERP`, System V ABI, program header).
fn interpreter(path: &Path, bin: &str) -> Result<Option<String>, PackageError> {
    const PT_INTERP: u32 = 3;
    const HEADER_BYTES: usize = 56;
    let failed = |source| io_error("read", path, source);
    let file = File::open(path).map_err(failed)?;
    let mut elf = [0; 64];
    file.read_exact_at(&mut elf, 0).map_err(failed)?;
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return Err(PackageError::NotElf { bin: bin.into() });
    }
    let start = u64_at(&elf, 32);
    let count = u64_at(&elf, 56) & 0xffff;
    for index in 0..count {
        let mut header = [0; HEADER_BYTES];
        let offset = start.saturating_add(index * HEADER_BYTES as u64);
        file.read_exact_at(&mut header, offset).map_err(failed)?;
        if u64_at(&header, 0) & 0xffff_ffff != u64::from(PT_INTERP) {
            continue;
        }
        let len = u64_at(&header, 32).min(INTERPRETER_BYTES_MAX);
        let mut name = vec![0; usize::try_from(len).unwrap_or_default()];
        file.read_exact_at(&mut name, u64_at(&header, 8)).map_err(failed)?;
        return Ok(Some(String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned()));
    }
    Ok(None)
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    bytes.get(offset..offset + 8).and_then(|part| part.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Go's name of this machine's architecture.
fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_of_the_asked_crate_are_taken() {
        let line = |reason: &str, id: &str, kind: &str, executable: &str| {
            format!(
                r#"{{"reason":"{reason}","package_id":"{id}","target":{{"name":"init","kind":["{kind}"]}},"executable":{executable}}}"#
            )
        };
        let messages = [
            "no json".into(),
            r#"{"reason":"build-finished","success":true}"#.into(),
            line("compiler-artifact", "path+file:///w/pkg/other#other@0.1.0", "bin", "\"/wrong\""),
            line("compiler-artifact", "path+file:///w/pkg/init#kiln-init@0.1.0", "lib", "null"),
            line("compiler-artifact", "path+file:///w/pkg/init#kiln-init@0.1.0", "bin", "\"/right\""),
        ]
        .join("\n");
        let made = programs(messages.as_bytes(), "kiln-init");
        assert_eq!(made, BTreeMap::from([("init".to_owned(), PathBuf::from("/right"))]));
    }

    #[test]
    fn what_is_no_program_is_refused_and_a_dynamic_one_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script");
        std::fs::write(&script, "#!/bin/sh\n".repeat(20)).unwrap();
        assert!(matches!(interpreter(&script, "s"), Err(PackageError::NotElf { .. })));
        let found = interpreter(Path::new("/bin/ls"), "ls").unwrap().unwrap();
        assert!(found.contains("/ld-linux") || found.contains("/ld64"), "{found}");
        // Tests are linked like all programs of this workspace: statically.
        assert_eq!(interpreter(&std::env::current_exe().unwrap(), "test").unwrap(), None);
    }

    #[test]
    fn a_link_in_the_same_folder_is_a_bare_name() {
        let path = |text: &str| TreePath::from_user(text).unwrap();
        assert_eq!(link_target(&path("sbin/reboot"), &path("sbin/poweroff"), b"/sbin/poweroff"), b"poweroff");
        assert_eq!(link_target(&path("init"), &path("sbin/init"), b"/sbin/init"), b"/sbin/init");
    }
}
