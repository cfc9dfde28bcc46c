use std::io::Write;

use super::*;

fn cpio(members: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    let all = members.iter().copied().chain([("TRAILER!!!", 0, &b""[..])]);
    for (name, mode, content) in all {
        let length = |length: usize| u32::try_from(length).unwrap();
        let fields = [0, mode, 0, 0, 1, 0, length(content.len()), 0, 0, 0, 0, length(name.len() + 1), 0];
        out.extend_from_slice(b"070701");
        fields.iter().for_each(|field| write!(out, "{field:08x}").unwrap());
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

fn tar(members: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (name, location, content) in members {
        builder
            .append_pax_extensions([
                ("LINUXKIT.source", &b"x.test/a:1"[..]),
                ("LINUXKIT.location", location.as_bytes()),
            ])
            .unwrap();
        let mut header = ::tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(plain).unwrap();
    packer.finish().unwrap()
}

fn list(archive: &[u8]) -> Result<Listing, InspectError> {
    let mut listing = Listing::default();
    listing.add_archive(archive, "x".into(), archive.len() as u64, &Cancel::default()).map(|()| listing)
}

fn fault(archive: &[u8]) -> String {
    let error = list(archive).unwrap_err();
    format!("{error}: {}", std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default())
}

const FILE: u32 = 0o100_644;

#[test]
fn archives_that_lie_or_break_off_are_refused() {
    let good = cpio(&[("a", FILE, b"content")]);
    let field = |number: usize, text: &str| {
        let mut bad = good.clone();
        bad[6 + 8 * number..14 + 8 * number].copy_from_slice(text.as_bytes());
        bad
    };
    let tarred = tar(&[("a", "init[0]", b"x")]);
    let mut huge_name = tarred.clone();
    huge_name[124..136].copy_from_slice(b"77777777777\0");
    let mut header = ::tar::Header::from_byte_slice(&huge_name[..512]).clone();
    header.set_cksum();
    huge_name[..512].copy_from_slice(header.as_bytes());
    let mut spoilt = gzip(&good);
    let middle = spoilt.len() - 6;
    spoilt[middle] ^= 1;
    for (archive, text) in [
        (b"no archive".to_vec(), "neither cpio"),
        (good[..50].to_vec(), "too early"),
        (good[..114].to_vec(), "too early"),
        (field(6, "ffffffff"), "too early"),
        (field(11, "ffffffff"), "length of the name"),
        (field(11, "00000000"), "length of the name"),
        (field(11, "+0000001"), "length of the name"),
        (field(6, "xyzxyzxy"), "no usable length"),
        (gzip(&gzip(&gzip(&good))), "compressed more than 2 times"),
        (huge_name, "no usable length"),
        (tarred[..530].to_vec(), "too early"),
        (spoilt, "cannot read `x`"),
    ] {
        let found = fault(&archive);
        assert!(found.contains(text), "{text}: {found}");
    }
    assert!(list(&[]).unwrap().entries.is_empty());
}

#[test]
fn what_unpacks_to_too_much_is_refused_whether_it_is_listed_or_not() {
    let zeros = vec![0; 2 << 20];
    for bomb in [gzip(&cpio(&[("a", FILE, &zeros)])), gzip(&zeros), gzip(&tar(&[("a", "init[0]", &zeros)]))] {
        let cancel = Cancel::default();
        let mut tape = tape::Tape::new(Box::new(&bomb[..]), tape::Budget::new(1 << 20, &cancel));
        let refused = archive::parts(&mut tape, 0, &mut Listing::default());
        assert!(matches!(refused, Err(ArchiveFault::Bomb { limit_bytes: 1_048_576 })), "{refused:?}");
    }
}

#[test]
fn names_that_lead_outside_are_counted_and_not_listed() {
    let listing =
        list(&cpio(&[("../etc/x", FILE, b"x"), ("/abs", FILE, b"x"), (".", 0o040_755, b""), ("./a", FILE, b"y")]))
            .unwrap();
    let report = Report::new(&listing);
    assert_eq!((report.files, report.bytes), (1, 1));
    assert!(report.notes[0].starts_with("2 members"), "{:?}", report.notes);
}

#[test]
fn a_database_of_any_length_is_not_kept() {
    let mut listing = Listing::default();
    assert!(!listing.wants(b"lib/apk/db/installed", 17 << 20));
    for number in 0..9 {
        let name = format!("{number}/lib/apk/db/installed");
        assert_eq!(listing.wants(name.as_bytes(), 15 << 20), number < 8, "{name}");
    }
    assert!(!listing.wants(b"etc/passwd", 1) && !listing.wants(b"../lib/apk/db/installed", 1));
    let notes = Report::new(&listing).notes;
    assert!(notes.len() == 2 && notes[0].contains("8/lib/apk/db/installed"), "{notes:?}");
}

#[test]
fn an_initrd_with_microcode_in_front_is_listed_whole() {
    let root = cpio(&[
        ("usr", 0o040_755, b""),
        ("usr/bin/a", FILE, b"aaaa"),
        ("bin", 0o120_777, b"usr/bin"),
        ("lib/modules/x.ko", FILE, b"mod"),
        ("containers/services/web/lower/srv", FILE, b"12345678"),
        ("containers/services/web/config.json", FILE, b"{}"),
        ("usr/bin/a", FILE, b"later"),
        ("lib/apk/db/installed", FILE, b"P:busybox\nF:bin\nR:a\n"),
        ("sbom.spdx.json", FILE, br#"{"packages":[{"name":"x.test/web:1","comment":"image of services[0], in containers/services/web/lower"},
            {"name":"x.test/init:1","comment":"image of init[0], in the root"},{"name":7},{"name":"y","comment":"image"}]}"#),
    ]);
    let mut zstd = zstd::encode_all(&root[..], 1).unwrap();
    for packed in [gzip(&root), std::mem::take(&mut zstd), root.clone()] {
        let archive =
            [cpio(&[("kernel/x86/microcode/x.bin", FILE, b"uuu")]), vec![0; 512], packed, vec![0; 3]].concat();
        let report = Report::new(&list(&archive).unwrap());
        let sections: Vec<_> = report.sections.iter().map(|s| (s.name.as_str(), s.images.join(" "))).collect();
        let expected = [("sbom", ""), ("init", "x.test/init:1"), ("services/web", "x.test/web:1"), ("kernel", "")];
        assert_eq!(sections, expected.map(|(name, images)| (name, images.to_owned())));
        assert_eq!(report.sections[2].bytes, 10);
        let packages: Vec<_> = report.packages.iter().map(|p| (p.name.as_str(), p.bytes, p.files)).collect();
        assert_eq!(packages, [("busybox", 5, 1)], "a file is what the last archive has");
        assert_eq!(report.bytes, report.bytes_without_package + 5);
        assert_eq!(report.root.children.iter().map(|child| child.bytes).sum::<u64>(), report.bytes);
    }
}

#[test]
fn a_tar_tells_where_its_files_come_from() {
    let archive = tar(&[
        ("boot/kernel", "kernel", b"KERNEL"),
        ("etc/motd", "files[3]", b"x"),
        ("containers/onboot/000-a/lower/b", "onboot[0]", b"yy"),
        (&"long/".repeat(60), "init[0]", b""),
    ]);
    let report = Report::new(&list(&gzip(&archive)).unwrap());
    let sections: Vec<_> = report.sections.iter().map(|s| (s.name.as_str(), s.bytes, s.images.len())).collect();
    assert_eq!(sections, [("kernel", 6, 1), ("onboot/000-a", 2, 1), ("files", 1, 1), ("init[0]", 0, 1)]);
    assert_eq!(report.largest[0], File { path: "boot/kernel".into(), bytes: 6 });
}

#[test]
fn deep_folders_and_many_names_stay_bounded() {
    let deep = "d/".repeat(2000) + "f";
    let report = Report::new(&list(&cpio(&[(&deep, FILE, b"content")])).unwrap());
    let mut depth = 0;
    let mut folder = &report.root;
    while let Some(child) = folder.children.first() {
        (folder, depth) = (child, depth + 1);
    }
    assert_eq!((depth, folder.bytes), (10, 7));
}

/// Frames within frames: each `g` has its own rectangle first.
fn check_picture(svg: &str) -> usize {
    let number = |tag: &str, name: &str| -> f64 {
        tag.split_once(&format!(" {name}=\"")).and_then(|(_, rest)| rest.split('"').next()?.parse().ok()).unwrap_or(0.0)
    };
    let mut open: Vec<(f64, f64, f64, f64)> = Vec::new();
    let mut count = 0;
    let mut tags = Vec::new();
    for part in svg.split('<').skip(1) {
        let (tag, text) = part.split_once('>').expect("every tag ends");
        assert!(!text.contains('>') && !text.contains(|c: char| c.is_control() && c != '\n'), "{text}");
        let name = tag.split([' ', '/']).find(|word| !word.is_empty()).unwrap();
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(tags.pop(), Some(name), "tags are nested"),
            None if tag.ends_with('/') => {}
            None => tags.push(name),
        }
        if tag == "/g" {
            open.pop();
        }
        if name == "rect" && tags.last() == Some(&"g") {
            let (x, y) = (number(tag, "x"), number(tag, "y"));
            let (right, bottom) = (x + number(tag, "width"), y + number(tag, "height"));
            if let Some(&(left, top, far, low)) = open.last() {
                let inside = x >= left - 0.02 && y >= top - 0.02 && right <= far + 0.02 && bottom <= low + 0.02;
                assert!(inside && right > x && bottom > y, "{tag} is not in {:?}", open.last());
            }
            open.push((x, y, right, bottom));
            count += 1;
        }
    }
    assert!(tags.is_empty() && open.is_empty());
    count
}

#[test]
fn every_rectangle_of_the_picture_lies_in_its_parent() {
    let mut listing = Listing::default();
    assert_eq!(check_picture(&treemap(&Report::new(&listing), "nothing")), 1);
    listing.add_file("empty", 0);
    check_picture(&treemap(&Report::new(&listing), "empty"));
    for number in 1..400_u64 {
        listing.add_file(&format!("f{}/g{}/<&\"'\u{1}>{number}", number % 7, number % 3), number * number % 9973);
    }
    listing.add_file("huge/one", 40_000_000);
    listing.add_file("most", u64::MAX / 2);
    check_picture(&treemap(&Report::new(&listing), "a<b>&c\u{7}"));
    listing.entries.remove(&b"most"[..]);
    listing.entries.remove(&b"huge/one"[..]);
    assert!(check_picture(&treemap(&Report::new(&listing), "x")) > 100);
}
