//! Every output format, judged by what nobody here wrote: firmware that boots it, programs that read it back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::harness::firmware::{Board, Firmware, Machine, Plug};
use crate::harness::images;
use crate::harness::kiln::{Sandbox, run};
use crate::harness::listing::{self, Compared, Listing};
use crate::harness::roots;

/// A format: what it writes, how it boots, how it is read back.
pub struct Row {
    /// Its name on the command line.
    pub format: &'static str,
    /// Its files, less the `it` in front.
    pub files: &'static [&'static str],
    /// Each way that it boots.
    boots: &'static [Way],
    /// How the root is got out of it.
    read: Read,
}

/// A way to boot.
enum Way {
    /// A file of the format alone, under firmware. Last the container.
    Alone(&'static str, Firmware, Board, Plug, &'static str),
    /// The kernel is given to QEMU, with these files as initrd, command line and first disk.
    Loaded { initrd: &'static str, cmdline: &'static str, disk: Option<&'static str> },
}

/// How the root is got out of a format.
enum Read {
    /// A shell script that writes a tar of what is in the file `$1`, and what survives the format.
    By(&'static str, &'static str, Compared),
    /// The format's own tests do it, since no reader gives devices back: tests/iso.rs, build/src/format/iso.
    InItsOwnTests,
}

use Firmware::{Ovmf, SeaBios};
use Way::{Alone, Loaded};

/// `$1` is an initrd.
const CPIO: &str = "gzip -dc \"$1\" | cpio -idm --quiet; exec tar -c --format=pax --numeric-owner .";

/// An archive for initrds has no extended attributes, and `cpio` does not keep the times of folders.
const OF_CPIO: Compared = Compared { xattrs: false, folder_times: false, ..listing::ALL };

/// All formats there are: a test sees to it.
pub const ROWS: &[Row] = &[
    Row { format: "tar", files: &[".tar"], boots: &[], read: Read::By(".tar", "cat \"$1\"", listing::ALL) },
    Row {
        format: "docker",
        files: &[".docker"],
        boots: &[],
        read: Read::By(".docker", "tar --delete -f - Dockerfile < \"$1\"", listing::ALL),
    },
    Row {
        format: "kernel+initrd",
        files: &["-kernel", "-initrd.img", "-cmdline"],
        boots: &[Loaded { initrd: "-initrd.img", cmdline: "-cmdline", disk: None }],
        read: Read::By("-initrd.img", CPIO, OF_CPIO),
    },
    Row {
        format: "tar-kernel-initrd",
        files: &["-initrd.tar"],
        boots: &[],
        read: Read::By(
            "-initrd.tar",
            "tar -xOf \"$1\" initrd.img | gzip -dc | cpio -idm --quiet; exec tar -c --format=pax --numeric-owner .",
            OF_CPIO,
        ),
    },
    Row {
        format: "kernel+erofs",
        files: &["-kernel", "-erofs.img", "-cmdline", "-erofs-cmdline"],
        boots: &[Loaded { initrd: "-erofs-initrd.img", cmdline: "-erofs-cmdline", disk: Some("-erofs.img") }],
        read: Read::By("-erofs.img", EROFS, Compared { links: false, xattrs: false, ..listing::ALL }),
    },
    Row {
        format: "kernel+squashfs",
        files: &["-kernel", "-squashfs.img", "-cmdline", "-squashfs-cmdline"],
        boots: &[Loaded { initrd: "-squashfs-initrd.img", cmdline: "-squashfs-cmdline", disk: Some("-squashfs.img") }],
        read: Read::By("-squashfs.img", "unsquashfs -s \"$1\" >&2; exec sqfs2tar \"$1\"", listing::ALL),
    },
    Row { format: "oci", files: &[".oci.tar"], boots: &[], read: Read::By(".oci.tar", OCI, OF_CPIO) },
    disk(
        "raw-efi",
        &["-efi.img"],
        &[
            Alone("-efi.img", Ovmf, Board::Q35, Plug::Disk, "raw"),
            Alone("-efi.img", Ovmf, Board::Q35, Plug::UsbStick, "raw"),
        ],
        Read::By("-efi.img", EFI_DISK, OF_CPIO),
    ),
    disk(
        "qcow2-efi",
        &["-efi.qcow2"],
        &[Alone("-efi.qcow2", Ovmf, Board::Q35, Plug::VirtioDisk, "qcow2")],
        Read::By("-efi.qcow2", EFI_DISK, OF_CPIO),
    ),
    disk(
        "aws",
        &[".raw"],
        &[
            Alone(".raw", Ovmf, Board::Q35, Plug::VirtioDisk, "raw"),
            Alone(".raw", SeaBios, Board::Pc, Plug::Disk, "raw"),
        ],
        Read::By(".raw", EFI_DISK, OF_CPIO),
    ),
    disk(
        "gcp",
        &[".img.tar.gz"],
        &[Alone(".img.tar.gz", Ovmf, Board::Pc, Plug::Disk, GCP)],
        Read::By(".img.tar.gz", EFI_DISK, OF_CPIO),
    ),
    disk("vhd", &[".vhd"], &[Alone(".vhd", Ovmf, Board::Q35, Plug::Disk, "vpc")], Read::By(".vhd", EFI_DISK, OF_CPIO)),
    disk(
        "dynamic-vhd",
        &[".vhd"],
        &[Alone(".vhd", Ovmf, Board::Q35, Plug::Disk, "vpc")],
        Read::By(".vhd", EFI_DISK, OF_CPIO),
    ),
    disk(
        "vmdk",
        &[".vmdk"],
        &[
            Alone(".vmdk", Ovmf, Board::Q35, Plug::Disk, "vmdk"),
            Alone(".vmdk", SeaBios, Board::Q35, Plug::VirtioDisk, "vmdk"),
        ],
        Read::By(".vmdk", EFI_DISK, OF_CPIO),
    ),
    disk(
        "raw-bios",
        &["-bios.img"],
        &[
            Alone("-bios.img", SeaBios, Board::Q35, Plug::Disk, "raw"),
            Alone("-bios.img", SeaBios, Board::Pc, Plug::UsbStick, "raw"),
        ],
        Read::By("-bios.img", BIOS_DISK, OF_CPIO),
    ),
    disk(
        "qcow2-bios",
        &[".qcow2"],
        &[Alone(".qcow2", SeaBios, Board::Q35, Plug::VirtioDisk, "qcow2")],
        Read::By(".qcow2", BIOS_DISK, OF_CPIO),
    ),
    disk(
        "kernel+iso",
        &["-kernel", ".iso", "-cmdline", "-iso-cmdline"],
        &[Loaded { initrd: "-iso-initrd.img", cmdline: "-iso-cmdline", disk: Some(".iso") }],
        Read::InItsOwnTests,
    ),
    // Debian's kernel for clouds has no driver for AHCI and none for USB: there the root would not be found.
    disk(
        "iso-bios",
        &[".iso"],
        &[
            Alone(".iso", SeaBios, Board::Pc, Plug::Cd, "raw"),
            Alone(".iso", SeaBios, Board::Q35, Plug::VirtioDisk, "raw"),
        ],
        Read::InItsOwnTests,
    ),
    disk(
        "iso-efi",
        &["-efi.iso"],
        &[
            Alone("-efi.iso", Ovmf, Board::Q35, Plug::ScsiCd, "raw"),
            Alone("-efi.iso", Ovmf, Board::Q35, Plug::VirtioDisk, "raw"),
        ],
        Read::InItsOwnTests,
    ),
    disk(
        "iso-efi-initrd",
        &["-efi-initrd.iso"],
        &[
            Alone("-efi-initrd.iso", Ovmf, Board::Q35, Plug::Cd, "raw"),
            Alone("-efi-initrd.iso", Ovmf, Board::Q35, Plug::UsbStick, "raw"),
        ],
        Read::InItsOwnTests,
    ),
];

/// Formats that have tests of their own: of another board than a PC, and one that wraps a disk of this table.
const ELSEWHERE: &[&str] = &["rpi3", "containerdisk"];

const fn disk(format: &'static str, files: &'static [&'static str], boots: &'static [Way], read: Read) -> Row {
    Row { format, files, boots, read }
}

/// Google's container: a packed tar with `disk.raw`.
const GCP: &str = "gcp";

/// `$1` is an OCI layout in a tar. The one blob that is packed is the initrd.
const OCI: &str = "mkdir oci root; tar -C oci -xf \"$1\"
    for blob in oci/blobs/sha256/*; do if gzip -t \"$blob\" 2>/dev/null; then cp \"$blob\" initrd; fi; done
    gzip -dc initrd | cpio -idm --quiet -D root; exec tar -C root -c --format=pax --numeric-owner .";

/// `$1` is a disk, whose tables are looked at on the way. What is in front tells by `partition` what `sfdisk -d` says of the
/// partition alone, `tables` looks at the tables of `disk`, and `get_initrd` gets `initrd` out of `volume`.
macro_rules! of_disk {
    ($before:literal) => {
        concat!(
            $before,
            r#"
    case $1 in
    *.tar.gz) tar -xzf "$1"; mv disk.raw disk ;;
    *.img|*.raw) cp --sparse=always "$1" disk ;;
    *) qemu-img check -q "$1" >&2 || [ $? = 63 ]; qemu-img convert -O raw "$1" disk ;;
    esac
    tables >&2
    start=$(sfdisk -d disk | sed -n "s/.*start= *\([0-9]*\).*$partition.*/\1/p")
    size=$(sfdisk -d disk | sed -n "s/.*size= *\([0-9]*\).*$partition.*/\1/p")
    dd if=disk of=volume bs=512 skip="$start" count="$size" conv=sparse status=none
    fsck.vfat -n volume >&2
    get_initrd
    mkdir root; gzip -dc initrd | cpio -idm --quiet -D root
    exec tar -C root -c --format=pax --numeric-owner ."#
        )
    };
}

