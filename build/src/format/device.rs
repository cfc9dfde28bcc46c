//! Numbers of devices as Linux keeps them on disks.

/// Largest major number: it has twelve bits.
pub(super) const MAJOR_LIMIT: u32 = (1 << 12) - 1;

/// Largest minor number: it has twenty bits.
pub(super) const MINOR_LIMIT: u32 = (1 << 20) - 1;

/// Both in 32 bits (`new_encode_dev` in Linux' `include/linux/kdev_t.h`), if they fit.
pub(super) fn packed(major: u32, minor: u32) -> Option<u32> {
    let fits = major <= MAJOR_LIMIT && minor <= MINOR_LIMIT;
    fits.then_some(minor & 0xff | major << 8 | (minor & !0xff) << 12)
}
