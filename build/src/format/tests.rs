use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::cache::{self, Cache};
use crate::progress::Silent;
use crate::tree::{Attributes, Origin, Spool};

pub(super) fn path(text: &str) -> TreePath {
    TreePath::from_user(text).unwrap()
}

fn put(tree: &mut Tree, name: &str, mode: u32, kind: Kind) {
    tree.put(&path(name), Attributes::of_root(mode, 1_500_000_000), kind).unwrap();
}

/// A bit of everything. Contents are partly in a spool.
fn sample(folder: &Path) -> Tree {
    let spool = Spool::create(folder).unwrap();
    spool.file().write_all(&vec![b'S'; 300_000]).unwrap();
    let spooled = Body::Spooled { spool: Arc::new(spool), start: 1, len: 299_999 };
    let mut tree = Tree::new(7);
    tree.set_origin(Origin { source: "docker.io/library/x:1".into(), location: "init[0]".into() });
    put(&mut tree, "boot/kernel", 0o644, Kind::file("KERNEL"));
    put(&mut tree, "boot/cmdline", 0o644, Kind::file("console=ttyS0"));
    put(&mut tree, "boot/ucode.cpio", 0o644, Kind::file("070701UCODE"));
    put(&mut tree, "bin/big", 0o4755, Kind::File(spooled));
    put(&mut tree, "bin/small", 0o755, Kind::file("small"));
    tree.link(&path("bin/a-link"), &path("bin/small")).unwrap();
    tree.link(&path("usr/z-link"), &path("bin/small")).unwrap();
    put(&mut tree, "dev/null", 0o666, Kind::CharDevice { major: 1, minor: 3 });
    put(&mut tree, "dev/loop0", 0o660, Kind::BlockDevice { major: 7, minor: 0 });
    put(&mut tree, "run/pipe", 0o600, Kind::Fifo);
    put(&mut tree, "lib", 0o777, Kind::Symlink(b"usr/lib"[..].into()));
    put(&mut tree, &format!("{}/{}", "d".repeat(120), "n".repeat(200)), 0o644, Kind::file("long"));
    put(&mut tree, &format!("{}/{}", "p".repeat(90), "q".repeat(90)), 0o644, Kind::file("prefix"));
    put(&mut tree, "far", 0o777, Kind::Symlink("t".repeat(150).into_bytes().into()));
    let mut owned = Attributes { uid: 3_000_000, gid: 4_000_000, mtime_s: -5, mode: 0o600, ..Attributes::default() };
    owned.xattrs.insert(b"user.k"[..].into(), b"v\n\0w"[..].into());
    tree.put(&path("owned"), owned, Kind::file("o")).unwrap();
    tree
}

pub(super) fn packing(threads: usize) -> Packing<'static> {
    static NO_CACHE: std::sync::LazyLock<Cache> = std::sync::LazyLock::new(Cache::none);
    Packing { threads: Threads::new(threads), cache: &NO_CACHE }
}

pub(super) fn options() -> Options {
    Options::default()
}

fn written(part: Part, tree: &Tree, threads: usize) -> Vec<u8> {
    let mut out = StreamSink(Vec::new());
    let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: &std::env::temp_dir() };
    part.write(&Material::new(tree, &options(), packing(threads)), &mut out, watch).unwrap();
    out.0
}

/// What a real tool says to these bytes on its standard input.
fn told(program: &str, arguments: &[&str], input: Vec<u8>) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let feed = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} refuses it");
    feed.join().unwrap().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_file_too_large_for_an_initrd_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Arc::new(Spool::create(folder.path()).unwrap());
    let mut tree = Tree::new(0);
    put(&mut tree, "var/disk", 0o600, Kind::File(Body::Spooled { spool, start: 0, len: 1 << 32 }));
    let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: &std::env::temp_dir() };
    let error = Part::Initrd
        .write(&Material::new(&tree, &options(), packing(1)), &mut StreamSink(Vec::new()), watch)
        .unwrap_err();
    assert!(error.to_string().starts_with("`var/disk` is 4294967296 bytes long"), "{error}");
}

