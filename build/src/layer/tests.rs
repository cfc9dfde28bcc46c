use std::collections::BTreeMap;
use std::io::Write;

use super::*;
use crate::cache::Cache;
use crate::oci::Digest;
use crate::progress::Silent;
use crate::tree::{Attributes, Kind, TreePath, printable};

/// One member as a test writes it: type flag, name, link name or content.
type Entry<'a> = (u8, &'a str, &'a str);

fn header(flag: u8, name: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(tar::EntryType::new(flag));
    header.set_mode(if flag == b'5' { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(9);
    header.set_size(size);
    header
}

fn member(archive: &mut Vec<u8>, mut header: tar::Header, content: &[u8]) {
    header.set_cksum();
    archive.extend_from_slice(header.as_bytes());
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512), 0);
}

fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut archive = Vec::new();
    for &(flag, name, text) in entries {
        let is_link = matches!(flag, b'1' | b'2');
        let content = if is_link { "" } else { text };
        let mut header = header(flag, name, content.len() as u64);
        if is_link {
            header.set_link_name_literal(text).unwrap();
        }
        if matches!(flag, b'3' | b'4') {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        member(&mut archive, header, content.as_bytes());
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

fn unpack_with(blob: &[u8], limits: &LayerLimits) -> Result<Archive, LayerError> {
    unpack_as(blob, blob.len() as u64, limits, &Cancel::default())
}

fn unpack_as(blob: &[u8], size_bytes: u64, limits: &LayerLimits, cancel: &Cancel) -> Result<Archive, LayerError> {
    let folder = tempfile::tempdir().unwrap();
    let layer = Layer { digest: Digest::from_bytes([0xab; 32]), size_bytes, media_type: String::new() };
    let unpacking = Unpacking { folder: folder.path(), cache: &Cache::none(), limits, cancel, meter: &Silent };
    Archive::unpack_layer(&layer, blob, &unpacking)
}

fn unpack(blob: &[u8]) -> Result<Archive, LayerError> {
    unpack_with(blob, &LayerLimits::default())
}

fn layered(layers: &[&[Entry<'_>]]) -> Tree {
    let mut tree = Tree::new(1);
    for entries in layers {
        unpack(&archive(entries)).unwrap().apply(&mut tree).unwrap();
    }
    tree
}

/// `name=content`, `name/`, `name>target`, or `name?`.
fn listing(tree: &Tree) -> Vec<String> {
    let line = |(path, id)| match &tree.node(id).kind {
        Kind::Directory(_) => format!("{path}/"),
        Kind::File(body) => format!("{path}={}", printable(&body.read_up_to(1 << 20).unwrap().unwrap())),
        Kind::Symlink(target) => format!("{path}>{}", printable(target)),
        _ => format!("{path}?"),
    };
    tree.walk().skip(1).map(line).collect()
}

/// The whole chain of causes, as `cmd` prints it.
fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {}", chain(source)))
}

fn refusal(entries: &[Entry<'_>]) -> String {
    let result = unpack(&archive(entries));
    chain(&match result {
        Err(error) => error,
        Ok(archive) => {
            let fault = archive.apply(&mut Tree::new(0)).unwrap_err();
            LayerError { digest: Digest::from_bytes([0xab; 32]), fault }
        }
    })
}

#[test]
fn a_member_that_could_land_outside_is_refused_by_layer_and_name() {
    let digest = format!("sha256:{}", "ab".repeat(32));
    for (entries, name, why) in [
        (&[(b'0', "../evil", "x")][..], "../evil", "the name has a component `..`"),
        (&[(b'0', "a/../../evil", "x")], "a/../../evil", "the name has a component `..`"),
        (&[(b'0', "/etc/passwd", "x")], "/etc/passwd", "the name is absolute"),
        (&[(b'1', "a", "../../etc/shadow")], "a", "the name has a component `..`"),
        (&[(b'1', "a", "/etc/shadow")], "a", "the name is absolute"),
        (&[(b'2', "l", "../.."), (b'0', "l/evil", "x")], "l/evil", "leads through a symbolic link out of the root"),
        (&[(b'0', ".wh..", "")], ".wh..", "the whiteout names nothing"),
        (&[(b'0', "d/.wh...", "")], "d/.wh...", "the whiteout names nothing"),
        (&[(b'0', ".wh.", "")], ".wh.", "the whiteout names nothing"),
    ] {
        let message = refusal(entries);
        let start = format!("cannot unpack layer {digest}: its member `{name}` is refused: ");
        assert!(message.starts_with(&start) && message.contains(why), "{message}");
    }
}

#[test]
fn a_sparse_claim_is_refused_before_anything_is_read() {
    const TERABYTE: u64 = 1 << 40;
    let mut gnu = tar::Header::new_gnu();
    gnu.as_old_mut().name[..4].copy_from_slice(b"hole");
    gnu.set_entry_type(tar::EntryType::GNUSparse);
    gnu.set_size(512);
    gnu.set_mode(0o644);
    gnu.as_gnu_mut().unwrap().set_real_size(TERABYTE);
    let mut old = Vec::new();
    member(&mut old, gnu, &[0; 512]);

    let mut pax = Vec::new();
    let records = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n37 GNU.sparse.realsize=1099511627776\n";
    member(&mut pax, header(b'x', "pax", records.len() as u64), records);
    member(&mut pax, header(b'0', "hole", 512), &[0; 512]);

    let mut plain = Vec::new();
    let mut large = header(b'0', "hole", 0);
    large.set_size(TERABYTE);
    member(&mut plain, large, b"short");
    for blob in [old, pax, plain] {
        let message = chain(&unpack(&blob).unwrap_err());
        assert!(message.contains("its member `hole` is refused") && message.contains("1099511627776"), "{message}");
    }
}

/// `umoci insert` writes such layers.
#[test]
fn the_last_padding_and_the_blocks_of_zeros_may_be_missing() {
    let whole = archive(&[(b'0', "file", "content")]);
    let end_of_content = 512 + "content".len();
    for len in [end_of_content, end_of_content + 1, 1024, 1536] {
        let mut tree = Tree::new(1);
        unpack(&whole[..len]).unwrap().apply(&mut tree).unwrap();
    }
    let error = unpack(&whole[..end_of_content - 1]).unwrap_err();
    assert!(matches!(error.fault, ArchiveFault::Truncated { .. }), "{}", chain(&error));
}

#[test]
fn a_bomb_ends_at_its_limit() {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(&archive(&[])).unwrap();
    for _ in 0..64 {
        packer.write_all(&[0; 1 << 20]).unwrap();
    }
    let blob = packer.finish().unwrap();
    let limits = LayerLimits { content_slack_bytes: 1 << 20, ..LayerLimits::default() };
    let error = unpack_with(&blob, &limits).unwrap_err();
    assert!(matches!(error.fault, ArchiveFault::Bomb { .. }), "{}", chain(&error));
    assert!(unpack(&blob).is_ok(), "small bombs are harmless");
}

#[test]
fn hostile_members_are_refused_by_name() {
    for (entries, name, why) in [
        (&[(b'5', "d", ""), (b'1', "l", "d")][..], "l", "is a hard link to `d`, which is no file"),
        (&[(b'2', "l", "../.."), (b'1', "x", "l/etc/shadow")], "x", "is no file that came before it"),
        (&[(b'2', "l", "l"), (b'0', "l/x", "")], "l/x", "more than 40 symbolic links"),
        (&[(b'2', "a", "b"), (b'2', "b", "a"), (b'0', "a/x", "")], "a/x", "more than 40 symbolic links"),
        (&[(b'3', "dev/null", ""), (b'0', "dev/null/x", "")], "dev/null/x", "is no folder"),
        (&[(b'6', "", "")], ".", "the root is a folder and nothing else"),
    ] {
        let message = refusal(entries);
        assert!(message.contains(why), "{name}: {message}");
    }
}

#[test]
fn numbers_that_lie_are_refused() {
    let extended = |record: &[u8]| {
        let mut blob = Vec::new();
        member(&mut blob, header(b'x', "pax", record.len() as u64), record);
        member(&mut blob, header(b'0', "file", 4), b"text");
        blob
    };
    let device = |major| {
        let mut blob = Vec::new();
        let mut header = header(b'3', "file", 0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(0).unwrap();
        member(&mut blob, header, b"");
        blob
    };
    for (blob, why) in [
        (extended(b"11 size=-1\n"), "extended header is damaged"),
        (extended(b"29 size=18446744073709551616\n"), "extended header is damaged"),
        (extended(b"29 size=18446744073709551615\n"), "claims to hold 18446744073709551615 bytes"),
        (extended(b"19 size=5000000000\n"), "claims to hold 5000000000 bytes"),
        (extended(b"18 uid=4294967296\n"), "its owner is no number that can be used"),
        (extended(b"999 path=a\n"), "extended header is damaged"),
        (extended(b"0 path=a\n"), "extended header is damaged"),
        (device(4096), "its device number is no number that can be used"),
    ] {
        let message = chain(&unpack(&blob).unwrap_err());
        assert!(message.contains(why), "{why}: {message}");
    }
}

#[test]
fn the_last_of_several_members_of_one_name_wins() {
    let tree = layered(&[&[
        (b'0', "a", "1"),
        (b'0', "a", "2"),
        (b'5', "b", ""),
        (b'0', "b/x", ""),
        (b'0', "b", "file"),
        (b'0', "c", "file"),
        (b'5', "c", ""),
        (b'0', "c/x", "3"),
    ]]);
    assert_eq!(listing(&tree), ["a=2", "b=file", "c/", "c/x=3"]);
    let all = [(b'0', ".wh.a", ""), (b'0', ".wh.b", ""), (b'0', ".wh.c", ""), (b'0', ".wh..wh..opq", "")];
    let lower: &[Entry<'_>] = &[(b'0', "a", "1"), (b'5', "b", ""), (b'0', "c/x", "3")];
    assert_eq!(listing(&layered(&[lower, &all])), [""; 0]);
}

#[test]
fn names_without_end_are_refused() {
    let mut long = Vec::new();
    member(&mut long, header(b'L', "././@LongLink", 2 << 20), &vec![b'a'; 2 << 20]);
    let message = chain(&unpack(&long).unwrap_err());
    assert!(message.contains("its extended header holds 2097152 bytes, more than 1048576"), "{message}");

    let limits = LayerLimits { metadata_bytes: 1000, ..LayerLimits::default() };
    let many = archive(&[(b'0', "a", ""), (b'0', "b", ""), (b'0', "c", ""), (b'0', "d", "")]);
    let error = unpack_with(&many, &limits).unwrap_err();
    assert!(matches!(error.fault, ArchiveFault::Metadata { limit_bytes: 1000 }), "{}", chain(&error));
}

#[test]
fn what_is_no_tar_is_refused_with_the_place() {
    let message = chain(&unpack(&[b'x'; 2048]).unwrap_err());
    assert!(message.ends_with("there is no tar header at byte 0 of its content"), "{message}");
    let whole = archive(&[(b'0', "a", "content")]);
    for len in [1, 511, 513, 515] {
        let error = unpack(&whole[..len]).unwrap_err();
        assert!(matches!(error.fault, ArchiveFault::Truncated { .. }), "{len}: {}", chain(&error));
    }
    assert!(refusal(&[(b'V', "label", "")]).ends_with("its type `V` is none that a file system has"));
    assert!(refusal(&[(b'2', "l", "")]).contains("its link target is empty"));
    assert!(refusal(&[(b'1', "l", "nothing")]).contains("is no file that came before it"));
    assert!(refusal(&[(b'0', "f", "x"), (b'0', "f/g", "x")]).contains("is no folder"));
}

#[test]
fn a_cancelled_unpacking_stops() {
    let cancel = Cancel::default();
    cancel.cancel();
    let error = unpack_as(&archive(&[(b'0', "a", "x")]), 1, &LayerLimits::default(), &cancel).unwrap_err();
    assert!(matches!(error.fault, ArchiveFault::Cancelled(_)));
}

#[test]
fn a_whiteout_hides_what_lower_layers_left_and_never_its_own_layer() {
    let lower: &[Entry<'_>] = &[(b'5', "d", ""), (b'0', "d/a", "1"), (b'0', "d/b", "1"), (b'0', "e", "1")];
    for (upper, expected) in [
        (&[(b'0', "d/.wh.a", "")][..], &["d/", "d/b=1", "e=1"][..]),
        (&[(b'0', ".wh.d", "")], &["e=1"]),
        (&[(b'0', ".wh.none", "")], &["d/", "d/a=1", "d/b=1", "e=1"]),
        (&[(b'0', "d/a", "2"), (b'0', "d/.wh.a", "")], &["d/", "d/a=2", "d/b=1", "e=1"]),
        (&[(b'0', "d/.wh.a", ""), (b'0', "d/a", "2")], &["d/", "d/a=2", "d/b=1", "e=1"]),
        (&[(b'5', "d", ""), (b'0', "d/c", "2"), (b'0', "d/.wh..wh..opq", "")], &["d/", "d/c=2", "e=1"]),
        (&[(b'5', "d", ""), (b'0', "d/.wh..wh..opq", ""), (b'0', "d/c", "2")], &["d/", "d/c=2", "e=1"]),
        (&[(b'0', "d/.wh..wh..opq", "")], &["d/", "e=1"]),
        (&[(b'0', ".wh..wh..opq", ""), (b'0', "new", "2")], &["new=2"]),
        (&[(b'0', "d/.wh..wh.plnk", "")], &["d/", "d/a=1", "d/b=1", "e=1"]),
        (&[(b'0', "d", "file")], &["d=file", "e=1"]),
        (&[(b'5', "e", "")], &["d/", "d/a=1", "d/b=1", "e/"]),
        (&[(b'0', "e/.wh.x", "")], &["d/", "d/a=1", "d/b=1", "e=1"]),
    ] {
        assert_eq!(listing(&layered(&[lower, upper])), expected, "{upper:?}");
    }
}

#[test]
fn a_whiteout_does_not_reach_through_a_link() {
    let lower: &[Entry<'_>] = &[(b'5', "real", ""), (b'0', "real/a", "1"), (b'2', "link", "real")];
    let upper: &[Entry<'_>] = &[(b'5', "link", ""), (b'0', "link/.wh.a", "")];
    assert_eq!(listing(&layered(&[lower, upper])), ["link/", "real/", "real/a=1"]);
}

#[test]
fn hard_links_reach_into_lower_layers_and_survive_there() {
    let tree = layered(&[&[(b'0', "a", "1"), (b'1', "b", "a")], &[(b'1', "c", "b"), (b'0', ".wh.a", "")]]);
    assert_eq!(listing(&tree), ["b=1", "c=1"]);
    let id = |name: &str| tree.find(&TreePath::from_user(name).unwrap());
    assert_eq!(id("b"), id("c"));
    let replaced = layered(&[&[(b'0', "a", "1"), (b'1', "b", "a")], &[(b'0', "a", "2")]]);
    assert_eq!(listing(&replaced), ["a=2", "b=1"]);
}

#[test]
fn odd_members_keep_what_they_are() {
    let mut blob = Vec::new();
    let mut device = header(b'3', "null", 0);
    device.set_device_major(1).unwrap();
    device.set_device_minor(3).unwrap();
    member(&mut blob, device, b"");
    member(&mut blob, header(b'6', "pipe", 0), b"");
    let records = b"30 SCHILY.xattr.user.k=a\0\nb=c\n18 mtime=1234.567\n";
    member(&mut blob, header(b'g', "global", 24), b"24 comment=not of images");
    member(&mut blob, header(b'x', "pax", records.len() as u64), records);
    let mut program = header(b'0', "./bin/su", 3);
    program.set_mode(0o104_755);
    program.set_uid(7);
    program.set_gid(8);
    member(&mut blob, program, b"elf");
    let long = format!("{}/name", "long".repeat(45));
    member(&mut blob, header(b'L', "././@LongLink", long.len() as u64 + 1), format!("{long}\0").as_bytes());
    member(&mut blob, header(b'0', "cut", 1), b"L");
    let mut old = header(b'0', "old-folder/", 0);
    old.as_old_mut().linkflag = [0];
    member(&mut blob, old, b"");

    let mut tree = Tree::new(0);
    unpack(&blob).unwrap().apply(&mut tree).unwrap();
    let expected = ["bin/", "bin/su=elf", &format!("{}/", "long".repeat(45)), &format!("{long}=L"), "null?"];
    assert_eq!(listing(&tree), [&expected[..], &["old-folder/", "pipe?"]].concat());
    let node = |name: &str| tree.get(&TreePath::from_user(name).unwrap()).unwrap();
    let xattrs = BTreeMap::from([(b"user.k"[..].into(), b"a\0\nb=c"[..].into())]);
    assert_eq!(node("bin/su").attributes, Attributes { mode: 0o4755, uid: 7, gid: 8, mtime_s: 1234, xattrs });
    assert!(matches!(node("null").kind, Kind::CharDevice { major: 1, minor: 3 }));
    assert!(matches!(node("pipe").kind, Kind::Fifo));
}

/// A naive reading of the specification on full paths, with no links.
fn model(layers: &[Vec<(u8, String, String)>]) -> Vec<String> {
    let below = |path: &str, folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    let mut all: BTreeMap<String, Option<String>> = BTreeMap::new();
    for layer in layers {
        for (_, path, _) in layer {
            let (folder, name) = path.rsplit_once('/').map_or(("", &path[..]), |(folder, name)| (folder, name));
            let at = |name: &str| if folder.is_empty() { name.to_string() } else { format!("{folder}/{name}") };
            if name == ".wh..wh..opq" {
                all.retain(|path, _| !(folder.is_empty() || below(path, folder)));
            } else if let Some(hidden) = name.strip_prefix(".wh.") {
                all.retain(|path, _| *path != at(hidden) && !below(path, &at(hidden)));
            }
        }
        for (flag, path, content) in layer.iter().filter(|(_, path, _)| !path.contains(".wh.")) {
            if *flag == b'0' || all.get(path).is_some_and(Option::is_some) {
                all.retain(|other, _| other != path && !below(other, path));
            }
            let parents = path.match_indices('/').map(|(slash, _)| path[..slash].to_string());
            all.extend(parents.map(|parent| (parent, None)));
            all.insert(path.clone(), (*flag == b'0').then(|| content.clone()));
        }
    }
    let line = |(path, content): (String, Option<String>)| match content {
        Some(content) => format!("{path}={content}"),
        None => format!("{path}/"),
    };
    let mut lines: Vec<_> = all.into_iter().collect();
    lines.sort_by(|(a, _), (b, _)| a.split('/').cmp(b.split('/')));
    lines.into_iter().map(line).collect()
}

#[test]
fn random_layers_agree_with_a_naive_model() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for round in 0..300 {
        let mut layers = Vec::new();
        for layer in 0..4 {
            let mut entries = Vec::new();
            for entry in 0..random(8) {
                // Files and folders have names of their own kind, so that no file is in the way of a path.
                let mut path: Vec<String> = (0..random(3)).map(|_| format!("d{}", random(2))).collect();
                let name = format!("{}{}", if random(2) == 0 { "d" } else { "f" }, random(3));
                let flag = if name.starts_with('d') { b'5' } else { b'0' };
                path.push(match random(4) {
                    0 => format!(".wh.{name}"),
                    1 => ".wh..wh..opq".into(),
                    _ => name,
                });
                entries.push((flag, path.join("/"), format!("{round}.{layer}.{entry}")));
            }
            layers.push(entries);
        }
        let mut tree = Tree::new(0);
        for layer in &layers {
            let entries: Vec<Entry<'_>> = layer
                .iter()
                .map(|(flag, path, text)| (*flag, &path[..], if *flag == b'0' { &text[..] } else { "" }))
                .collect();
            unpack(&archive(&entries)).unwrap().apply(&mut tree).unwrap();
        }
        assert_eq!(listing(&tree), model(&layers), "{layers:?}");
    }
}

#[test]
fn a_layer_from_the_cache_is_what_it_was() {
    let store = tempfile::tempdir().unwrap();
    let cache = Cache::in_store(store.path());
    let limits = LayerLimits::default();
    let mut blob = Vec::new();
    let mut extended = header(b'x', "PaxHeaders/a", 0);
    let records = b"28 SCHILY.xattr.user.k=v\0\nw\n12 mtime=-7\n";
    extended.set_size(records.len() as u64);
    member(&mut blob, extended, records);
    blob.extend(archive(&[
        (b'0', "a", "content"),
        (b'1', "b", "a"),
        (b'2', "c", "../a"),
        (b'5', "d", ""),
        (b'3', "null", ""),
        (b'4', "loop", ""),
        (b'6', "pipe", ""),
        (b'0', "d/.wh.x", ""),
    ]));
    let layer = |digest| Layer { digest, size_bytes: blob.len() as u64, media_type: String::new() };
    let (digest, other) = (Digest::from_bytes([1; 32]), Digest::from_bytes([2; 32]));
    let cancel = Cancel::default();
    let unpacking = Unpacking { folder: store.path(), cache: &cache, limits: &limits, cancel: &cancel, meter: &Silent };
    let unpacked = |digest, open: &(dyn Fn() -> io::Result<&'static [u8]> + Sync)| {
        let layers = UnpackedLayers::unpack(vec![layer(digest)], |_| open(), &unpacking)?;
        layers.check().map_err(|error| LayerError { digest, fault: ArchiveFault::Read(error) })?;
        let mut tree = Tree::new(1);
        layers.0[&digest].apply(&mut tree).unwrap();
        let attributes: Vec<_> = tree.walk().map(|(_, id)| tree.node(id).attributes.clone()).collect();
        Ok::<_, LayerError>((listing(&tree), attributes))
    };
    let blob: &'static [u8] = blob.clone().leak();
    let first = unpacked(digest, &|| Ok(blob)).unwrap();
    assert_eq!(first.0, ["a=content", "b=content", "c>../a", "d/", "loop?", "null?", "pipe?"]);
    let refuse = || Err(io::Error::other("nobody should ask"));
    assert_eq!(unpacked(digest, &refuse).unwrap(), first);
    assert!(unpacked(other, &refuse).is_err());

    let kept = cache.path(crate::cache::Shelf::Layers, digest.as_bytes()).unwrap();
    let whole = std::fs::read(&kept).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 4;
        std::fs::write(&kept, damaged).unwrap();
        assert!(unpacked(digest, &refuse).is_err(), "byte {at}");
        assert!(!kept.exists(), "byte {at}");
    }
    for len in [0, 1, 31, 32, whole.len() - 1] {
        std::fs::write(&kept, &whole[..len]).unwrap();
        assert!(unpacked(digest, &refuse).is_err(), "{len} bytes");
    }
    assert_eq!(unpacked(digest, &|| Ok(blob)).unwrap(), first);
}
