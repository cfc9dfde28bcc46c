//! Images that claim to be disks.

use std::fs;

use kiln_run::block::Request;
use kiln_run::check::check_disks;
use kiln_run::config::{Disk, DiskFormat};
use kiln_run::disks::open_all;
use kiln_run::mem::GuestMemory;
use kiln_run::mem::transfer::Span;
use vm_memory::GuestAddress;

/// Bytes that one request moves.
const MOVED: u32 = 8192;

/// A qcow2 image: opened and read all over. Nothing is written: `imago` 0.2.6 recurses without end when an image that lies about
/// its counts is to get a new cluster.
pub fn qcow2(data: &[u8]) {
    let folder = tempfile::tempdir_in(super::scratch()).expect("the scratch folder is writable");
    let path = folder.path().join("disk");
    fs::write(&path, data).expect("the scratch folder is writable");
    let disk = Disk { format: Some(DiskFormat::Qcow2), read_only: true, ..Disk::of(path) };
    if check_disks(std::slice::from_ref(&disk)).is_err() {
        return;
    }
    let Ok(mut disks) = open_all(&[disk], folder.path()) else { return };
    let disk = disks.remove(0).backend;
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 16)]).expect("there is memory");
    let spans = [Span { address: GuestAddress(4096), len: MOVED }];
    let last = disk.len_bytes().saturating_sub(MOVED.into()) / 512 * 512;
    let places = [0, 65536 - 4096, last / 2 / 512 * 512, last].map(|place| place.min(last));
    if disk.len_bytes() < MOVED.into() {
        return;
    }
    for offset in places {
        let _refused = disk.place(Request::Read { offset, into: &spans }).is_some();
        let _refused = disk.execute(&memory, Request::Read { offset, into: &spans });
    }
    let _refused = disk.execute(&memory, Request::Flush);
}
