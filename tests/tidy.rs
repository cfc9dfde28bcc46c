//! What keeps the tree as docs/architecture.md says it is.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::tree;

/// The rooms of a build in the order that data goes through them, each with the rooms it may name. `progress`, `cancel`
/// and `compat` are everybody's; `pipeline` joins them all.
const BUILD_ROOMS: &[(&str, &[&str])] = &[
    ("progress", &[]),
    ("cancel", &[]),
    ("cache", &[]),
    ("compat", &[]),
    ("artifact", &[]),
    ("oci", &["artifact"]),
    ("config", &[]),
    ("source", &["config"]),
    ("plan", &["oci"]),
    ("tree", &[]),
    ("layer", &["cache", "oci", "tree"]),
    ("bundle", &["config", "oci"]),
    ("sbom", &["oci", "tree"]),
    ("inspect", &["layer", "tree"]),
    ("assemble", &["config", "bundle", "layer", "oci", "plan", "tree"]),
    ("format", &["artifact", "cache", "tree"]),
    ("output", &["format", "oci"]),
    ("rootfs", &["cache", "format", "layer", "oci", "tree"]),
    ("metadata", &["format", "tree"]),
    ("package", &["config", "format", "layer", "oci", "output", "plan", "tree"]),
    (
        "pipeline",
        &["assemble", "bundle", "cache", "config", "format", "layer", "oci", "output", "plan", "sbom", "tree"],
    ),
];

/// Where a program may be started.
const STARTERS: &[&str] = &[
    "build/src/package",
    "build/src/oci/credentials",
    "build/src/oci/import/containerd.rs",
    "run/src/qemu",
    "run/src/console/watch.rs",
    "run/src/detach.rs",
    "run/net/src/link/bridge.rs",
    // Its tests alone.
    "run/net/src/link/real.rs",
    "pkg/",
    "tests/",
    "bench/",
];

fn rust_files(below: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut folders = vec![tree().join(below)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())).flatten() {
            let path = entry.path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no Rust files below {below}");
    found.sort();
    found
}

/// A file's lines before its tests, with their numbers.
fn code(path: &Path) -> Vec<(usize, String)> {
    if path.ends_with("tests.rs") {
        return vec![];
    }
    let text = fs::read_to_string(path).expect("the tree is readable");
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    lines.enumerate().map(|(n, line)| (n + 1, line.to_owned())).collect()
}

fn name(path: &Path) -> String {
    path.strip_prefix(tree()).expect("below the tree").to_string_lossy().into_owned()
}

fn check(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_rooms_of_a_build_name_only_their_neighbours() {
    let mut faults = vec![];
    for path in rust_files("build/src") {
        let name = name(&path);
        let room = name.trim_start_matches("build/src/").split(['/', '.']).next().unwrap_or_default();
        if room == "lib" {
            continue;
        }
        let Some((_, neighbours)) = BUILD_ROOMS.iter().find(|(known, _)| *known == room) else {
            faults.push(format!("{name}: `{room}` is no room that tests/tidy.rs knows"));
            continue;
        };
        for (number, line) in code(&path) {
            for named in line.split("crate::").skip(1) {
                let named = named.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                let known = BUILD_ROOMS.iter().any(|(known, _)| *known == named);
                if known
                    && named != room
                    && !["progress", "cancel", "compat"].contains(&named)
                    && !neighbours.contains(&named)
                {
                    faults.push(format!("{name}:{number}: `{room}` names `{named}`"));
                }
            }
        }
    }
    check(&faults);
}

#[test]
fn build_and_run_never_name_each_other() {
    let mut faults = vec![];
    for (below, other) in [
        ("build/src", "kiln_run"),
        ("run", "kiln_build"),
        ("run/net", "kiln_run"),
        ("pkg", "kiln_build"),
        ("pkg", "kiln_run"),
    ] {
        for path in rust_files(below) {
            let lines = code(&path).into_iter().filter(|(_, line)| line.contains(other));
            faults.extend(lines.map(|(number, _)| format!("{}:{number}: names `{other}`", name(&path))));
        }
    }
    check(&faults);
}

#[test]
fn programs_are_started_in_few_places() {
    let mut faults = vec![];
    for path in ["build/src", "run/src", "run/net/src", "cmd/src"].into_iter().flat_map(rust_files) {
        let name = name(&path);
        if STARTERS.iter().any(|start| name.starts_with(start)) {
            continue;
        }
        let lines =
            code(&path).into_iter().filter(|(_, line)| line.contains("Command::new(") && !line.contains("clap"));
        faults.extend(lines.map(|(number, line)| format!("{name}:{number}: {}", line.trim())));
    }
    check(&faults);
}

#[test]
fn files_stay_small_and_nothing_is_left_for_later() {
    let mut faults = vec![];
    for path in ["build/src", "run", "cmd/src", "pkg", "tests"].into_iter().flat_map(rust_files) {
        let name = name(&path);
        let code = code(&path);
        if code.len() > 800 {
            faults.push(format!("{name}: {} lines", code.len()));
        }
        if name == "tests/tidy.rs" {
            continue;
        }
        for (number, line) in code {
            for word in ["TODO", "FIXME", "XXX", "#[ignore", "#![allow", "#[allow"] {
                if line.contains(word) {
                    faults.push(format!("{name}:{number}: {word}"));
                }
            }
        }
    }
    check(&faults);
}

#[test]
fn every_dependency_has_its_line() {
    let manifest = fs::read_to_string(tree().join("Cargo.toml")).expect("the tree is readable");
    let listed = fs::read_to_string(tree().join("docs/dependencies.md")).expect("docs/dependencies.md is there");
    let dependencies = manifest.split("[workspace.dependencies]").nth(1).expect("the table is there");
    let names = dependencies.lines().skip(1).take_while(|line| !line.starts_with('['));
    let mut faults = vec![];
    for name in names.filter_map(|line| Some(line.split_once(" = ")?.0)).filter(|name| !name.starts_with("kiln-")) {
        if !listed.contains(&format!("| `{name}` |")) {
            faults.push(format!("docs/dependencies.md has no line for `{name}`"));
        }
    }
    check(&faults);
}
