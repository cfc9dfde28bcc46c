//! Packets of the guest's that come in parts are put together (RFC 791 section 3.2, RFC 8200 section 4.5).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use crate::Millis;
use crate::wire::{Ip, Protocol};

/// Packets that are put together at once; when one more begins, the oldest is given up.
const SETS_LIMIT: usize = 64;
/// What all of them may hold, in bytes.
const BYTES_LIMIT: usize = 1 << 20;
/// Parts of one packet: the longest one over the smallest link of IPv4 that is in use, 576 bytes, has 119.
const PARTS_LIMIT: usize = 128;
/// Longest packet (RFC 791).
const CONTENT_LIMIT_BYTES: usize = 65_535;
/// A packet whose parts do not come in so long is given up (RFC 1122 section 3.3.2 has 60 s and more; here nothing is on
/// the way for long).
const PATIENCE_MS: Millis = 15_000;

/// What the parts of one packet have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    protocol: Protocol,
    id: u32,
}

#[derive(Debug)]
struct Set {
    parts: BTreeMap<usize, Vec<u8>>,
    held_bytes: usize,
    /// Length of the whole, once the last part is there.
    end: Option<usize>,
    began: Millis,
}

/// The packets that are not whole yet.
#[derive(Debug, Default)]
pub struct Fragments {
    sets: HashMap<Key, Set>,
    held_bytes: usize,
    given_up: u64,
}

impl Fragments {
    /// Packets that never became whole.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// Takes a part; gives the packet's content when it is whole. A part that overlaps another, or does not fit, ends the
    /// packet (RFC 5722).
    pub fn add(&mut self, ip: &Ip, content: Vec<u8>, now: Millis) -> Option<Vec<u8>> {
        let part = ip.fragment?;
        let key = Key { source: ip.source, destination: ip.destination, protocol: ip.protocol, id: part.id };
        let start = usize::from(part.offset_bytes);
        let end = start + content.len();
        // All but the last are multiples of eight.
        let is_right =
            !content.is_empty() && end <= CONTENT_LIMIT_BYTES && (!part.has_more || content.len().is_multiple_of(8));
        if !is_right {
            self.forget(key);
            return None;
        }
        while !self.sets.contains_key(&key) && self.sets.len() >= SETS_LIMIT
            || self.held_bytes + content.len() > BYTES_LIMIT
        {
            let oldest = *self.sets.iter().min_by_key(|(_, set)| set.began)?.0;
            self.forget(oldest);
        }
        let set = self.sets.entry(key).or_insert_with(|| Set {
            parts: BTreeMap::new(),
            held_bytes: 0,
            end: None,
            began: now,
        });
        if set.parts.get(&start).is_some_and(|known| *known == content) {
            // The same once more.
            return None;
        }
        let before = set.parts.range(..end).next_back().map(|(at, bytes)| at + bytes.len());
        let is_behind_end = set.end.is_some_and(|known| end > known || !part.has_more && end != known);
        let is_cut = !part.has_more && set.parts.last_key_value().is_some_and(|(at, bytes)| at + bytes.len() > end);
        if before.is_some_and(|before| before > start) || is_behind_end || is_cut || set.parts.len() >= PARTS_LIMIT {
            self.forget(key);
            return None;
        }
        if !part.has_more {
            set.end = Some(end);
        }
        set.held_bytes += content.len();
        self.held_bytes += content.len();
        set.parts.insert(start, content);
        // Nothing overlaps: what is as long as the whole is the whole.
        if set.end != Some(set.held_bytes) {
            return None;
        }
        let parts = self.take(key)?.parts;
        Some(parts.into_values().flatten().collect())
    }

    /// Gives up what waits too long.
    pub fn sweep(&mut self, now: Millis) {
        let is_over = |set: &Set| now.saturating_sub(set.began) > PATIENCE_MS;
        let over: Vec<Key> = self.sets.iter().filter(|(_, set)| is_over(set)).map(|(key, _)| *key).collect();
        over.into_iter().for_each(|key| self.forget(key));
    }