/// `$1` is a disk for EFI firmware.
const EFI_DISK: &str = of_disk!(
    r#"
    partition=type=C12A7328-
    tables() { sfdisk --verify disk; sgdisk --verify disk; }
    get_initrd() {
        mcopy -i volume ::/EFI/BOOT/BOOTX64.EFI program
        objcopy -O binary --only-section=.initrd program initrd
    }"#
);

/// `$1` is a disk for a BIOS.
const BIOS_DISK: &str = of_disk!(
    r#"
    partition=bootable
    tables() { sfdisk --verify disk; }
    get_initrd() { mcopy -i volume ::/initrd.img initrd; }"#
);

/// `fsck.erofs` of Debian 12 knows neither links nor extended attributes when it extracts.
const EROFS: &str = "fsck.erofs --extract=root \"$1\" >&2; exec tar -C root -c --format=pax --numeric-owner .";

impl Row {
    /// Whether a file of it needs nothing but firmware.
    pub fn is_bootable_alone(&self) -> bool {
        self.boots.iter().any(|way| matches!(way, Alone(..)))
    }
}

fn row(format: &str) -> &'static Row {
    ROWS.iter().find(|row| row.format == format).unwrap_or_else(|| panic!("no row for {format}"))
}

/// A machine that tells what its root is, and powers itself off.
const FIXTURE: &str = r#"
kernel: {image: "@pkg:TREE/pkg/kernel", cmdline: "console=ttyS0 quiet loglevel=3"}
init: ["@pkg:TREE/pkg/init", "@pkg:TREE/pkg/busybox"]
onboot:
- name: first
  image: "@pkg:TREE/pkg/busybox"
  binds: ["/:/machine"]
  command: [sh, -c, "while read -r _ on kind _; do [ $on != /machine ] || echo root is $kind; done < /proc/mounts"]
