use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::super::{FileSink, StreamSink, Watch};
use super::*;
use crate::cancel::Cancel;
use crate::progress::Silent;
use crate::tree::{Attributes, Spool};

const OPTIONS: IsoOptions<'static> = IsoOptions { label: "LinuxKit", is_bootable: false, elsewhere: &[] };

fn path(name: &[u8]) -> TreePath {
    TreePath::from_member(name).unwrap()
}

fn put(tree: &mut Tree, name: &[u8], mode: u32, kind: Kind) {
    tree.put(&path(name), Attributes::of_root(mode, 1_500_000_000), kind).unwrap();
}

fn bytes(extents: &Extents) -> Vec<u8> {
    let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: &std::env::temp_dir() };
    let mut out = StreamSink(Vec::new());
    extents.write(&mut out, watch).unwrap();
    out.0
}

/// What a tool says of a volume in a file, both of its outputs.
fn told(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").env("TZ", "UTC").output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}

/// A line for each name: what another reader of the volume should find.
type Facts = BTreeMap<Vec<u8>, String>;

fn facts(tree: &Tree) -> Facts {
    let counts = tree.link_counts();
    let fact = |(path, id): (TreePath, NodeId)| {
        let node = tree.node(id);
        let detail = match &node.kind {
            Kind::Directory(_) => "folder".into(),
            Kind::File(body) => format!("file {} {:?}", counts.of(id), body.read_up_to(1 << 30).unwrap().map(digest)),
            Kind::Symlink(target) => format!("link {}", printable_hex(target)),
            Kind::CharDevice { major, minor } => format!("char {major} {minor}"),
            Kind::BlockDevice { major, minor } => format!("block {major} {minor}"),
            Kind::Fifo => "fifo".into(),
        };
        let Attributes { mode, uid, gid, mtime_s, .. } = node.attributes;
        if matches!(node.kind, Kind::Symlink(_)) {
            // `xorriso` leaves those of the user who unpacks.
            return (path.as_bytes().to_vec(), detail);
        }
        (path.as_bytes().to_vec(), format!("{mode:o} {uid} {gid} {mtime_s} {detail}"))
    };
    tree.walk().map(fact).collect()
}

fn digest(content: Vec<u8>) -> u32 {
    crc32fast::hash(&content)
}

fn printable_hex(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned() + &format!(" ({})", bytes.len())
}

/// The same of what `xorriso` unpacks.
fn unpacked_facts(iso: &Path, into: &Path) -> Facts {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let text = told(
        "xorriso",
        &[
            "-abort_on",
            "FAILURE",
            "-return_with",
            "WARNING",
            "0",
            "-hardlinks",
            "on",
            "-osirrox",
            "on:auto_chmod_off",
            "-indev",
            iso.to_str().unwrap(),
            "-extract",
            "/",
            into.to_str().unwrap(),
            "-rollback_end",
        ],
    );
    assert!(!text.contains("FAILURE") && !text.contains("SORRY"), "{text}");
    let mut facts = Facts::new();
    let mut open = vec![into.to_path_buf()];
    while let Some(found) = open.pop() {
        let meta = found.symlink_metadata().unwrap();
        let kind = meta.file_type();
        let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        let mode = meta.mode() & 0o7777;
        let detail = if kind.is_dir() {
            open.extend(std::fs::read_dir(&found).unwrap().map(|entry| entry.unwrap().path()));
            "folder".into()
        } else if kind.is_symlink() {
            format!("link {}", printable_hex(std::fs::read_link(&found).unwrap().as_os_str().as_bytes()))
        } else if kind.is_char_device() {
            format!("char {major} {minor}")
        } else if kind.is_block_device() {
            format!("block {major} {minor}")
        } else if kind.is_fifo() {
            "fifo".into()
        } else {
            format!("file {} {:?}", meta.nlink(), Some(digest(std::fs::read(&found).unwrap())))
        };
        let name = found.strip_prefix(into).unwrap().as_os_str().as_bytes().to_vec();
        let fact = match kind.is_symlink() {
            true => detail,
            false => format!("{mode:o} {} {} {} {detail}", meta.uid(), meta.gid(), meta.mtime()),
        };
        facts.insert(name, fact);
    }
    facts
}

fn check_same(tree: &Tree) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let iso = folder.path().join("x.iso");
    let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: folder.path() };
    let mut sink = FileSink::new(std::fs::File::create(&iso).unwrap());
    volume(tree, &OPTIONS).unwrap().write(&mut sink, watch).unwrap();
    sink.finish().unwrap();
    let unpacked = unpacked_facts(&iso, &folder.path().join("root"));
    let expected = facts(tree);
    for (name, fact) in &expected {
        assert_eq!(unpacked.get(name), Some(fact), "{}", String::from_utf8_lossy(name));
    }
    assert_eq!(unpacked.len(), expected.len());
    folder
}

