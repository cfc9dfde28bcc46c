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

/// A chain that is no request: it has no header or no room for a status.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoRequest;

/// What a disk is, for whoever reads its requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub len_bytes: u64,
    pub is_read_only: bool,
    pub id: Id,
    /// Features that were agreed on.
    pub features: u64,
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Job {
    /// The chain's name.
    pub head: u16,
    todo: Todo,
    status_at: Vec<Span>,
}

/// What is left to do of a request.
#[derive(Debug)]
enum Todo {
    Read {
        offset: u64,
        into: Vec<Span>,
    },
    Write {
        offset: u64,
        from: Vec<Span>,
    },
    Flush,
    Ranges(Vec<Range>),
    /// Nothing: so many bytes were filled, or it was refused.
    Nothing {
        status: Status,
        filled: u64,
    },
}

/// One range of a discard or write-zeroes request.
#[derive(Debug, Clone, Copy)]
struct Range {
    offset: u64,
    len: u64,
    /// For zeros: whether their room may be given back.
    zeroes: Option<bool>,
}

impl Todo {
    fn refused(status: Status) -> Self {
        Self::Nothing { status, filled: 0 }
    }
}

impl Job {
    /// Reads what the chain asks for.
    pub fn read(chain: &Chain, memory: &GuestMemory, facts: &Facts) -> Result<Self, NoRequest> {
        let mut header = [0; HEADER_BYTES];
        if copy_from_guest(memory, chain.readable(), &mut header) < HEADER_BYTES {
            return Err(NoRequest);
        }
        let room = total_len(chain.writable()).checked_sub(1).ok_or(NoRequest)?;
        let status_at = part(chain.writable(), room, 1);
        let from = part(chain.readable(), HEADER_BYTES as u64, u64::MAX);
        let into = part(chain.writable(), 0, room);
        let todo = facts.todo(&header, from, into, memory).unwrap_or_else(Todo::refused);
        Ok(Self { head: chain.head(), todo, status_at })
    }

    /// Whether it moves bytes between guest and disk, and nothing else: the file's page cache may have them at once.
    pub fn moves_bytes(&self) -> bool {
        matches!(self.todo, Todo::Read { .. } | Todo::Write { .. } | Todo::Nothing { .. })
    }

    /// The request to find the place of, if the bytes may be moved without the backend.
    pub fn to_place(&self, facts: &Facts) -> Option<Request<'_>> {
        match &self.todo {
            Todo::Read { offset, into } if !into.is_empty() => Some(Request::Read { offset: *offset, into }),
            Todo::Write { offset, from } if !from.is_empty() && facts.features & feature::FLUSH != 0 => {
                Some(Request::Write { offset: *offset, from })
            }
            _ => None,
        }
    }

    /// Does it.
    pub fn run(&self, backend: &dyn BlockBackend, memory: &GuestMemory, features: u64) -> Status {
        let run = |request| match backend.execute(memory, request) {
            Ok(()) => Status::Ok,
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Status::Unsupported,
            Err(_) => Status::IoError,
        };
        match &self.todo {
            Todo::Read { offset, into } => run(Request::Read { offset: *offset, into }),
            Todo::Write { offset, from } => match run(Request::Write { offset: *offset, from }) {
                // A driver that cannot ask for a flush relies on every write being safe (5.2.6.2).
                Status::Ok if features & feature::FLUSH == 0 => run(Request::Flush),
                status => status,
            },
            Todo::Flush => run(Request::Flush),
            Todo::Ranges(ranges) => {
                let each = ranges.iter().map(|&Range { offset, len, zeroes }| match zeroes {
                    None => run(Request::Discard { offset, len }),
                    Some(may_unmap) => run(Request::WriteZeroes { offset, len, may_unmap }),
                });
                each.into_iter().find(|status| *status != Status::Ok).unwrap_or(Status::Ok)
            }
            Todo::Nothing { status, .. } => *status,
        }
    }

    /// Writes how it ended; returns how many bytes of the chain were filled.
    pub fn finish(&self, memory: &GuestMemory, status: Status) -> u32 {
        let filled = match &self.todo {
            Todo::Read { into, .. } if status == Status::Ok => total_len(into),
            Todo::Nothing { filled, .. } => *filled,
            _ => 0,
        };
        copy_to_guest(memory, &self.status_at, &[status as u8]);
        // The chain is shorter than 4 GiB, so what it holds fits.
        u32::try_from(filled + 1).unwrap_or(u32::MAX)
    }
}

impl Facts {
    fn todo(
        &self,
        header: &[u8; HEADER_BYTES],
        from: Vec<Span>,
        into: Vec<Span>,
        memory: &GuestMemory,
    ) -> Result<Todo, Status> {
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = *header;
        let sector = u64::from_le_bytes(sector);
        match u32::from_le_bytes([k0, k1, k2, k3]) {
            kind::IN => Ok(Todo::Read { offset: self.bounds(sector, total_len(&into))?, into }),
            kind::OUT => Ok(Todo::Write { offset: self.bounds(sector, total_len(&from))?, from }),
            kind::FLUSH => Ok(Todo::Flush),
            kind::GET_ID => {
                Ok(Todo::Nothing { status: Status::Ok, filled: copy_to_guest(memory, &into, &self.id) as u64 })
            }
            kind @ (kind::DISCARD | kind::WRITE_ZEROES) => self.ranges(kind, &from, memory).map(Todo::Ranges),
            _ => Err(Status::Unsupported),
        }
    }

    fn ranges(&self, kind: u32, from: &[Span], memory: &GuestMemory) -> Result<Vec<Range>, Status> {
        let len = total_len(from);
        let count = len / RANGE_BYTES as u64;
        if self.is_read_only || !(1..=u64::from(MAX_RANGES)).contains(&count) {
            return Err(Status::IoError);
        }
        if !len.is_multiple_of(RANGE_BYTES as u64) {
            return Err(Status::IoError);
        }
        let ranges = (0..count).map(|index| {
            let mut range = [0; RANGE_BYTES];
            let span = part(from, index * RANGE_BYTES as u64, RANGE_BYTES as u64);
            copy_from_guest(memory, &span, &mut range);
            self.range(kind, &range)
        });
        ranges.filter(|range| !matches!(range, Ok(Range { len: 0, .. }))).collect()
    }

    fn range(&self, kind: u32, range: &[u8; RANGE_BYTES]) -> Result<Range, Status> {
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = *range;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes(flags);
        let is_zeroes = kind == kind::WRITE_ZEROES;
        let allowed = if is_zeroes { RANGE_UNMAP } else { 0 };
        if flags & !allowed != 0 {
            return Err(Status::Unsupported);
        }
        if sectors > MAX_RANGE_SECTORS {
            return Err(Status::IoError);
        }
        let len = u64::from(sectors) * SECTOR_BYTES;
        let offset = self.bounds(sector, len)?;
        Ok(Range { offset, len, zeroes: is_zeroes.then_some(flags & RANGE_UNMAP != 0) })
    }

    /// The byte offset of whole sectors that lie inside the disk.
    fn bounds(&self, sector: u64, len: u64) -> Result<u64, Status> {
        let inside = || {
            let offset = sector.checked_mul(SECTOR_BYTES)?;
            let end = offset.checked_add(len)?;
            (len.is_multiple_of(SECTOR_BYTES) && end <= self.len_bytes).then_some(offset)
        };
        inside().ok_or(Status::IoError)
    }
}
