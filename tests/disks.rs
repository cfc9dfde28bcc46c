//! Disk images as others see them: whoever checks partition tables, volumes and containers, and reads the files back.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::harness::images::store;
use crate::harness::kiln::{Said, Sandbox, run};
use crate::harness::tree;

/// Where the first partition begins, in bytes.
const PARTITION: u64 = 1 << 20;

const FORMATS: &str = "kernel+initrd,raw-efi,raw-bios,qcow2-efi,qcow2-bios,aws,gcp,vhd,vmdk";

fn build(sandbox: &Sandbox, words: &[&str]) -> Said {
    let yaml = tree().join("examples/minimal.yml");
    run(sandbox.kiln(["build", "--cache"]).arg(store()).args(words).arg(yaml))
}

/// `examples/minimal.yml` in all disk formats, in a folder of their own.
fn disks() -> &'static Path {
    static BUILT: OnceLock<Sandbox> = OnceLock::new();
    let sandbox = BUILT.get_or_init(|| {
        let sandbox = Sandbox::new();
        build(&sandbox, &["-f", FORMATS, "--size", "512M"]).ok();
        build(&sandbox, &["-f", "dynamic-vhd", "--name", "dynamic", "--size", "512M"]).ok();
        sandbox
    });
    sandbox.path()
}

fn told(program: &str, words: &[&str], file: &Path) -> String {
    let said = run(Command::new(program).args(words).arg(file).env("LC_ALL", "C").env("MTOOLS_SKIP_CHECK", "1")).ok();
    said.stdout + &said.stderr
}

/// The first partition, as a file of its own.
fn partition(disk: &Path, into: &Path) -> PathBuf {
    let mut from = File::open(disk).unwrap();
    from.seek(SeekFrom::Start(PARTITION)).unwrap();
    let path = into.join("partition");
    io::copy(&mut from, &mut File::create(&path).unwrap()).unwrap();
    path
}

/// A file of a FAT volume, read by mtools.
fn file_of(volume: &Path, name: &str, into: &Path) -> Vec<u8> {
    let target = into.join("file");
    let from = format!("::/{name}");
    run(Command::new("mcopy").arg("-n").arg("-i").arg(volume).arg(from).arg(&target)).ok();
    let content = fs::read(&target).unwrap();
    fs::remove_file(&target).unwrap();
    content
}

fn same(one: &[u8], path: &str) {
    assert!(one == fs::read(disks().join(path)).unwrap(), "{path} differs");
}

#[test]
fn a_disk_for_efi_is_whole_and_its_program_holds_kernel_initrd_and_command_line() {
    let scratch = tempfile::tempdir().unwrap();
    for name in ["minimal-efi.img", "minimal.raw"] {
        let disk = disks().join(name);
        let checked = told("sgdisk", &["-v", "-p"], &disk);
        assert!(checked.contains("No problems found") && checked.contains("EFI System"), "{checked}");
        told("sfdisk", &["--verify"], &disk);
        let listed = told("fdisk", &["-l"], &disk);
        assert!(listed.contains("Disklabel type: gpt") && !listed.contains("corrupt"), "{listed}");

        let volume = partition(&disk, scratch.path());
        told("fsck.vfat", &["-n"], &volume);
        let program = scratch.path().join("program");
        fs::write(&program, file_of(&volume, "EFI/BOOT/BOOTX64.EFI", scratch.path())).unwrap();
        for (section, file) in [(".linux", "kernel"), (".initrd", "initrd.img"), (".cmdline", "cmdline")] {
            let target = scratch.path().join("section");
            let words = ["-O", "binary", "--only-section", section];
            run(Command::new("objcopy").args(words).arg(&program).arg(&target)).ok();
            same(&fs::read(&target).unwrap(), &format!("minimal-{file}"));
        }
    }
}

#[test]
fn a_disk_for_a_bios_is_whole_and_its_files_are_ordinary_ones() {
    let scratch = tempfile::tempdir().unwrap();
    let disk = disks().join("minimal-bios.img");
    told("sfdisk", &["--verify"], &disk);
    let listed = told("fdisk", &["-l"], &disk);
    assert!(listed.contains("Disklabel type: dos"), "{listed}");
    let row = listed.lines().last().unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(row[1..3], ["*", "2048"], "{listed}");
    let volume = partition(&disk, scratch.path());
    told("fsck.vfat", &["-n"], &volume);
    for name in ["kernel", "initrd.img", "cmdline"] {
        same(&file_of(&volume, name, scratch.path()), &format!("minimal-{name}"));
    }
}

#[test]
fn every_container_holds_the_disk() {
    let raw = disks().join("minimal.raw");
    assert_eq!(fs::metadata(&raw).unwrap().len(), 512 << 20);
    for (name, driver) in [("minimal.vhd", "vpc"), ("dynamic.vhd", "vpc"), ("minimal.vmdk", "vmdk")] {
        let words = ["compare", "-f", "raw", "-F", driver, raw.to_str().unwrap()];
        let said = told("qemu-img", &words, &disks().join(name));
        assert!(said.contains("identical"), "{name}: {said}");
    }
    for (name, driver) in [("minimal-efi.qcow2", "qcow2"), ("minimal.qcow2", "qcow2"), ("minimal.vmdk", "vmdk")] {
        let said = told("qemu-img", &["check", "-f", driver], &disks().join(name));
        assert!(said.contains("No errors"), "{name}: {said}");
    }
    assert_eq!(fs::metadata(disks().join("minimal.vhd")).unwrap().len(), (512 << 20) + 512);
}

#[test]
fn googles_archive_holds_one_disk_of_whole_gibibytes() {
    let archive = disks().join("minimal.img.tar.gz");
    let listed = told("tar", &["-tvzf"], &archive);
    let row: Vec<_> = listed.split_whitespace().collect();
    assert_eq!((row[2], row[5], listed.lines().count()), ("1073741824", "disk.raw", 1), "{listed}");
}

#[test]
fn the_same_build_gives_the_same_disks() {
    let sandbox = Sandbox::new();
    build(&sandbox, &["-f", FORMATS, "--size", "512M"]).ok();
    for name in ["-efi.img", "-bios.img", "-efi.qcow2", ".qcow2", ".raw", ".img.tar.gz", ".vhd", ".vmdk"] {
        let name = format!("minimal{name}");
        same(&fs::read(sandbox.path().join(&name)).unwrap(), &name);
    }
}

#[test]
fn what_cannot_be_says_what_to_do_and_leaves_nothing() {
    for (words, wanted) in [
        (&["-f", "aws", "--size", "20M"][..], "build with `--size"),
        (&["-f", "vhd", "--size", "3000G"], "2040"),
        (&["-f", "raw-efi", "--arch", "riscv64"], "riscv64"),
        (&["-f", "vhd,dynamic-vhd"], "`vhd` and `dynamic-vhd` both write `minimal.vhd`"),
    ] {
        let sandbox = Sandbox::new();
        let said = build(&sandbox, words);
        assert_eq!(said.code(), 1, "{words:?}: {}", said.stderr);
        assert!(said.stderr.contains(wanted), "{words:?}: {}", said.stderr);
        assert_eq!(sandbox.files(), [""; 0], "{words:?}");
    }
}
