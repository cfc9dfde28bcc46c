//! QEMU's disk image, version 3 (QEMU's `docs/interop/qcow2.txt`): clusters that hold nothing are not there.

use std::ops::Range;

use super::units;
use crate::format::Extents;

const CLUSTER_BITS: u32 = 16;
const CLUSTER_BYTES: u64 = 1 << CLUSTER_BITS;

/// Version 3's header without the fields that came later.
const HEADER_BYTES: u32 = 104;

/// Entries of 16 bits in a cluster.
const REFCOUNTS: u64 = CLUSTER_BYTES / 2;

/// Entries of 64 bits in a cluster.
const POINTERS: u64 = CLUSTER_BYTES / 8;

/// On a pointer: nobody else points there.
const COPIED: u64 = 1 << 63;

/// `disk` as an image: header, count table, counts, first table, second tables, contents.
pub(super) fn image(disk: &Extents) -> Extents {
    let runs: Vec<Range<u64>> = units(disk, CLUSTER_BYTES);
    let place = Places::of(disk.len_bytes(), &runs);
    let mut image = Extents::default();
    image.put_bytes(0, header(disk.len_bytes(), &place));
    let count_blocks = (0..place.count_blocks).map(|block| (place.counts + block) * CLUSTER_BYTES);
    image.put_bytes(place.count_table * CLUSTER_BYTES, pointers(count_blocks));
    image.put_bytes(place.counts * CLUSTER_BYTES, 1_u16.to_be_bytes().repeat(to_len(place.clusters)));
    let mut firsts = vec![0; to_len(disk.len_bytes().div_ceil(CLUSTER_BYTES * POINTERS))];
    let mut seconds = vec![0; to_len(place.second_tables.len() as u64 * POINTERS)];
    for (number, table) in (0_u64..).zip(&place.second_tables) {
        firsts[to_len(*table)] = ((place.seconds + number) * CLUSTER_BYTES) | COPIED;
    }
    let (mut next, mut number) = (place.contents, 0);
    for run in runs {
        for cluster in run.clone() {
            while place.second_tables[number] != cluster / POINTERS {
                number += 1;
            }
            let entry = number as u64 * POINTERS + cluster % POINTERS;
            seconds[to_len(entry)] = ((next + cluster - run.start) * CLUSTER_BYTES) | COPIED;
        }
        image.put_range(next * CLUSTER_BYTES, disk, run.start * CLUSTER_BYTES..run.end * CLUSTER_BYTES);
        next += run.end - run.start;
    }
    image.put_bytes(place.firsts * CLUSTER_BYTES, pointers(firsts));
    image.put_bytes(place.seconds * CLUSTER_BYTES, pointers(seconds));
    image.extend_to(place.clusters * CLUSTER_BYTES);
    image
}

/// The first cluster of everything.
struct Places {
    count_table: u64,
    counts: u64,
    count_blocks: u64,
    firsts: u64,
    seconds: u64,
    /// Which second tables there are: their places in the first table.
    second_tables: Vec<u64>,
    contents: u64,
    /// All of the image.
    clusters: u64,
}

impl Places {
    fn of(disk_bytes: u64, runs: &[Range<u64>]) -> Self {
        let mut second_tables: Vec<u64> =
            runs.iter().flat_map(|run| run.start / POINTERS..=(run.end - 1) / POINTERS).collect();
        second_tables.dedup();
        let first_clusters = disk_bytes.div_ceil(CLUSTER_BYTES * POINTERS).div_ceil(POINTERS).max(1);
        let contents: u64 = runs.iter().map(|run| run.end - run.start).sum();
        let but_counts = 1 + first_clusters + second_tables.len() as u64 + contents;
        let (mut count_blocks, mut count_table) = (1, 1);
        while but_counts + count_blocks + count_table > count_blocks * REFCOUNTS {
            count_blocks += 1;
            count_table = count_blocks.div_ceil(POINTERS);
        }
        let firsts = 1 + count_table + count_blocks;
        let seconds = firsts + first_clusters;
        Self {
            count_table: 1,
            counts: 1 + count_table,
            count_blocks,
            firsts,
            seconds,
            contents: seconds + second_tables.len() as u64,
            clusters: but_counts + count_blocks + count_table,
            second_tables,
        }
    }
}

fn header(disk_bytes: u64, place: &Places) -> Vec<u8> {
    let first_entries = disk_bytes.div_ceil(CLUSTER_BYTES * POINTERS);
    let long = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
    let far = |cluster: u64| (cluster * CLUSTER_BYTES).to_be_bytes();
    [
        &b"QFI\xfb"[..],
        &3_u32.to_be_bytes(),
        // No backing file.
        &[0; 12],
        &CLUSTER_BITS.to_be_bytes(),
        &disk_bytes.to_be_bytes(),
        // Not encrypted.
        &[0; 4],
        &long(first_entries),
        &far(place.firsts),
        &far(place.count_table),
        &long(place.counts - place.count_table),
        // No snapshots, and no features that a reader would have to know.
        &[0; 12 + 24],
        // Counts have 2^4 bits.
        &4_u32.to_be_bytes(),
        &HEADER_BYTES.to_be_bytes(),
    ]
    .concat()
}

fn pointers(pointers: impl IntoIterator<Item = u64>) -> Vec<u8> {
    pointers.into_iter().flat_map(u64::to_be_bytes).collect()
}

/// A number of entries of a table, which is in memory.
fn to_len(entries: u64) -> usize {
    usize::try_from(entries).unwrap_or(usize::MAX)
}
