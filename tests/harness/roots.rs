//! Roots that are hard on formats, in images that kiln did not make.

use std::fs;
use std::io::Write;

use tar::{Builder, EntryType, Header};

use super::fixtures;
use super::kiln::Sandbox;
use super::layout::write_image;

/// The image with Debian's kernel and no modules, so that nothing is asked for to load them.
pub const KERNEL: &str = "example.test/kernel:1";
/// The image with a bit of everything.
pub const NASTY: &str = "example.test/nasty:1";

/// The image with next to nothing.
pub const SMALL: &str = "example.test/small:1";

/// Writes these images into the OCI layout `store`.
pub fn write_store(sandbox: &Sandbox, store: &str) {
    let store = sandbox.path().join(store);
    let kernel = fixtures::debian_kernel();
    write_image(&store, KERNEL, &layer(|layer| layer.file(b"kernel", &fs::read(&kernel.vmlinuz).expect("unpacked"))));
    write_image(&store, NASTY, &layer(nasty));
    write_image(&store, SMALL, &layer(|layer| layer.file(b"etc/motd", b"hello")));
}

/// A layer that is written member by member.
pub struct Layer {
    tar: Builder<Vec<u8>>,
}

/// Who a member belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
}

/// Root's, of 2023.
pub const PLAIN: Owner = Owner { mode: 0o644, uid: 0, gid: 0, mtime: 1_700_000_000 };

/// A layer, packed as fast as can be.
pub fn layer(fill: impl FnOnce(&mut Layer)) -> Vec<u8> {
    let mut layer = Layer { tar: Builder::new(Vec::new()) };
    fill(&mut layer);
    let tar = layer.tar.into_inner().expect("memory is writable");
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(&tar).expect("memory is writable");
    packer.finish().expect("memory is writable")
}

impl Layer {
    /// A plain file.
    pub fn file(&mut self, name: &[u8], content: &[u8]) {
        self.member(EntryType::Regular, name, PLAIN, content, b"", &[]);
    }

    /// A folder.
    pub fn folder(&mut self, name: &[u8]) {
        self.member(EntryType::Directory, name, Owner { mode: 0o755, ..PLAIN }, b"", b"", &[]);
    }

    /// A symbolic or hard link.
    pub fn link(&mut self, kind: EntryType, name: &[u8], target: &[u8]) {
        self.member(kind, name, Owner { mode: 0o777, ..PLAIN }, b"", target, &[]);
    }

    /// Anything.
    pub fn member(
        &mut self,
        kind: EntryType,
        name: &[u8],
        owner: Owner,
        content: &[u8],
        target: &[u8],
        records: &[(&str, &[u8])],
    ) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(owner.mode);
        header.set_uid(owner.uid);
        header.set_gid(owner.gid);
        header.set_mtime(owner.mtime);
        header.set_size(content.len() as u64);
        if matches!(kind, EntryType::Char | EntryType::Block) {
            let (major, minor) = target.split_at(4);
            let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
            header.set_device_major(number(major)).expect("a GNU header");
            header.set_device_minor(number(minor)).expect("a GNU header");
        }
        let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
        let mut all: Vec<(&str, &[u8])> = vec![("path", name)];
        if is_link {
            all.push(("linkpath", target));
        }
        all.extend(records);
        self.tar.append_pax_extensions(all).expect("memory is writable");
        header.set_cksum();
        self.tar.append(&header, content).expect("memory is writable");
    }
}

/// Bytes that cannot be packed, always the same.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn nasty(layer: &mut Layer) {
    layer.folder(b"etc");
    layer.file(b"etc/os-release", b"ID=nasty\n");
    // Lengths about every block size there is.
    layer.folder(b"lengths");
    for size in [512, 2048, 4096, 8192, 65536, 131_072, 1 << 20] {
        for len in [size - 1, size, size + 1] {
            layer.file(format!("lengths/noise-{len}").as_bytes(), &noise(len as u64, len));
            layer.file(
                format!("lengths/text-{len}").as_bytes(),
                &b"all work and no play "[..].repeat(len / 21 + 1)[..len],
            );
        }
    }
    layer.file(b"lengths/empty", b"");
    layer.file(b"lengths/one", b"1");
    layer.file(b"lengths/zeros", &vec![0; 1 << 20]);
    let island = [vec![0; 700_000], noise(3, 5000), vec![0; 700_001]].concat();
    layer.file(b"lengths/island", &island);
    layer.file(b"lengths/twin-1", &noise(9, 300_000));
    layer.file(b"lengths/twin-2", &noise(9, 300_000));

    layer.folder(b"links");
    layer.folder(b"links/far");
    layer.file(b"links/first", b"three names");
    layer.link(EntryType::Link, b"links/second", b"links/first");
    layer.link(EntryType::Link, b"links/far/third", b"links/first");
    layer.file(b"links/nothing", b"");
    layer.link(EntryType::Link, b"links/nothing-too", b"links/nothing");
    for (name, target) in [
        ("loop-a", "loop-b"),
        ("loop-b", "loop-a"),
        ("self", "self"),
        ("up", "../../../../.."),
        ("absolute", "/etc/os-release"),
        ("dangling", "no/where"),
        ("slashes", "a//b/./c/../d/"),
    ] {
        layer.link(EntryType::Symlink, format!("links/{name}").as_bytes(), target.as_bytes());
    }
    layer.link(EntryType::Symlink, b"links/long", "long/target/".repeat(300).as_bytes());
    layer.link(EntryType::Symlink, b"links/bytes", b"\xff\xfe/\x80");

    names(layer);
    owners(layer);
    special(layer);

    // Deeper than ISO 9660's eight.
    let mut deep = b"deep".to_vec();
    for level in 0..40 {
        layer.folder(&deep);
        layer.file(&[&deep[..], b"/here"].concat(), format!("level {level}").as_bytes());
        deep.extend_from_slice(format!("/level-{level}").as_bytes());
    }
    layer.folder(b"many");
    for number in 0..1000 {
        layer.file(format!("many/a file with a number {number}").as_bytes(), format!("{number}").as_bytes());
    }
    layer.folder(b"bare");
}