#[test]
fn a_cancelled_part_stops() {
    let folder = tempfile::tempdir().unwrap();
    let tree = sample(folder.path());
    let cancel = Cancel::default();
    cancel.cancel();
    for part in [Part::Tar, Part::Kernel, Part::Initrd, Part::Cmdline] {
        let watch = Watch { cancel: &cancel, meter: &Silent, folder: &std::env::temp_dir() };
        let error =
            part.write(&Material::new(&tree, &options(), packing(2)), &mut StreamSink(Vec::new()), watch).unwrap_err();
        assert!(matches!(error, FormatError::Cancelled(_)), "{part:?}: {error}");
    }
}

#[test]
fn no_format_has_a_made_up_name() {
    let error = "floppy".parse::<Format>().unwrap_err();
    let text = "no output format is called `floppy`; there are `kernel+initrd`, `tar`, ";
    assert!(error.to_string().starts_with(text), "{error}");
    assert!(Format::ALL.into_iter().all(|format| format.name().parse() == Ok(format)));
}

#[test]
fn the_bytes_do_not_depend_on_folder_sink_or_threads() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for part in [Part::Tar, Part::Initrd] {
        let expected = written(part, &sample(one.path()), 1);
        let tree = sample(two.path());
        assert!(written(part, &tree, 5) == expected, "{part:?}");
        let file = tempfile::NamedTempFile::new_in(two.path()).unwrap();
        let mut sink = FileSink::new(file.reopen().unwrap());
        let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: &std::env::temp_dir() };
        part.write(&Material::new(&tree, &options(), packing(2)), &mut sink, watch).unwrap();
        sink.finish().unwrap();
        assert!(std::fs::read(file.path()).unwrap() == expected, "{part:?}");
    }
}

#[test]
fn a_tar_reads_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let tree = sample(folder.path());
    let blob = written(Part::Tar, &tree, 1);
    let mut back = Tree::new(7);
    let limits = crate::layer::LayerLimits::default();
    let cancel = Cancel::default();
    let archive = crate::layer::Archive::open(Body::Inline(blob.into()), folder.path(), &limits, &cancel).unwrap();
    archive.extract(&mut back).unwrap();
    let all = |tree: &Tree| {
        let line = |(path, id)| {
            let node = tree.node(id);
            let content = match &node.kind {
                Kind::File(body) => body.read_up_to(1 << 20).unwrap(),
                _ => None,
            };
            let kind = match &node.kind {
                Kind::Directory(_) => "folder".into(),
                Kind::File(_) => "file".into(),
                other => format!("{other:?}"),
            };
            (path, node.attributes.clone(), kind, content, tree.link_counts().of(id))
        };
        tree.walk().map(line).collect::<Vec<_>>()
    };
    assert!(all(&tree) == all(&back));
}

#[test]
fn tar_lists_a_tar() {
    let folder = tempfile::tempdir().unwrap();
    let blob = written(Part::Tar, &sample(folder.path()), 1);
    let list = told("tar", &["-tv", "--numeric-owner", "--warning=no-unknown-keyword", "-f", "-"], blob.clone());
    for line in [
        "-rwxr-xr-x 0/0               5 2017-07-14 02:40 bin/a-link",
        "hrwxr-xr-x 0/0               0 2017-07-14 02:40 bin/small link to bin/a-link",
        "hrwxr-xr-x 0/0               0 2017-07-14 02:40 usr/z-link link to bin/a-link",
        "crw-rw-rw- 0/0             1,3 2017-07-14 02:40 dev/null",
        "lrwxrwxrwx 0/0               0 2017-07-14 02:40 lib -> usr/lib",
        "-rw------- 3000000/4000000   1 1969-12-31 23:59 owned",
    ] {
        assert!(list.lines().any(|listed| listed == line), "`{line}` is not in\n{list}");
    }
    assert!(list.contains(&format!("{}/{}", "d".repeat(120), "n".repeat(200))));
    let records = String::from_utf8_lossy(&blob).matches("LINUXKIT.source=docker.io/library/x:1\n").count();
    assert_eq!(records, list.lines().count(), "every member tells where it comes from");
}

