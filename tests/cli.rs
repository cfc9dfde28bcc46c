//! What the user sees: messages, exit codes, and that nothing is left behind after wrong usage.

use std::fs;

use crate::harness::fixtures::debian_kernel;
use crate::harness::kiln::{Sandbox, run};
use crate::harness::tree;

/// Wrong words: exit 2, a message with `wanted`, no file made.
#[track_caller]
fn check(words: &[&str], code: i32, wanted: &[&str]) {
    let sandbox = Sandbox::new();
    let said = run(&mut sandbox.kiln(words));
    assert_eq!(said.code(), code, "{words:?}\n{}", said.stderr);
    for word in wanted {
        assert!(said.stderr.contains(word), "{words:?}: no `{word}` in:\n{}", said.stderr);
    }
    assert_eq!(sandbox.files(), [""; 0], "{words:?}");
    assert_eq!(said.stdout, "", "{words:?}");
}

#[test]
fn wrong_usage_is_exit_two_and_names_the_word() {
    check(&["build"], 2, &["FILE"]);
    check(&["build", "-nosuchflag", "x.yml"], 2, &["nosuchflag"]);
    check(&["build", "-format", "tr", "x.yml"], 2, &["tr", "tar"]);
    check(&["run", "-cpus", "many", "x"], 2, &["many"]);
    check(&["run", "-disk", "size=1X", "x"], 2, &["1X"]);
    check(&["run", "-accel", "hvm", "x"], 2, &["hvm", "kvm"]);
    check(&["frobnicate"], 2, &["frobnicate"]);
}

#[test]
fn what_is_not_there_is_named_with_a_way_out() {
    check(&["build", "nosuch.yml"], 1, &["nosuch.yml"]);
    check(&["run", "nosuch"], 1, &["nosuch", "kiln build"]);
    check(&["run", "-kernel", "nosuch-kernel", "-cmdline", "x"], 1, &["nosuch-kernel"]);
}

#[test]
fn a_machine_that_cannot_be_is_refused_with_all_its_faults_at_once() {
    let sandbox = Sandbox::new();
    sandbox.write("kernel", "this is no kernel");
    let words = ["run", "-disk", "nosuch.img", "-kernel", "kernel", "-cmdline", &"x".repeat(4096)];
    let said = run(&mut sandbox.kiln(words));
    assert_eq!(said.code(), 1, "{}", said.stderr);
    for word in ["command line", "nosuch.img", "size=", "`kernel`"] {
        assert!(said.stderr.contains(word), "no `{word}` in:\n{}", said.stderr);
    }
    assert_eq!(sandbox.files(), ["kernel"]);
}

#[test]
fn an_initrd_larger_than_memory_says_how_much_is_needed() {
    let sandbox = Sandbox::new();
    fs::copy(&debian_kernel().vmlinuz, sandbox.path().join("kernel")).unwrap();
    sandbox.write("initrd", vec![0; 64 << 20]);
    let said = run(&mut sandbox.kiln(["run", "-mem", "100", "-kernel", "kernel", "-initrd", "initrd"]));
    assert_eq!(said.code(), 1, "{}", said.stderr);
    let needed = said
        .stderr
        .split("-mem ")
        .nth(1)
        .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok());
    assert!(needed.is_some_and(|mib| (120..400).contains(&mib)), "{needed:?}: {}", said.stderr);
    assert_eq!(sandbox.files(), ["initrd", "kernel"]);
}

#[test]
fn flags_may_be_written_with_one_dash_or_two() {
    for words in [["version", "-short"], ["version", "--short"]] {
        let said = run(&mut Sandbox::new().kiln(words)).ok();
        assert_eq!(said.stdout.trim(), env!("CARGO_PKG_VERSION"));
    }
}

#[test]
fn help_goes_to_standard_output() {
    for words in [&["--help"][..], &["help"], &["build", "-help"], &["run", "-h"]] {
        let said = run(&mut Sandbox::new().kiln(words)).ok();
        assert!(said.stdout.contains("Usage"), "{words:?}: {}", said.stdout);
        assert_eq!(said.stderr, "");
    }
}

#[test]
fn doctor_tells_what_this_host_can_do() {
    let said = run(&mut Sandbox::new().kiln(["doctor"]));
    for word in ["kvm", "qemu"] {
        assert!(said.stdout.to_lowercase().contains(word), "no `{word}` in:\n{}", said.stdout);
    }
}

#[test]
fn the_command_line_reference_is_the_real_help() {
    let said = run(&mut Sandbox::new().kiln(["help-markdown"])).ok();
    let written = fs::read_to_string(tree().join("docs/cli.md")).expect("docs/cli.md is there");
    assert!(written == said.stdout, "docs/cli.md is old: `kiln help-markdown > docs/cli.md`");
}
