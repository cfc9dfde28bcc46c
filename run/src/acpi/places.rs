//! What tables tell of that is not the same in all machines: addresses, which firmware chooses itself where there is some.

use std::ops::Range;

use crate::layout::{ECAM_START, PCI_WINDOW32_END, PCI_WINDOW32_START, PCI_WINDOW64_LEN};
use crate::mem::Split;

/// Where the PCI bus is, and what only some machines have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Start of configuration space.
    pub ecam: u64,
    /// Where BARs are below 4 GiB.
    pub window32: Range<u64>,
    /// Where BARs may be above.
    pub window64: Range<u64>,
    /// There is a configuration for firmware, which systems read too.
    pub has_fw_cfg: bool,
}

impl Places {
    /// Of a machine without firmware.
    #[must_use]
    pub fn fixed(split: Split) -> Self {
        let start64 = split.pci_window64_start();
        Self {
            ecam: ECAM_START,
            window32: PCI_WINDOW32_START..PCI_WINDOW32_END,
            window64: start64..start64 + PCI_WINDOW64_LEN,
            has_fw_cfg: false,
        }
    }

    /// Of a machine whose firmware put configuration space at `ecam`, somewhere in `window32` or not at all. BARs are on the
    /// side of it where there is more room: so does every EDK II.
    #[must_use]
    pub fn chosen(split: Split, window32: Range<u64>, ecam: Option<Range<u64>>) -> Self {
        let ecam = ecam.unwrap_or(window32.end..window32.end);
        let (below, above) = (window32.start..ecam.start, ecam.end..window32.end);
        let len = |range: &Range<u64>| range.end.saturating_sub(range.start);
        let window32 = if len(&above) > len(&below) { above } else { below };
        Self { ecam: ecam.start, window32, has_fw_cfg: true, ..Self::fixed(split) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::GIB;

    #[test]
    fn bars_are_where_firmware_leaves_most_room() {
        let split = Split::with_firmware(5 * GIB);
        let window = |ecam| Places::chosen(split, 0x8000_0000..0xFC00_0000, ecam).window32;
        assert_eq!(window(Some(0xB000_0000..0xC000_0000)), 0xC000_0000..0xFC00_0000);
        assert_eq!(window(Some(0xE000_0000..0xF000_0000)), 0x8000_0000..0xE000_0000);
        assert_eq!(window(None), 0x8000_0000..0xFC00_0000);
    }
}
