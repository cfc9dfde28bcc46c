//! The four formats that are ISOs, before the eyes of programs that know them: `xorriso`, `isoinfo`, `sgdisk`, `fsck.vfat`.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::fixtures::debian_kernel;
use crate::harness::kiln::{Said, Sandbox, run};
use crate::harness::layout::write_layout;
use crate::harness::registry::Registry;

/// One build of all of them, from a real kernel and a small root of odd names.
struct Built {
    sandbox: Sandbox,
}

impl Built {
    fn new() -> Self {
        let registry = Registry::start();
        let sandbox = Sandbox::new();
        let script = r#"
            mkdir -p root/etc root/bin root/usr/lib/deep/er/and/deep/er/still/down root/tmp
            echo kept > root/etc/kept; : > root/etc/empty; echo run > root/bin/run; ln root/bin/run root/usr/lib/hard
            ln -s ../../bin/run root/usr/lib/soft; chmod 1777 root/tmp; chmod 4755 root/bin/run
            echo x > "root/etc/A name with spaces, ÄÖÜ and a lot more than sixty-four characters of it.conf"
            echo y > root/etc/same; echo z > root/etc/SAME; mkfifo root/tmp/pipe
            head -c 3000000 /dev/zero | tr '\0' x > root/usr/lib/deep/er/and/deep/er/still/down/big
            tar -C root --sort=name --owner=7 --group=8 --mtime=@1000000000 -czf root.tar.gz .
            tar -C "$1" --transform 's/.*/kernel/' -czf kernel.tar.gz "$2"
        "#;
        let kernel = debian_kernel().vmlinuz;
        let (folder, name) = (kernel.parent().unwrap(), kernel.file_name().unwrap());
        let mut sh = Command::new("sh");
        run(sh.args(["-euc", script, "sh"]).arg(folder).arg(name).current_dir(sandbox.path())).ok();
        for (image, layer) in [("root", "root.tar.gz"), ("kernel", "kernel.tar.gz")] {
            let layout = sandbox.path().join(format!("{image}-layout"));
            write_layout(&layout, image, &[(layer, "tar+gzip")], sandbox.path());
            registry.push(&layout, image, &format!("{image}:1"));
        }
        let host = &registry.host;
        let yaml = format!(
            "kernel:\n  image: {host}/kernel:1\n  cmdline: console=ttyS0\n  tar: none\ninit:\n  - {host}/root:1\n"
        );
        sandbox.write("it.yml", yaml);
        let formats = "kernel+iso,iso-efi,iso-efi-initrd,tar-kernel-initrd";
        run(&mut sandbox.kiln(["build", "--no-sbom", "--format", formats, "it.yml"])).ok();
        run(&mut sandbox.kiln(["build", "--no-sbom", "--format", "tar", "it.yml"])).ok();
        Self { sandbox }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.sandbox.path().join(name)
    }

    fn unpacked(&self, iso: &str) -> PathBuf {
        let into = self.file(&format!("{iso}.d"));
        let mut xorriso = Command::new("xorriso");
        xorriso.args(["-hardlinks", "on", "-osirrox", "on", "-indev"]).arg(self.file(iso));
        run(xorriso.args(["-extract", "/"]).arg(&into).arg("-rollback_end")).ok();
        into
    }
}

fn told(program: &str, words: &[&str], file: &Path) -> String {
    let Said { stdout, stderr, .. } = run(Command::new(program).args(words).arg(file)).ok();
    stdout + &stderr
}

/// Kinds, modes, owners, times, lengths, link counts and targets of all files below a folder.
fn listed(folder: &Path) -> String {
    let script = r#"find . \( -type l -printf '%p -> %l\n' -o -type d -printf '%p %y %m %U %G %T@\n' \
        -o -printf '%p %y %m %U %G %T@ %s %n\n' \) | sort; find . -type f -exec sha256sum {} + | sort"#;
    run(Command::new("sh").args(["-euc", script]).current_dir(folder)).ok().stdout
}

/// Numbers in what `-report_el_torito plain` says: sectors to load and the image's first sector.
fn boot_image(report: &str) -> (u64, u64) {
    let line =
        report.lines().find(|line| line.starts_with("El Torito boot img :")).unwrap_or_else(|| panic!("{report}"));
    let words: Vec<_> = line.split_whitespace().collect();
    let number = |index: usize| words[words.len() - index].parse().unwrap();
    (number(2), number(1))
}

