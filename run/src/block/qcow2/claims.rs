//! Counts a cluster in the file before a table in the file points to it. The crate writes an entry of the L1 table, of the table
//! of counts, and the place of a new L1 table at once, and what counts them only with the next flush (`imago` 0.2.6): whoever
//! is killed in between would leave an image whose own tables are said to be free.

use std::io::{self, IoSlice};

use super::counts::CountPlace;
use super::header::{CLUSTER_BITS, Qcow2Header};
use super::tables::{ENTRY_BYTES, OFFSET_BITS, Tables, number};
use crate::block::HostFile;

/// Bytes of the header that have the place of the L1 table.
const HEADER_BYTES: usize = 72;

/// Where a file has its tables, as its header says; unknown until that matters.
#[derive(Debug, Default)]
pub(super) struct Claims(Option<Tables>);

impl Claims {
    /// To be called before `pieces` go to `offset` of an image's file. Nobody else may write to its header and counts meanwhile,
    /// nor to the file in another way than by this.
    pub(super) fn before(&mut self, file: &HostFile, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let known = self.0;
        self.forget_at(offset);
        let len = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        if len as u64 != ENTRY_BYTES && (offset != 0 || len < HEADER_BYTES) {
            return Ok(());
        }
        let read = || Qcow2Header::read_with_tables(file).ok().map(|(_, tables)| tables);
        // An image that is being made has no header yet.
        let Some(tables) = known.or_else(read) else { return Ok(()) };
        let written: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).take(HEADER_BYTES).collect();
        if offset != 0 {
            let is_entry = [tables.first, tables.counts].iter().any(|table| table.holds(offset));
            let to = number(&written) & OFFSET_BITS;
            self.0 = Some(tables).filter(|_| is_behind_header(offset));
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

    /// To be called when what begins at this offset of the file has changed: of another header nothing is known yet.
    pub(super) fn forget_at(&mut self, offset: u64) {
        self.0 = self.0.filter(|_| is_behind_header(offset));
    }
}

/// No header is longer than the smallest cluster.
fn is_behind_header(offset: u64) -> bool {
    offset >= 1 << CLUSTER_BITS.start()
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
    let place = CountPlace::of(cluster % per_block, tables.count_order);
    let mut bytes = [0; 8];
    let count = bytes.get_mut(..place.len).unwrap_or_default();
    let at = block + place.start;
    file.read_bytes(count, at)?;
    if place.read(count) != 0 {
        return Ok(());
    }
    place.make_one(count);
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
            let mut claims = Claims::default();
            let mut point = |cluster: u64, offset| {
                let entry = cluster << 16 | 1 << 63;
                claims.before(&image, &[IoSlice::new(&entry.to_be_bytes())], offset).unwrap();
            };
            let counts = || {
                let mut bytes = vec![0; 1024];
                file.read_exact_at(&mut bytes, block).unwrap();
                (0..16).map(|at| super::super::counts::count(&bytes, at, order)).collect::<Vec<_>>()
            };
            // No entry of a table that counts.
            point(11, block);
            assert_eq!(counts(), [0; 16]);
            point(11, tables.first.offset);
            let mut expected = [0; 16];
            expected[11] = 1;
            assert_eq!(counts(), expected, "order {order}");
            point(11, tables.counts.offset + 8);
            assert_eq!(counts(), expected, "order {order}");
            let mut header = [0; 104];
            file.read_exact_at(&mut header, 0).unwrap();
            header[40..48].copy_from_slice(&(9_u64 << 16).to_be_bytes());
            claims.before(&image, &[IoSlice::new(&header[..50]), IoSlice::new(&header[50..])], 0).unwrap();
            expected[9] = 1;
            assert_eq!(counts(), expected, "order {order}");
        }
    }

    #[test]
    fn a_table_that_moved_is_known_by_its_new_place() {
        let file = tempfile::tempfile().unwrap();
        let image = HostFile::cached(file.try_clone().unwrap());
        drop(super::super::new_layer(image.clone(), None, 1 << 20).unwrap());
        file.set_len(16 << 16).unwrap();
        let old = Qcow2Header::read_with_tables(&image).unwrap().1.first.offset;
        let new = 9_u64 << 16;
        let mut claims = Claims::default();
        let mut write = |bytes: &[u8], offset| {
            claims.before(&image, &[IoSlice::new(bytes)], offset).unwrap();
            file.write_all_at(bytes, offset).unwrap();
        };
        let point = |cluster: u64| (cluster << 16 | 1 << 63).to_be_bytes();
        write(&point(11), old);
        let mut header = [0; 72];
        file.read_exact_at(&mut header, 0).unwrap();
        header[40..48].copy_from_slice(&new.to_be_bytes());
        write(&header, 0);
        write(&point(12), new);
        write(&point(13), old);
        let (_, tables) = Qcow2Header::read_with_tables(&image).unwrap();
        let mut block = [0; 8];
        image.read_bytes(&mut block, tables.counts.offset).unwrap();
        let mut counts = vec![0; 1024];
        image.read_bytes(&mut counts, number(&block)).unwrap();
        let counted = |at| super::super::counts::count(&counts, at, tables.count_order);
        assert_eq!([9, 11, 12, 13].map(counted), [1, 1, 1, 0]);
    }
}
