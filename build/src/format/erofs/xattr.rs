//! Extended attributes: those that several inodes have stand once in an area of their own, the others behind their inode.

use std::collections::{BTreeMap, HashMap};

use super::inode::Inode;
use super::{BLOCK_BYTES, ErofsFault};

/// A number for the first part of a name, and the part itself. Linux knows no others on a disk.
const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];

/// Longest rest of a name, in bytes.
const NAME_LIMIT_BYTES: usize = 255;

/// Longest value, in bytes.
const VALUE_LIMIT_BYTES: usize = 65_535;

/// Most of one inode that stand in the area of all; more stand behind the inode.
const SHARED_LIMIT: usize = 128;

const HEADER_BYTES: usize = 12;

const UNIT_BYTES: usize = 4;

/// Most bytes behind one inode: their number of units, less the header's, plus one is told in 16 bits.
const INLINE_LIMIT_BYTES: usize = HEADER_BYTES + (u16::MAX as usize - 1) * UNIT_BYTES;

type Attribute<'a> = (&'a [u8], &'a [u8]);

/// The attributes that more than one inode has.
pub(super) struct Xattrs<'a> {
    /// By their offset in units.
    shared: HashMap<Attribute<'a>, u32>,
    area: Vec<u8>,
}

impl<'a> Xattrs<'a> {
    pub(super) fn of(inodes: &[Inode<'a>]) -> Result<Self, ErofsFault> {
        let mut uses: HashMap<Attribute<'_>, u32> = HashMap::new();
        for (number, inode) in inodes.iter().enumerate() {
            for attribute in attributes(inode) {
                check(attribute).map_err(|limit| limit.fault(inodes, number, attribute.0))?;
                *uses.entry(attribute).or_default() += 1;
            }
        }
        let mut xattrs = Self { shared: HashMap::new(), area: Vec::new() };
        for attribute in inodes.iter().flat_map(attributes).filter(|attribute| uses.get(attribute) > Some(&1)) {
            let Ok(offset) = u32::try_from(xattrs.area.len() / UNIT_BYTES) else { break };
            if let std::collections::hash_map::Entry::Vacant(free) = xattrs.shared.entry(attribute) {
                free.insert(offset);
                put(&mut xattrs.area, attribute);
            }
        }
        for (number, inode) in inodes.iter().enumerate() {
            let len_bytes = xattrs.behind(inode).len();
            if len_bytes > INLINE_LIMIT_BYTES {
                return Err(ErofsFault::Xattrs {
                    path: Inode::path(inodes, number),
                    len_bytes,
                    limit_bytes: INLINE_LIMIT_BYTES,
                });
            }
        }
        Ok(xattrs)
    }

    /// The area of those that several inodes have.
    pub(super) fn area(&self) -> &[u8] {
        &self.area
    }

    /// The blocks that it needs.
    pub(super) fn area_blocks(&self) -> u64 {
        (self.area.len() as u64).div_ceil(BLOCK_BYTES)
    }

    /// What stands behind `inode`. Its length is a multiple of four.
    pub(super) fn behind(&self, inode: &Inode<'a>) -> Vec<u8> {
        let mut shared = Vec::new();
        let mut own = Vec::new();
        for attribute in attributes(inode) {
            match self.shared.get(&attribute) {
                Some(offset) if shared.len() < SHARED_LIMIT => shared.push(*offset),
                _ => put(&mut own, attribute),
            }
        }
        if shared.is_empty() && own.is_empty() {
            return own;
        }
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4] = u8::try_from(shared.len()).unwrap_or(u8::MAX);
        shared.iter().for_each(|offset| bytes.extend_from_slice(&offset.to_le_bytes()));
        bytes.extend_from_slice(&own);
        bytes
    }
}

/// What an inode tells of the length of what stands behind it.
pub(super) fn units(len_bytes: usize) -> u16 {
    let units = len_bytes.checked_sub(HEADER_BYTES).map_or(0, |rest| rest / UNIT_BYTES + 1);
    u16::try_from(units).unwrap_or(u16::MAX)
}

/// Those that the format has numbers for; no Linux file system keeps others.
fn attributes<'a>(inode: &Inode<'a>) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
    let all: &'a BTreeMap<Box<[u8]>, Box<[u8]>> = &inode.node.attributes.xattrs;
    all.iter().map(|(name, value)| (&**name, &**value)).filter(|(name, _)| numbered(name).is_some())
}

fn numbered(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.into_iter().find_map(|(number, prefix)| {
        let rest = name.strip_prefix(prefix)?;
        (prefix.ends_with(b".") != rest.is_empty()).then_some((number, rest))
    })
}

/// A limit that an attribute is beyond.
struct Beyond {
    what: &'static str,
    len_bytes: usize,
    limit_bytes: usize,
}

impl Beyond {
    fn fault(self, inodes: &[Inode<'_>], number: usize, name: &[u8]) -> ErofsFault {
        let Self { what, len_bytes, limit_bytes } = self;
        ErofsFault::Xattr { path: Inode::path(inodes, number), name: name.into(), what, len_bytes, limit_bytes }
    }
}

fn check((name, value): Attribute<'_>) -> Result<(), Beyond> {
    let beyond = |what, len_bytes, limit_bytes| match len_bytes > limit_bytes {
        true => Err(Beyond { what, len_bytes, limit_bytes }),
        false => Ok(()),
    };
    beyond("name", numbered(name).map_or(0, |(_, rest)| rest.len()), NAME_LIMIT_BYTES)?;
    beyond("value", value.len(), VALUE_LIMIT_BYTES)
}

/// One that [`check`] let pass.
fn put(to: &mut Vec<u8>, (name, value): Attribute<'_>) {
    let (number, rest) = numbered(name).unwrap_or((0, name));
    to.extend_from_slice(&[u8::try_from(rest.len()).unwrap_or(u8::MAX), number]);
    to.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    to.extend_from_slice(rest);
    to.extend_from_slice(value);
    to.resize(to.len().next_multiple_of(UNIT_BYTES), 0);
}
