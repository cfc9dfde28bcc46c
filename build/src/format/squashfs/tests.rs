use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::super::{FileSink, Options, Packing, StreamSink, Threads};
use super::*;
use crate::cache::{self, Cache};
use crate::cancel::Cancel;
use crate::progress::Silent;
use crate::tree::{Attributes as NodeAttributes, Body, Kind, Spool, Tree, TreePath};

fn path(text: &str) -> TreePath {
    TreePath::from_user(text).unwrap()
}

fn put(tree: &mut Tree, name: &str, mode: u32, kind: Kind) {
    tree.put(&path(name), NodeAttributes::of_root(mode, 1_500_000_000), kind).unwrap();
}

fn try_write(tree: &Tree, squashfs: SquashfsOptions, packing: Packing<'_>, to: &Path) -> Result<(), FormatError> {
    let options = Options { squashfs, ..Options::default() };
    let folder = std::env::temp_dir();
    let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: &folder };
    let mut sink = FileSink::new(File::create(to).unwrap());
    write(&Material::new(tree, &options, packing), &mut sink, watch)?;
    sink.finish()?;
    Ok(())
}

/// An image in a folder of its own.
struct Image {
    folder: tempfile::TempDir,
}

impl Image {
    fn of(tree: &Tree, squashfs: &str, threads: usize) -> Self {
        let image = Self { folder: tempfile::tempdir().unwrap() };
        let cache = Cache::none();
        let packing = Packing { threads: Threads::new(threads), cache: &cache };
        try_write(tree, squashfs.parse().unwrap(), packing, &image.path()).unwrap();
        image
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("root.img")
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.path()).unwrap()
    }

    fn told(&self, program: &str, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new(program)
            .args(arguments)
            .arg(self.path())
            .env("TZ", "UTC")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {complaint}");
        output.stdout
    }

    /// What `unsquashfs -lln` shows, with one blank between words.
    fn list(&self) -> Vec<String> {
        let list = self.told("unsquashfs", &["-lln"]);
        let list = String::from_utf8_lossy(&list);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        list.lines().map(|line| words(line).replace("squashfs-root", "")).collect()
    }

    fn unpack(&self) -> PathBuf {
        let out = self.folder.path().join("out");
        self.told("unsquashfs", &["-q", "-n", "-no-xattrs", "-d", out.to_str().unwrap()]);
        out
    }
}

fn refused(tree: &Tree) -> String {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::none();
    let packing = Packing { threads: Threads::new(2), cache: &cache };
    let result = try_write(tree, SquashfsOptions::default(), packing, &folder.path().join("root.img"));
    result.expect_err("a squashfs cannot hold it").to_string()
}

/// All that can be told of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    kind: String,
    mode: u32,
    owner: (u64, u64),
    mtime_s: u64,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    content: Vec<u8>,
}

/// By path: what a tree holds, less what is below `boot`.
fn held(tree: &Tree) -> BTreeMap<Vec<u8>, Told> {
    let mut all = BTreeMap::new();
    for (path, id) in tree.walk().skip(1).filter(|(path, _)| !path.as_bytes().starts_with(b"boot/")) {
        let node = tree.node(id);
        let (kind, content) = match &node.kind {
            Kind::Directory(_) => ("folder".into(), Vec::new()),
            Kind::File(body) => ("file".into(), body.read_up_to(1 << 30).unwrap().unwrap()),
            Kind::Symlink(target) => ("symlink".into(), target.to_vec()),
            Kind::CharDevice { major, minor } => (format!("char {major}:{minor}"), Vec::new()),
            Kind::BlockDevice { major, minor } => (format!("block {major}:{minor}"), Vec::new()),
            Kind::Fifo => ("fifo".into(), Vec::new()),
        };
        let attributes = &node.attributes;
        let told = Told {
            kind,
            mode: attributes.mode,
            owner: (attributes.uid.into(), attributes.gid.into()),
            mtime_s: u64::try_from(attributes.mtime_s).unwrap_or(0).min(u32::MAX.into()),
            xattrs: attributes.xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
            content,
        };
        all.insert(path.as_bytes().to_vec(), told);
    }
    all
}

