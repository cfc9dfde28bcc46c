use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::block::Request;
use crate::mem::GuestMemory;
use crate::mem::transfer::Span;

const MIB: u64 = 1 << 20;

fn disk(path: PathBuf, size_bytes: Option<u64>) -> Disk {
    Disk { size_bytes, ..Disk::of(path) }
}

/// A child that another test has just forked may have a file open, and locked, for a moment.
fn opened(folder: &TempDir, disk: &Disk) -> OpenDisk {
    loop {
        match open(disk, folder.path()) {
            Err(DiskError::InUse { .. }) => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

/// Guest memory to move things through.
struct Hand(GuestMemory);

impl Hand {
    fn new() -> Self {
        Self(GuestMemory::from_ranges(&[(GuestAddress(0), 4 << 20)]).unwrap())
    }

    fn write(&self, disk: &OpenDisk, offset: u64, bytes: &[u8]) {
        self.0.write_slice(bytes, GuestAddress(0)).unwrap();
        let span = Span { address: GuestAddress(0), len: u32::try_from(bytes.len()).unwrap() };
        disk.backend.execute(&self.0, Request::Write { offset, from: &[span] }).unwrap();
    }

    fn read(&self, disk: &OpenDisk, offset: u64, len: usize) -> Vec<u8> {
        let span = Span { address: GuestAddress(0), len: u32::try_from(len).unwrap() };
        disk.backend.execute(&self.0, Request::Read { offset, into: &[span] }).unwrap();
        let mut bytes = vec![0; len];
        self.0.read_slice(&mut bytes, GuestAddress(0)).unwrap();
        bytes
    }

    fn flush(&self, disk: &OpenDisk) {
        disk.backend.execute(&self.0, Request::Flush).unwrap();
    }
}

/// What `qemu-img` says; it must succeed.
#[track_caller]
fn qemu_img(folder: &TempDir, words: &[&str]) -> String {
    let output = Command::new("qemu-img").args(words).current_dir(folder).output().expect("qemu-utils is installed");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "qemu-img {words:?}: {said}");
    said
}

#[test]
fn a_disk_too_large_for_any_file_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["huge", "huge.qcow2"] {
        let path = folder.path().join(name);
        let error = open(&disk(path.clone(), Some(u64::MAX)), folder.path()).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot make disk `{}`", path.display()));
        assert!(!path.exists());
    }
}

#[test]
fn a_missing_disk_is_made_sparse_and_a_larger_one_keeps_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    opened(&folder, &disk(path.clone(), Some(1 << 30)));
    opened(&folder, &disk(path.clone(), Some(512)));
    let file = fs::metadata(&path).unwrap();
    assert_eq!((file.len(), file.blocks()), (1 << 30, 0));
}

#[test]
fn a_smaller_disk_grows_and_keeps_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let hand = Hand::new();
    for name in ["disk.img", "disk.qcow2"] {
        let path = folder.path().join(name);
        hand.write(&opened(&folder, &disk(path.clone(), Some(MIB))), MIB - 512, &[7; 512]);
        // Far enough for an image to need a longer first table.
        let grown = opened(&folder, &disk(path.clone(), Some(1 << 40)));
        assert_eq!(grown.backend.len_bytes(), 1 << 40, "{name}");
        assert_eq!(hand.read(&grown, MIB - 512, 1024), [[7; 512], [0; 512]].concat(), "{name}");
        hand.write(&grown, (1 << 40) - 512, &[8; 512]);
        drop(grown);
        assert_eq!(hand.read(&opened(&folder, &disk(path, None)), (1 << 40) - 512, 512), [8; 512], "{name}");
    }
    qemu_img(&folder, &["check", "disk.qcow2"]);
}

