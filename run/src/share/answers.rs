//! Attributes and entries as answers hold them.

use std::sync::Arc;

use rustix::fs::Statx;

use super::abi::Body;
use super::nodes::Node;
use super::owners::Owner;

/// Length of an entry.
pub(super) const ENTRY_BYTES: usize = 128;

fn attributes(body: &mut Body, stat: &Statx, owner: Owner) {
    body.u64(stat.stx_ino).u64(stat.stx_size).u64(stat.stx_blocks);
    let times = [stat.stx_atime, stat.stx_mtime, stat.stx_ctime];
    for time in times {
        body.u64(time.tv_sec.cast_unsigned());
    }
    for time in times {
        body.u32(time.tv_nsec);
    }
    let device = device(stat.stx_rdev_major, stat.stx_rdev_minor);
    body.u32(owner.mode.into()).u32(stat.stx_nlink).u32(owner.uid).u32(owner.gid).u32(device);
    body.u32(stat.stx_blksize).u32(0);
}

/// A device's number as Linux packs it into 32 bits (`new_encode_dev`).
fn device(major: u32, minor: u32) -> u32 {
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

/// The answer to a question for attributes, which the guest may believe for `valid_s` seconds.
pub(super) fn attributes_body(stat: &Statx, owner: Owner, valid_s: u32) -> Body {
    let mut body = Body::default();
    body.u64(valid_s.into()).u32(0).u32(0);
    attributes(&mut body, stat, owner);
    body
}

/// A node that was found or made; the guest may believe for `valid_s` seconds that it is there, and what it is.
pub(super) fn entry(body: &mut Body, node: &Arc<Node>, stat: &Statx, owner: Owner, valid_s: u32) {
    body.u64(node.id).u64(0).u64(valid_s.into()).u64(valid_s.into()).u32(0).u32(0);
    attributes(body, stat, owner);
}
