//! The fuzz targets without a fuzzer: every seed, then seconds of changed ones, the same on every run.

#[path = "fuzz/bodies.rs"]
mod bodies;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::tree;

/// How long each target is fed, in seconds.
const SECONDS: u64 = 3;

/// No input of a few kilobytes may take longer, however busy the machine is.
const LONGEST: Duration = Duration::from_secs(10);

/// What means something in one of the inputs.
const WORDS: &[&str] = &[
    "-1",
    "0",
    "4294967296",
    "18446744073709551615",
    "9223372036854775807",
    "1e999",
    "../",
    "..",
    "/",
    ".wh.",
    ".wh..wh..opq",
    "\0",
    "\n",
    "  ",
    "- ",
    ": ",
    "&a ",
    "*a",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "'",
    "|",
    "#",
    "!!int ",
    "null",
    "~",
    "<<: ",
    "@pkg:",
    "ustar\0",
    "GNU.sparse.size=",
    "SCHILY.xattr.",
    "path=",
    "size=",
    "sha256:",
    "\u{1f525}",
    "99 ",
    "all",
    "rw,ro",
    "\r",
];

#[test]
fn yaml_of_any_kind_is_read_or_refused() {
    let seeds = below("examples", "yml").into_iter().chain(below("tests/conformance", "yml")).collect();
    feed(bodies::yaml, seeds);
}

#[test]
fn a_build_yml_of_any_kind_is_read_or_refused() {
    feed(bodies::recipe, below("pkg", "yml"));
}

#[test]
fn documents_of_images_of_any_kind_are_read_or_refused() {
    feed(bodies::oci, below("tests/fuzz/seeds/oci", "json"));
}

#[test]
fn layers_of_any_kind_are_unpacked_or_refused() {
    let mut seeds = vec![sample_tar(tar::Header::new_ustar), sample_tar(tar::Header::new_gnu)];
    let mut packer = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    packer.write_all(&seeds[0]).unwrap();
    seeds.push(packer.finish().unwrap());
    feed(bodies::layer, seeds);
}

#[test]
fn frames_and_messages_of_any_kind_are_read_or_refused() {
    let frame = |kind: [u8; 2], rest: &[u8]| [&[2; 12][..], &kind, rest].concat();
    let v4 = [&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2][..], &[0x50; 20]].concat();
    let v6 = [&[0x60, 0, 0, 0, 0, 16, 44, 64][..], &[0xfd; 32], &[17, 0, 0, 1, 0, 0, 0, 7], &[0, 8, 0, 8, 0, 8, 0, 0]]
        .concat();
    feed(
        bodies::net::frame,
        vec![frame([8, 0], &v4), frame([0x86, 0xdd], &v6), [&[1; 12][..], &frame([8, 0], &v4)].concat()],
    );
    let mut discover = vec![0; 236];
    discover[..3].copy_from_slice(&[1, 1, 6]);
    discover.extend([99, 130, 83, 99, 53, 1, 1, 61, 2, 1, 2, 12, 1, b'a', 50, 4, 10, 0, 2, 15, 255]);
    feed(bodies::net::dhcp, vec![discover]);
    let solicit = [&[1, 1, 2, 3, 0, 1, 0, 4, 0, 3, 0, 1, 0, 3, 0, 12][..], &[0; 12], &[0, 14, 0, 0]].concat();
    feed(
        bodies::net::link,
        vec![solicit, [&[135, 0, 0, 0, 0, 0, 0, 0][..], &[0xfd; 16], &[1, 1, 2, 2, 2, 2, 2, 2]].concat()],
    );
    let question = b"ab\x01\0\0\x01\0\0\0\0\0\0\x07gateway\x04kiln\x08internal\0\0\x01\0\x01".to_vec();
    feed(bodies::net::names, vec![question, b"[2001:db8::]/32:443".to_vec(), b"10.0.0.0/8:80".to_vec()]);
}