/// The same (values of attributes must have no line end, which `tar` does not read), as another reader finds it in an image: `sqfs2tar`, which needs no privilege for owners and devices.
fn found(image: &Image) -> BTreeMap<Vec<u8>, Told> {
    let tape = image.told("sqfs2tar", &[]);
    let mut archive = tar::Archive::new(&tape[..]);
    let mut all: BTreeMap<Vec<u8>, Told> = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path_bytes().strip_suffix(b"/").map_or(entry.path_bytes().to_vec(), <[u8]>::to_vec);
        let header = entry.header().clone();
        let mut xattrs = BTreeMap::new();
        for record in entry.pax_extensions().unwrap().into_iter().flatten() {
            let record = record.unwrap();
            if let Some(name) = record.key_bytes().strip_prefix(b"SCHILY.xattr.") {
                xattrs.insert(name.to_vec(), record.value_bytes().to_vec());
            }
        }
        let numbers = || (header.device_major().unwrap().unwrap(), header.device_minor().unwrap().unwrap());
        let link = entry.link_name_bytes().map(|link| link.to_vec()).unwrap_or_default();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let kind = match header.entry_type() {
            tar::EntryType::Link => {
                let first = all.get(&link).expect("a link names what came before it").clone();
                all.insert(path, first);
                continue;
            }
            tar::EntryType::Directory => "folder".into(),
            tar::EntryType::Symlink => {
                content = link;
                "symlink".into()
            }
            tar::EntryType::Char => format!("char {}:{}", numbers().0, numbers().1),
            tar::EntryType::Block => format!("block {}:{}", numbers().0, numbers().1),
            tar::EntryType::Fifo => "fifo".into(),
            _ => "file".into(),
        };
        let told = Told {
            kind,
            mode: header.mode().unwrap() & 0o7777,
            owner: (header.uid().unwrap(), header.gid().unwrap()),
            mtime_s: header.mtime().unwrap(),
            xattrs,
            content,
        };
        all.insert(path, told);
    }
    all
}

fn check_same(tree: &Tree, squashfs: &str) -> Image {
    let image = Image::of(tree, squashfs, 2);
    let (held, found) = (held(tree), found(&image));
    let names = |all: &BTreeMap<Vec<u8>, Told>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&held), names(&found), "{squashfs}");
    for (path, told) in &held {
        assert!(found.get(path) == Some(told), "{squashfs}: {}", String::from_utf8_lossy(path));
    }
    image
}

/// A bit of everything; content that packs well, content that does not, holes and tails.
fn sample() -> Tree {
    let mut tree = Tree::new(1_400_000_000);
    put(&mut tree, "boot/kernel", 0o644, Kind::file("KERNEL"));
    put(&mut tree, "bin/small", 0o4755, Kind::file("small"));
    put(&mut tree, "bin/none", 0o600, Kind::file(""));
    put(&mut tree, "bin/packs", 0o755, Kind::file(b"0123456789".repeat(90_000)));
    put(&mut tree, "bin/noise", 0o755, Kind::file(noise(300_001, 7)));
    put(&mut tree, "bin/block", 0o755, Kind::file(noise(128 << 10, 8)));
    let hole = [noise(128 << 10, 9), vec![0; 256 << 10], noise(5, 10)].concat();
    put(&mut tree, "bin/hole", 0o755, Kind::file(hole));
    put(&mut tree, "bin/zeros", 0o755, Kind::file(vec![0; 512 << 10]));
    for (link, to) in [("a-link", "bin/small"), ("usr/z-link", "bin/small"), ("usr/packs", "bin/packs")] {
        tree.link(&path(link), &path(to)).unwrap();
    }
    put(&mut tree, "dev/null", 0o666, Kind::CharDevice { major: 1, minor: 3 });
    put(&mut tree, "dev/many", 0o660, Kind::BlockDevice { major: 4095, minor: (1 << 20) - 1 });
    tree.link(&path("dev/many2"), &path("dev/many")).unwrap();
    put(&mut tree, "run/pipe", 0o600, Kind::Fifo);
    put(&mut tree, "lib", 0o777, Kind::Symlink(b"usr/lib"[..].into()));
    put(&mut tree, "far", 0o777, Kind::Symlink("t".repeat(4095).into_bytes().into()));
    put(&mut tree, &"n".repeat(255), 0o644, Kind::file("long name"));
    tree.put(&TreePath::from_member(b"odd/\xff\xc3\x28").unwrap(), NodeAttributes::default(), Kind::file("o")).unwrap();
    let mut owned =
        NodeAttributes { uid: 3_000_000, gid: u32::MAX, mtime_s: -5, mode: 0o2750, ..NodeAttributes::default() };
    owned.xattrs.insert(b"user.k"[..].into(), b"v\0w"[..].into());
    owned.xattrs.insert(b"trusted.t"[..].into(), b""[..].into());
    tree.put(&path("owned"), owned.clone(), Kind::file("o")).unwrap();
    tree.put(&path("owned-folder/x"), owned.clone(), Kind::Symlink(b"."[..].into())).unwrap();
    owned.xattrs.insert(b"security.capability"[..].into(), b"\x01\0\0\x02\xff"[..].into());
    owned.mtime_s = 1 << 33;
    tree.put(&path("owned-folder"), owned, Kind::directory()).unwrap();
    tree
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len).map(|_| random.next(256).to_le_bytes()[0]).collect()
}

