//! Machines for arm64, built on whatever machine this is.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::images;
use crate::harness::kiln::{Running, Sandbox, run};
use crate::harness::tree;

/// `examples/minimal.yml` with the console of arm64's boards.
fn minimal() -> String {
    let yaml = std::fs::read_to_string(tree().join("examples/minimal.yml")).expect("the tree is readable");
    yaml.replace("ttyS0", "ttyAMA0").replace("@pkg:..", &format!("@pkg:{}", tree().display()))
}

/// Boots a kernel and an initrd on a plain board until the machine powers itself off.
fn boot(folder: &Path, cmdline: &str) -> String {
    let mut qemu = Command::new("setpriv");
    qemu.args([
        "--pdeathsig",
        "KILL",
        "--",
        "qemu-system-aarch64",
        "-M",
        "virt",
        "-cpu",
        "cortex-a57",
        "-accel",
        "tcg",
    ]);
    qemu.args(["-m", "512", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]);
    qemu.args(["-kernel", "arm-kernel", "-initrd", "arm-initrd.img", "-append", cmdline]).current_dir(folder);
    let (status, console) = Running::start(&mut qemu).wait(Duration::from_secs(400));
    assert!(status.success(), "{status:?}\n{console}");
    console
}

#[test]
fn a_machine_for_arm64_is_built_from_the_same_yaml_and_boots() {
    let sandbox = Sandbox::new();
    sandbox.write("arm.yml", minimal());
    let words = ["build", "--arch", "arm64", "--format", "kernel+initrd", "--cache"];
    run(sandbox.kiln(words).arg(images::store()).arg("arm.yml")).ok();
    let kernel = std::fs::read(sandbox.path().join("arm-kernel")).unwrap();
    assert_eq!(&kernel[56..60], b"ARM\x64");
    let cmdline = std::fs::read_to_string(sandbox.path().join("arm-cmdline")).unwrap();
    let console = boot(sandbox.path(), &cmdline);
    assert!(console.contains("hello from onboot: Linux") && console.contains("hello from a service"), "{console}");
}