#[test]
fn what_is_written_to_an_image_is_what_qemu_reads_there() {
    let folder = tempfile::tempdir().unwrap();
    let hand = Hand::new();
    let path = folder.path().join("disk.qcow2");
    let image = opened(&folder, &disk(path, Some(64 * MIB)));
    let raw = File::options().read(true).write(true).create_new(true).open(folder.path().join("raw")).unwrap();
    raw.set_len(64 * MIB).unwrap();
    let mut random = crate::virtio::mock::Random::new(5);
    for step in 0..400_u16 {
        let sectors = u64::from(1 + random.below(300));
        let offset = random.next() % (64 * MIB / 512 - sectors) * 512;
        let len = sectors * 512;
        match step % 8 {
            0 => {
                image.backend.execute(&hand.0, Request::WriteZeroes { offset, len, may_unmap: true }).unwrap();
                raw.write_all_at(&vec![0; usize::try_from(len).unwrap()], offset).unwrap();
            }
            1 => {
                // What was discarded reads as anything: zeros decide it.
                image.backend.execute(&hand.0, Request::Discard { offset, len }).unwrap();
                let zeros = vec![0; usize::try_from(len).unwrap()];
                hand.write(&image, offset, &zeros);
                raw.write_all_at(&zeros, offset).unwrap();
            }
            _ => {
                let bytes = vec![u8::try_from(step % 250 + 1).unwrap(); usize::try_from(len).unwrap()];
                hand.write(&image, offset, &bytes);
                raw.write_all_at(&bytes, offset).unwrap();
            }
        }
    }
    hand.flush(&image);
    let mut expected = vec![0; 1 << 20];
    for at in 0..64 {
        raw.read_exact_at(&mut expected, at * MIB).unwrap();
        assert!(hand.read(&image, at * MIB, 1 << 20) == expected, "MiB {at}");
    }
    drop(image);
    assert!(qemu_img(&folder, &["check", "disk.qcow2"]).contains("No errors"));
    qemu_img(&folder, &["compare", "-f", "raw", "-F", "qcow2", "raw", "disk.qcow2"]);
}

#[test]
fn images_that_qemu_made_are_read_with_what_is_below_and_packed_in_them() {
    let folder = tempfile::tempdir().unwrap();
    let hand = Hand::new();
    let text: Vec<u8> = (0..3 * MIB / 8).flat_map(|number| (number / 50).to_le_bytes()).collect();
    fs::write(folder.path().join("base.img"), &text).unwrap();
    qemu_img(&folder, &["convert", "-c", "-f", "raw", "-O", "qcow2", "base.img", "packed.qcow2"]);
    qemu_img(&folder, &["create", "-q", "-f", "qcow2", "-b", "packed.qcow2", "-F", "qcow2", "middle.qcow2", "5M"]);
    qemu_img(&folder, &["create", "-q", "-f", "qcow2", "-b", "middle.qcow2", "-F", "qcow2", "top.qcow2"]);
    qemu_img(&folder, &["create", "-q", "-f", "qcow2", "-o", "compat=0.10,cluster_size=4k", "old.qcow2", "8M"]);
    let path = |name: &str| folder.path().join(name);
    let top = Disk { backing: vec![path("middle.qcow2"), path("packed.qcow2")], ..Disk::of(path("top.qcow2")) };
    let open_top = opened(&folder, &top);
    assert_eq!(open_top.backend.len_bytes(), 5 * MIB);
    assert!(hand.read(&open_top, 0, 3 << 20) == text);
    assert_eq!(hand.read(&open_top, 3 * MIB - 512, 1024), [&text[text.len() - 512..], &[0; 512]].concat());
    hand.write(&open_top, 65536 - 512, &[9; 1024]);
    hand.flush(&open_top);
    assert_eq!(hand.read(&open_top, 65536 - 1024, 2048)[512..1536], [9; 1024]);
    drop(open_top);
    qemu_img(&folder, &["check", "top.qcow2"]);
    qemu_img(&folder, &["compare", "-f", "raw", "-F", "qcow2", "base.img", "packed.qcow2"]);
    let old = opened(&folder, &Disk::of(path("old.qcow2")));
    hand.write(&old, 5000 * 512, &[1; 4096]);
    assert!(
        old.backend
            .execute(&hand.0, Request::Discard { offset: 0, len: 4096 })
            .is_err_and(|e| e.kind() == io::ErrorKind::Unsupported)
    );
    drop(old);
    qemu_img(&folder, &["check", "old.qcow2"]);
}

