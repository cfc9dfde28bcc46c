//! Roots on a disk: booted by kiln and by plain QEMU, with and without dm-verity, and what is said when they are damaged or
//! missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::harness::firmware::{Board, Firmware, Machine, Plug};
use crate::harness::images;
use crate::harness::kiln::{Running, Sandbox, run};
use crate::harness::kvm::KvmJob;
use crate::harness::tree;

const LIMIT: Duration = Duration::from_secs(300);

/// What examples/minimal.yml prints from its service.
const SERVICE: &str = "hello from a service";

/// `examples/minimal.yml` as squashfs and erofs, with dm-verity.
fn sealed() -> &'static Sandbox {
    static BUILT: OnceLock<Sandbox> = OnceLock::new();
    BUILT.get_or_init(|| {
        let sandbox = Sandbox::new();
        let yaml = tree().join("examples/minimal.yml");
        let words = ["build", "--format", "kernel+squashfs,kernel+erofs", "--verity", "--cache"];
        run(sandbox.kiln(words).arg(images::store()).arg(yaml)).ok();
        sandbox
    })
}

fn file(name: &str) -> PathBuf {
    sealed().path().join(name)
}

/// `kiln run` in a folder with links to the files of the build, but for those that are put there.
fn boot(words: &[&str], own: &[(&str, &[u8])]) -> (bool, String) {
    let sandbox = Sandbox::new();
    for entry in fs::read_dir(sealed().path()).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        std::os::unix::fs::symlink(entry.path(), sandbox.path().join(entry.file_name())).unwrap();
    }
    for (name, content) in own {
        let path = sandbox.path().join(name);
        fs::remove_file(&path).unwrap();
        fs::write(path, content).unwrap();
    }
    let mut command = sandbox.kiln(["run", "-accel", "qemu", "-mem", "512", "-no-reboot"]);
    let (status, console) = Running::start(command.args(words)).wait(LIMIT);
    (status.success(), console)
}

fn word(cmdline: &Path, start: &str) -> String {
    let text = fs::read_to_string(cmdline).unwrap();
    text.split_whitespace().find_map(|word| word.strip_prefix(start)).unwrap().to_owned()
}

#[test]
fn sealed_roots_boot_to_their_services() {
    for form in ["squashfs", "erofs"] {
        let (good, console) = boot(&[&format!("-{form}"), "minimal"], &[]);
        assert!(good && console.contains(SERVICE), "{form}:\n{console}");
    }
}

#[test]
fn sealed_roots_boot_on_kvm() {
    let job = KvmJob::new(
        "for form in squashfs erofs; do\n\
         kiln run -accel kvm -mem 256 -$form minimal > out 2> err || { cat out err; exit 1; }\n\
         grep -e 'hello from' out\n\
         echo \"ended with $form\"\n\
         done",
    );
    let names = ["kernel", "cmdline"].map(str::to_owned).into_iter();
    let roots = ["squashfs", "erofs"].into_iter();
    let roots = roots.flat_map(|form| [".img", "-initrd.img", "-cmdline"].map(|end| format!("{form}{end}")));
    let job =
        names.chain(roots).map(|name| format!("minimal-{name}")).fold(job, |job, name| job.file(&file(&name), &name));
    let said = job.run().ok();
    assert_eq!(said.stdout.matches(SERVICE).count(), 2, "{}", said.stdout);
    assert!(said.stdout.contains("ended with erofs"), "{}", said.stdout);
}

#[test]
fn veritysetup_accepts_what_was_built() {
    for form in ["squashfs", "erofs"] {
        let image = file(&format!("minimal-{form}.img"));
        let bytes = fs::read(&image).unwrap();
        let offset = bytes.windows(8).rposition(|window| window == b"verity\0\0").unwrap();
        let roothash = word(&file(&format!("minimal-{form}-cmdline")), "roothash=");
        let mut command = Command::new("veritysetup");
        command.arg("verify").args([&image, &image]).arg(roothash).arg(format!("--hash-offset={offset}"));
        run(&mut command).ok();
    }
}

#[test]
fn a_sealed_root_with_one_flipped_byte_does_not_boot() {
    let mut bytes = fs::read(file("minimal-squashfs.img")).unwrap();
    // In front is the superblock, which is read first of all.
    bytes[9] ^= 1;
    let (good, console) = boot(&["minimal-squashfs.img"], &[("minimal-squashfs.img", &bytes)]);
    assert!(!good && !console.contains(SERVICE), "{console}");
    assert!(console.contains("kiln: cannot mount"), "{console}");
}

/// One command makes it: what the firmware starts vouches for every byte of the root beside it.
#[test]
fn a_disk_with_a_sealed_root_boots_and_one_flipped_byte_stops_it() {
    let sandbox = Sandbox::new();
    let words = ["build", "--no-sbom", "--format", "raw-efi", "--root", "squashfs", "--verity", "--cache"];
    let yaml = tree().join("examples/minimal.yml");
    run(sandbox.kiln(words).arg(images::store()).arg(yaml)).ok();
    let disk = sandbox.path().join("minimal-efi.img");
    let checked = run(Command::new("sgdisk").arg("--verify").arg(&disk)).ok();
    assert!(checked.stdout.contains("No problems found"), "{}", checked.stdout);
    let machine = Machine::new(Firmware::Ovmf, Board::Q35, Plug::VirtioDisk);
    machine.boot(&disk, &[SERVICE, "kiln: power off"]);

    let mut bytes = fs::read(&disk).unwrap();
    let root = (0..bytes.len()).step_by(1 << 20).find(|at| bytes[*at..].starts_with(b"hsqs")).expect("a root");
    bytes[root + 9] ^= 1;
    fs::write(&disk, bytes).unwrap();
    let console = std::panic::catch_unwind(|| machine.boot(&disk, &[])).expect_err("it does not boot");
    let console = console.downcast::<String>().expect("what the console said");
    assert!(console.contains("kiln: cannot mount") && !console.contains(SERVICE), "{console}");
}

#[test]
fn a_root_that_is_missing_is_named_with_the_devices_that_are_there() {
    let words = ["-cmdline", "console=ttyS0 quiet panic=-1 root=LABEL=nobody rootwait=1", "-squashfs", "minimal"];
    let (good, console) = boot(&words, &[]);
    assert!(!good, "{console}");
    assert!(console.contains("root `LABEL=nobody` did not appear") && console.contains("vda ("), "{console}");
}

#[test]
fn without_the_program_or_the_drivers_there_is_no_such_format() {
    let sandbox = Sandbox::new();
    let yaml = "kernel: {image: \"@pkg:TREE/pkg/kernel\", cmdline: quiet}\ninit: [\"@pkg:TREE/pkg/busybox\"]\n";
    sandbox.write_yaml("x.yml", yaml);
    let said = run(sandbox.kiln(["build", "--format", "kernel+squashfs", "--cache"]).arg(images::store()).arg("x.yml"));
    assert_eq!(said.code(), 1);
    assert!(said.stderr.contains("squashfs not built in") && said.stderr.contains("pkg/init"), "{}", said.stderr);
    assert!(!sandbox.path().join("x-squashfs.img").exists());
}