/// A fixed walk through all numbers (Knuth's MMIX generator).
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn size(&mut self) -> usize {
        let most = if self.next(8) == 0 { 60_000 } else { 300 };
        usize::try_from(self.next(most)).unwrap()
    }

    fn tree(&mut self) -> Tree {
        let mut tree = Tree::new(0);
        let mut names: Vec<String> = vec![String::new()];
        for number in 0..self.next(400) {
            let folder = names[usize::try_from(self.next(names.len() as u64)).unwrap()].clone();
            let name = format!("{folder}/{number}{}", "x".repeat(usize::try_from(self.next(40)).unwrap()));
            if name.len() > 3000 {
                continue;
            }
            let seed = self.next(30);
            let kind = match self.next(10) {
                0 | 1 => {
                    names.push(name.clone());
                    Kind::directory()
                }
                2 => Kind::Symlink(name.clone().into_bytes().into()),
                3 => Kind::Fifo,
                4 => Kind::file(vec![0; self.size()]),
                5 => Kind::CharDevice { major: 1, minor: u32::try_from(seed).unwrap() * 999 },
                _ => Kind::file(noise(self.size(), seed)),
            };
            let mut attributes = NodeAttributes::of_root(0o755, i64::try_from(self.next(1 << 31)).unwrap());
            attributes.uid = u32::try_from(self.next(3)).unwrap();
            if seed == 0 {
                attributes.xattrs.insert(b"user.x"[..].into(), vec![b'v'; self.size()].into());
            }
            let is_file = matches!(kind, Kind::File(_));
            tree.put(&path(&name), attributes, kind).unwrap();
            if is_file && seed < 5 {
                tree.link(&path(&format!("{folder}/link{number}")), &path(&name)).unwrap();
            }
        }
        tree
    }
}

#[test]
fn what_a_squashfs_cannot_hold_is_named() {
    let with = |attributes: NodeAttributes, kind: Kind| {
        let mut tree = Tree::new(0);
        tree.put(&path("etc/it"), attributes, kind).unwrap();
        refused(&tree)
    };
    let plain = NodeAttributes::default;
    let xattr = |name: &[u8], len| {
        let mut attributes = plain();
        attributes.xattrs.insert(name.into(), vec![0; len].into());
        with(attributes, Kind::file(""))
    };
    let acl = "`etc/it` has the extended attribute `system.posix_acl_access`; a squashfs holds those of `user.`, \
               `trusted.` and `security.` only: remove it, or use another format";
    assert_eq!(xattr(b"system.posix_acl_access", 4), acl);
    assert!(xattr(&[b"user.", &[b'n'; 251][..]].concat(), 1).contains("a name of 256 bytes, more than the 255"));
    assert!(xattr(b"user.v", 65_537).contains("`user.v` of `etc/it` has a value of 65537 bytes"));
    let device = with(plain(), Kind::CharDevice { major: 4096, minor: 0 });
    assert_eq!(device, "the device `etc/it` has number 4096:0; a squashfs tells those up to 4095:1048575 only");
    assert!(with(plain(), Kind::BlockDevice { major: 0, minor: 1 << 20 }).contains("0:1048576"));
    assert!(with(plain(), Kind::Symlink(vec![b'l'; 4096].into())).contains("`etc/it` holds 4096 bytes"));
    let mut tree = Tree::new(0);
    for id in 1..=65_535 {
        let attributes = NodeAttributes { uid: id, ..NodeAttributes::default() };
        tree.put(&path(&format!("f{id:05}")), attributes, Kind::Fifo).unwrap();
    }
    assert!(refused(&tree).starts_with("`f65535` belongs to 65535, one owner or group more than the 65535"));
}