services:
- name: last
  image: "@pkg:TREE/pkg/busybox"
  pid: host
  capabilities: [CAP_KILL]
  command: [sh, -c, "echo the artifact runs; poweroff"]
"#;

/// What it prints.
const RUNS: &[&str] = &["first: root is", "last: the artifact runs", "kiln: power off"];

/// The formats of the fixture, each in a folder of its name.
fn built() -> &'static Sandbox {
    static BUILT: OnceLock<Sandbox> = OnceLock::new();
    BUILT.get_or_init(|| {
        let sandbox = Sandbox::new();
        sandbox.write_yaml("it.yml", FIXTURE);
        for row in ROWS.iter().filter(|row| !row.boots.is_empty()) {
            let words = ["build", "--no-sbom", "--format", row.format, "--dir", row.format, "--cache"];
            run(sandbox.kiln(words).arg(images::store()).arg("it.yml")).ok();
        }
        sandbox
    })
}

#[track_caller]
fn check_boots(format: &str) {
    let row = row(format);
    let folder = built().path().join(format);
    let boot = |way: &Way| match *way {
        Alone(file, firmware, board, plug, GCP) => {
            run(Command::new("tar").arg("-xzf").arg(format!("it{file}")).current_dir(&folder)).ok();
            Machine::new(firmware, board, plug).boot(&folder.join("disk.raw"), RUNS)
        }
        Alone(file, firmware, board, plug, container) => {
            Machine::new(firmware, board, plug).container(container).boot(&folder.join(format!("it{file}")), RUNS)
        }
        Loaded { initrd, cmdline, disk } => {
            let file = |end: &str| folder.join(format!("it{end}"));
            let cmdline = fs::read_to_string(file(cmdline)).expect("a command line");
            let initrd = Some(file(initrd)).filter(|path| path.exists());
            let disk = disk.map(file);
            Machine::new(SeaBios, Board::Q35, Plug::VirtioDisk).boot_kernel(
                &file("-kernel"),
                initrd.as_deref(),
                cmdline.trim(),
                disk.as_deref(),
                RUNS,
            )
        }
    };
    std::thread::scope(|scope| {
        let boots: Vec<_> = row.boots.iter().map(|way| scope.spawn(|| boot(way))).collect();
        // Each tells what was wrong by itself.
        let failed = boots.into_iter().map(|boot| boot.join().is_err()).filter(|failed| *failed).count();
        assert!(failed == 0, "{failed} of {} ways to boot {format} failed", row.boots.len());
    });
}

