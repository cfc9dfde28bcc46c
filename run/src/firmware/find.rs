//! Where distributions have the firmware.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Files of firmware with those of their first variables, the best first.
const KNOWN: [(&str, &str); 9] = [
    // Debian, Ubuntu.
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    // Fedora.
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    // Arch.
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/edk2-ovmf/x64/OVMF_CODE.fd", "/usr/share/edk2-ovmf/x64/OVMF_VARS.fd"),
    // SUSE.
    ("/usr/share/qemu/ovmf-x86_64-4m-code.bin", "/usr/share/qemu/ovmf-x86_64-4m-vars.bin"),
    // QEMU's own.
    ("/usr/share/qemu/edk2-x86_64-code.fd", "/usr/share/qemu/edk2-i386-vars.fd"),
    ("/usr/local/share/qemu/edk2-x86_64-code.fd", "/usr/local/share/qemu/edk2-i386-vars.fd"),
    ("/run/current-system/sw/share/qemu/edk2-x86_64-code.fd", "/run/current-system/sw/share/qemu/edk2-i386-vars.fd"),
];

/// Where packages of firmware describe it (QEMU's `docs/interop/firmware.json`).
const DESCRIBED: [&str; 2] = ["/usr/share/qemu/firmware", "/etc/qemu/firmware"];
/// Longest description that is read, in bytes.
const MOST_DESCRIPTION_BYTES: u64 = 64 << 10;

/// Firmware, and what its variables are at first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What runs.
    pub code: PathBuf,
    /// The first variables, if they are a file of their own.
    pub template: Option<PathBuf>,
}

/// No firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no EFI firmware is installed where distributions have it, such as `{}`", KNOWN[0].0)]
pub struct NotFound;

impl NotFound {
    /// How to get it.
    pub const HINT: &str = "`apt install ovmf` (Debian, Ubuntu), `dnf install edk2-ovmf` (Fedora), `pacman -S edk2-ovmf` (Arch); or `-firmware FILE`";
}

/// The firmware of this host.
///
/// # Errors
/// There is none.
pub fn find() -> Result<Found, NotFound> {
    find_below(Path::new("/"))
}

fn find_below(root: &Path) -> Result<Found, NotFound> {
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    KNOWN
        .iter()
        .map(|(code, template)| (at(code), at(template)))
        .find(|(code, template)| code.is_file() && template.is_file())
        .map(|(code, template)| Found { code, template: Some(template) })
        .ok_or(NotFound)
}

/// The file of first variables that belongs to the firmware `code`, by its name.
#[must_use]
pub fn template_of(code: &Path) -> Option<PathBuf> {
    let name = code.file_name()?.to_str()?;
    let candidates = [("CODE", "VARS"), ("code", "vars"), ("x86_64-code", "i386-vars")]
        .into_iter()
        .filter(|(from, _)| name.contains(from))
        .map(|(from, to)| name.replace(from, to))
        // Those that want memory protected by the chipset have the same variables.
        .flat_map(|name| [name.replace(".secboot", ""), name.replace(".secure", ""), name]);
    candidates.map(|name| code.with_file_name(name)).find(|path| path != code && path.is_file())
}

/// Whether the firmware `code` wants memory that the chipset protects, and so stands still in a machine without: its package says
/// so, or its name does.
pub(super) fn needs_smm(code: &Path) -> bool {
    let is_named = code.file_name().is_some_and(|name| name.to_string_lossy().contains(".secboot"));
    is_named || DESCRIBED.iter().any(|folder| is_described_with_smm(Path::new(folder), code))
}

fn is_described_with_smm(folder: &Path, code: &Path) -> bool {
    let Ok(code) = code.canonicalize() else { return false };
    let describes = |path: PathBuf| {
        let mut text = String::new();
        File::open(path).and_then(|file| file.take(MOST_DESCRIPTION_BYTES).read_to_string(&mut text)).ok()?;
        let description: Value = serde_json::from_str(&text).ok()?;
        let wants = description.get("features")?.as_array()?.iter().any(|feature| feature == "requires-smm");
        let name = description.pointer("/mapping/executable/filename")?.as_str()?;
        Some(wants && Path::new(name).canonicalize().is_ok_and(|path| path == code))
    };
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.map(|file| file.path()).any(|path| describes(path).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_that_wants_protected_memory_is_known_by_its_description_or_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["safe.fd", "plain.fd"] {
            fs::write(at(name), "x").unwrap();
        }
        std::os::unix::fs::symlink(at("safe.fd"), at("other-name.fd")).unwrap();
        let describe = |name: &str, code: &str, feature: &str| {
            let executable = serde_json::json!({"filename": at(code), "format": "raw"});
            let text = serde_json::json!({"mapping": {"executable": executable}, "features": ["acpi-s3", feature]});
            fs::write(at(name), text.to_string()).unwrap();
        };
        describe("50.json", "safe.fd", "requires-smm");
        describe("60.json", "plain.fd", "verbose-dynamic");
        fs::write(at("70.json"), "{").unwrap();
        fs::write(at("80.json"), r#"{"features": ["requires-smm"]}"#).unwrap();
        for (name, wanted) in [("safe.fd", true), ("other-name.fd", true), ("plain.fd", false), ("none.fd", false)] {
            assert_eq!(is_described_with_smm(folder.path(), &at(name)), wanted, "{name}");
        }
        assert!(!is_described_with_smm(&at("nowhere"), &at("safe.fd")));
        assert!(needs_smm(Path::new("/nowhere/OVMF_CODE_4M.secboot.fd")) && !needs_smm(&at("plain.fd")));
    }

    #[test]
    fn firmware_without_its_variables_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            path
        };
        write("usr/share/OVMF/OVMF_CODE_4M.fd");
        assert_eq!(find_below(root.path()), Err(NotFound));
        let code = write("usr/share/qemu/edk2-x86_64-code.fd");
        let template = write("usr/share/qemu/edk2-i386-vars.fd");
        assert_eq!(find_below(root.path()), Ok(Found { code: code.clone(), template: Some(template.clone()) }));
        assert_eq!(template_of(&code), Some(template));
    }

    #[test]
    fn variables_are_found_beside_the_firmware() {
        let folder = tempfile::tempdir().unwrap();
        let code = folder.path().join("OVMF_CODE_4M.fd");
        fs::write(&code, "x").unwrap();
        assert_eq!((template_of(&code), template_of(Path::new("/"))), (None, None));
        let vars = folder.path().join("OVMF_VARS_4M.fd");
        fs::write(&vars, "x").unwrap();
        assert_eq!(template_of(&code), Some(vars));
        assert_eq!(template_of(&folder.path().join("OVMF.fd")), None);
    }
}
