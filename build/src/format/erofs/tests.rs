use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use super::super::{FileSink, Options, Packing, Threads};
use super::*;
use crate::cache::Cache;
use crate::cancel::Cancel;
use crate::tree::{Attributes, Tree};

const TIME_S: i64 = 1_500_000_000;

const ALL: [ErofsCompression; 3] =
    [ErofsCompression::None, ErofsCompression::Lz4, ErofsCompression::Lz4hc { level: 9 }];

fn path(name: &str) -> TreePath {
    TreePath::from_user(name).unwrap()
}

fn put(tree: &mut Tree, name: &str, mode: u32, kind: Kind) {
    tree.put(&path(name), Attributes::of_root(mode, TIME_S), kind).unwrap();
}

/// Numbers from a fixed start.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    /// Bytes of which stretches repeat, or not.
    fn content(&mut self, len: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < len {
            let stretch = 1 + self.below(300);
            let from = usize::try_from(self.below(1 + bytes.len() as u64)).unwrap();
            if self.below(3) == 0 || bytes.is_empty() {
                bytes.extend((0..stretch).map(|_| self.below(256).to_le_bytes()[0]));
            } else {
                let again: Vec<u8> = bytes[from..].iter().copied().cycle().take(300.min(bytes.len())).collect();
                bytes.extend(again);
            }
        }
        bytes.truncate(usize::try_from(len).unwrap());
        bytes
    }
}

fn try_write(tree: &Tree, to: &Path, erofs: ErofsCompression, threads: usize) -> Result<(), FormatError> {
    let folder = to.parent().unwrap();
    let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder };
    let mut sink = FileSink::new(fs::File::create(to).unwrap());
    let options = Options { erofs, ..Options::default() };
    let packing = Packing { threads: Threads::new(threads), cache: &Cache::none() };
    write(&Material::new(tree, &options, packing), &mut sink, watch)?;
    sink.finish()?;
    Ok(())
}

/// What a real tool says to an image.
fn told(program: &str, arguments: &[&str], image: &Path) -> String {
    let output = Command::new(program)
        .env("TZ", "UTC")
        .args(arguments)
        .arg(image)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let all = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {all}");
    assert!(!all.contains("<E>") && !all.contains("<W>"), "{program} {arguments:?}: {all}");
    all
}

/// Whether owners and devices can be made.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The image as `fsck.erofs` unpacks it has what is in `tree`, and no more.
fn check(tree: &Tree, image: &Path, out: &Path) {
    told("fsck.erofs", &[&format!("--extract={}", out.display()), "--preserve-perms"], image);
    let mut names = 0;
    for (path, id) in tree.walk().filter(|(path, _)| !path.as_bytes().starts_with(b"boot/")) {
        let node = tree.node(id);
        let there = out.join(std::ffi::OsStr::from_bytes(path.as_bytes()));
        let shown = there.display();
        let metadata = there.symlink_metadata().unwrap_or_else(|error| panic!("{shown}: {error}"));
        match &node.kind {
            Kind::File(body) => {
                assert!(fs::read(&there).unwrap() == body.read_up_to(1 << 30).unwrap().unwrap(), "{shown}");
            }
            Kind::Symlink(text) => assert_eq!(fs::read_link(&there).unwrap().as_os_str().as_bytes(), &**text),
            Kind::Directory(_) => assert!(metadata.is_dir()),
            _ => {}
        }
        if !matches!(node.kind, Kind::Symlink(_)) {
            // `fsck.erofs` changes the owner after the mode, which takes two bits away.
            assert_eq!(metadata.mode() & 0o1777, node.attributes.mode & 0o1777, "{shown}");
            assert_eq!(metadata.mtime(), node.attributes.mtime_s, "{shown}");
        }
        if is_root() {
            assert_eq!((metadata.uid(), metadata.gid()), (node.attributes.uid, node.attributes.gid), "{shown}");
        }
        names += 1;
    }
    let found = Command::new("find").arg(out).arg("-printf").arg("x").output().unwrap();
    assert_eq!(found.stdout.len(), names);
}

fn refused(change: impl FnOnce(&mut Tree)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = Tree::new(TIME_S);
    change(&mut tree);
    try_write(&tree, &folder.path().join("x.img"), ErofsCompression::None, 1).unwrap_err().to_string()
}