#[test]
fn what_is_discarded_or_made_zeros_gives_its_room_back() {
    let folder = tempfile::tempdir().unwrap();
    let hand = Hand::new();
    for name in ["disk.img", "disk.qcow2"] {
        let path = folder.path().join(name);
        let open_disk = opened(&folder, &disk(path.clone(), Some(64 * MIB)));
        let kib = || {
            hand.flush(&open_disk);
            fs::metadata(&path).unwrap().blocks() / 2
        };
        for at in 0..6 {
            hand.write(&open_disk, at * 2 * MIB, &vec![7; 2 << 20]);
        }
        let full = kib();
        assert!(full >= 12 << 10, "{name}: {full} KiB");
        // Not whole clusters at either end, which stay.
        let (offset, len) = (2 * MIB + 512, 4 * MIB);
        open_disk.backend.execute(&hand.0, Request::Discard { offset, len }).unwrap();
        let after_discard = kib();
        assert!(after_discard <= full - (4 << 10) + 192, "{name}: {after_discard} KiB of {full}");
        let kept = Request::WriteZeroes { offset: 8 * MIB, len: 2 * MIB, may_unmap: false };
        open_disk.backend.execute(&hand.0, kept).unwrap();
        let given = Request::WriteZeroes { offset: 10 * MIB - 512, len: 2 * MIB, may_unmap: true };
        open_disk.backend.execute(&hand.0, given).unwrap();
        let after_zeroes = kib();
        assert!(after_zeroes <= after_discard - (2 << 10) + 192, "{name}: {after_zeroes} KiB of {after_discard}");
        let first = [(0, 2 * MIB, 7), (offset - 512, 512, 7), (offset + len, 512, 7)];
        for (at, len, byte) in first.into_iter().chain([(8 * MIB, 4 * MIB - 512, 0)]) {
            let len = usize::try_from(len).unwrap();
            assert!(hand.read(&open_disk, at, len) == vec![byte; len], "{name} at {at}");
        }
        // What was given back is written to again.
        hand.write(&open_disk, offset, &vec![9; 2 << 20]);
        assert!(hand.read(&open_disk, offset, 2 << 20) == vec![9; 2 << 20], "{name}");
        hand.flush(&open_disk);
    }
    assert!(qemu_img(&folder, &["check", "disk.qcow2"]).contains("No errors"));
}

#[test]
fn an_image_that_lies_is_not_written_to_but_read() {
    let folder = tempfile::tempdir().unwrap();
    let hand = Hand::new();
    let path = folder.path().join("disk.qcow2");
    let image = opened(&folder, &disk(path.clone(), Some(MIB)));
    hand.write(&image, 0, &[7; 512]);
    hand.flush(&image);
    drop(image);
    // The first block of counts says that all is free.
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let place = |at| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).unwrap();
        u64::from_be_bytes(bytes)
    };
    file.write_all_at(&[0; 64], place(place(48))).unwrap();
    let error = open(&disk(path.clone(), None), folder.path()).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot use image `{}`", path.display()));
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.starts_with("it is damaged: the header (at 0x0 of the file)"), "{cause}");
    assert!(cause.contains("qemu-img check -r all") && cause.contains("--ephemeral"), "{cause}");
    for disk in
        [Disk { read_only: true, ..disk(path.clone(), None) }, Disk { ephemeral: true, ..disk(path.clone(), None) }]
    {
        assert_eq!(hand.read(&opened(&folder, &disk), 0, 512), [7; 512]);
    }
    qemu_img(&folder, &["check", "-q", "-r", "all", "disk.qcow2"]);
    assert_eq!(hand.read(&opened(&folder, &disk(path, None)), 0, 512), [7; 512]);
}

