//! QEMU's doorbells.
#![expect(unsafe_code, reason = "the crate of event descriptors takes them by number only")]

use std::fs::File;
use std::os::fd::{FromRawFd, IntoRawFd};

use vmm_sys_util::eventfd::EventFd;

/// The event behind a descriptor that QEMU sent. Of a descriptor that is none, reads fail.
pub(super) fn event(file: File) -> EventFd {
    // SAFETY: the number is that of an open descriptor, which nobody else owns: `file` has just given it up.
    unsafe { EventFd::from_raw_fd(file.into_raw_fd()) }
}