#[test]
fn a_stream_and_a_cancelled_build_get_no_squashfs() {
    let options = Options::default();
    let cache = Cache::none();
    let tree = sample();
    let material = || Material::new(&tree, &options, Packing { threads: Threads::new(2), cache: &cache });
    let cancel = Cancel::default();
    let folder = std::env::temp_dir();
    let watch = Watch { cancel: &cancel, meter: &Silent, folder: &folder };
    let error = write(&material(), &mut StreamSink(Vec::new()), watch).unwrap_err();
    assert!(matches!(&error, FormatError::Io(error) if error.kind() == io::ErrorKind::Unsupported), "{error}");
    cancel.cancel();
    let error = write(&material(), &mut FileSink::new(tempfile::tempfile().unwrap()), watch).unwrap_err();
    assert!(matches!(error, FormatError::Cancelled(_)), "{error}");
}

#[test]
fn everything_is_found_again_whatever_packed_it() {
    let tree = sample();
    for squashfs in ["gzip", "gzip:1", "zstd:3", "xz:1", "lz4", "none", "zstd:1,block=4K", "lz4,block=1M"] {
        let image = check_same(&tree, squashfs);
        assert_eq!(image.bytes().len() % 4096, 0);
        assert_eq!(image.list().len(), held(&tree).len() + 1, "{squashfs}: unsquashfs lists all of it");
    }
}

#[test]
fn any_tree_is_found_again() {
    for seed in 0..12 {
        let tree = Random(seed).tree();
        let options = ["gzip:1,block=4K", "zstd:1,block=8K", "lz4,block=16K", "none"];
        check_same(&tree, options[usize::try_from(seed).unwrap() % options.len()]);
    }
}

#[test]
fn unsquashfs_unpacks_what_was_packed() {
    let mut tree = sample();
    tree.remove(&path("dev"));
    let image = Image::of(&tree, "zstd:1", 2);
    let out = image.unpack();
    for name in ["bin/packs", "bin/noise", "bin/hole", "bin/zeros", "bin/block", "bin/none", "usr/z-link"] {
        let Kind::File(body) = &tree.get(&path(name)).unwrap().kind else { panic!("{name}") };
        assert!(std::fs::read(out.join(name)).unwrap() == body.read_up_to(1 << 20).unwrap().unwrap(), "{name}");
    }
    assert_eq!(std::fs::read_dir(out.join("boot")).unwrap().count(), 0);
    let list = image.list();
    for line in ["-rwsr-xr-x 0/0 5 2017-07-14 02:40 /usr/z-link", "lrwxrwxrwx 0/0 7 2017-07-14 02:40 /lib -> usr/lib"] {
        assert!(list.iter().any(|listed| listed == line), "`{line}` is not in\n{list:#?}");
    }
}

#[test]
fn a_folder_of_more_than_65536_names_is_found_again() {
    const NAMES: usize = 66_000;
    let mut tree = Tree::new(0);
    put(&mut tree, "many/first", 0o644, Kind::file("1"));
    for number in 0..NAMES {
        let name = format!("many/{number:06}-{}", "n".repeat(number % 90));
        // Every second one is one file's, far from its neighbours in the table of inodes.
        match number % 2 {
            0 => tree.link(&path(&name), &path("many/first")).unwrap(),
            _ => put(&mut tree, &name, 0o644, Kind::Fifo),
        }
    }
    let image = Image::of(&tree, "gzip:1", 2);
    assert_eq!(image.list().len(), NAMES + 3);
    // Found by its name, through the index.
    let last = format!("/many/{:06}-{}", NAMES - 2, "n".repeat((NAMES - 2) % 90));
    assert_eq!(image.told("rdsquashfs", &["-c", &last]), b"1");
}