#[test]
fn cpio_lists_an_initrd_without_boot() {
    let folder = tempfile::tempdir().unwrap();
    let blob = written(Part::Initrd, &sample(folder.path()), 2);
    let packed = blob.strip_prefix(b"070701UCODE\0").expect("the microcode is in front, padded to four bytes");
    let mut archive = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut archive).unwrap();
    assert_eq!(archive.len() % 512, 0);
    let list = told("cpio", &["-itv", "--quiet", "--numeric-uid-gid"], archive.clone());
    let listed: Vec<String> = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "drwxr-xr-x 2 0 0 0 Jan 1 1970 boot",
        "-rwxr-xr-x 3 0 0 0 Jul 14 2017 bin/a-link",
        "-rwxr-xr-x 3 0 0 0 Jul 14 2017 bin/small",
        "-rwxr-xr-x 3 0 0 5 Jul 14 2017 usr/z-link",
        "-rwsr-xr-x 1 0 0 299999 Jul 14 2017 bin/big",
        "crw-rw-rw- 1 0 0 1, 3 Jul 14 2017 dev/null",
        "brw-rw---- 1 0 0 7, 0 Jul 14 2017 dev/loop0",
        "prw------- 1 0 0 0 Jul 14 2017 run/pipe",
        "lrwxrwxrwx 1 0 0 7 Jul 14 2017 lib -> usr/lib",
    ] {
        assert!(listed.iter().any(|listed| listed == line), "`{line}` is not in\n{list}");
    }
    assert!(!list.contains("boot/"), "{list}");

    let out = tempfile::tempdir().unwrap();
    let target = out.path().to_str().unwrap();
    told("cpio", &["-id", "--quiet", "-D", target, "bin/*", "usr/*", "lib"], archive);
    assert_eq!(std::fs::read(out.path().join("bin/a-link")).unwrap(), b"small");
    assert_eq!(std::fs::read(out.path().join("usr/z-link")).unwrap(), b"small");
}

#[test]
fn without_kernel_and_command_line_there_is_only_an_initrd() {
    let mut tree = Tree::new(0);
    put(&mut tree, "boot/cmdline", 0o644, Kind::file(""));
    assert_eq!(Format::KernelInitrd.parts(&tree), [Part::Initrd]);
    put(&mut tree, "boot/kernel", 0o644, Kind::file("K"));
    put(&mut tree, "boot/cmdline", 0o644, Kind::file("quiet"));
    assert_eq!(Format::KernelInitrd.parts(&tree), [Part::Kernel, Part::Initrd, Part::Cmdline]);
    let names = Format::KernelInitrd.parts(&tree).into_iter().map(|part| part.file_name("x"));
    assert!(names.eq(["x-kernel", "x-initrd.img", "x-cmdline"]));
    assert_eq!(written(Part::Cmdline, &tree, 1), b"quiet");
}

/// Files `from..to`, as large as files are, of which the contents lie in a spool that is known by its bytes.
fn large(folder: &Path, extra: bool) -> Tree {
    const FILES: u64 = 300;
    let spool = Spool::create(folder).unwrap().identified(Some([7; 32]));
    let mut state = 1_u32;
    let mut content = Vec::new();
    for _ in 0..FILES * 40_000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        content.push(b'a' + (state >> 27).to_le_bytes()[0]);
    }
    spool.file().write_all(&content).unwrap();
    let spool = Arc::new(spool);
    let mut tree = Tree::new(7);
    for number in 0..FILES {
        let len = 100 + (number * 7919) % 39_000;
        let body = Body::Spooled { spool: spool.clone(), start: number * 40_000, len };
        put(&mut tree, &format!("usr/{}/{number}", number % 7), 0o644, Kind::File(body));
    }
    if extra {
        put(&mut tree, "etc/new", 0o644, Kind::file("new"));
        put(&mut tree, "usr/1/new", 0o644, Kind::file("new"));
    }
    tree
}