#[test]
fn a_network_lives_through_frames_in_any_order() {
    // A connection from the guest, one to it, datagrams and fragments: see `World::step`.
    let out = [&[7, 1, 3, 0, 9, 1, 0, 0, 7, 5, 180, 0, 0, 255, 255][..], &[7, 0, 5, 0, 0, 0, 0, 50]].concat().repeat(9);
    let inwards =
        [&[5, 6, 0, 0, 99, 2][..], &[8, 0, 2, 0, 0, 1, 5, 180, 0, 0, 255, 255], &[1, 1, 0]].concat().repeat(9);
    let datagrams = [&[2, 7, 4, 9, 0, 200][..], &[7; 201], &[2, 5, 2, 3, 0, 20], &[1; 21]].concat();
    let parts = [4, 5, 0, 0, 0, 0, 1, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8].repeat(20);
    feed(bodies::net::stack, vec![out, inwards, datagrams, parts]);
}

#[test]
fn servers_of_addresses_and_routers_of_any_kind_are_heard_or_not() {
    let seeds = vec![addresses_of_ipv4(), addresses_of_ipv6()];
    assert!(seeds.iter().all(|seed| bodies::guest::hear(seed) > 0), "the seeds lead nowhere");
    feed(bodies::guest::dhcp, seeds);
}

#[test]
fn user_data_and_discs_of_any_kind_are_laid_out_inside_or_refused() {
    let text = |text: &str| text.as_bytes().to_vec();
    let mut seeds = vec![
        text(
            "#cloud-config\nhostname: a.b\nssh_authorized_keys: [k]\nusers:\n- {name: ada, uid: 1500, gecos: A}\nwrite_files:\n\
             - {path: /var/a/b, content: x, permissions: '0640', owner: 'ada:0', append: true}\n- {path: /run/c, content: !!binary aGk=}\n\
             - {path: /d, encoding: gz+b64, content: H4sIAAAAAAAAA8vIBACsKpPYAgAAAA==}\nruncmd: [date, [touch, \"it's\"]]\n",
        ),
        text(
            r#"{"a": {"perm": "0600", "content": "b"}, "c": {"perm": "0700", "entries": {"d": {"content": "\u0000"}}}}"#,
        ),
        text(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"b\"\n\n--b\nContent-Type: text/cloud-config\n\n\
             #cloud-config\nruncmd: [a]\n--b\nContent-Type: text/x-shellscript; name=\"s.sh\"\n\
             Content-Transfer-Encoding: base64\n\nIyEvYmluL3NoCg==\n--b\nContent-Transfer-Encoding: quoted-printable\n\n=23=\n!/\n--b--\n",
        ),
    ];
    assert!(seeds.iter().all(|seed| bodies::guest::lay_out(seed) > 5), "the seeds lead nowhere");
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tree")).unwrap();
    for (number, name) in ["user-data", "meta-data", "config"].iter().enumerate() {
        fs::write(folder.path().join("tree").join(name), seeds.get(number).unwrap_or(&vec![])).unwrap();
    }
    let words = ["-quiet", "-volid", "cidata", "-rock", "-joliet", "-no-pad", "-o", "disc", "tree"];
    let status = std::process::Command::new("xorrisofs").args(words).current_dir(&folder).status();
    assert!(status.unwrap().success());
    seeds.push(fs::read(folder.path().join("disc")).unwrap().split_off(bodies::guest::DISC_STARTS));
    feed(bodies::guest::metadata, seeds);
}

#[test]
fn images_of_any_kind_are_served_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let qemu_img = |words: &[&str]| {
        let status = std::process::Command::new("qemu-img").args(words).current_dir(&folder).status();
        assert!(status.unwrap().success(), "{words:?}");
        fs::read(folder.path().join(words.last().unwrap())).unwrap()
    };
    let text: Vec<u8> = (0_u32..16384).flat_map(|number| (number / 9).to_le_bytes()).collect();
    fs::write(folder.path().join("text"), text).unwrap();
    let to = ["-q", "-f", "raw", "-O", "qcow2"];
    let convert = |words: &[&str]| qemu_img(&[&["convert"][..], &to, words].concat());
    feed(
        bodies::disk::qcow2,
        vec![
            convert(&["-o", "cluster_size=512", "text", "plain"]),
            convert(&["-c", "-o", "cluster_size=4k", "text", "packed"]),
            qemu_img(&["create", "-q", "-f", "qcow2", "-o", "cluster_size=512,size=4M", "empty"]),
            qemu_img(&["create", "-q", "-f", "qcow2", "-o", "compat=0.10,cluster_size=512,size=70k", "old"]),
        ],
    );
}

