//! Machines that start with EFI firmware, Debian's own: on a real KVM, in the fallback, and with files that are no good.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::harness::fixtures::debian_file;
use crate::harness::images;
use crate::harness::kiln::{Sandbox, run};
use crate::harness::kvm::KvmJob;

const CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// A machine that tells of itself, and powers itself off.
const YAML: &str = r#"
kernel: {image: "@pkg:TREE/pkg/kernel", cmdline: "console=ttyS0 quiet loglevel=3"}
init: ["@pkg:TREE/pkg/init", "@pkg:TREE/pkg/busybox"]
onboot:
- name: first
  image: "@pkg:TREE/pkg/busybox"
  binds: ["/sys:/sys"]
  command:
  - sh
  - -c
  - "echo by $(ls /sys/firmware | grep efi), $(nproc) cpus, $(free -m | awk '/Mem/ {print int($2 / 1024)}') gib;
    echo of $(cat /sys/class/dmi/id/sys_vendor) told $(grep -ao 'a:[a-z,]*' /sys/firmware/dmi/tables/DMI) $(grep -o 'from=[a-z-]*' /proc/cmdline)"
services:
- name: last
  image: "@pkg:TREE/pkg/busybox"
  pid: host
  capabilities: [CAP_KILL]
  command: [poweroff]
"#;

/// Its EFI formats.
fn built() -> &'static Sandbox {
    static BUILT: OnceLock<Sandbox> = OnceLock::new();
    BUILT.get_or_init(|| {
        let sandbox = Sandbox::new();
        sandbox.write_yaml("it.yml", YAML);
        let words = ["build", "--no-sbom", "--format", "iso-efi-initrd,qcow2-efi,kernel+initrd", "--cache"];
        run(sandbox.kiln(words).arg(images::store()).arg("it.yml")).ok();
        sandbox
    })
}

fn file(name: &str) -> PathBuf {
    built().path().join(name)
}

/// A file of this host's firmware, which the package `ovmf` brings.
fn firmware(path: &str) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}; install ovmf"))
}

/// An ISO's boot record, with a catalog whose one entry is for this platform.
fn iso(platform: u8) -> Vec<u8> {
    let mut bytes = vec![0; 20 * 2048];
    bytes[17 * 2048..][..30].copy_from_slice(b"\0CD001\x01EL TORITO SPECIFICATION");
    bytes[17 * 2048 + 0x47] = 19;
    bytes[19 * 2048..][..2].copy_from_slice(&[1, platform]);
    bytes
}

#[test]
fn what_firmware_cannot_boot_or_is_no_firmware_is_refused_before_a_machine_starts() {
    let sandbox = Sandbox::new();
    sandbox.write("bios.iso", iso(0));
    sandbox.write("efi.iso", iso(0xEF));
    sandbox.write("text.img", "text");
    sandbox.write("cut/X_CODE.fd", &firmware(CODE)[..1 << 20]);
    sandbox.write("cut/X_VARS.fd", firmware(VARIABLES));
    sandbox.write("alone/X_CODE.fd", firmware(CODE));
    sandbox.write("bad/X_CODE.fd", firmware(CODE));
    sandbox.write("bad/X_VARS.fd", vec![0; 540_672]);
    for (words, wanted) in [
        (vec!["bios.iso"], "`bios.iso` boots by a BIOS only"),
        (vec!["-uefi", "text.img"], "`text.img` is no ISO or disk that EFI firmware boots"),
        (vec!["-uefi", "-iso", "nothing"], "`nothing` is not there, nor is `nothing-efi.iso`"),
        (vec!["-firmware", "nowhere.fd", "efi.iso"], "cannot read firmware `nowhere.fd`"),
        (vec!["-firmware", "text.img", "efi.iso"], "firmware `text.img` cannot be used"),
        (vec!["-firmware", "cut/X_CODE.fd", "efi.iso"], "it is cut off"),
        (vec!["-firmware", "alone/X_CODE.fd", "efi.iso"], "there are no EFI variables beside firmware"),
        (vec!["-firmware", "bad/X_CODE.fd", "efi.iso"], "it holds no EFI variables"),
        (vec!["-firmware", "/usr/share/OVMF/OVMF_CODE_4M.ms.fd", "efi.iso"], "wants memory that the chipset protects"),
        (vec!["-mem", "64", "efi.iso"], "EFI firmware needs at least 128 MiB"),
        (vec!["-uefi", "-kernel", "text.img", "-cmdline", "x"], "kernel `text.img` is no EFI program"),
        (vec!["-oem-string", "", "efi.iso"], "OEM string 1 is empty"),
        (vec!["-ignition", "nowhere.ign", "efi.iso"], "cannot read `nowhere.ign` for Ignition"),
    ] {
        let said = run(sandbox.kiln(["run", "-accel", "qemu"]).args(&words));
        assert_eq!(said.status.code(), Some(1), "{words:?}: {}", said.stderr);
        assert!(said.stderr.contains(wanted), "{words:?}: no `{wanted}` in:\n{}", said.stderr);
    }
    for words in [&["-uefi", "-cmdline", "x", "efi.iso"][..], &["-initrd", "text.img", "efi.iso"]] {
        let said = run(sandbox.kiln(["run"]).args(words));
        assert!(said.status.code() == Some(2) && said.stderr.contains("it takes no `-kernel`"), "{}", said.stderr);
    }
    assert!(!sandbox.files().iter().any(|file| file.contains("state")), "{:?}", sandbox.files());
}