#[test]
fn what_does_not_fit_is_named_with_its_limit() {
    let with_xattr = |name: &str, len: usize| {
        let mut attributes = Attributes::of_root(0o644, TIME_S);
        attributes.xattrs.insert(name.as_bytes().into(), vec![b'v'; len].into());
        move |tree: &mut Tree| {
            tree.put(&path("etc/x"), attributes, Kind::file("")).unwrap();
        }
    };
    let device = |major, minor| move |tree: &mut Tree| put(tree, "dev/x", 0o600, Kind::BlockDevice { major, minor });
    let many = |tree: &mut Tree| {
        let mut attributes = Attributes::of_root(0o644, TIME_S);
        for number in 0..5 {
            attributes.xattrs.insert(format!("user.{number}").as_bytes().into(), vec![b'v'; 60_000].into());
        }
        tree.put(&path("etc/x"), attributes, Kind::file("")).unwrap();
    };
    for (text, parts) in [
        (refused(device(4096, 0)), ["`dev/x`", "4096:0", "4095:1048575"]),
        (refused(device(1, 1 << 20)), ["`dev/x`", "1:1048576", "4095:1048575"]),
        (refused(with_xattr("user.long", 65_536)), ["value", "`user.long` of `etc/x`", "65535"]),
        (refused(with_xattr(&format!("user.{}", "n".repeat(256)), 1)), ["name", "of `etc/x`", "255"]),
        (refused(many), ["`etc/x`", "bytes long", "262148"]),
        (
            refused(|tree| put(tree, "far", 0o777, Kind::Symlink(vec![b'x'; 4096].into()))),
            ["`far`", "4096 bytes", "4095"],
        ),
    ] {
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
}

#[test]
fn a_cancelled_image_stops() {
    let folder = tempfile::tempdir().unwrap();
    let cancel = Cancel::default();
    cancel.cancel();
    let mut tree = Tree::new(TIME_S);
    put(&mut tree, "x", 0o644, Kind::file(vec![0; 100_000]));
    for erofs in ALL {
        let watch = Watch { cancel: &cancel, meter: &Silent, folder: folder.path() };
        let options = Options { erofs, ..Options::default() };
        let packing = Packing { threads: Threads::new(2), cache: &Cache::none() };
        let error = layout(&Material::new(&tree, &options, packing), watch).unwrap_err();
        assert!(matches!(error, FormatError::Cancelled(_)), "{error}");
    }
}

/// A folder tree as `Random` has it.
fn random_tree(random: &mut Random, folder: &Path) -> Tree {
    let spool = Spool::create(folder).unwrap();
    let content = random.content(6 << 20);
    spool.file().write_all(&content).unwrap();
    let spool = Arc::new(spool);
    let mut tree = Tree::new(TIME_S);
    let mut names = vec![String::new()];
    put(&mut tree, "boot/kernel", 0o644, Kind::file("KERNEL"));
    for number in 0..400 {
        let folder = names[usize::try_from(random.below(names.len() as u64)).unwrap()].clone();
        let name_bytes = 1 + random.below(if number % 10 == 0 { 250 } else { 12 });
        let start = ["", "-", "!", ".", "é", "~"][usize::try_from(random.below(6)).unwrap()];
        let mut name = format!("{start}{number:0width$}", width = usize::try_from(name_bytes).unwrap());
        if !folder.is_empty() {
            name = format!("{folder}/{name}");
        }
        let mut attributes = Attributes::of_root([0o644, 0o755, 0o4711, 0o1700][number % 4], TIME_S);
        if random.below(2) == 0 {
            attributes.mtime_s += i64::try_from(random.below(4_000_000_000)).unwrap() - 2_000_000_000;
        }
        if is_root() && random.below(3) == 0 {
            attributes.uid = u32::try_from(random.below(100_000)).unwrap();
            attributes.gid = u32::try_from(random.below(70_000)).unwrap();
        }
        if random.below(4) == 0 {
            let len = usize::try_from(random.below(if number % 7 == 0 { 5_000 } else { 50 })).unwrap();
            attributes.xattrs.insert(b"user.own"[..].into(), vec![b'o'; len].into());
            attributes.xattrs.insert(b"security.capability"[..].into(), b"the same for many"[..].into());
        }
        let kind = match random.below(8) {
            0 => Kind::directory(),
            1 => Kind::Symlink(vec![b'l'; usize::try_from(1 + random.below(300)).unwrap()].into()),
            2 if is_root() => Kind::CharDevice { major: 1, minor: u32::try_from(random.below(1 << 20)).unwrap() },
            3 => Kind::Fifo,
            4 => Kind::file(random.content(random.0 % 9_000)),
            _ => {
                let len = random.below([5_000, 70_000, 5_000, 3 << 20][number % 4]);
                let start = random.below((6 << 20) - len);
                Kind::File(Body::Spooled { spool: spool.clone(), start, len })
            }
        };
        match kind {
            Kind::Directory(_) if name.len() < 1_500 => names.push(name.clone()),
            Kind::File(_) if random.below(5) == 0 => put(&mut tree, &name, 0o600, Kind::file("linked")),
            _ => {}
        }
        if tree.get(&path(&name)).is_some() {
            tree.link(&path(&format!("link-{number}")), &path(&name)).unwrap();
            continue;
        }
        tree.put(&path(&name), attributes, kind).unwrap();
    }
    tree
}

#[test]
fn random_trees_come_out_as_they_went_in_whatever_the_compression_and_the_threads() {
    let mut sizes = BTreeMap::new();
    for seed in 1..4 {
        let folder = tempfile::tempdir().unwrap();
        let tree = random_tree(&mut Random(seed), folder.path());
        for erofs in ALL {
            let image = folder.path().join(format!("{erofs}.img"));
            try_write(&tree, &image, erofs, 1).unwrap();
            let again = folder.path().join("again.img");
            try_write(&tree, &again, erofs, 3).unwrap();
            assert!(fs::read(&again).unwrap() == fs::read(&image).unwrap(), "{erofs}");
            check(&tree, &image, &folder.path().join(format!("{erofs}-out")));
            *sizes.entry(erofs.to_string()).or_insert(0) += image.metadata().unwrap().len();
        }
    }
    assert!(sizes["lz4"] < sizes["none"] && sizes["lz4hc:9"] < sizes["lz4"], "{sizes:?}");
}

#[test]
fn folders_and_links_beyond_16_bits_and_names_that_are_no_text() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("x.img");
    let mut tree = Tree::new(TIME_S);
    put(&mut tree, "one", 0o644, Kind::file("one"));
    for number in 0..70_000 {
        tree.link(&path(&format!("links/{number}")), &path("one")).unwrap();
    }
    for number in 0..66_000 {
        put(&mut tree, &format!("folders/{number}"), 0o755, Kind::directory());
    }
    let odd = TreePath::from_member(b"odd-\xff\xfe\n").unwrap();
    tree.put(&odd, Attributes::of_root(0o644, TIME_S), Kind::file("odd")).unwrap();
    put(&mut tree, &"n".repeat(255), 0o644, Kind::file("long"));
    try_write(&tree, &image, ErofsCompression::None, 1).unwrap();
    told("fsck.erofs", &[], &image);
    let dump = |path: &str| told("dump.erofs", &[&format!("--path={path}")], &image);
    assert!(dump("/one").contains("Links: 70001"), "{}", dump("/one"));
    assert!(dump("/links/69999").contains("Links: 70001"));
    assert!(dump("/folders").contains("Links: 66002"), "{}", dump("/folders"));
    assert!(dump(&format!("/{}", "n".repeat(255))).contains("Size: 4 "));
    let list = told("dump.erofs", &["--path=/links", "--ls"], &image);
    let is_name = |line: &&str| line.split_whitespace().next().is_some_and(|nid| nid.parse::<u64>().is_ok());
    assert_eq!(list.lines().filter(is_name).count(), 70_002, "a line for each name");
}