fn names(layer: &mut Layer) {
    layer.folder(b"names");
    let long = [b'n'; 255];
    let almost: Vec<u8> = [&[b'n'; 254][..], b"m"].concat();
    let two: [&[u8]; 2] = [&long, &almost];
    let odd: [&[u8]; 20] = [
        b"caf\xe9",
        b"\xff\xfe\xfd",
        "grüße".as_bytes(),
        "e\u{301}".as_bytes(),
        "\u{e9}".as_bytes(),
        "\u{1f980}".as_bytes(),
        b"two words",
        b"line\nbreak",
        b"tab\tand\\backslash",
        b"quote'\"`$(x)",
        b"semi;colon:star*?<>|",
        b"Case",
        b"case",
        b"CASE",
        b".hidden",
        b"...",
        b"trailing.",
        b"trailing ",
        b"longname.tar.gz",
        b"longname.tar.gzip",
    ];
    for name in odd.into_iter().chain(two) {
        layer.file(&[b"names/", name].concat(), name);
    }
    // The same for as long as Joliet's 64 characters and ISO's 31.
    for end in ["a", "b", "c"] {
        layer.file(format!("names/{}{end}", "joliet-".repeat(20)).as_bytes(), end.as_bytes());
    }
    let folder = [b"names/", &[b'd'; 255][..]].concat();
    layer.folder(&folder);
    layer.file(&[&folder[..], b"/", &[b'f'; 255]].concat(), b"both long");
}

fn owners(layer: &mut Layer) {
    layer.folder(b"owners");
    let mut put = |name: &str, kind, owner| {
        layer.member(kind, format!("owners/{name}").as_bytes(), owner, b"", b"", &[]);
    };
    for (name, mode) in [("setuid", 0o4755), ("setgid", 0o2755), ("all", 0o7777), ("none", 0), ("write", 0o222)] {
        put(name, EntryType::Regular, Owner { mode, ..PLAIN });
    }
    put("sticky", EntryType::Directory, Owner { mode: 0o1777, ..PLAIN });
    put("closed", EntryType::Directory, Owner { mode: 0o700, uid: 1000, gid: 100, ..PLAIN });
    for (name, uid, gid) in [("user", 1000, 1000), ("high", 65_534, 65_536), ("higher", 3_000_000_000, 4_294_967_294)] {
        put(name, EntryType::Regular, Owner { uid, gid, ..PLAIN });
    }
    // 1970, 1980, 2000, a second before and after 2038, 2100.
    for mtime in [0, 315_532_800, 946_684_801, 2_147_483_647, 2_147_483_649, 4_102_444_800] {
        put(&format!("time-{mtime}"), EntryType::Regular, Owner { mtime, ..PLAIN });
    }
}

fn special(layer: &mut Layer) {
    type Records<'a> = &'a [(&'a str, &'a [u8])];
    layer.folder(b"special");
    for (name, kind, major, minor) in [
        ("null", EntryType::Char, 1_u32, 3_u32),
        ("disk", EntryType::Block, 8, 0),
        ("high", EntryType::Block, 259, 300),
        ("top", EntryType::Char, 4095, (1 << 20) - 1),
    ] {
        let number = [major.to_be_bytes(), minor.to_be_bytes()].concat();
        let owner = Owner { mode: 0o660, gid: 6, ..PLAIN };
        layer.member(kind, format!("special/{name}").as_bytes(), owner, b"", &number, &[]);
    }
    layer.member(EntryType::Fifo, b"special/fifo", Owner { mode: 0o600, ..PLAIN }, b"", b"", &[]);
    let capability: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let large = noise(5, 3000);

    let cases: [(&str, Records<'_>); 4] = [
        ("capable", &[("SCHILY.xattr.security.capability", capability)]),
        ("user", &[("SCHILY.xattr.user.one", b"1"), ("SCHILY.xattr.user.two", b"")]),
        ("user-too", &[("SCHILY.xattr.user.one", b"1"), ("SCHILY.xattr.user.two", b"")]),
        ("large", &[("SCHILY.xattr.user.large", &large), ("SCHILY.xattr.trusted.x", b"\0\n=\xff")]),
    ];
    for (name, records) in cases {
        let content = name.as_bytes();
        layer.member(EntryType::Regular, format!("special/{name}").as_bytes(), PLAIN, content, b"", records);
    }
    let record: &[(&str, &[u8])] = &[("SCHILY.xattr.user.folder", b"yes")];
    layer.member(EntryType::Directory, b"special/folder", Owner { mode: 0o755, ..PLAIN }, b"", b"", record);
}

/// A machine of the kernel and `image`.
pub fn yaml(image: &str) -> String {
    format!("kernel: {{image: \"{KERNEL}\", tar: none, cmdline: \"console=ttyS0\"}}\ninit: [\"{image}\"]\n")
}