/// Each boot with variables that are no good before it: they are kept aside, and the machine boots.
#[test]
fn the_fallback_boots_disks_and_replaces_variables_that_are_damaged() {
    let sandbox = Sandbox::new();
    sandbox.write("s/efi-vars.fd", "torn");
    let said =
        run(sandbox.kiln(["run", "-accel", "qemu", "-mem", "512", "-state", "s"]).arg(file("it-efi.qcow2"))).ok();
    assert!(said.stdout.contains("first: by efi, 1 cpus, 0 gib"), "{}", said.stdout);
    assert!(
        said.stderr.contains("EFI variables were damaged") && said.stderr.contains("efi-vars.fd.bad"),
        "{}",
        said.stderr
    );
    let kept = fs::read(sandbox.path().join("s/efi-vars.fd")).expect("it is there");
    assert!(kept != firmware(VARIABLES) && kept.len() == firmware(VARIABLES).len());
    assert_eq!(fs::read(sandbox.path().join("s/efi-vars.fd.bad")).expect("it is there"), b"torn");
}

/// The shell's words for a machine with firmware.
const BOOT: &str = "boot() { echo \"boots $*\"; kiln run -accel kvm -firmware f_CODE.fd -state s \"$@\" 2>&1 < /dev/null |\n\
     while IFS= read -r line; do\n\
     echo \"$line\"\n\
     case $line in *'BdsDxe: loading Boot'*)\n\
     echo \"exits $(cat /sys/kernel/debug/kvm/*/exits) of them by devices $(cat /sys/kernel/debug/kvm/*/mmio_exits)\" ;;\n\
     esac\n\
     done; }\n";

fn job(script: &str) -> KvmJob {
    KvmJob::new(&format!("{BOOT}{script}")).file(Path::new(CODE), "f_CODE.fd").file(Path::new(VARIABLES), "f_VARS.fd")
}

/// Exits to devices until firmware starts what it found are exact in the lab; those of its timer and of its waiting depend on how
/// fast the host is. The first boot writes the first variables, byte by byte; the second finds them, writes those of its
/// consoles anew, and counts. It has more of everything: two processors, and memory on both sides of the hole.
#[test]
fn stock_firmware_boots_on_kvm_and_keeps_its_variables_within_its_budget_of_exits() {
    let said = job("boot -mem 512 -iso -uefi m\n\
         cmp -s s/efi-vars.fd f_VARS.fd || echo 'variables were written'\n\
         boot -mem 5120 -cpus 2 -uefi -boot-timeout 600 -oem-string a:told,too m-efi-initrd.iso")
    .file(&file("it-efi-initrd.iso"), "m-efi-initrd.iso")
    .memory_mib(6400)
    .in_lab()
    .run()
    .ok();
    for wanted in [
        "first: by efi, 1 cpus, 0 gib",
        "variables were written",
        "first: by efi, 2 cpus, 4 gib",
        "first: of kiln told a:told,too",
    ] {
        assert!(said.stdout.contains(wanted), "no `{wanted}` in:\n{}", said.stdout);
    }
    let count = |line: &str| line.trim().split_once(" of them by devices ")?.1.parse::<u64>().ok();
    let counts: Vec<_> = said.stdout.lines().filter_map(count).collect();
    assert!(matches!(counts[..], [_, kept] if kept <= 10_000), "{counts:?}\n{}", said.stdout);
}

