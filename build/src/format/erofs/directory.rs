//! A folder's content: blocks that each hold a table of entries, sorted by name, and behind it the names.

use super::BLOCK_BYTES;

const ENTRY_BYTES: usize = 12;

const BLOCK: usize = 4096;

/// Where a name leads.
pub(super) struct Target {
    pub(super) nid: u64,
    /// As in `linux/fs_types.h`.
    pub(super) file_type: u8,
}

/// Cuts sorted names where blocks end: no name is longer than 255 bytes, so a block holds 15 at least.
fn blocks<'n, 'a, T>(names: &'n [(&'a [u8], T)]) -> impl Iterator<Item = &'n [(&'a [u8], T)]> {
    let mut rest = names;
    std::iter::from_fn(move || {
        let mut used = 0;
        let fits = rest.iter().take_while(|(name, _)| {
            used += ENTRY_BYTES + name.len();
            used <= BLOCK
        });
        let (block, behind) = rest.split_at(fits.count());
        rest = behind;
        Some(block).filter(|block| !block.is_empty())
    })
}

fn used_bytes<T>(block: &[(&[u8], T)]) -> usize {
    block.iter().map(|(name, _)| ENTRY_BYTES + name.len()).sum()
}

/// Length of what [`encode`] makes.
pub(super) fn len_bytes<T>(names: &[(&[u8], T)]) -> u64 {
    let mut len_bytes = 0;
    let mut last = 0;
    for block in blocks(names) {
        len_bytes += last;
        last = BLOCK_BYTES;
        if std::ptr::eq(block.as_ptr_range().end, names.as_ptr_range().end) {
            last = used_bytes(block) as u64;
        }
    }
    len_bytes + last
}

/// The blocks, the last of them not longer than it must be. `names` are sorted by byte, `.` and `..` among them.
pub(super) fn encode<T>(names: &[(&[u8], T)], target: impl Fn(&T) -> Target) -> Vec<u8> {
    let mut bytes = Vec::new();
    for block in blocks(names) {
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        let mut name_offset = block.len() * ENTRY_BYTES;
        for (name, to) in block {
            let Target { nid, file_type } = target(to);
            bytes.extend_from_slice(&nid.to_le_bytes());
            bytes.extend_from_slice(&u16::try_from(name_offset).unwrap_or(u16::MAX).to_le_bytes());
            bytes.extend_from_slice(&[file_type, 0]);
            name_offset += name.len();
        }
        block.iter().for_each(|(name, _)| bytes.extend_from_slice(name));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_known_before_the_blocks_are() {
        for count in [2, 3, 15, 16, 40, 204, 205, 5_000] {
            for name_bytes in [8, 100, 255] {
                let names: Vec<_> = (0..count).map(|n| format!("{n:0name_bytes$}").into_bytes()).collect();
                let names: Vec<_> = names.iter().map(|name| (&name[..], 7_u64)).collect();
                let bytes = encode(&names, |&nid| Target { nid, file_type: 2 });
                assert_eq!(bytes.len() as u64, len_bytes(&names), "{count} names of {name_bytes} bytes");
                let in_tables: usize = bytes
                    .chunks(BLOCK)
                    .map(|block| usize::from(u16::from_le_bytes([block[8], block[9]])) / ENTRY_BYTES)
                    .sum();
                assert_eq!(in_tables, count);
            }
        }
    }
}
