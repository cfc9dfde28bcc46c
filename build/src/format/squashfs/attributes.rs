//! Extended attributes: sets of names and values, each set once, however many inodes have it.

use std::collections::{BTreeMap, HashMap};

use super::super::FormatError;
use super::error::SquashfsError;
use super::inode::Bytes;
use super::metadata::Metadata;
use super::pack::Packer;
use crate::tree::TreePath;

/// The kinds that have a number, by the start of their names.
const KINDS: [(&[u8], u16); 3] = [(b"user.", 0), (b"trusted.", 1), (b"security.", 2)];

/// Longest name, the kind included: Linux' `XATTR_NAME_MAX`.
const NAME_LIMIT_BYTES: usize = 255;

/// Longest value: Linux' `XATTR_SIZE_MAX`.
const VALUE_LIMIT_BYTES: usize = 65_536;

type Set = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// The table on its way.
#[derive(Default)]
pub(super) struct Attributes<'a> {
    known: HashMap<&'a Set, u32>,
    pairs: Metadata,
    /// Of each set: where it is, how many pairs it has, and their length.
    sets: Bytes,
}

impl<'a> Attributes<'a> {
    /// The place of a set in the table; `None` if there is nothing in it.
    pub(super) fn place(
        &mut self,
        set: &'a Set,
        path: &dyn Fn() -> TreePath,
        packer: &mut Packer,
    ) -> Result<Option<u32>, FormatError> {
        if set.is_empty() {
            return Ok(None);
        }
        if let Some(place) = self.known.get(set) {
            return Ok(Some(*place));
        }
        let mut pairs = Bytes::default();
        for (name, value) in set {
            let (kind, rest) = split(name, value, path)?;
            let limit_bytes = NAME_LIMIT_BYTES;
            let too_long = |_| SquashfsError::AttributeTooLong {
                path: path(),
                name: name.clone(),
                part: "name",
                len_bytes: name.len(),
                limit_bytes,
            };
            pairs.u16(kind).u16(u16::try_from(rest.len()).map_err(too_long)?);
            pairs.0.extend_from_slice(rest);
            pairs.u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
            pairs.0.extend_from_slice(value);
        }
        let place = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
        let count = u32::try_from(set.len()).unwrap_or(u32::MAX);
        let len = u32::try_from(pairs.0.len()).unwrap_or(u32::MAX);
        self.sets.u64(self.pairs.position().reference()).u32(count).u32(len);
        self.pairs.put(&pairs.0, packer)?;
        self.known.insert(set, place);
        Ok(Some(place))
    }

    /// The table as it stands at `offset` in the image, and where its head is; `None` if there is nothing in it.
    pub(super) fn finish(self, offset: u64, packer: &mut Packer) -> Result<Option<(Vec<u8>, u64)>, FormatError> {
        let count = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
        if count == 0 {
            return Ok(None);
        }
        let (mut table, _) = self.pairs.finish(packer)?;
        let mut sets = Metadata::default();
        sets.put(&self.sets.0, packer)?;
        let (sets, starts) = sets.finish(packer)?;
        let sets_at = offset + table.len() as u64;
        table.extend(sets);
        let head_at = offset + table.len() as u64;
        let mut head = Bytes(table);
        head.u64(offset).u32(count).u32(0);
        for start in starts {
            head.u64(sets_at + start);
        }
        Ok(Some((head.0, head_at)))
    }
}

/// The number of its kind, and the rest of the name.
fn split<'a>(name: &'a [u8], value: &[u8], path: &dyn Fn() -> TreePath) -> Result<(u16, &'a [u8]), SquashfsError> {
    let long = |part, len_bytes, limit_bytes| SquashfsError::AttributeTooLong {
        path: path(),
        name: name.into(),
        part,
        len_bytes,
        limit_bytes,
    };
    if name.len() > NAME_LIMIT_BYTES {
        return Err(long("name", name.len(), NAME_LIMIT_BYTES));
    }
    if value.len() > VALUE_LIMIT_BYTES {
        return Err(long("value", value.len(), VALUE_LIMIT_BYTES));
    }
    let known = KINDS.iter().find_map(|(start, kind)| Some((*kind, name.strip_prefix(*start)?)));
    known.ok_or_else(|| SquashfsError::AttributeKind { path: path(), name: name.into() })
}
