//! What a chain asks of a disk, checked against the disk's bounds.

use super::spec::{HEADER_BYTES, ID_BYTES, RANGE_BYTES, RANGE_UNMAP, Status, feature, kind};
use crate::{
    block::{BlockBackend, Request, SECTOR_BYTES},
    mem::{
        GuestMemory,
        transfer::{Span, copy_from_guest, copy_to_guest, part, total_len},
    },
    virtio::Chain,
};

/// Most ranges of one discard or write-zeroes request.
pub(super) const MAX_RANGES: u32 = 32;
/// Most sectors of one such range: 256 MiB, so that a host that has to write the zeros itself stays responsive.
pub(super) const MAX_RANGE_SECTORS: u32 = 512 * 1024;

/// A disk's name, padded with zeros.
pub(super) type Id = [u8; ID_BYTES];

/// What a finished chain tells its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Done {
    /// Bytes written into the chain.
    pub written: u32,
}

/// A chain that is no request: it has no header or no room for a status.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoRequest;

/// A disk while it serves a driver.
pub(super) struct Served<'a> {
    pub backend: &'a mut dyn BlockBackend,
    pub memory: &'a GuestMemory,
    pub id: &'a Id,
    /// Features that were agreed on.
    pub features: u64,
}

impl Served<'_> {
    /// Does what the chain asks for and writes its status.
    pub fn serve(&mut self, chain: &Chain) -> Result<Done, NoRequest> {
        let mut header = [0; HEADER_BYTES];
        if copy_from_guest(self.memory, chain.readable(), &mut header) < HEADER_BYTES {
            return Err(NoRequest);
        }
        let room = total_len(chain.writable()).checked_sub(1).ok_or(NoRequest)?;
        let status_at = part(chain.writable(), room, 1);
        let from = part(chain.readable(), HEADER_BYTES as u64, u64::MAX);
        let into = part(chain.writable(), 0, room);
        let (status, filled) = self.execute(&header, &from, &into);
        copy_to_guest(self.memory, &status_at, &[status as u8]);
        // The chain is shorter than 4 GiB, so what it holds fits.
        Ok(Done { written: u32::try_from(filled + 1).unwrap_or(u32::MAX) })
    }

    /// Returns the status and how many bytes of `into` were filled.
    fn execute(&mut self, header: &[u8; HEADER_BYTES], from: &[Span], into: &[Span]) -> (Status, u64) {
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = *header;
        let sector = u64::from_le_bytes(sector);
        match u32::from_le_bytes([k0, k1, k2, k3]) {
            kind::IN => match self.bounds(sector, total_len(into)) {
                Some(offset) => match self.run(Request::Read { offset, into }) {
                    Status::Ok => (Status::Ok, total_len(into)),
                    status => (status, 0),
                },
                None => (Status::IoError, 0),
            },
            kind::OUT => (self.write(sector, from), 0),
            kind::FLUSH => (self.run(Request::Flush), 0),
            kind::GET_ID => (Status::Ok, copy_to_guest(self.memory, into, self.id) as u64),
            kind @ (kind::DISCARD | kind::WRITE_ZEROES) => (self.ranges(kind, from), 0),
            _ => (Status::Unsupported, 0),
        }
    }

    fn write(&mut self, sector: u64, from: &[Span]) -> Status {
        let Some(offset) = self.bounds(sector, total_len(from)) else { return Status::IoError };
        match self.run(Request::Write { offset, from }) {
            // A driver that cannot ask for a flush relies on every write being safe (5.2.6.2).
            Status::Ok if self.features & feature::FLUSH == 0 => self.run(Request::Flush),
            status => status,
        }
    }

    fn ranges(&mut self, kind: u32, from: &[Span]) -> Status {
        let len = total_len(from);
        let count = len / RANGE_BYTES as u64;
        if self.backend.is_read_only() || count == 0 || !len.is_multiple_of(RANGE_BYTES as u64) {
            return Status::IoError;
        }
        if count > u64::from(MAX_RANGES) {
            return Status::IoError;
        }
        for index in 0..count {
            let mut range = [0; RANGE_BYTES];
            let span = part(from, index * RANGE_BYTES as u64, RANGE_BYTES as u64);
            copy_from_guest(self.memory, &span, &mut range);
            match self.range(kind, &range) {
                Status::Ok => {}
                status => return status,
            }
        }
        Status::Ok
    }

    fn range(&mut self, kind: u32, range: &[u8; RANGE_BYTES]) -> Status {
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = *range;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes(flags);
        let allowed = if kind == kind::WRITE_ZEROES { RANGE_UNMAP } else { 0 };
        if flags & !allowed != 0 {
            return Status::Unsupported;
        }
        let len = u64::from(sectors) * SECTOR_BYTES;
        let Some(offset) = self.bounds(sector, len).filter(|_| sectors <= MAX_RANGE_SECTORS) else {
            return Status::IoError;
        };
        if len == 0 {
            return Status::Ok;
        }
        self.run(if kind == kind::DISCARD {
            Request::Discard { offset, len }
        } else {
            Request::WriteZeroes { offset, len, may_unmap: flags & RANGE_UNMAP != 0 }
        })
    }

    /// The byte offset of whole sectors that lie inside the disk.
    fn bounds(&self, sector: u64, len: u64) -> Option<u64> {
        let offset = sector.checked_mul(SECTOR_BYTES)?;
        let end = offset.checked_add(len)?;
        (len.is_multiple_of(SECTOR_BYTES) && end <= self.backend.len_bytes()).then_some(offset)
    }

    fn run(&mut self, request: Request<'_>) -> Status {
        match self.backend.execute(self.memory, request) {
            Ok(()) => Status::Ok,
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Status::Unsupported,
            Err(_) => Status::IoError,
        }
    }
}