#[test]
fn what_is_written_to_a_throw_away_disk_is_gone_and_its_file_is_shared() {
    let folder = tempfile::tempdir().unwrap();
    let hand = Hand::new();
    for name in ["disk.img", "disk.qcow2"] {
        let path = folder.path().join(name);
        hand.write(&opened(&folder, &disk(path.clone(), Some(MIB))), 0, &[1; 8192]);
        let before = fs::read(&path).unwrap();
        let throw_away = Disk { ephemeral: true, size_bytes: Some(2 * MIB), ..Disk::of(path.clone()) };
        let (one, two) = (opened(&folder, &throw_away), opened(&folder, &throw_away));
        hand.write(&one, 512, &[2; 512]);
        hand.write(&one, 2 * MIB - 512, &[3; 512]);
        hand.flush(&one);
        one.backend.execute(&hand.0, Request::Discard { offset: 4096, len: 4096 }).unwrap();
        assert_eq!(hand.read(&one, 0, 1536), [[1; 512], [2; 512], [1; 512]].concat(), "{name}");
        assert_eq!(hand.read(&two, 0, 1024), [1; 1024], "{name}");
        assert_eq!(hand.read(&two, 2 * MIB - 512, 512), [0; 512], "{name}");
        let refused = open(&disk(path.clone(), None), folder.path()).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("process {}", std::process::id())) && refused.contains("reads it"),
            "{refused}"
        );
        drop((one, two));
        assert!(fs::read(&path).unwrap() == before, "{name} has changed");
    }
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["disk.img", "disk.qcow2"]);
}

#[test]
fn an_image_in_use_is_refused_both_ways_round() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    let ours = opened(&folder, &disk(path.clone(), Some(MIB)));
    let output = Command::new("qemu-img").args(["resize", "disk.qcow2", "2M"]).current_dir(&folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("lock"), "{said}");
    assert!(open(&disk(path.clone(), None), folder.path()).unwrap_err().to_string().contains("may write to it"));
    drop(ours);
    let pid = folder.path().join("pid");
    let mut nbd = Command::new("qemu-nbd");
    // Its parent ends when it serves.
    nbd.args(["--fork", "-f", "qcow2", "-k"]).arg(folder.path().join("socket")).arg("--pid-file").arg(&pid).arg(&path);
    assert!(nbd.status().expect("qemu-utils is installed").success());
    let pid: u32 = fs::read_to_string(pid).unwrap().trim().parse().unwrap();
    let refused = open(&disk(path.clone(), None), folder.path()).unwrap_err().to_string();
    let read_only = open(&Disk { read_only: true, ..Disk::of(path) }, folder.path()).unwrap_err().to_string();
    let process = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    for refused in [refused, read_only] {
        assert!(refused.contains(&format!("process {pid} (`qemu-nbd`)")), "{refused}");
    }
}

#[test]
fn contents_are_in_place_of_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data.iso");
    fs::write(&path, "former").unwrap();
    let contents = Some(Arc::from(vec![5; 1024]));
    let cd = opened(&folder, &Disk { read_only: true, contents, ..Disk::of(path.clone()) });
    assert_eq!(Hand::new().read(&cd, 0, 1024), [5; 1024]);
    assert_eq!(fs::read(&path).unwrap(), [5; 1024]);
}

#[test]
fn a_disk_past_the_page_cache_takes_requests_of_any_alignment() {
    // Memory file systems may have no such way.
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let hand = Hand::new();
    for name in ["disk.img", "disk.qcow2"] {
        let direct = Disk { cache: DiskCache::None, ..disk(folder.path().join(name), Some(MIB)) };
        let direct = match open(&direct, folder.path()) {
            Err(DiskError::NoDirect { .. }) => return,
            opened => opened.unwrap(),
        };
        hand.write(&direct, 0, &[1; 65536]);
        hand.write(&direct, 512, &[2; 512]);
        hand.write(&direct, 8192, &[3; 4096]);
        let expected = [&[1; 512][..], &[2; 512], &[1; 7168], &[3; 4096], &[1; 4096]].concat();
        assert!(hand.read(&direct, 0, 16384) == expected, "{name}");
        hand.flush(&direct);
    }
}
