//! Snapshots that are kept in an image, as far as their tables take room (QEMU's `docs/interop/qcow2.txt`, "Snapshots").

use super::{Check, Fault, Kind, Sharing, User, What};
use crate::block::qcow2::header::{MAX_FIRST_TABLE_BYTES, Qcow2Error};
use crate::block::qcow2::tables::{ENTRY_BYTES, Table, number};

/// QEMU's own limits.
const MAX_SNAPSHOTS: u32 = 65_536;
const MAX_TABLE_BYTES: u64 = 64 << 20;

/// Bytes of an entry in front of what it has of its own length.
const FIXED_BYTES: usize = 40;

/// A snapshot that has data.
pub(super) struct Snapshot {
    /// Counted from 1.
    pub number: u32,
    pub first: Table,
}

impl Check<'_> {
    /// Reads the table of snapshots, and counts it in.
    pub fn snapshots(&mut self) -> Result<Vec<Snapshot>, Qcow2Error> {
        let (count, start) = (self.tables.snapshots, self.tables.snapshots_offset);
        if count == 0 {
            return Ok(vec![]);
        }
        if count > MAX_SNAPSHOTS {
            return Err(Qcow2Error::Damaged("more snapshots than there can be"));
        }
        let user = User::of(Kind::Snapshots);
        if start == 0 || !start.is_multiple_of(self.cluster_bytes()) {
            return Err(Fault { user, at: start, what: What::Misaligned }.into());
        }
        let mut snapshots = vec![];
        let mut at = start;
        for number_of in 1..=count {
            let mut fixed = [0; FIXED_BYTES];
            self.file.read_bytes(&mut fixed, at)?;
            let field = |at: usize, len: usize| fixed.get(at..at + len).map_or(0, number);
            let first = Table { offset: field(0, 8), entries: field(8, 4) };
            // Identity, name and extra data.
            let own_bytes = field(12, 2) + field(14, 2) + field(36, 4);
            at = at.saturating_add(FIXED_BYTES as u64 + own_bytes).next_multiple_of(8);
            if at - start > MAX_TABLE_BYTES || first.entries * ENTRY_BYTES > MAX_FIRST_TABLE_BYTES {
                return Err(Qcow2Error::Damaged("a table of snapshots that is too long"));
            }
            if first.entries > 0 {
                snapshots.push(Snapshot { number: number_of, first });
            }
        }
        let bits = self.tables.cluster_bits;
        self.add(user, start >> bits..at.div_ceil(1 << bits), 1, Sharing::Sole)?;
        Ok(snapshots)
    }
}
