//! Whether the tables of an image that is to be written to agree with one another: each cluster that is referred to is in the
//! file and counted for all who refer to it, and what is written in place has one user. The crate relies on that: of an image
//! that says a table's cluster is free it would make data. Clusters that are counted and not used are no fault.
//!
//! Takes two bytes of memory a cluster that is used, and reads each table once, holes not at all.

mod entries;
mod fault;
mod snapshots;
mod users;

use std::ops::Range;

pub use self::fault::Fault;
use self::{
    entries::for_each,
    fault::{Kind, User, What},
    snapshots::Snapshot,
    users::{Refused, Sharing, Users},
};
use super::{
    counts::count,
    header::Qcow2Error,
    tables::{ENTRY_BYTES, OFFSET_BITS, Table, Tables},
};
use crate::block::HostFile;

/// Most clusters of a file: 8 TiB of the usual 64 KiB, 256 TiB of the largest ones. Their users take 256 MiB.
const MAX_CLUSTERS: u64 = 1 << 27;

/// In an entry of either table: what it points to has one user.
const COPIED: u64 = 1 << 63;
/// In an entry of an L2 table.
const COMPRESSED: u64 = 1 << 62;
/// Bits without a meaning, of an entry of the L1 table, of an L2 table, and of the table of counts.
const FIRST_RESERVED: u64 = 0x7f00_0000_0000_01ff;
const SECOND_RESERVED: u64 = 0x3f00_0000_0000_01fe;
const COUNTS_RESERVED: u64 = 0x1ff;

/// Checks the tables of an open image, which nobody writes to meanwhile.
pub(super) fn check(file: &HostFile, tables: Tables) -> Result<(), Qcow2Error> {
    let clusters = file.len_bytes()?.div_ceil(1 << tables.cluster_bits);
    let clusters = usize::try_from(clusters).unwrap_or(usize::MAX);
    if clusters as u64 > MAX_CLUSTERS {
        return Err(Qcow2Error::TooManyClusters(MAX_CLUSTERS));
    }
    let mut check = Check { file, tables, clusters, users: Users::of_none(clusters), sought: None };
    check.refer()?;
    let Some((cluster, counted)) = check.first_miscounted()? else { return Ok(()) };
    // Once more, for whose it is.
    let what = What::Counted { users: check.users.count(cluster), counted };
    check.users.forget_visits();
    check.sought = Some((cluster, what));
    check.refer()?;
    Err(Fault { user: User::of(Kind::Data), at: check.offset(cluster as u64), what }.into())
}

struct Check<'a> {
    file: &'a HostFile,
    tables: Tables,
    /// Those that begin in the file.
    clusters: usize,
    users: Users,
    /// The cluster whose first user is looked for, and what is wrong with it.
    sought: Option<(usize, What)>,
}