#[test]
fn a_file_of_more_than_4_gib_is_mostly_hole() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::create(folder.path()).unwrap();
    let len = (4 << 30) + 5;
    spool.file().set_len(len).unwrap();
    let mut tree = Tree::new(0);
    put(&mut tree, "var/disk", 0o600, Kind::File(Body::Spooled { spool: Arc::new(spool), start: 0, len }));
    let image = Image::of(&tree, "gzip:1,block=1M", 2);
    assert!(image.list().iter().any(|line| line.contains("4294967301")), "{:?}", image.list());
    assert!(image.bytes().len() < 64 << 10);
}

#[test]
fn the_same_content_is_there_once() {
    let mut tree = Tree::new(0);
    for name in ["a", "b/c", "d"] {
        put(&mut tree, name, 0o644, Kind::file(noise(400_000, 1)));
    }
    put(&mut tree, "e", 0o644, Kind::file(noise(400_000, 2)));
    let len = check_same(&tree, "none").bytes().len();
    assert!((800_000..850_000).contains(&len), "{len}");
}

#[test]
fn contents_stand_in_the_order_that_was_asked_for() {
    let mut tree = Tree::new(0);
    for (name, seed) in [("bin/a", 1), ("bin/b", 2), ("lib/c", 3), ("lib/d", 4), ("e", 5)] {
        put(&mut tree, name, 0o644, Kind::file(noise(128 << 10, seed)));
    }
    let order = |text: &str| {
        let mut options: SquashfsOptions = "none".parse().unwrap();
        options.order = text.parse().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::none();
        let packing = Packing { threads: Threads::new(2), cache: &cache };
        try_write(&tree, options, packing, &folder.path().join("root.img")).unwrap();
        let image = std::fs::read(folder.path().join("root.img")).unwrap();
        let mut places: Vec<_> = (1..=5)
            .map(|seed| {
                let start = noise(32, seed);
                (image.windows(32).position(|bytes| bytes == start).unwrap(), seed)
            })
            .collect();
        places.sort_unstable();
        places.into_iter().map(|(_, seed)| seed).collect::<Vec<_>>()
    };
    assert_eq!(order(""), [5, 1, 2, 3, 4]);
    assert_eq!(order("lib/d\n/bin/b\n"), [4, 2, 5, 1, 3]);
    assert_eq!(order("lib 9\nlib/d 10\nbin/a -1\n"), [4, 3, 5, 2, 1]);
}

#[test]
fn the_bytes_do_not_depend_on_threads_or_cache() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::create(folder.path()).unwrap().identified(Some([7; 32]));
    spool.file().write_all(&[noise(700_000, 1), b"abc".repeat(700_000)].concat()).unwrap();
    let spool = Arc::new(spool);
    let mut tree = sample();
    for (number, len) in [1_u64, 900, 131_072, 400_000, 2_000_000].into_iter().enumerate() {
        let body = Body::Spooled { spool: spool.clone(), start: u64::try_from(number).unwrap(), len };
        put(&mut tree, &format!("spooled/{number}"), 0o644, Kind::File(body));
    }
    for squashfs in ["gzip:1", "zstd:1", "lz4", "xz:0"] {
        let expected = Image::of(&tree, squashfs, 1).bytes();
        assert!(Image::of(&tree, squashfs, 5).bytes() == expected, "{squashfs}");
        let cache = Cache::in_store(folder.path());
        let image = folder.path().join("root.img");
        for _ in 0..2 {
            let packing = Packing { threads: Threads::new(2), cache: &cache };
            try_write(&tree, squashfs.parse().unwrap(), packing, &image).unwrap();
            assert!(std::fs::read(&image).unwrap() == expected, "{squashfs} with a cache");
        }
    }
    let kept = std::fs::read_dir(folder.path().join(cache::FOLDER).join("packed")).unwrap().count();
    // A cache keeps nothing where a disk is nearly full.
    let disk = rustix::fs::statvfs(folder.path()).unwrap();
    assert!(kept > 6 || disk.f_bavail < disk.f_blocks / 9, "{kept} pieces were kept");
}