    fn forget(&mut self, key: Key) {
        self.given_up += u64::from(self.take(key).is_some());
    }

    fn take(&mut self, key: Key) -> Option<Set> {
        let set = self.sets.remove(&key)?;
        self.held_bytes -= set.held_bytes;
        Some(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Fragment;

    fn part(id: u32, offset_bytes: u16, has_more: bool) -> Ip {
        let ip = Ip::new([10, 0, 2, 15].into(), [192, 0, 2, 1].into(), Protocol::UDP);
        Ip { fragment: Some(Fragment { id, offset_bytes, has_more }), ..ip }
    }

    /// Gives parts of a packet whose bytes tell their place.
    fn add(fragments: &mut Fragments, id: u32, parts: &[(u16, usize, bool)]) -> Option<Vec<u8>> {
        let mut whole = None;
        for (offset, len, has_more) in parts {
            assert!(whole.is_none());
            let content = (0..*len).map(|at| u8::try_from((usize::from(*offset) + at) % 251).unwrap()).collect();
            whole = fragments.add(&part(id, *offset, *has_more), content, 0);
        }
        whole
    }

    #[test]
    fn parts_that_overlap_or_do_not_fit_end_the_packet() {
        for parts in [
            &[(0, 16, true), (8, 8, false)][..],
            &[(0, 16, true), (0, 8, true), (16, 8, false)],
            &[(8, 8, true), (0, 16, true), (16, 8, false)],
            &[(16, 8, false), (8, 16, true), (0, 8, true)],
            &[(16, 8, false), (24, 8, true), (0, 16, true)],
            &[(16, 8, true), (8, 8, false), (0, 8, true)],
            &[(8, 8, false), (16, 8, false), (0, 8, true)],
            &[(0, 9, true), (8, 8, false)],
            &[(0, 0, true), (8, 8, false)],
            &[(65_528, 8, false), (0, 8, true)],
        ] {
            let mut fragments = Fragments::default();
            assert_eq!(add(&mut fragments, 1, parts), None, "{parts:?}");
        }
    }

    #[test]
    fn parts_in_any_order_make_the_whole() {
        let parts = [(0, 16, true), (16, 8, true), (24, 5, false)];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
            let mut fragments = Fragments::default();
            let whole = add(&mut fragments, 1, &order.map(|at| parts[at])).unwrap();
            assert_eq!(whole, (0..29).collect::<Vec<u8>>());
            assert!(fragments.is_empty() && fragments.held_bytes == 0);
        }
        let mut fragments = Fragments::default();
        let twice = [(0, 16, true), (0, 16, true), (16, 8, false)];
        assert_eq!(add(&mut fragments, 1, &twice).unwrap().len(), 24, "the same part may come again");
    }

    #[test]
    fn there_are_never_too_many_and_old_ones_go() {
        let mut fragments = Fragments::default();
        for id in 0..1_000 {
            fragments.add(&part(id, 0, true), vec![0; 40_000], id.into());
            assert!(fragments.sets.len() <= SETS_LIMIT && fragments.held_bytes <= BYTES_LIMIT);
        }
        let held: usize = fragments.sets.values().map(|set| set.held_bytes).sum();
        assert_eq!(held, fragments.held_bytes);
        let given_up = fragments.given_up();
        fragments.sweep(1_000 + PATIENCE_MS);
        assert!(given_up > 900 && fragments.given_up() == 1_000);
        assert!(fragments.is_empty() && fragments.held_bytes == 0);
        let mut small = Fragments::default();
        let crumbs: Vec<_> = (0..300).map(|at| (at * 8, 8, true)).collect();
        assert_eq!(add(&mut small, 1, &crumbs), None);
        assert!(small.held_bytes <= PARTS_LIMIT * 8);
    }
}