#[test]
fn a_cache_changes_no_byte_and_a_new_file_leaves_most_of_it_of_use() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::in_store(folder.path());
    let kept = || std::fs::read_dir(folder.path().join(cache::FOLDER).join("packed")).unwrap().count();
    let write = |tree: &Tree| {
        let mut out = StreamSink(Vec::new());
        let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: folder.path() };
        let options = options();
        let material = Material::new(tree, &options, Packing { cache: &cache, ..packing(3) });
        Part::Initrd.write(&material, &mut out, watch).unwrap();
        out.0
    };
    let (old, new) = (large(folder.path(), false), large(folder.path(), true));
    let (expected_old, expected_new) = (written(Part::Initrd, &old, 2), written(Part::Initrd, &new, 2));
    assert!(write(&old) == expected_old);
    let before = kept();
    assert!(before >= 10, "{before} chunks");
    assert!(write(&old) == expected_old);
    assert_eq!(kept(), before);
    assert!(write(&new) == expected_new);
    assert!(kept() - before <= 6, "{} of {before} chunks were packed again", kept() - before);
    // Damage: each entry is made again.
    for entry in std::fs::read_dir(folder.path().join(cache::FOLDER).join("packed")).unwrap().flatten() {
        let mut bytes = std::fs::read(entry.path()).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        std::fs::write(entry.path(), bytes).unwrap();
    }
    assert!(write(&new) == expected_new);
}

/// The members of an archive, with their contents.
pub(super) fn members(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = ::tar::Archive::new(archive);
    let member = |entry: io::Result<::tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.path().unwrap().display().to_string(), content)
    };
    archive.entries().unwrap().map(member).collect()
}

#[test]
fn an_artifact_is_a_layout_whose_blobs_are_what_their_names_say() {
    let folder = tempfile::tempdir().unwrap();
    let tree = sample(folder.path());
    let archive = written(Part::Oci, &tree, 1);
    assert_eq!(archive, written(Part::Oci, &tree, 2), "the number of threads changes nothing");
    let members = members(&archive);
    let (names, contents): (Vec<_>, Vec<_>) = members.into_iter().unzip();
    assert_eq!((names[0].as_str(), names[1].as_str(), names.len()), ("oci-layout", "index.json", 6));
    for (name, content) in names.iter().zip(&contents).skip(2) {
        assert_eq!(*name, crate::artifact::Blob::of(content).path());
    }
    let index: serde_json::Value = serde_json::from_slice(&contents[1]).unwrap();
    assert_eq!(names[2], index["manifests"][0]["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/"));
    assert_eq!(contents[4], b"KERNEL");
    assert_eq!(contents[5], written(Part::Initrd, &tree, 1));
}