impl Check<'_> {
    fn cluster_bytes(&self) -> u64 {
        1 << self.tables.cluster_bits
    }

    fn offset(&self, cluster: u64) -> u64 {
        cluster << self.tables.cluster_bits
    }

    /// Goes to everything that the image refers to.
    fn refer(&mut self) -> Result<(), Qcow2Error> {
        let (file, tables) = (self.file, self.tables);
        self.add(User::of(Kind::Header), 0..1, 1, Sharing::Sole)?;
        self.add_table(User::of(Kind::CountTable), tables.counts)?;
        for_each(file, tables.counts, |index, entry| {
            let user = User { guest: None, snapshot: None, kind: Kind::Counts { index } };
            self.add_cluster(user, entry, COUNTS_RESERVED, 1, Sharing::Sole).map(drop)
        })?;
        self.add_table(User::of(Kind::FirstTable), tables.first)?;
        let snapshots = self.snapshots()?;
        for Snapshot { number, first } in &snapshots {
            self.add_table(User { snapshot: Some(*number), ..User::of(Kind::FirstTable) }, *first)?;
        }
        let all = || {
            let of_snapshots = snapshots.iter().map(|snapshot| (Some(snapshot.number), snapshot.first));
            std::iter::once((None, tables.first)).chain(of_snapshots)
        };
        for (snapshot, first) in all() {
            for_each(file, first, |index, entry| {
                let user = User { snapshot, guest: Some(self.guest_of(index)), kind: Kind::SecondTable };
                self.add_cluster(user, entry & !COPIED, FIRST_RESERVED, 1, sharing(snapshot, entry)).map(drop)
            })?;
        }
        // Only now is it known how many L1 tables share an L2 table, and so its data.
        for (snapshot, first) in all() {
            for_each(file, first, |index, entry| self.refer_by_second_table(snapshot, index, entry & OFFSET_BITS))?;
        }
        Ok(())
    }

    /// The guest's offset that an entry of the L1 table is for.
    fn guest_of(&self, index: u64) -> u64 {
        index.saturating_mul(self.cluster_bytes() / ENTRY_BYTES).saturating_mul(self.cluster_bytes())
    }

    /// Goes to what an L2 table refers to, once for all who share the table.
    fn refer_by_second_table(&mut self, snapshot: Option<u32>, index: u64, offset: u64) -> Result<(), Qcow2Error> {
        let cluster = usize::try_from(offset >> self.tables.cluster_bits).unwrap_or(usize::MAX);
        if offset == 0 || !self.users.visit(cluster) {
            return Ok(());
        }
        let times = self.users.count(cluster);
        let start = self.guest_of(index);
        let table = Table { offset, entries: self.cluster_bytes() / ENTRY_BYTES };
        for_each(self.file, table, |index, entry| {
            let guest = Some(start.saturating_add(index << self.tables.cluster_bits));
            let user = User { snapshot, guest, kind: Kind::Data };
            if entry & COMPRESSED != 0 {
                return self.add_compressed(user, entry, times);
            }
            self.add_cluster(user, entry & !COPIED, SECOND_RESERVED, times, sharing(snapshot, entry))
        })
    }

    /// A compressed cluster is anywhere in the file, and shares its clusters with others.
    fn add_compressed(&mut self, user: User, entry: u64, times: u16) -> Result<(), Qcow2Error> {
        let offset_bits = 62 - (self.tables.cluster_bits - 8);
        let offset = entry & ((1 << offset_bits) - 1);
        if entry & COPIED != 0 {
            return Err(Fault { user, at: offset, what: What::Reserved }.into());
        }
        let sectors = ((entry & !COMPRESSED) >> offset_bits) + 1;
        let last = (offset & !511) + sectors * 512 - 1;
        let clusters = offset >> self.tables.cluster_bits..(last >> self.tables.cluster_bits) + 1;
        self.add(user, clusters, times, Sharing::Allowed)
    }

    /// A whole cluster that an entry points to, if it does.
    fn add_cluster(
        &mut self,
        user: User,
        entry: u64,
        reserved: u64,
        times: u16,
        sharing: Sharing,
    ) -> Result<(), Qcow2Error> {
        let at = entry & !reserved & !1;
        if entry & reserved != 0 {
            return Err(Fault { user, at, what: What::Reserved }.into());
        }
        if at == 0 {
            return Ok(());
        }
        if !at.is_multiple_of(self.cluster_bytes()) {
            return Err(Fault { user, at, what: What::Misaligned }.into());
        }
        let cluster = at >> self.tables.cluster_bits;
        self.add(user, cluster..cluster + 1, times, sharing)
    }

    /// A table of one user.
    fn add_table(&mut self, user: User, table: Table) -> Result<(), Qcow2Error> {
        if !table.offset.is_multiple_of(self.cluster_bytes()) {
            return Err(Fault { user, at: table.offset, what: What::Misaligned }.into());
        }
        let first = table.offset >> self.tables.cluster_bits;
        let count = (table.entries * ENTRY_BYTES).div_ceil(self.cluster_bytes());
        self.add(user, first..first.saturating_add(count), 1, Sharing::Sole)
    }

    fn add(&mut self, user: User, clusters: Range<u64>, times: u16, sharing: Sharing) -> Result<(), Qcow2Error> {
        for number in clusters {
            let at = self.offset(number);
            let fault = |what| Qcow2Error::from(Fault { user, at, what });
            let Some(cluster) = usize::try_from(number).ok().filter(|cluster| *cluster < self.clusters) else {
                return Err(fault(What::Outside));
            };
            match self.sought {
                Some((sought, what)) if sought == cluster => return Err(fault(what)),
                Some(_) => {}
                None => self.users.add(cluster, times, sharing).map_err(|refused| {
                    fault(match refused {
                        Refused::Taken => What::Taken,
                        Refused::TooMany => What::TooMany,
                    })
                })?,
            }
        }
        Ok(())
    }

    /// The first cluster with more users than are counted, and how many are.
    fn first_miscounted(&self) -> Result<Option<(usize, u64)>, Qcow2Error> {
        let per_block = usize::try_from(self.tables.counts_per_block()).unwrap_or(usize::MAX);
        let mut block = vec![0; 1 << self.tables.cluster_bits];
        let mut next = 0;
        let mut found = None;
        for_each(self.file, self.tables.counts, |index, entry| {
            let start = usize::try_from(index).unwrap_or(usize::MAX).saturating_mul(per_block).min(self.clusters);
            let end = start.saturating_add(per_block).min(self.clusters);
            // What no block is for is counted as free.
            found = found.or_else(|| self.first_above(next..start, |_| 0));
            next = end;
            if found.is_some() || start == end {
                return Ok(());
            }
            let is_hole = self.file.next_data(entry)?.is_none_or(|data| data >= entry + self.cluster_bytes());
            if is_hole {
                block.fill(0);
            } else {
                self.file.read_bytes(&mut block, entry)?;
            }
            found = self.first_above(start..end, |at| count(&block, at, self.tables.count_order));
            Ok::<_, Qcow2Error>(())
        })?;
        Ok(found.or_else(|| self.first_above(next..self.clusters, |_| 0)))
    }

    fn first_above(&self, clusters: Range<usize>, counted: impl Fn(usize) -> u64) -> Option<(usize, u64)> {
        let start = clusters.start;
        let cluster = self.users.first_above(clusters, &counted)?;
        Some((cluster, counted(cluster - start)))
    }
}

/// What an entry of a table in use says of who else uses what it points to. A snapshot's entries say nothing.
fn sharing(snapshot: Option<u32>, entry: u64) -> Sharing {
    if snapshot.is_none() && entry & COPIED != 0 { Sharing::Sole } else { Sharing::Allowed }
}

#[cfg(test)]
mod tests;