/// A disk of qcow2, a kernel that firmware is given, a medium with nothing on it, and what needs no firmware.
#[test]
fn disks_and_kernels_start_by_firmware_on_kvm_and_what_kiln_built_without_it() {
    let empty = built().path().join("empty.iso");
    fs::write(&empty, iso(0xEF)).expect("the sandbox is writable");
    let said = job("boot -mem 512 d.qcow2\n\
         boot -mem 512 -uefi it\n\
         boot -mem 512 -boot-timeout 1 -uefi empty.iso\n\
         kiln run -accel kvm -state t -mem 512 m.iso < /dev/null")
    .file(&file("it-efi.qcow2"), "d.qcow2")
    .file(&file("it-kernel"), "it-kernel")
    .file(&file("it-initrd.img"), "it-initrd.img")
    .file(&file("it-cmdline"), "it-cmdline")
    .file(&empty, "empty.iso")
    .file(&file("it-efi-initrd.iso"), "m.iso")
    .run()
    .ok();
    assert_eq!(said.stdout.matches("first: by efi, 1 cpus, 0 gib").count(), 2, "{}", said.stdout);
    for wanted in ["no operating system started within 1 seconds", "first: by , 1 cpus, 0 gib"] {
        assert!(said.stdout.contains(wanted), "no `{wanted}` in:\n{}", said.stdout);
    }
}

/// GRUB's ISO as `grub-mkrescue` makes it, and a GPT disk with systemd's boot loader; each with a menu that waits a second. The
/// kernel is the one of the machine above.
fn media_of_others() -> &'static Sandbox {
    static MADE: OnceLock<Sandbox> = OnceLock::new();
    MADE.get_or_init(|| {
        let sandbox = Sandbox::new();
        let cmdline = fs::read_to_string(file("it-cmdline")).expect("built");
        let cmdline = cmdline.trim();
        sandbox.write(
            "root/boot/grub/grub.cfg",
            format!(
                "set timeout=1\nmenuentry it {{\nlinux /it-kernel {cmdline} from=grub\ninitrd /it-initrd.img\n}}\n"
            ),
        );
        let entry = format!("title it\nlinux /it-kernel\ninitrd /it-initrd.img\noptions {cmdline} from=systemd-boot\n");
        sandbox.write("it.conf", entry);
        sandbox.write("loader.conf", "timeout 1\ndefault it.conf\n");
        for name in ["it-kernel", "it-initrd.img"] {
            fs::copy(file(name), sandbox.path().join("root").join(name)).expect("the sandbox is writable");
        }
        let libraries = ["libefivar1", "libefiboot1"].map(|package| debian_file(package, "usr/lib/x86_64-linux-gnu"));
        let libraries = libraries.map(|folder| folder.to_string_lossy().into_owned()).join(":");
        run(Command::new(debian_file("grub-common", "usr/bin/grub-mkrescue"))
            .args(["--fonts=", "--themes=", "--locales=", "--output=grub.iso", "root", "-d"])
            .arg(debian_file("grub-efi-amd64-bin", "usr/lib/grub/x86_64-efi"))
            .env("LD_LIBRARY_PATH", libraries)
            .env("pkgdatadir", debian_file("grub-common", "usr/share/grub"))
            .current_dir(sandbox.path()))
        .ok();
        let script = "truncate -s 96M disk.img\n\
             echo 'start=2048, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B' | sfdisk -q --label gpt disk.img\n\
             at=disk.img@@1M\n\
             mformat -i $at -T 190000 ::\n\
             mmd -i $at ::/EFI ::/EFI/BOOT ::/loader ::/loader/entries\n\
             mcopy -i $at /usr/lib/systemd/boot/efi/systemd-bootx64.efi ::/EFI/BOOT/BOOTX64.EFI\n\
             mcopy -i $at root/it-kernel root/it-initrd.img ::/\n\
             mcopy -i $at loader.conf ::/loader/\n\
             mcopy -i $at it.conf ::/loader/entries/";
        run(Command::new("sh").args(["-euc", script]).current_dir(sandbox.path())).ok();
        sandbox
    })
}

#[test]
fn media_that_grub_and_systemd_boot_are_on_start_on_kvm() {
    let made = media_of_others().path();
    let said = job("boot -mem 512 grub.iso\nboot -mem 512 disk.img")
        .file(&made.join("grub.iso"), "grub.iso")
        .file(&made.join("disk.img"), "disk.img")
        .memory_mib(2048)
        .run()
        .ok();
    for wanted in ["from=grub", "from=systemd-boot"] {
        assert!(said.stdout.contains(wanted), "no `{wanted}` in:\n{}", said.stdout);
    }
}