#[test]
fn what_cannot_boot_is_refused_before_anything_is_written() {
    let checked = |tree: &Tree, options: &Options, format: Format| {
        let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: &std::env::temp_dir() };
        let notes = std::cell::RefCell::new(Vec::new());
        let note = |line: &str| notes.borrow_mut().push(line.to_owned());
        let checked = check(&[format], &Material::new(tree, options, packing(1)), watch, &note);
        checked.map(|()| notes.into_inner()).map_err(|(_, error)| error.to_string())
    };
    let mut tree = Tree::new(7);
    let fault = checked(&tree, &options(), Format::Oci).unwrap_err();
    assert!(fault.contains("no kernel") && fault.contains("`kernel:`"), "{fault}");
    for format in [Format::Tar, Format::KernelInitrd] {
        checked(&tree, &options(), format).unwrap();
    }
    put(&mut tree, "boot/kernel", 0o644, Kind::file([&[0; 56][..], b"ARM\x64"].concat()));
    for format in [Format::Oci, Format::KernelInitrd, Format::TarKernelInitrd] {
        let fault = checked(&tree, &options(), format).unwrap_err();
        assert!(fault.contains("for arm64, not for amd64"), "{fault}");
        let arm64 = Options { architecture: "arm64".into(), ..options() };
        assert!(checked(&tree, &arm64, format).unwrap().is_empty());
    }
    checked(&tree, &Options { compat: crate::compat::Compat::Linuxkit, ..options() }, Format::KernelInitrd).unwrap();
    let long = "x".repeat(70_000);
    put(&mut tree, "boot/kernel", 0o644, Kind::file("KERNEL"));
    put(&mut tree, "boot/cmdline", 0o644, Kind::file(long));
    assert!(checked(&tree, &options(), Format::Oci).unwrap_err().contains("command line"));
}

#[test]
fn a_command_line_that_is_too_long_is_refused_by_whatever_holds_it() {
    let mut tree = Tree::new(7);
    put(&mut tree, "boot/kernel", 0o644, Kind::file("KERNEL"));
    put(&mut tree, "boot/cmdline", 0o644, Kind::file("x".repeat((64 << 10) + 1)));
    let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: &std::env::temp_dir() };
    let options = Options { compat: crate::compat::Compat::Linuxkit, ..options() };
    let material = Material::new(&tree, &options, packing(1));
    for part in [
        Part::Disk(DiskFormat::RawEfi),
        Part::Disk(DiskFormat::RawBios),
        Part::Iso(IsoFormat::EfiInitrd),
        Part::Iso(IsoFormat::Bios),
        Part::RootCmdline(RootOn::Erofs),
        Part::Oci,
    ] {
        let fault = part.write(&material, &mut StreamSink(Vec::new()), watch).unwrap_err().to_string();
        assert!(fault.contains("has 65537 bytes, more than the 65536"), "{part:?}: {fault}");
    }
}

#[test]
fn an_initrd_that_is_packed_already_is_copied() {
    /// How many bytes went to the output.
    struct Copied(AtomicU64);
    impl Meter for Copied {
        fn advance(&self, bytes: u64) {
            self.0.fetch_add(bytes, Ordering::Relaxed);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let tree = sample(folder.path());
    let (options, copied) = (options(), Copied(AtomicU64::new(0)));
    let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: &std::env::temp_dir() };
    let material = Material::new(&tree, &options, packing(1));
    let packed = material.initrd(watch).unwrap();
    let mut sink = StreamSink(Vec::new());
    Part::Initrd.write(&material, &mut sink, Watch { meter: &copied, ..watch }).unwrap();
    assert!(sink.0 == written(Part::Initrd, &tree, 1));
    assert_eq!(copied.0.into_inner(), packed.len(), "packed anew, all of the content is counted");
}

#[test]
fn a_root_that_needs_more_memory_than_machines_have_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::create(folder.path()).unwrap();
    spool.file().set_len(500 << 20).unwrap();
    let body = Body::Spooled { spool: Arc::new(spool), start: 0, len: 500 << 20 };
    let mut tree = Tree::new(7);
    put(&mut tree, "boot/kernel", 0o644, Kind::file("KERNEL"));
    put(&mut tree, "big", 0o644, Kind::File(body));
    // One file under two names is unpacked once.
    tree.link(&path("again"), &path("big")).unwrap();
    let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: folder.path() };
    let notes = std::cell::RefCell::new(Vec::new());
    let options = options();
    let material = Material::new(&tree, &options, packing(1));
    let note = |line: &str| notes.borrow_mut().push(line.to_owned());
    check(&[Format::Tar, Format::KernelInitrd, Format::TarKernelInitrd], &material, watch, &note).unwrap();
    let notes = notes.into_inner();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("-mem 1280") && notes[0].contains("kernel+squashfs"), "{notes:?}");
}
