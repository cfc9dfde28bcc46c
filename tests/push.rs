//! `kiln push` and `kiln run oci://`: a machine built here runs there.

use std::fs;
use std::process::Command;

use crate::harness::images;
use crate::harness::kiln::{Sandbox, run};
use crate::harness::registry::{Registry, skopeo};

#[test]
fn what_cannot_be_pushed_or_run_is_refused_by_name() {
    let registry = Registry::start();
    let sandbox = Sandbox::new();
    let push = |words: &[&str]| run(sandbox.kiln(["--cache", "store", "push"]).args(words));
    let target = format!("oci://{}/m/x:1", registry.host);
    let said = push(&["vm", &target]);
    assert!(said.code() == 1 && said.stderr.contains("vm-kernel"), "{}", said.stderr);
    sandbox.write("vm-kernel", "no kernel");
    sandbox.write("vm-initrd.img", "no initrd");
    let said = push(&["vm", &target]);
    assert!(said.code() == 1 && said.stderr.contains("vm-kernel") && said.stderr.contains("--arch"), "{}", said.stderr);
    let said = push(&["vm", "registry/name:1"]);
    assert!(said.code() == 2 && said.stderr.contains("oci://registry/name:tag"), "{}", said.stderr);
    push(&["vm", &target, "--arch", "riscv64"]).ok();
    let mut start = sandbox.kiln(["--cache", "other", "run", "-accel", "qemu", &target]);
    let said = run(&mut start);
    assert!(said.code() == 1 && said.stderr.contains("is for riscv64"), "{}", said.stderr);
    let said = run(&mut sandbox.kiln(["--cache", "other", "run", &format!("oci://{}/m/none:1", registry.host)]));
    assert!(said.code() == 1 && said.stderr.contains("does not know it (404"), "{}", said.stderr);
    // An image is no machine.
    let script = "umoci init --layout layout && umoci new --image layout:img";
    run(Command::new("sh").args(["-ec", script]).current_dir(sandbox.path())).ok();
    registry.push(&sandbox.path().join("layout"), "img", "m/image:1");
    let said = run(&mut sandbox.kiln(["--cache", "other", "run", &format!("oci://{}/m/image:1", registry.host)]));
    assert!(said.code() == 1 && said.stderr.contains("is no machine"), "{}", said.stderr);
}

#[test]
fn a_machine_that_was_pushed_boots_from_an_empty_store() {
    let registry = Registry::start();
    let built = images::minimal();
    let here = Sandbox::new();
    let target = format!("oci://{}/machines/minimal:1", registry.host);
    run(here.kiln(["--cache", "store", "push"]).arg(built.path().join("minimal")).arg(&target)).ok();
    let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &target.replace("oci://", "docker://")]).ok();
    for wanted in ["application/vnd.kiln.machine.v1", "application/vnd.kiln.machine.initrd.v1", "amd64"] {
        assert!(raw.stdout.contains(wanted), "no {wanted} in {}", raw.stdout);
    }
    let there = Sandbox::new();
    let words = ["--cache", "store", "run", "-accel", "qemu", "-mem", "512", &target];
    let said = run(&mut there.kiln(words)).ok();
    assert!(said.stdout.contains("hello from a service"), "{}", said.stdout);
    assert!(there.path().join("minimal-1-state").is_dir());
    // What is in the store needs no registry; what is damaged there does.
    drop(registry);
    let offline = ["--cache", "store", "--offline", "run", "-accel", "qemu", "-mem", "512", &target];
    run(&mut there.kiln(offline)).ok();
    let blobs = there.path().join("store/blobs/sha256");
    let largest = fs::read_dir(blobs).unwrap().flatten().max_by_key(|entry| entry.metadata().unwrap().len()).unwrap();
    let file = fs::File::options().write(true).open(largest.path()).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"damage", 4096).unwrap();
    let said = run(&mut there.kiln(offline));
    assert!(said.code() == 1 && said.stderr.contains("--offline"), "{}", said.stderr);
}