/// A bit of everything, and every limit that is none.
fn sample() -> Tree {
    let mut tree = Tree::new(1_492_533_000);
    put(&mut tree, b"bin/sh", 0o4755, Kind::file("#!"));
    tree.link(&path(b"bin/bash"), &path(b"bin/sh")).unwrap();
    tree.link(&path(b"usr/bin/sh"), &path(b"bin/sh")).unwrap();
    put(&mut tree, b"empty", 0o600, Kind::file(""));
    put(&mut tree, b"sector", 0o644, Kind::file([b's'; 2048]));
    put(&mut tree, b"run/pipe", 0o600, Kind::Fifo);
    put(&mut tree, b"tmp", 0o1777, Kind::directory());
    put(&mut tree, b"\xff\xfe not UTF-8", 0o644, Kind::file("x"));
    put(&mut tree, &[b'n'; 255], 0o644, Kind::file("255"));
    put(&mut tree, "Grüße, Jürgen.txt".as_bytes(), 0o644, Kind::file("ü"));
    for name in ["A.b", "a.B", "a.b", "A_00001.B"] {
        put(&mut tree, name.as_bytes(), 0o644, Kind::file(name));
    }
    let deep = vec!["d"; 40].join("/");
    put(&mut tree, format!("{deep}/file").as_bytes(), 0o644, Kind::file("deep"));
    // `xorriso` reads no longer one.
    let long = "component/".repeat(102);
    for (name, target) in [
        ("absolute", "/etc/x".to_owned()),
        ("relative", "../x/./y".into()),
        ("root", "/".into()),
        ("dot", ".".into()),
        ("parent", "..".into()),
        ("long", long.trim_end_matches('/').into()),
        ("long-component", format!("a/{}/z", "c".repeat(255))),
        ("dots", "...".into()),
    ] {
        put(&mut tree, format!("links/{name}").as_bytes(), 0o777, Kind::Symlink(target.as_bytes().into()));
    }
    let owned =
        Attributes { uid: 3_000_000, gid: 4_000_000_000, mtime_s: 981_173_106, mode: 0o2750, ..Attributes::default() };
    tree.put(&path(b"owned"), owned, Kind::directory()).unwrap();
    tree
}

#[test]
fn what_has_no_place_on_a_volume_is_named() {
    let mut tree = Tree::new(0);
    put(&mut tree, b"etc/link", 0o777, Kind::Symlink(vec![b'x'; 4096].into()));
    let error = volume(&tree, &OPTIONS).err().unwrap();
    assert_eq!(
        error.to_string(),
        "the symbolic link `etc/link` is 4096 bytes long, more than the 4095 that Linux reads"
    );

    let spool = Arc::new(Spool::create(&std::env::temp_dir()).unwrap());
    let mut tree = Tree::new(0);
    let body = |len| Kind::File(Body::Spooled { spool: spool.clone(), start: 0, len });
    put(&mut tree, b"var/huge", 0o600, body(1 << 40));
    let error = volume(&tree, &OPTIONS).err().unwrap();
    assert!(error.to_string().starts_with("`var/huge` is 1099511627776 bytes long"), "{error}");

    let mut tree = Tree::new(0);
    for number in 0..23 {
        put(&mut tree, format!("{number}").as_bytes(), 0o600, body(399 << 30));
    }
    let error = volume(&tree, &OPTIONS).err().unwrap();
    assert!(matches!(error, IsoError::TooLarge), "{error}");

    let mut tree = Tree::new(0);
    for number in 0..65_535 {
        put(&mut tree, format!("{}/{number}", number % 3).as_bytes(), 0o755, Kind::directory());
    }
    let error = volume(&tree, &OPTIONS).err().unwrap();
    assert!(error.to_string().starts_with("there are more than 65535 folders"), "{error}");

    for label in ["", "ä", "tab\t", &"x".repeat(33)] {
        let error = volume(&Tree::new(0), &IsoOptions { label, ..OPTIONS }).err().unwrap();
        assert!(matches!(error, IsoError::Label { .. }), "{label}");
    }
}

#[test]
fn xorriso_unpacks_the_tree() {
    check_same(&sample());
}

/// They are listed only: not everyone may make them.
#[test]
fn devices_have_their_numbers() {
    let mut tree = Tree::new(0);
    put(&mut tree, b"null", 0o666, Kind::CharDevice { major: 1, minor: 3 });
    put(&mut tree, b"vda", 0o660, Kind::BlockDevice { major: 254, minor: 30 });
    let folder = tempfile::tempdir().unwrap();
    let iso = folder.path().join("x.iso");
    std::fs::write(&iso, bytes(&volume(&tree, &OPTIONS).unwrap())).unwrap();
    let list = told("isoinfo", &["-R", "-l", "-i", iso.to_str().unwrap()]);
    assert!(list.contains("crw-rw-rw-"), "{list}");
    assert!(list.contains("brw-rw----"), "{list}");
    let list = told("xorriso", &["-indev", iso.to_str().unwrap(), "-lsl", "/"]);
    for line in ["crw-rw-rw-    1 0        0             1,3", "brw-rw----    1 0        0          254,30"] {
        assert!(list.contains(line), "`{line}` is not in {list}");
    }
}

#[test]
fn an_empty_tree_is_a_volume() {
    check_same(&Tree::new(7));
}