#[test]
fn requests_to_a_share_of_any_kind_reach_nothing_beside_it() {
    // Looks up, opens, writes and reads; makes, moves and removes; links, attributes, names: see `Steps::next`.
    let file = [&[1, 1, 1, 2, 0][..], &[14, 255, 2, 0, 2, 0, 0], &[16, 2, 7, 3, 0, 1, 3, 0, 4, 0, 0, 1, 0, 1, 0, 5, 4]];
    let read = [15, 2, 5, 1, 1, 1, 0, 0, 200, 0, 0, 5, 16];
    let made = [
        &[9, 1, 3, 0, 200, 0, 0, 2, 4][..],
        &[35, 255, 5, 0, 2, 0, 255, 0, 0, 0, 0, 2, 5],
        &[12, 1, 3, 1, 1, 2, 4, 2, 5],
    ];
    let links = [
        &[1, 1, 1, 2, 2][..],
        &[5, 255, 0],
        &[1, 1, 1, 2, 3],
        &[1, 255, 1, 2, 10],
        &[6, 1, 2, 2, 6, 2, 10],
        &[13, 1, 2, 3, 0, 2, 4],
    ];
    let names = [
        &[27, 1, 1, 1, 0][..],
        &[44, 1, 5, 3, 0, 1, 0, 4, 12, 0, 0, 5, 16],
        &[22, 2, 3, 0, 99, 0, 0, 2, 6],
        &[10, 1, 1, 2, 0],
    ];
    feed(
        bodies::share::requests,
        vec![[&file.concat()[..], &read].concat(), made.concat(), links.concat(), names.concat()],
    );
}

#[test]
fn every_target_of_the_fuzzer_is_fed_here() {
    let mut targets: Vec<_> = fs::read_dir(tree().join("tests/fuzz/targets"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().trim_end_matches(".rs").to_owned())
        .collect();
    targets.sort();
    let mut bodies: Vec<_> = bodies::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    bodies.sort();
    assert_eq!(targets, bodies);
}

/// The files with this ending below a folder of the tree, none of them long.
fn below(folder: &str, ending: &str) -> Vec<Vec<u8>> {
    fn add(folder: &Path, ending: &str, found: &mut Vec<std::path::PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                add(&entry.path(), ending, found);
            } else if entry.path().extension().is_some_and(|extension| extension == ending) {
                found.push(entry.path());
            }
        }
    }
    let mut files = vec![];
    add(&tree().join(folder), ending, &mut files);
    files.sort();
    assert!(!files.is_empty(), "no {ending} below {folder}");
    files.iter().map(|file| fs::read(file).unwrap()).filter(|bytes| bytes.len() < 20_000).collect()
}

