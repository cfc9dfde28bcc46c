//! Images that claim to be disks.

use std::fs;

use kiln_run::block::{BlockBackend, Request};
use kiln_run::check::check_disks;
use kiln_run::config::{Disk, DiskFormat};
use kiln_run::disks::{DiskError, open_all};
use kiln_run::mem::GuestMemory;
use kiln_run::mem::transfer::Span;
use vm_memory::GuestAddress;

/// Bytes that one request moves.
const MOVED: u32 = 8192;

/// A qcow2 image: opened and read all over; then written to, which leaves an image that can be written to again.
pub fn qcow2(data: &[u8]) {
    let folder = tempfile::tempdir_in(super::scratch()).expect("the scratch folder is writable");
    let path = folder.path().join("disk");
    fs::write(&path, data).expect("the scratch folder is writable");
    let disk = |read_only| Disk { format: Some(DiskFormat::Qcow2), read_only, ..Disk::of(path.clone()) };
    if check_disks(&[disk(true)]).is_err() {
        return;
    }
    let opened = |read_only| loop {
        match open_all(&[disk(read_only)], folder.path()) {
            Ok(mut disks) => break Some(disks.remove(0).backend),
            // A child that another test has just forked may have the file open, and so its lock, for a moment.
            Err(DiskError::InUse { .. }) => std::thread::yield_now(),
            Err(_) => break None,
        }
    };
    if let Some(disk) = opened(true) {
        use_all_over(disk.as_ref(), false);
    }
    if let Some(disk) = opened(false) {
        use_all_over(disk.as_ref(), true);
        drop(disk);
        assert!(opened(false).is_some(), "a good image was made bad");
    }
}

fn use_all_over(disk: &dyn BlockBackend, is_written: bool) {
    if disk.len_bytes() < MOVED.into() {
        return;
    }
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 16)]).expect("there is memory");
    let spans = [Span { address: GuestAddress(4096), len: MOVED }];
    let last = disk.len_bytes().saturating_sub(MOVED.into()) / 512 * 512;
    let places = [0, 65536 - 4096, last / 2 / 512 * 512, last].map(|place| place.min(last));
    for round in 0..2 {
        for offset in places {
            let _elsewhere = disk.place(Request::Read { offset, into: &spans }).is_some();
            let _refused = disk.execute(&memory, Request::Read { offset, into: &spans });
            if !is_written {
                continue;
            }
            let _refused = disk.execute(&memory, Request::Write { offset, from: &spans });
            if round == 1 {
                let len = MOVED.into();
                let _refused = disk.execute(&memory, Request::WriteZeroes { offset, len: len / 2, may_unmap: true });
                let _refused = disk.execute(&memory, Request::Discard { offset, len });
                let _refused = disk.execute(&memory, Request::Write { offset, from: &spans });
            }
        }
        let _refused = disk.execute(&memory, Request::Flush);
    }
}
