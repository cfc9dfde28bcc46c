//! Segment descriptors that Linux's entry points want loaded (Intel SDM 3A, 3.4.5): all flat, base 0.

/// Selector of the code segment (`__BOOT_CS`).
pub(crate) const CODE_SELECTOR: u16 = 0x10;
/// Selector of the data segment (`__BOOT_DS`).
pub(crate) const DATA_SELECTOR: u16 = 0x18;
/// Selector of the task segment.
pub(crate) const TASK_SELECTOR: u16 = 0x20;

pub(crate) const CODE32: u64 = 0x00CF_9B00_0000_FFFF;
pub(crate) const CODE64: u64 = 0x00AF_9B00_0000_FFFF;
pub(crate) const DATA: u64 = 0x00CF_9300_0000_FFFF;
pub(crate) const TASK: u64 = 0x0000_8B00_0000_0067;

/// Size of a [`table`].
pub(crate) const GDT_BYTES: u16 = 5 * 8;

/// The descriptor table, to be put at [`crate::layout::GDT_START`], with `code` at its place.
pub(crate) fn table(code: u64) -> [u64; 5] {
    [0, 0, code, DATA, TASK]
}