#[test]
fn a_file_beyond_4_gib_is_all_there_and_its_hole_stays_one() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("x.img");
    let spool = Spool::create(folder.path()).unwrap();
    let len = (5 << 30) + 17;
    spool.file().set_len(len).unwrap();
    spool.file().write_all_at(b"the end", len - 7).unwrap();
    let mut tree = Tree::new(TIME_S);
    put(&mut tree, "disk", 0o600, Kind::File(Body::Spooled { spool: Arc::new(spool), start: 0, len }));
    let options = Options::default();
    let packing = Packing { threads: Threads::new(1), cache: &Cache::none() };
    let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: folder.path() };
    let extents = layout(&Material::new(&tree, &options, packing), watch).unwrap();
    assert!(extents.len_bytes() > len && extents.len_bytes() < len + (64 << 10), "{}", extents.len_bytes());
    let mut all = [0; 4096 * 3];
    extents.read_at(&mut all, 0).unwrap();
    // The inode, and behind it the tail.
    let size = all.windows(8).position(|bytes| bytes == len.to_le_bytes()).unwrap();
    let place = u32::from_le_bytes(all[size + 8..size + 12].try_into().unwrap());
    assert_eq!(&all[size + 56..size + 73], b"\0\0\0\0\0\0\0\0\0\0the end");
    // The rest is only holes, as the image is.
    let file = fs::File::create(&image).unwrap();
    file.write_all_at(&all[..usize::try_from(u64::from(place) * BLOCK_BYTES).unwrap()], 0).unwrap();
    file.set_len(extents.len_bytes()).unwrap();
    let told = told("dump.erofs", &["--path=/disk"], &image);
    assert!(told.contains(&format!("Size: {len} ")), "{told}");
}

