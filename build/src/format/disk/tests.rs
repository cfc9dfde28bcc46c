use std::fs;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::cancel::Cancel;
use crate::format::{FileSink, StreamSink, Threads};
use crate::progress::Silent;
use crate::tree::Body;

/// A disk of so many bytes with something at its start, in the middle, at its end, and across the ends of many units.
fn sample(disk_bytes: u64) -> Disk {
    let mut state = 1_u32;
    let mut noise = |len: usize| {
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Packs to about the half.
            b'a' + (state >> 28).to_le_bytes()[0]
        };
        std::iter::repeat_with(next).take(len).collect::<Vec<u8>>()
    };
    let mut extents = Extents::default();
    extents.put_bytes(0, noise(1000));
    extents.put_bytes((2 << 20) - 700, noise(1_500_000));
    extents.put_bytes(disk_bytes / 2 + 512, noise(70_000));
    extents.put_bytes(disk_bytes - 600, noise(600));
    Disk { extents, fingerprint: Fingerprint::of(&[]).unwrap() }
}

fn told(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text.into_owned()
}

/// Writes to a file, and checks that a stream gets the same where that is not too long for memory.
fn write(path: &Path, produce: impl Fn(&mut dyn Sink, Watch<'_>) -> Result<(), FormatError>) {
    let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: &std::env::temp_dir() };
    let mut sink = FileSink::new(fs::File::create(path).unwrap());
    produce(&mut sink, watch).unwrap();
    sink.finish().unwrap();
    if fs::metadata(path).unwrap().len() < 20 << 20 {
        let mut stream = StreamSink(Vec::new());
        produce(&mut stream, watch).unwrap();
        assert!(fs::read(path).unwrap() == stream.0);
    }
}

#[test]
fn every_container_holds_the_disk_as_qemu_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    // 513 MiB: more than one second table of qcow2, and a VHD whose geometry tells less than its size.
    for mib in [8_u64, 513] {
        let disk = sample(mib << 20);
        let raw = folder.path().join("raw");
        write(&raw, |sink, watch| disk.extents.write(sink, watch));
        let image = |name: &str| folder.path().join(name);
        write(&image("qcow2"), |sink, watch| qcow2::image(&disk.extents).write(sink, watch));
        write(&image("fixed"), |sink, watch| vhd::fixed(&disk, 1_492_533_000).write(sink, watch));
        write(&image("dynamic"), |sink, watch| vhd::dynamic(&disk, 1_492_533_000).write(sink, watch));
        write(&image("vmdk"), |sink, watch| vmdk::write(&disk, Threads::new(3), sink, watch));
        let raw = raw.to_str().unwrap();
        for (name, driver, has_check) in
            [("qcow2", "qcow2", true), ("fixed", "vpc", false), ("dynamic", "vpc", false), ("vmdk", "vmdk", true)]
        {
            let path = image(name);
            let path = path.to_str().unwrap();
            let compared = told("qemu-img", &["compare", "-f", "raw", "-F", driver, raw, path]);
            assert!(compared.contains("identical"), "{name}: {compared}");
            let info = told("qemu-img", &["info", "-f", driver, path]);
            assert!(info.contains(&format!("file format: {driver}")), "{info}");
            assert!(info.contains(&format!("({} bytes)", mib << 20)), "{info}");
            if has_check {
                let checked = told("qemu-img", &["check", "-f", driver, path]);
                assert!(checked.contains("No errors were found"), "{checked}");
            }
        }
        for name in ["qcow2", "dynamic", "vmdk"] {
            assert!(fs::metadata(image(name)).unwrap().len() < 15 << 20, "{name} leaves out what holds nothing");
        }
    }
}

#[test]
fn a_disk_without_anything_is_a_container_without_anything() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = Disk { extents: Extents::default(), fingerprint: Fingerprint::of(&[]).unwrap() };
    disk.extents.extend_to(1 << 20);
    let path = folder.path().join("image");
    let raw = folder.path().join("raw");
    write(&raw, |sink, watch| disk.extents.write(sink, watch));
    let compare = |driver| {
        told("qemu-img", &["compare", "-f", "raw", "-F", driver, raw.to_str().unwrap(), path.to_str().unwrap()])
    };
    write(&path, |sink, watch| qcow2::image(&disk.extents).write(sink, watch));
    compare("qcow2");
    write(&path, |sink, watch| vhd::dynamic(&disk, 0).write(sink, watch));
    compare("vpc");
    write(&path, |sink, watch| vmdk::write(&disk, Threads::new(3), sink, watch));
    compare("vmdk");
}

#[test]
fn units_are_those_that_hold_something() {
    let mut extents = Extents::default();
    for (at, len) in [(0, 1), (9, 2), (20, 10), (30, 1), (59, 1), (75, 30)] {
        extents.put(at, Body::Inline(vec![1; len].into()));
    }
    extents.extend_to(500);
    assert_eq!(units(&extents, 10), [0..4, 5..6, 7..11]);
    assert_eq!(units(&Extents::default(), 10), []);
}

#[test]
fn tables_of_partitions_are_whole_at_both_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let sectors = 65 << 11;
    let partition =
        gpt::Partition { kind: gpt::EFI_SYSTEM, guid: [7; 16], sectors: (2048, sectors - 2049), name: "EFI System" };
    let tables = gpt::tables(sectors, [9; 16], &[partition], [0; 440]).unwrap();
    let mut extents = Extents::default();
    extents.put_bytes(0, tables.head);
    extents.put_bytes(sectors * SECTOR_BYTES - tables.tail.len() as u64, tables.tail);
    write(&path, |sink, watch| extents.write(sink, watch));
    let path = path.to_str().unwrap();
    let text = told("sgdisk", &["-v", "-p", "-i", "1", path]);
    assert!(text.contains("No problems found"), "{text}");
    assert!(text.contains("EFI System") && text.contains("09090909-0909-0909-0909-090909090909"), "{text}");
    told("sfdisk", &["--verify", path]);
}
