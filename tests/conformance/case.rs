//! One case: its folder, how it is run, and what it left.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::compare::{self, Difference};
use super::effective::{self, Tree};
use crate::harness::kiln::KILN;
use crate::harness::tree;

/// Whose result is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Default,
    Compat,
}

/// The folder of the corpus.
pub fn corpus() -> PathBuf {
    tree().join("tests/conformance/linuxkit")
}

/// Names of the cases that begin with `letter`, sorted.
pub fn names(letter: char) -> Vec<String> {
    let entries = fs::read_dir(corpus().join("cases")).expect("the corpus is there");
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| name.starts_with(letter)).collect();
    names.sort();
    assert!(!names.is_empty());
    names
}

/// What a case left.
pub struct Outcome {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
    /// Files in `$OUT`, by name.
    pub outputs: Vec<(String, Vec<u8>)>,
}

/// Runs `cmd` of the folder `case` in a copy of it.
pub fn run(case: &Path, mode: Mode) -> Outcome {
    let top = tempfile::Builder::new().prefix("kiln-case-").tempdir().expect("a temp folder can be made");
    let [work, out, cache, home] = ["work", "out", "cache", "home"].map(|name| top.path().join(name));
    copy(case, &work);
    copy(&corpus().join("images"), &cache);
    for folder in [&out, &home] {
        fs::create_dir(folder).expect("the temp folder is writable");
    }
    if work.join("home").is_dir() {
        copy(&work.join("home"), &home);
    }
    let mut command = Command::new("sh");
    command.arg0("sh").arg("cmd").current_dir(&work).stdin(Stdio::null()).env_clear();
    for kept in ["PATH", "TMPDIR"] {
        command.envs(std::env::var_os(kept).map(|value| (kept, value)));
    }
    command.envs([("LC_ALL", "C"), ("TZ", "UTC"), ("GIT_CONFIG_NOSYSTEM", "1"), ("TOOL", KILN)]);
    command.envs([("OUT", &out), ("CACHE", &cache), ("HOME", &home)]);
    command.env("GIT_CEILING_DIRECTORIES", top.path());
    if mode == Mode::Compat {
        command.env("KILN_COMPAT", "linuxkit");
    }
    let done = command.output().expect("sh can be started");
    let place = |text: &[u8]| {
        let named = [(&work, "$WORK"), (&out, "$OUT"), (&cache, "$CACHE")];
        named.iter().fold(String::from_utf8_lossy(text).into_owned(), |text, (folder, name)| {
            text.replace(&folder.display().to_string(), name)
        })
    };
    let mut outputs: Vec<(String, Vec<u8>)> = fs::read_dir(&out)
        .expect("it was made above")
        .flatten()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).unwrap_or_default()))
        .collect();
    outputs.sort();
    let status = done.status.code().unwrap_or(-1);
    Outcome { status, stdout: place(&done.stdout), stderr: place(&done.stderr), outputs }
}

/// A folder without what was recorded.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the temp folder is writable");
    for entry in fs::read_dir(from).expect("the corpus is readable").flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("expected") {
            continue;
        }
        let (path, target) = (entry.path(), to.join(name));
        if entry.file_type().expect("readable").is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("the temp folder is writable");
        }
    }
}

/// A recorded file; empty when there is none.
pub fn recorded(case: &str, name: &str) -> Option<Vec<u8>> {
    fs::read(corpus().join("cases").join(case).join(name)).ok()
}

pub fn recorded_text(case: &str, name: &str) -> String {
    String::from_utf8(recorded(case, name).unwrap_or_default()).expect("recorded text is UTF-8")
}

/// The generated text at `path` of the archive `file`: the last of its name.
fn recorded_member(case: &str, file: &str, path: &str) -> Option<Vec<u8>> {
    let prefix = if file == "out.tar" { String::new() } else { format!("{file}!") };
    let names = (0..4).rev().map(|count| format!("expected/{prefix}{path}{}", "~".repeat(count)));
    names.into_iter().find_map(|name| recorded(case, &name))
}

/// What the outputs of a case that succeeded differ in from what was recorded. The trees are also given, by output.
pub fn differences(case: &str, outcome: &Outcome) -> (Vec<Difference>, Vec<(String, Tree)>) {
    let mut all = vec![];
    let mut trees = vec![];
    let wanted = recorded_text(case, "expected.outputs");
    let wanted: Vec<Vec<&str>> = wanted.lines().map(|line| line.split('\t').collect()).collect();
    let names = |list: Vec<&str>| list.join(" ");
    let (old, new) = (
        names(wanted.iter().map(|line| line[0]).collect()),
        names(outcome.outputs.iter().map(|(name, _)| name.as_str()).collect()),
    );
    if old != new {
        all.push(Difference { at: "$OUT".into(), wanted: old, found: new });
    }
    for (name, bytes) in &outcome.outputs {
        let Some(line) = wanted.iter().find(|line| line[0] == name) else { continue };
        all.extend(output(case, name, bytes, line, &mut trees));
    }
    (all, trees)
}

fn output(case: &str, name: &str, bytes: &[u8], line: &[&str], trees: &mut Vec<(String, Tree)>) -> Vec<Difference> {
    let text = |path: &str| recorded_member(case, name, path);
    if name.ends_with(".tar") {
        let manifest = match name {
            "out.tar" => "expected.manifest".to_owned(),
            _ => format!("expected/{name}.manifest"),
        };
        let pax = (name == "out.tar").then(|| recorded_text(case, "expected.pax"));
        let mut wanted =
            effective::effective(effective::from_manifest(&recorded_text(case, &manifest), pax.as_deref()));
        let mut found = effective::effective(effective::from_tar(bytes));
        let mut all = vec![];
        if let (Some(old), Some(new)) = (wanted.get_mut("initrd.img"), found.get_mut("initrd.img")) {
            let manifest = recorded_text(case, &format!("expected/{name}!initrd.img.manifest"));
            all.extend(initrd(&manifest, b"", new.content.as_deref().unwrap_or_default(), &|_| None, trees, name));
            new.what = old.what.clone();
        }
        all.extend(compare::trees(&wanted, &found, &text));
        trees.push((name.into(), found));
        return all;
    }
    if name.ends_with("-initrd.img") {
        let manifest = recorded_text(case, &format!("expected/{name}.manifest"));
        let prefix = recorded(case, &format!("expected/{name}.prefix")).unwrap_or_default();
        return initrd(&manifest, &prefix, bytes, &text, trees, name);
    }
    let found = effective::sha256(bytes);
    let same = line[2] == found;
    (!same).then(|| Difference { at: name.into(), wanted: line[2].into(), found }).into_iter().collect()
}

fn initrd(
    manifest: &str,
    prefix: &[u8],
    bytes: &[u8],
    text: &dyn Fn(&str) -> Option<Vec<u8>>,
    trees: &mut Vec<(String, Tree)>,
    name: &str,
) -> Vec<Difference> {
    let Some(packed) = bytes.strip_prefix(prefix) else {
        return vec![Difference {
            at: name.into(),
            wanted: "microcode in front".into(),
            found: "something else".into(),
        }];
    };
    let mut unpacked = vec![];
    flate2::read::MultiGzDecoder::new(packed).read_to_end(&mut unpacked).expect("gzip");
    let wanted = effective::effective(effective::from_manifest(manifest, None));
    let found = effective::effective(effective::from_cpio(&unpacked));
    let differences = compare::trees(&wanted, &found, text);
    trees.push((format!("{name}!initrd"), found));
    differences
}
