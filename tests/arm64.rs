//! Machines for arm64, built on whatever machine this is.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::images;
use crate::harness::kiln::{Running, Sandbox, run};
use crate::harness::tree;

/// EDK II for arm64, as Debian's `qemu-efi-aarch64` has it.
const FIRMWARE: &str = "/usr/share/AAVMF/AAVMF_CODE.fd";

/// `examples/minimal.yml` with the console of arm64's boards.
fn minimal() -> String {
    let yaml = fs::read_to_string(tree().join("examples/minimal.yml")).expect("the tree is readable");
    yaml.replace("ttyS0", "ttyAMA0").replace("@pkg:..", &format!("@pkg:{}", tree().display()))
}

/// Boots a disk by its board's firmware until the machine powers itself off.
fn boot(disk: &Path) -> String {
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
    qemu.args(["-m", "1024", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]);
    qemu.args(["-drive", &format!("if=pflash,format=raw,readonly=on,file={FIRMWARE}")]);
    qemu.args(["-drive", &format!("if=none,id=disk,format=raw,snapshot=on,file={}", disk.display())]);
    qemu.args(["-device", "virtio-blk-pci,drive=disk"]);
    let (status, console) = Running::start(&mut qemu).wait(Duration::from_secs(400));
    assert!(status.success(), "{status:?}\n{console}");
    console
}

#[test]
fn a_disk_for_arm64_is_built_from_the_same_yaml_and_boots() {
    let sandbox = Sandbox::new();
    sandbox.write("arm.yml", minimal());
    let words = ["build", "--arch", "arm64", "--format", "kernel+initrd,raw-efi", "--cache"];
    run(sandbox.kiln(words).arg(images::store()).arg("arm.yml")).ok();
    let kernel = fs::read(sandbox.path().join("arm-kernel")).unwrap();
    assert_eq!(&kernel[56..60], b"ARM\x64");
    let console = boot(&sandbox.path().join("arm-efi.img"));
    assert!(console.contains("hello from onboot: Linux") && console.contains("hello from a service"), "{console}");
}

#[test]
fn a_card_without_what_its_board_needs_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.write("card.yml", minimal());
    let words = ["build", "--arch", "arm64", "--format", "rpi3", "--cache"];
    let said = run(sandbox.kiln(words).arg(images::store()).arg("card.yml"));
    // The cloud kernel knows no boards.
    assert!(said.code() == 1 && said.stderr.contains("no device tree"), "{}", said.stderr);
    assert_eq!(sandbox.files(), ["card.yml"]);
}