#[test]
fn isos_hold_the_tree_and_what_boots_it() {
    let built = Built::new();
    let tar = built.file("tar.d");
    fs::create_dir(&tar).unwrap();
    run(Command::new("tar").args(["-xpf"]).arg(built.file("it.tar")).arg("-C").arg(&tar)).ok();
    let expected = listed(&tar);
    assert!(expected.contains("usr/lib/soft -> ../../bin/run"), "{expected}");
    // xorriso leaves the folder that it unpacks into as it is.
    let without_root = |list: &str| -> Vec<String> {
        list.lines().filter(|line| !line.starts_with(". ")).map(str::to_owned).collect()
    };
    assert_eq!(without_root(&listed(&built.unpacked("it-efi.iso"))), without_root(&expected));

    fs::remove_dir_all(tar.join("boot")).unwrap();
    let without_boot = |list: String| -> Vec<String> {
        without_root(&list).into_iter().filter(|line| !line.contains("./boot")).collect()
    };
    assert_eq!(without_boot(listed(&built.unpacked("it.iso"))), without_boot(listed(&tar)));
    let files: Vec<_> = fs::read_dir(built.unpacked("it.iso").join("boot")).unwrap().collect();
    assert!(files.is_empty(), "{files:?}");

    for iso in ["it.iso", "it-efi.iso", "it-efi-initrd.iso"] {
        let list = told("isoinfo", &["-d", "-i"], &built.file(iso));
        for wanted in ["Volume id: LinuxKit", "Rock Ridge signatures version 1 found", "Joliet with UCS level 3 found"]
        {
            assert!(list.contains(wanted), "{iso}: {list}");
        }
    }
    let joliet = told("isoinfo", &["-J", "-f", "-i"], &built.file("it.iso"));
    assert!(joliet.lines().any(|line| line == "/usr/lib/deep/er/and/deep/er/still/down/big"), "{joliet}");
    let plain = told("isoinfo", &["-f", "-i"], &built.file("it.iso"));
    assert!(plain.lines().any(|line| line == "/ETC/SAME_00001.;1"), "{plain}");

    efi_boots(&built, "it-efi.iso", "it-efi.iso.d/boot/kernel");
    built.unpacked("it-efi-initrd.iso");
    efi_boots(&built, "it-efi-initrd.iso", "it-efi-initrd.iso.d/kernel");
    let initrd = fs::read(built.file("it-efi-initrd.iso.d/initrd.img")).unwrap();
    assert!(initrd.starts_with(&[0x1f, 0x8b]));
    let twice = fs::metadata(built.file("it-efi-initrd.iso")).unwrap().len();
    let once = initrd.len() as u64 + fs::metadata(built.file("it-kernel")).unwrap().len();
    assert!(twice < once + (3 << 20), "{twice} bytes hold {once} bytes more than once");
}

/// The catalog, the partition table and the FAT volume that both point to.
fn efi_boots(built: &Built, iso: &str, kernel: &str) {
    let iso = built.file(iso);
    let report = run(Command::new("xorriso").arg("-indev").arg(&iso).args(["-report_el_torito", "plain"])).ok().stdout;
    let (_, sector) = boot_image(&report);
    assert!(report.contains("UEFI"), "{report}");
    let verified = told("sgdisk", &["-v"], &iso);
    assert!(verified.contains("No problems found"), "{verified}");
    let entry = told("sgdisk", &["-i", "2"], &iso);
    assert!(entry.contains("C12A7328-F81F-11D2-BA4B-00A0C93EC93B"), "{entry}");
    assert!(entry.contains(&format!("First sector: {} ", sector * 4)), "{entry}");
    let sectors = entry.lines().find_map(|line| line.strip_prefix("Partition size: ")).unwrap();
    let sectors: u64 = sectors.split(' ').next().unwrap().parse().unwrap();

    let image = built.file("esp.img");
    let mut esp = vec![0; usize::try_from(sectors * 512).unwrap()];
    fs::File::open(&iso).unwrap().read_exact_at(&mut esp, sector * 2048).unwrap();
    fs::write(&image, esp).unwrap();
    told("fsck.vfat", &["-n"], &image);
    let into = built.file("uki.efi");
    let _ = fs::remove_file(&into);
    run(Command::new("mcopy").arg("-i").arg(&image).arg("::/EFI/BOOT/BOOTX64.EFI").arg(&into)).ok();
    let program = fs::read(&into).unwrap();
    let kernel = fs::read(built.file(kernel)).unwrap();
    assert!(kernel == fs::read(built.file("it-kernel")).unwrap(), "the volume shows the kernel");
    assert!(program.windows(kernel.len()).any(|part| part == kernel), "the program holds the kernel");
}

#[test]
fn an_iso_without_a_kernel_is_refused_and_nothing_is_left() {
    let sandbox = Sandbox::new();
    sandbox.write("it.yml", "files:\n  - path: etc/x\n    contents: x\n");
    let before = sandbox.files();
    for format in ["iso-efi", "iso-efi-initrd"] {
        let said =
            run(&mut sandbox.kiln(["build", "--no-sbom", "--cache", "home/cache", "--format", format, "it.yml"]));
        assert_eq!(said.code(), 1, "{}", said.stderr);
        assert!(said.stderr.contains("there is no kernel to boot"), "{}", said.stderr);
    }
    assert_eq!(sandbox.files(), before);
}