/// A test for each format, so that one can be asked for by name.
macro_rules! boots {
    ($($name:ident: $format:literal,)*) => {
        $(#[test]
        fn $name() {
            check_boots($format);
        })*

        #[test]
        fn every_format_that_boots_is_booted() {
            let booted = [$($format),*];
            let forgotten: Vec<_> = ROWS.iter().filter(|row| !row.boots.is_empty() && !booted.contains(&row.format)).collect();
            assert!(forgotten.is_empty(), "{:?}", forgotten.iter().map(|row| row.format).collect::<Vec<_>>());
        }
    };
}

boots! {
    kernel_and_initrd_boot: "kernel+initrd",
    raw_efi_boots: "raw-efi",
    qcow2_efi_boots: "qcow2-efi",
    aws_boots: "aws",
    gcp_boots: "gcp",
    vhd_boots: "vhd",
    dynamic_vhd_boots: "dynamic-vhd",
    vmdk_boots: "vmdk",
    raw_bios_boots: "raw-bios",
    qcow2_bios_boots: "qcow2-bios",
    kernel_and_squashfs_boot: "kernel+squashfs",
    kernel_and_erofs_boot: "kernel+erofs",
    kernel_and_iso_boot: "kernel+iso",
    iso_bios_boots: "iso-bios",
    iso_efi_boots: "iso-efi",
    iso_efi_initrd_boots: "iso-efi-initrd",
}

#[test]
fn every_format_has_a_row() {
    let sandbox = Sandbox::new();
    sandbox.write("it.yml", "files: [{path: a, contents: a}]\n");
    let said = run(&mut sandbox.kiln(["build", "--format", "none-such", "it.yml"]));
    let listed = said.stderr.split("there are").nth(1).expect("the formats are told");
    let names: Vec<_> = listed.split('`').skip(1).step_by(2).collect();
    let mut rows: Vec<_> = ROWS.iter().map(|row| row.format).chain(ELSEWHERE.iter().copied()).collect();
    rows.sort_unstable();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, rows);
}

