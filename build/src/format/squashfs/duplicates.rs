//! Which files hold the same bytes. What comes of one place in one layer is known to be the same; of the rest, those of one
//! length are looked at: first a checksum of their start, then, where that agrees too, a digest of all of it.

use std::collections::HashMap;
use std::hash::Hash;
use std::io;

use sha2::{Digest as _, Sha256};

use super::super::in_order::in_order;
use super::super::{FormatError, Packing, Watch};
use crate::tree::Body;

/// Bytes at the start that the first look takes in.
const START_BYTES: u64 = 128 << 10;

/// Files that a thread looks at before it tells.
const FILES_A_JOB: usize = 32;

const BUFFER_BYTES: usize = 64 << 10;

/// For each body, the first that holds the same bytes; often itself.
pub(super) fn originals(bodies: &[&Body], packing: Packing<'_>, watch: Watch<'_>) -> Result<Vec<usize>, FormatError> {
    let mut originals: Vec<usize> = (0..bodies.len()).collect();
    let places = |index: usize| bodies.get(index).and_then(|body| Some((body.identity()?, body.len())));
    share(&mut originals, places);
    let mut rest: Vec<usize> =
        originals.iter().enumerate().filter(|(own, of)| own == *of).map(|(own, _)| own).collect();

    let body = |index: &usize| bodies.get(*index).copied();
    let len = |index: &usize| body(index).map_or(0, Body::len);
    keep_alike(&mut rest, len);
    let mut starts = HashMap::new();
    look(&rest, bodies, start_checksum, packing, watch, |index, sum| {
        starts.insert(index, sum);
    })?;
    keep_alike(&mut rest, |index| (len(index), starts.get(index).copied()));
    let mut digests = HashMap::new();
    look(&rest, bodies, digest, packing, watch, |index, digest| {
        digests.insert(index, digest);
    })?;
    let mut firsts = HashMap::new();
    let mut same: HashMap<usize, usize> = HashMap::new();
    for index in rest {
        let first = *firsts.entry((len(&index), digests.remove(&index))).or_insert(index);
        same.insert(index, first);
    }
    for original in &mut originals {
        *original = same.get(original).copied().unwrap_or(*original);
    }
    Ok(originals)
}

/// Makes all of one key the first that has it.
fn share<Key: Eq + Hash>(originals: &mut [usize], key: impl Fn(usize) -> Option<Key>) {
    let mut firsts = HashMap::new();
    for (index, original) in originals.iter_mut().enumerate() {
        if let Some(key) = key(index) {
            *original = *firsts.entry(key).or_insert(index);
        }
    }
}

/// Keeps those whose key is not theirs alone.
fn keep_alike<Key: Eq + Hash>(indexes: &mut Vec<usize>, key: impl Fn(&usize) -> Key) {
    let mut counts: HashMap<Key, usize> = HashMap::new();
    for index in indexes.iter() {
        *counts.entry(key(index)).or_default() += 1;
    }
    indexes.retain(|index| counts.get(&key(index)).is_some_and(|count| *count > 1));
}

/// Looks at bodies by all threads, and tells what was seen.
fn look<Seen: Send>(
    indexes: &[usize],
    bodies: &[&Body],
    see: impl Fn(&Body) -> io::Result<Seen> + Sync,
    packing: Packing<'_>,
    watch: Watch<'_>,
    mut tell: impl FnMut(usize, Seen),
) -> Result<(), FormatError> {
    let see = &see;
    let worker = || {
        move |job: &[usize]| -> io::Result<Vec<(usize, Seen)>> {
            let bodies = job.iter().filter_map(|index| Some((*index, bodies.get(*index)?)));
            bodies.map(|(index, body)| Ok((index, see(body)?))).collect()
        }
    };
    in_order(packing.threads, indexes.chunks(FILES_A_JOB), worker, |seen: io::Result<Vec<_>>| {
        watch.cancel.check()?;
        seen?.into_iter().for_each(|(index, seen)| tell(index, seen));
        Ok(())
    })
}

fn start_checksum(body: &Body) -> io::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    read(body, START_BYTES.min(body.len()), |bytes| hasher.update(bytes))?;
    Ok(hasher.finalize())
}

fn digest(body: &Body) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    read(body, body.len(), |bytes| hasher.update(bytes))?;
    Ok(hasher.finalize().into())
}

fn read(body: &Body, len_bytes: u64, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; usize::try_from(len_bytes).unwrap_or(usize::MAX).min(BUFFER_BYTES)];
    let mut offset = 0;
    while offset < len_bytes {
        let most = usize::try_from(len_bytes - offset).unwrap_or(usize::MAX).min(buffer.len());
        let part = &mut buffer[..most];
        body.read_exact_at(part, offset)?;
        take(part);
        offset += part.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::cancel::Cancel;
    use crate::format::Threads;
    use crate::progress::Silent;

    #[test]
    fn the_same_bytes_are_found_and_those_that_only_begin_so_are_not() {
        let long = |last: u8| {
            let mut bytes = vec![b'x'; 300_000];
            bytes[299_999] = last;
            Body::Inline(bytes.into())
        };
        let short = |text: &str| Body::Inline(text.as_bytes().into());
        let bodies =
            [short("a"), long(1), short("b"), long(2), short("a"), long(1), short("ab"), short("b"), short("a")];
        let expected = [0, 1, 2, 3, 0, 1, 6, 2, 0];
        for threads in [1, 3] {
            let cache = Cache::none();
            let packing = Packing { threads: Threads::new(threads), cache: &cache };
            let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: &std::env::temp_dir() };
            assert_eq!(originals(&bodies.each_ref(), packing, watch).unwrap(), expected);
        }
    }
}
