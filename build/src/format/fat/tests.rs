use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::super::{FileSink, Watch};
use super::*;
use crate::cancel::Cancel;
use crate::progress::Silent;
use crate::tree::{Body, Spool};

/// So many bytes that tell where they stand.
fn content(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24).to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn spooled(bytes: &[u8]) -> Extents {
    let spool = Spool::create(&std::env::temp_dir()).unwrap();
    spool.file().write_all(bytes).unwrap();
    Body::Spooled { spool: Arc::new(spool), start: 0, len: bytes.len() as u64 }.into()
}

fn written(volume: &FatVolume) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut sink = FileSink::new(file.reopen().unwrap());
    let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: &std::env::temp_dir() };
    volume.extents.write(&mut sink, watch).unwrap();
    sink.finish().unwrap();
    file
}

fn told(program: &str, arguments: &[&str], file: &Path) -> String {
    let output = Command::new(program).args(arguments).arg(file).env("MTOOLS_SKIP_CHECK", "0").output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {text}");
    text.into_owned()
}

#[test]
fn files_of_all_sizes_read_back_through_another_reader() {
    for (min_mib, kind) in [
        (0, fatfs::FatType::Fat12),
        (5, fatfs::FatType::Fat16),
        (40, fatfs::FatType::Fat32),
        (300, fatfs::FatType::Fat32),
    ] {
        let sizes = [0, 1, 511, 512, 513, 4096, 70_001, 300_000];
        let mut files: Vec<(String, Vec<u8>)> = sizes
            .iter()
            .zip(1..)
            .map(|(&len, seed)| (format!("EFI/Linux/a file of {len} bytes.bin"), content(seed, len)))
            .collect();
        files.push(("kernel".into(), content(99, 100_000)));
        files.push(("EFI/BOOT/BOOTX64.EFI".into(), content(98, 9)));
        let wanted = FatFiles {
            label: "kiln",
            files: files.iter().map(|(path, bytes)| (path.clone(), spooled(bytes))).collect(),
            time_s: 1_492_533_000,
            min_bytes: min_mib << 20,
            start_sector: 2048,
        };
        let volume = volume(&wanted).unwrap();
        assert_eq!(volume.extents.len_bytes(), (min_mib << 20).max(1 << 20));
        let file = written(&volume);
        told("fsck.vfat", &["-n", "-v"], file.path());

        let read = fatfs::FileSystem::new(file.reopen().unwrap(), fatfs::FsOptions::new()).unwrap();
        assert_eq!((read.fat_type(), read.volume_label().as_str()), (kind, "KILN"));
        let used = read.stats().unwrap();
        assert!(used.free_clusters() < used.total_clusters());
        for (path, bytes) in &files {
            let mut back = Vec::new();
            io::Read::read_to_end(&mut read.root_dir().open_file(path).unwrap(), &mut back).unwrap();
            assert!(back == *bytes, "{path}");
            let mut direct = vec![0; bytes.len()];
            volume.extents.read_at(&mut direct, volume.offset_of(path).unwrap()).unwrap();
            assert!(direct == *bytes, "{path} is in one piece");
            assert_eq!(volume.offset_of(path).unwrap() % 4096, 0, "{path}");
        }
        let listed = told("mdir", &["-/", "-b", "-i"], file.path());
        assert_eq!(listed.lines().count(), files.len() + 3, "{listed}");
    }
}

#[test]
fn a_volume_is_as_small_as_its_files_allow_and_full_ones_are_whole() {
    for len_mib in [1_u64, 2, 17, 32, 33, 34, 61, 259, 300] {
        // A hole is as long as any content.
        let mut hole = Extents::default();
        hole.extend_to(len_mib << 20);
        let wanted = FatFiles { label: "kiln", files: vec![("HOLE".into(), hole)], ..FatFiles::default() };
        let volume = volume(&wanted).unwrap();
        let over = volume.extents.len_bytes() - (len_mib << 20);
        assert!(over <= (1 << 20) + (len_mib << 20) / 50, "{len_mib} MiB: {over} bytes more");
        told("fsck.vfat", &["-n"], written(&volume).path());
    }
}

#[test]
fn files_beyond_32_bits_are_refused_by_name() {
    let mut long = Extents::default();
    long.extend_to(1 << 32);
    let files = FatFiles { files: vec![("EFI/BOOT/BOOTX64.EFI".into(), long.clone())], ..FatFiles::default() };
    let error = volume(&files).unwrap_err().to_string();
    assert!(error.starts_with("`EFI/BOOT/BOOTX64.EFI` is 4294967296 bytes long, more than the 4294967295"), "{error}");
    let error = volume(&FatFiles { min_bytes: 2 << 40, ..FatFiles::default() }).unwrap_err();
    assert!(matches!(error, FatError::TooLarge { .. }), "{error}");
}

#[test]
fn serials_tell_contents_apart() {
    let serial = |bytes: &[u8]| {
        let files = vec![("a".into(), Extents::from(Body::Inline(bytes.into())))];
        let mut boot = [0; 512];
        volume(&FatFiles { files, ..FatFiles::default() }).unwrap().extents.read_at(&mut boot, 0).unwrap();
        boot[39..43].to_vec()
    };
    assert_eq!(serial(b"one"), serial(b"one"));
    assert_ne!(serial(b"one"), serial(b"two"));
}
