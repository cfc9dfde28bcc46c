//! Tables that are looked things up in by number: packed as metadata, with the places of their blocks behind them.

use std::collections::HashMap;
use std::io;

use super::error::SquashfsError;
use super::metadata::Metadata;
use super::pack::Packer;
use crate::tree::TreePath;

/// A table as it stands at `offset` in the image, and where the places of its blocks start.
pub(super) fn table(entries: &[u8], offset: u64, packer: &mut Packer) -> io::Result<(Vec<u8>, u64)> {
    let mut metadata = Metadata::default();
    metadata.put(entries, packer)?;
    let (mut table, starts) = metadata.finish(packer)?;
    let places_at = offset + table.len() as u64;
    for start in starts {
        table.extend((offset + start).to_le_bytes());
    }
    Ok((table, places_at))
}

/// Owners and groups: inodes tell the place of a number in this table.
#[derive(Default)]
pub(super) struct Owners {
    places: HashMap<u32, u16>,
    pub(super) bytes: Vec<u8>,
}

impl Owners {
    /// Inodes tell a place in 16 bits.
    pub(super) const LIMIT: usize = 65_535;

    /// The place of `id`.
    pub(super) fn place(&mut self, id: u32, path: &dyn Fn() -> TreePath) -> Result<u16, SquashfsError> {
        if let Some(place) = self.places.get(&id) {
            return Ok(*place);
        }
        let place = u16::try_from(self.places.len()).ok().filter(|_| self.places.len() < Self::LIMIT);
        let place = place.ok_or_else(|| SquashfsError::Owners { path: path(), id, limit: Self::LIMIT })?;
        self.places.insert(id, place);
        self.bytes.extend(id.to_le_bytes());
        Ok(place)
    }

    /// How many there are.
    pub(super) fn count(&self) -> u16 {
        u16::try_from(self.places.len()).unwrap_or(u16::MAX)
    }
}
