//! Counts a cluster in the file before a table in the file points to it. The crate writes an entry of the L1 table, of the table
//! of counts, and the place of a new L1 table at once, and what counts them only with the next flush (`imago` 0.2.6): whoever
//! is killed in between would leave an image whose own tables are said to be free.

use std::io::{self, IoSlice};

use super::check::{ENTRY_BYTES, OFFSET_BITS, Tables};
use super::header::{Qcow2Header, number};
use crate::block::HostFile;

/// Bytes of the header that have the place of the L1 table.
const HEADER_BYTES: usize = 72;

/// To be called before `pieces` go to `offset` of an image's file; nobody else may write to its counts meanwhile.
pub(super) fn before(file: &HostFile, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
    let len = pieces.iter().map(|piece| piece.len()).sum::<usize>();
    if len as u64 != ENTRY_BYTES && (offset != 0 || len < HEADER_BYTES) {
        return Ok(());
    }
    // An image that is being made has no header yet.
    let Ok((_, tables)) = Qcow2Header::read_with_tables(file) else { return Ok(()) };
    let written: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).take(HEADER_BYTES).collect();
    if offset != 0 {
        let is_entry = [tables.first, tables.counts].iter().any(|table| table.holds(offset));
        let to = number(&written) & OFFSET_BITS;
        return if is_entry && to != 0 { claim(file, tables, to) } else { Ok(()) };
    }
    let field = |at: usize, len: usize| written.get(at..at + len).map_or(0, number);
    let (entries, first) = (field(36, 4), field(40, 8));
    if first == tables.first.offset {
        return Ok(());
    }
    let end = first.saturating_add(entries * ENTRY_BYTES);
    (first..end).step_by(1 << tables.cluster_bits).try_for_each(|to| claim(file, tables, to))
}

/// Counts the cluster at `to` as used by one, if it is counted as free.
fn claim(file: &HostFile, tables: Tables, to: u64) -> io::Result<()> {
    let (cluster, per_block) = (to >> tables.cluster_bits, tables.counts_per_block());
    let entry = tables.counts.offset + cluster / per_block * ENTRY_BYTES;
    if !tables.counts.holds(entry) {
        return Ok(());
    }
    let mut block = [0; 8];
    file.read_bytes(&mut block, entry)?;
    // A block that is not there yet counts itself.
    let block = match number(&block) {
        0 => return Ok(()),
        block => block,
    };
    let (index, order) = (cluster % per_block, tables.count_order);
    let mut bytes = [0; 8];
    let width = 1 << order.saturating_sub(3);
    let count = bytes.get_mut(..width).unwrap_or_default();
    let at = block + ((index << order) >> 3);
    file.read_bytes(count, at)?;
    // Counts of less than a byte begin at its low end.
    let shift = (index << order) & 7;
    let is_free = if order < 3 {
        count.iter().all(|byte| (byte >> shift) & ((1 << (1 << order)) - 1) == 0)
    } else {
        count.iter().all(|byte| *byte == 0)
    };
    let Some(last) = count.last_mut().filter(|_| is_free) else { return Ok(()) };
    *last |= 1 << shift;
    file.write_bytes(count, at)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn what_an_entry_points_to_is_counted_first_and_its_neighbours_stay() {
        for order in 0..=6_u32 {
            let file = tempfile::tempfile().unwrap();
            let image = HostFile::cached(file.try_clone().unwrap());
            drop(super::super::new_layer(image.clone(), None, 1 << 20).unwrap());
            file.write_all_at(&order.to_be_bytes(), 96).unwrap();
            let (_, tables) = Qcow2Header::read_with_tables(&image).unwrap();
            let mut block = [0; 8];
            file.read_exact_at(&mut block, tables.counts.offset).unwrap();
            let block = number(&block);
            file.write_all_at(&[0; 65536], block).unwrap();
            let to: u64 = 11 << 16;
            let entry = to | 1 << 63;
            let write = |offset| before(&image, &[IoSlice::new(&entry.to_be_bytes())], offset).unwrap();
            let counts = || {
                let mut bytes = vec![0; 1024];
                file.read_exact_at(&mut bytes, block).unwrap();
                (0..16).map(|at| super::super::check::count(&bytes, at, order)).collect::<Vec<_>>()
            };
            // No entry of a table that counts.
            write(block);
            assert_eq!(counts(), [0; 16]);
            write(tables.first.offset);
            let mut expected = [0; 16];
            expected[11] = 1;
            assert_eq!(counts(), expected, "order {order}");
            write(tables.counts.offset + 8);
            assert_eq!(counts(), expected, "order {order}");
            let mut header = [0; 104];
            file.read_exact_at(&mut header, 0).unwrap();
            header[40..48].copy_from_slice(&(9_u64 << 16).to_be_bytes());
            before(&image, &[IoSlice::new(&header[..50]), IoSlice::new(&header[50..])], 0).unwrap();
            expected[9] = 1;
            assert_eq!(counts(), expected, "order {order}");
        }
    }
}