#[test]
fn random_trees_come_back() {
    let mut state = 42_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..12 {
        let mut tree = Tree::new(1_492_533_000);
        let mut names: Vec<TreePath> = vec![];
        for _ in 0..random(300) {
            let mut name = vec![];
            for _ in 0..=random(5) {
                let len = [1, 2, 8, 12, 31, 120, 253][usize::try_from(random(7)).unwrap()];
                let alphabet = [&b"abAB.1"[..], b"x", &[0xc3, 0xa4, b'z', 0xff]][usize::try_from(random(3)).unwrap()];
                let letter = |_| alphabet[usize::try_from(random(alphabet.len() as u64)).unwrap()];
                name.extend((0..len).map(letter));
                name.push(b'/');
            }
            let Ok(name) = TreePath::from_member(&name) else { continue };
            if name.as_bytes().is_empty() {
                continue;
            }
            let content = vec![
                b'c';
                usize::try_from([0, 1, 2047, 2048, 2049, 50_000][usize::try_from(random(6)).unwrap()])
                    .unwrap()
            ];
            let kind = match random(8) {
                0 => Kind::Symlink(vec![b'l'; 1 + usize::try_from(random(255)).unwrap()].into()),
                1 => Kind::Fifo,
                2 => Kind::directory(),
                3 if !names.is_empty() => {
                    let target = names[usize::try_from(random(names.len() as u64)).unwrap()].clone();
                    let _no_folder_and_not_below_itself = tree.link(&name, &target);
                    continue;
                }
                _ => Kind::file(content),
            };
            let attributes = Attributes {
                mode: u32::try_from(random(0o10000)).unwrap() | 0o700,
                uid: u32::try_from(random(1 << 31)).unwrap(),
                gid: u32::try_from(random(1 << 31)).unwrap(),
                mtime_s: i64::try_from(random(1 << 31)).unwrap(),
                ..Attributes::default()
            };
            if tree.put(&name, attributes, kind).is_ok() {
                names.push(name);
            }
        }
        check_same(&tree);
    }
}

#[test]
fn a_folder_with_more_names_than_sixteen_bits_can_count() {
    let mut tree = Tree::new(0);
    for number in 0..66_000 {
        put(&mut tree, format!("same-beginning-of-a-rather-long-name-{number}").as_bytes(), 0o644, Kind::file("x"));
    }
    let folder = tempfile::tempdir().unwrap();
    let iso = folder.path().join("x.iso");
    std::fs::write(&iso, bytes(&volume(&tree, &OPTIONS).unwrap())).unwrap();
    for view in ["-R", "-J"] {
        let list = told("isoinfo", &["-f", view, "-i", iso.to_str().unwrap()]);
        let names: std::collections::BTreeSet<_> = list.lines().filter(|line| line.contains("same")).collect();
        assert_eq!(names.len(), 66_000, "{view}");
    }
    let plain = told("isoinfo", &["-f", "-i", iso.to_str().unwrap()]);
    assert_eq!(plain.lines().collect::<std::collections::BTreeSet<_>>().len(), 66_000);
}

#[test]
fn a_file_of_more_than_4_gib_has_several_sections() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::create(folder.path()).unwrap();
    let len = (1 << 32) + 5;
    spool.file().set_len(len).unwrap();
    let mut tree = Tree::new(0);
    put(&mut tree, b"big", 0o600, Kind::File(Body::Spooled { spool: Arc::new(spool), start: 0, len }));
    put(&mut tree, b"small", 0o600, Kind::file("behind it"));
    let extents = volume(&tree, &OPTIONS).unwrap();
    let iso = folder.path().join("x.iso");
    // Only what is in front and behind is written: the content is zeros.
    let mut file = std::fs::File::create(&iso).unwrap();
    file.set_len(extents.len_bytes()).unwrap();
    for (at, body) in extents.bodies().filter(|(_, body)| body.len() < 1 << 20) {
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(at)).unwrap();
        file.write_all(&body.read_up_to(1 << 20).unwrap().unwrap()).unwrap();
    }
    let list = told("xorriso", &["-indev", iso.to_str().unwrap(), "-lsl", "/"]);
    assert!(list.contains("4294967301"), "{list}");
    let list =
        told("xorriso", &["-osirrox", "on", "-indev", iso.to_str().unwrap(), "-concat", "append", "-", "/small", "--"]);
    assert!(list.contains("behind it"), "{list}");
}

#[test]
fn the_bytes_depend_on_the_tree_alone() {
    let one = bytes(&volume(&sample(), &OPTIONS).unwrap());
    assert!(one == bytes(&volume(&sample(), &OPTIONS).unwrap()));
    let mut other = sample();
    put(&mut other, b"new", 0o644, Kind::file("new"));
    assert_ne!(uuid(&sample()), uuid(&other));
    let folder = tempfile::tempdir().unwrap();
    let iso = folder.path().join("x.iso");
    std::fs::write(&iso, &one).unwrap();
    let told = told("blkid", &["-p", "-o", "export", iso.to_str().unwrap()]);
    assert!(told.contains(&format!("UUID={}\n", uuid(&sample()))), "{told}");
    assert!(told.contains("LABEL=LinuxKit\n"), "{told}");
}