/// A root with a bit of everything, in each format, in a folder of its name.
fn nasty() -> &'static Sandbox {
    static BUILT: OnceLock<(Sandbox, Vec<String>)> = OnceLock::new();
    let (sandbox, faults) = BUILT.get_or_init(|| {
        let sandbox = Sandbox::new();
        roots::write_store(&sandbox, "store");
        sandbox.write("it.yml", roots::yaml(roots::NASTY));
        let mut faults = vec![];
        for row in ROWS {
            let said = run(&mut nasty_build(&sandbox, row.format, row.format));
            if !said.status.success() {
                faults.push(format!("{}: {}", row.format, said.stderr));
            }
        }
        (sandbox, faults)
    });
    assert!(faults.is_empty(), "{faults:#?}");
    sandbox
}

fn nasty_build(sandbox: &Sandbox, format: &str, folder: &str) -> Command {
    sandbox.kiln(["build", "-q", "--no-sbom", "--format", format, "--cache", "store", "--dir", folder, "it.yml"])
}

/// Whether a format stands in what was built for it, whole and with nothing beside it.
#[test]
fn each_format_writes_its_files_and_no_other() {
    for row in ROWS {
        let folder = nasty().path().join(row.format);
        let mut found: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        found.sort();
        let mut wanted: Vec<_> = row.files.iter().map(|file| format!("it{file}")).collect();
        wanted.sort();
        assert_eq!(found, wanted, "{}", row.format);
    }
}

#[test]
fn each_format_holds_the_tree_of_the_tar() {
    let tar = |compared| -> Listing {
        listing::of_tar(fs::File::open(nasty().path().join("tar/it.tar")).expect("built"), compared)
    };
    assert!(tar(listing::ALL).len() > 1150, "{}", tar(listing::ALL).len());
    let mut faults = vec![];
    for row in ROWS {
        let Read::By(file, script, compared) = row.read else { continue };
        let path = nasty().path().join(row.format).join(format!("it{file}"));
        let check = || {
            let found = listing::of_script(script, &path, compared);
            listing::check_equal(row.format, &found, &tar(compared));
        };
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err() {
            faults.push(row.format);
        }
    }
    assert!(faults.is_empty(), "other trees: {faults:?}");
}

/// In another folder, at another time, with one thread and two, with and without what a former build left.
#[test]
fn each_format_has_the_same_bytes_however_it_is_built() {
    let first = nasty();
    let second = Sandbox::new();
    fs::create_dir(second.path().join("elsewhere")).unwrap();
    let copy = ["-r", "--reflink=auto", "--no-preserve=all"];
    run(Command::new("cp").args(copy).arg(first.path().join("store")).arg(second.path().join("store"))).ok();
    fs::copy(first.path().join("it.yml"), second.path().join("it.yml")).unwrap();
    let mut differ = vec![];
    for (round, cores, is_cold) in [("one", "0", true), ("two", "0,1", false)] {
        for row in ROWS {
            let folder = format!("elsewhere/{round}/{}", row.format);
            let _ = fs::remove_dir_all(second.path().join("store/kiln-stamps"));
            if is_cold {
                let _ = fs::remove_dir_all(second.path().join("store/kiln-cache"));
            }
            let build = nasty_build(&second, row.format, &folder);
            let mut taskset = Command::new("taskset");
            taskset.args(["-c", cores]).arg(build.get_program()).args(build.get_args()).current_dir(second.path());
            for (name, value) in build.get_envs() {
                match value {
                    Some(value) => taskset.env(name, value),
                    None => taskset.env_remove(name),
                };
            }
            run(&mut taskset).ok();
            for file in row.files {
                let path = |sandbox: &Sandbox, folder: &str| -> PathBuf {
                    sandbox.path().join(folder).join(format!("it{file}"))
                };
                if !same(&path(first, row.format), &path(&second, &folder)) {
                    differ.push(format!("{} {file} ({cores}, cold: {is_cold})", row.format));
                }
            }
            fs::remove_dir_all(second.path().join(&folder)).unwrap();
        }
    }
    assert!(differ.is_empty(), "{differ:#?}");
}

fn same(one: &Path, other: &Path) -> bool {
    run(Command::new("cmp").arg(one).arg(other)).status.success()
}