/// One member of each kind, long names and extended headers.
fn sample_tar(new: fn() -> tar::Header) -> Vec<u8> {
    let mut builder = tar::Builder::new(vec![]);
    let long = format!("{}/{}", "d".repeat(120), "n".repeat(120));
    builder.append_pax_extensions([("SCHILY.xattr.user.k", &b"v\0w"[..]), ("mtime", b"-1.5")]).unwrap();
    for (kind, name, text) in [
        (tar::EntryType::Directory, "etc/", ""),
        (tar::EntryType::Regular, "etc/file", "content"),
        (tar::EntryType::Link, "etc/hard", "etc/file"),
        (tar::EntryType::Symlink, "lib", "usr/lib"),
        (tar::EntryType::Char, "dev/null", ""),
        (tar::EntryType::Block, "dev/loop0", ""),
        (tar::EntryType::Fifo, "pipe", ""),
        (tar::EntryType::Regular, "etc/.wh.gone", ""),
        (tar::EntryType::Regular, "lib/.wh..wh..opq", ""),
        (tar::EntryType::Regular, &long, "long"),
    ] {
        let mut header = new();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(9);
        if matches!(kind, tar::EntryType::Char | tar::EntryType::Block) {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        if matches!(kind, tar::EntryType::Link | tar::EntryType::Symlink) {
            header.set_size(0);
            builder.append_link(&mut header, name, text).unwrap();
        } else {
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

/// Messages, each behind its length.
fn messages(messages: &[Vec<u8>]) -> Vec<u8> {
    let length = |message: &Vec<u8>| u16::try_from(message.len()).unwrap().to_le_bytes();
    messages.iter().flat_map(|message| [&length(message)[..], message].concat()).collect()
}

/// An offer, a yes, a later yes and a no, with every option that is read.
fn addresses_of_ipv4() -> Vec<u8> {
    let options = b"\x01\x04\xff\xff\xff\0\x03\x04\x0a\0\x02\x02\x06\x04\x0a\0\x02\x03\x0c\x03web\x0f\x01a\x1a\x02\x05\xdc\
        \x33\x04\0\0\x01\0\x36\x04\x0a\0\x02\x02\x3a\x04\0\0\0\x50\x3b\x04\0\0\0\xf0\x77\x05\x01a\x01b\0\x79\x05\0\x0a\0\x02\x02\xff";
    let message = |kind: u8| {
        let mut message = vec![2, 1, 6];
        message.resize(16, 0);
        message.extend([10, 0, 2, 15]);
        message.resize(28, 0);
        message.extend(bodies::guest::MAC);
        message.resize(236, 0);
        message.extend([99, 130, 83, 99, 53, 1, kind]);
        message.extend(options);
        message
    };
    messages(&[message(2), message(5), message(5), message(5), message(6), message(2)])
}

/// A server's advertisement and reply, and a router's packet.
fn addresses_of_ipv6() -> Vec<u8> {
    let [.., a, b, c, d] = bodies::guest::MAC;
    let message = |kind: u8| {
        let mut message = vec![kind, 0, 0, 0, 0, 1, 0, 10, 0, 3, 0, 1];
        message.extend(bodies::guest::MAC);
        message.extend([0, 2, 0, 1, 9, 0, 3, 0, 40, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 24, 0xfd]);
        message.resize(message.len() + 15, 0);
        message.extend([0, 0, 1, 0, 0, 0, 1, 0, 0, 23, 0, 16, 0xfd]);
        message.resize(message.len() + 15, 0);
        message.extend(b"\0\x18\0\x03\x01a\0");
        message
    };
    let mut packet = vec![0x60, 0, 0, 0, 0, 56, 58, 255, 0xfe, 0x80];
    packet.resize(40, 0);
    packet.extend([134, 0, 0, 0, 64, 0xc0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 25, 3, 0, 0, 0, 0, 1, 0, 0xfd]);
    packet.resize(packet.len() + 15, 0);
    packet.extend(b"\x1f\x02\0\0\0\0\x01\0\x01a\0\0\0\0\0\0");
    messages(&[message(2), message(7), message(7), packet])
}

/// Every seed as it is, then changed ones.
fn feed(body: fn(&[u8]), seeds: Vec<Vec<u8>>) {
    let give = |input: &[u8]| {
        let started = Instant::now();
        body(input);
        let took = started.elapsed();
        assert!(took < LONGEST, "{took:?} for {:?}", String::from_utf8_lossy(input));
    };
    seeds.iter().for_each(|seed| give(seed));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let end = Instant::now() + Duration::from_secs(SECONDS);
    while Instant::now() < end {
        let mut input = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(6) {
            change(&mut input, &mut random, &seeds);
        }
        let shown = Shown(&input);
        give(&input);
        std::mem::forget(shown);
    }
}

/// Shows the input that made a body panic.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        let path = std::env::temp_dir().join(format!("kiln-fuzz-input-{}", std::process::id()));
        fs::write(&path, self.0).unwrap();
        // The test fails: this is how whoever mends it finds the input. In a drop nothing is left but to print.
        let _ = writeln!(std::io::stderr(), "the input is in {}", path.display());
    }
}

fn change(input: &mut Vec<u8>, random: &mut Random, seeds: &[Vec<u8>]) {
    let at = random.below(input.len() + 1);
    let to = (at + random.below(64)).min(input.len());
    match random.below(7) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 => input.truncate(at),
        2 => drop(input.drain(at..to)),
        3 => {
            let part = input[at..to].to_vec();
            let times = 1 + random.below(20);
            input.splice(at..at, part.repeat(times));
        }
        4 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len() + 1);
            input.extend_from_slice(&other[from..(from + 600).min(other.len())]);
        }
        5 if at < input.len() => input[at] = random.below(256).to_le_bytes()[0],
        _ => {
            let word = WORDS[random.below(WORDS.len())].as_bytes();
            let over = if random.below(2) == 0 { at } else { (at + word.len()).min(input.len()) };
            input.splice(at..over, word.iter().copied());
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }
}