#[test]
fn the_superblock_tells_what_a_kernel_must_know_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let mut uuids = Vec::new();
    for (erofs, features) in [(ALL[0], "sb_csum mtime "), (ALL[2], "sb_csum mtime 0padding ")] {
        for text in ["a", "b"] {
            let image = folder.path().join("x.img");
            let mut tree = Tree::new(TIME_S);
            put(&mut tree, "etc/text", 0o644, Kind::file(text.repeat(50_000)));
            try_write(&tree, &image, erofs, 1).unwrap();
            let told = told("dump.erofs", &["-s"], &image);
            assert!(told.contains(&format!("{features}\n")), "{told}");
            assert!(told.contains("Fri Jul 14 02:40:00 2017"), "{told}");
            uuids.push(told.split("UUID:").nth(1).unwrap().trim().to_owned());
            let bytes = fs::read(&image).unwrap();
            assert_eq!(&bytes[1088..1104], b"kiln-root\0\0\0\0\0\0\0");
        }
    }
    assert!(uuids[0] != uuids[1] && uuids[0] != uuids[2], "{uuids:?}");
}

#[test]
fn contents_that_are_one_in_the_tree_are_one_in_the_image() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::create(folder.path()).unwrap();
    spool.file().write_all(&Random(3).content(300_000)).unwrap();
    let body = Body::Spooled { spool: Arc::new(spool), start: 0, len: 300_000 };
    for erofs in ALL {
        let mut sizes = Vec::new();
        for names in [&["a"][..], &["a", "b", "c"]] {
            let image = folder.path().join("x.img");
            let mut tree = Tree::new(TIME_S);
            names.iter().for_each(|name| put(&mut tree, name, 0o644, Kind::File(body.clone())));
            try_write(&tree, &image, erofs, 1).unwrap();
            check(&tree, &image, &folder.path().join(format!("{erofs}-{}", names.len())));
            sizes.push(image.metadata().unwrap().len());
        }
        assert!(sizes[1] - sizes[0] <= BLOCK_BYTES, "{sizes:?}");
    }
}

#[test]
fn a_short_tail_that_is_in_a_spool_stands_between_others() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::create(folder.path()).unwrap();
    let content: Vec<u8> = (0..20_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    spool.file().write_all(&content).unwrap();
    let spool = Arc::new(spool);
    let mut tree = Tree::new(TIME_S);
    for len in [1, 4097, 31, 8193, 32, 33, 4096 + 31] {
        let body = Body::Spooled { spool: spool.clone(), start: len, len };
        put(&mut tree, &format!("{len}"), 0o644, Kind::File(body));
    }
    let image = folder.path().join("x.img");
    try_write(&tree, &image, ErofsCompression::None, 1).unwrap();
    let out = folder.path().join("out");
    told("fsck.erofs", &[&format!("--extract={}", out.display())], &image);
    for len in [1, 4097, 31, 8193, 32, 33, 4096 + 31] {
        assert!(fs::read(out.join(len.to_string())).unwrap() == content[len..2 * len], "{len}");
    }
}
