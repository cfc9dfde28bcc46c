//! Which BAR answers where: the bus's map of memory.

use super::{Bar, PciAddress};

/// A BAR that the guest has put somewhere and switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    pub function: PciAddress,
    pub bar: Bar,
    pub address: u64,
}

impl Placed {
    /// First address past the BAR; `None` if it runs past the end of the address space.
    pub fn end(&self) -> Option<u64> {
        self.address.checked_add(self.bar.len)
    }

    /// The offset of an access that lies inside the BAR as a whole.
    pub fn offset(&self, address: u64, len: usize) -> Option<u64> {
        let offset = address.checked_sub(self.address)?;
        let end = offset.checked_add(u64::try_from(len).ok()?)?;
        (end <= self.bar.len).then_some(offset)
    }
}

/// Keeps of `wanted` those that lie inside one of `windows` and clear of those before them. The rest does not decode: a
/// guest that lays BARs over each other, or over RAM, loses them until it moves them apart.
pub(super) fn decoded(
    wanted: impl Iterator<Item = Placed>,
    windows: &[std::ops::Range<u64>],
    taken: Option<std::ops::Range<u64>>,
) -> Vec<Placed> {
    let mut kept: Vec<Placed> = Vec::new();
    for placed in wanted {
        let Some(end) = placed.end() else { continue };
        let inside = windows.iter().any(|window| window.start <= placed.address && end <= window.end);
        let clear = kept.iter().all(|other| other.end().is_some_and(|e| e <= placed.address) || end <= other.address)
            && taken.as_ref().is_none_or(|taken| taken.end <= placed.address || end <= taken.start);
        if inside && clear {
            kept.push(placed);
        }
    }
    kept
}
