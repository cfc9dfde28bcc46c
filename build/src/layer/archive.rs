//! A tar (ustar, GNU and pax) to members. Contents are not looked at: a body is told by where it lies in the stream.

use std::io::Read;

use tar::{EntryType, Header};

use super::fault::{ArchiveFault, MemberFault};
use super::pax::Extended;
use crate::cancel::Cancel;
use crate::tree::{Attributes, PATH_LIMIT_BYTES, TreePath};

/// Longest extended header or long name: the 64 KiB of attributes that Linux allows a file, several times over.
const EXTENDED_LIMIT_BYTES: u64 = 1024 * 1024;

/// What a member costs in memory besides its strings.
const MEMBER_BYTES: u64 = 256;

const BLOCK: usize = 512;

const BUFFER_BYTES: usize = 256 * 1024;

/// What one archive may make a build do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// Longest content, headers and all, unpacked.
    pub content_bytes: u64,
    /// How long the archive is as it is stored; only for messages.
    pub packed_bytes: u64,
    /// All names, link targets and extended attributes, plus 256 bytes a member.
    pub metadata_bytes: u64,
}

/// One member, checked.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name.
    pub path: TreePath,
    /// Mode, owner, time, extended attributes.
    pub attributes: Attributes,
    /// What it is.
    pub kind: MemberKind,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberKind {
    /// A folder.
    Directory,
    /// A regular file.
    File {
        /// Where its content starts in the unpacked archive.
        start: u64,
        /// Its length in bytes.
        len: u64,
    },
    /// One more name of a file.
    HardLink(TreePath),
    /// A symbolic link and its target.
    Symlink(Box<[u8]>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// Reads all members of the tar in `content`, and `content` to its end.
pub fn read(content: impl Read, limits: ArchiveLimits, cancel: &Cancel) -> Result<Vec<Member>, ArchiveFault> {
    let mut tape = Tape::new(content, limits, cancel);
    let mut members = Vec::new();
    let mut metadata_bytes = 0;
    while let Some(member) = next_member(&mut tape)? {
        metadata_bytes += cost(&member);
        if metadata_bytes > limits.metadata_bytes {
            return Err(ArchiveFault::Metadata { limit_bytes: limits.metadata_bytes });
        }
        members.push(member);
    }
    tape.drain()?;
    Ok(members)
}

fn next_member<R: Read>(tape: &mut Tape<'_, R>) -> Result<Option<Member>, ArchiveFault> {
    let mut extended = Extended::default();
    let mut long_name = None;
    let mut long_link = None;
    loop {
        let Some(header) = tape.header()? else { return Ok(None) };
        let size = || header.entry_size().map_err(|_| MemberFault::Field { field: "size" });
        let named = |fault| ArchiveFault::Member { name: header.path_bytes().into_owned(), fault };
        match header.entry_type() {
            EntryType::XGlobalHeader => tape.skip_padded(size().map_err(named)?)?,
            EntryType::XHeader => {
                let records = tape.bytes(size().map_err(named)?, &header)?;
                extended.read(&records).map_err(named)?;
            }
            EntryType::GNULongName => long_name = Some(until_nul(tape.bytes(size().map_err(named)?, &header)?)),
            EntryType::GNULongLink => long_link = Some(until_nul(tape.bytes(size().map_err(named)?, &header)?)),
            _ => {
                extended.path = extended.path.or(long_name);
                extended.link_path = extended.link_path.or(long_link);
                return member(tape, &header, extended).map(Some);
            }
        }
    }
}

fn member<R: Read>(tape: &mut Tape<'_, R>, header: &Header, extended: Extended) -> Result<Member, ArchiveFault> {
    let name = extended.path.clone().unwrap_or_else(|| header.path_bytes().into_owned());
    let checked = checked_member(header, extended, &name, tape.offset, tape.limits);
    let (member, body_bytes) = checked.map_err(|fault| ArchiveFault::Member { name, fault })?;
    tape.skip_padded(body_bytes)?;
    Ok(member)
}

/// The member, and how many bytes of content follow its header.
fn checked_member(
    header: &Header,
    extended: Extended,
    name: &[u8],
    start: u64,
    limits: ArchiveLimits,
) -> Result<(Member, u64), MemberFault> {
    if let Some(claimed_bytes) = extended.sparse_bytes {
        return Err(MemberFault::Sparse { claimed_bytes });
    }
    let bad = |field| MemberFault::Field { field };
    // A field that holds nothing is 0: some archivers leave owners empty.
    let number = |bytes: &[u8], value: std::io::Result<u64>, field| match value {
        Err(_) if bytes.iter().all(|byte| matches!(byte, 0 | b' ')) => Ok(0),
        value => value.map_err(|_| bad(field)),
    };
    let old = header.as_old();
    let size = extended.size.map_or_else(|| number(&old.size, header.entry_size(), "size"), Ok)?;
    let device = || {
        let major = header.device_major().ok().flatten().ok_or(bad("device number"))?;
        let minor = header.device_minor().ok().flatten().ok_or(bad("device number"))?;
        // What Linux can tell apart: 12 and 20 bits.
        let fits = major < 1 << 12 && minor < 1 << 20;
        fits.then_some((major, minor)).ok_or(bad("device number"))
    };
    let target = || extended.link_path.clone().or_else(|| header.link_name_bytes().map(|name| name.into_owned()));
    let (kind, body_bytes) = match header.entry_type() {
        EntryType::GNUSparse => {
            let claimed_bytes = header.as_gnu().and_then(|gnu| gnu.real_size().ok()).unwrap_or(size);
            return Err(MemberFault::Sparse { claimed_bytes });
        }
        // A file whose name ends in a slash is a folder, in archives older than POSIX.
        EntryType::Regular if header.as_old().linkflag == [0] && name.ends_with(b"/") => (MemberKind::Directory, 0),
        EntryType::Regular | EntryType::Continuous => (MemberKind::File { start, len: size }, size),
        EntryType::Directory => (MemberKind::Directory, 0),
        EntryType::Link => (MemberKind::HardLink(TreePath::from_member(&target().ok_or(MemberFault::Link)?)?), 0),
        EntryType::Symlink => (MemberKind::Symlink(symlink_target(target())?), 0),
        EntryType::Char => device().map(|(major, minor)| (MemberKind::CharDevice { major, minor }, 0))?,
        EntryType::Block => device().map(|(major, minor)| (MemberKind::BlockDevice { major, minor }, 0))?,
        EntryType::Fifo => (MemberKind::Fifo, 0),
        other => return Err(MemberFault::Type { type_flag: other.as_byte() }),
    };
    if start.checked_add(body_bytes).is_none_or(|end| end > limits.content_bytes) {
        return Err(MemberFault::TooLarge { claimed_bytes: body_bytes, limit_bytes: limits.content_bytes });
    }
    let narrow = |value: Result<u64, MemberFault>, field| u32::try_from(value?).map_err(|_| bad(field));
    let uid = extended.uid.map_or_else(|| number(&old.uid, header.uid(), "owner"), Ok);
    let gid = extended.gid.map_or_else(|| number(&old.gid, header.gid(), "group"), Ok);
    let attributes = Attributes {
        mode: narrow(number(&old.mode, header.mode().map(u64::from), "mode"), "mode")? & 0o7777,
        uid: narrow(uid, "owner")?,
        gid: narrow(gid, "group")?,
        // Times outside of what can be told are harmless; archives with a time before 1970 exist.
        mtime_s: extended.mtime_s.unwrap_or_else(|| header.mtime().map_or(0, |time| i64::try_from(time).unwrap_or(0))),
        xattrs: extended.xattrs,
    };
    Ok((Member { path: TreePath::from_member(name)?, attributes, kind }, body_bytes))
}

fn symlink_target(target: Option<Vec<u8>>) -> Result<Box<[u8]>, MemberFault> {
    let fine = |target: &Vec<u8>| !target.is_empty() && target.len() <= PATH_LIMIT_BYTES && !target.contains(&0);
    Ok(target.filter(fine).ok_or(MemberFault::Link)?.into())
}

fn cost(member: &Member) -> u64 {
    let link = match &member.kind {
        MemberKind::Symlink(target) => target.len(),
        MemberKind::HardLink(target) => target.as_bytes().len(),
        _ => 0,
    };
    let xattrs: usize = member.attributes.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
    MEMBER_BYTES + (member.path.as_bytes().len() + link + xattrs) as u64
}

fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    name.truncate(end);
    name
}

/// The unpacked archive as it passes by.
struct Tape<'a, R> {
    content: R,
    limits: ArchiveLimits,
    cancel: &'a Cancel,
    buffer: Vec<u8>,
    /// The part of `buffer` that was read and not yet taken.
    ready: std::ops::Range<usize>,
    /// How much was taken.
    offset: u64,
}

impl<'a, R: Read> Tape<'a, R> {
    fn new(content: R, limits: ArchiveLimits, cancel: &'a Cancel) -> Self {
        Self { content, limits, cancel, buffer: vec![0; BUFFER_BYTES], ready: 0..0, offset: 0 }
    }

    /// Up to `most` bytes; none at the end.
    fn take(&mut self, most: u64) -> Result<&[u8], ArchiveFault> {
        if self.ready.is_empty() {
            self.cancel.check()?;
            let limit_bytes = self.limits.content_bytes;
            if self.offset > limit_bytes {
                return Err(ArchiveFault::Bomb { limit_bytes, packed_bytes: self.limits.packed_bytes });
            }
            let len = loop {
                match self.content.read(&mut self.buffer) {
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    other => break other.map_err(read_fault)?,
                }
            };
            self.ready = 0..len;
        }
        let len = self.ready.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        let part = self.ready.start..self.ready.start + len;
        self.ready.start += len;
        self.offset += len as u64;
        Ok(&self.buffer[part])
    }

    /// The next header, or `None` at the end: of the stream, or a block of zeros.
    fn header(&mut self) -> Result<Option<Header>, ArchiveFault> {
        let offset = self.offset;
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let part = self.take((BLOCK - filled) as u64)?;
            match part.len() {
                0 if filled == 0 => return Ok(None),
                0 => return Err(ArchiveFault::Truncated { offset: self.offset }),
                len => block[filled..filled + len].copy_from_slice(part),
            }
            filled += part.len();
        }
        if block == [0; BLOCK] {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        if header.cksum().ok() != Some(checksum(&block)) {
            return Err(ArchiveFault::NoHeader { offset });
        }
        Ok(Some(header))
    }

    /// The `len` bytes of an extended header, with its padding taken too.
    fn bytes(&mut self, len: u64, header: &Header) -> Result<Vec<u8>, ArchiveFault> {
        if len > EXTENDED_LIMIT_BYTES {
            let fault = MemberFault::HeaderTooLarge { len_bytes: len, limit_bytes: EXTENDED_LIMIT_BYTES };
            return Err(ArchiveFault::Member { name: header.path_bytes().into_owned(), fault });
        }
        let mut bytes = Vec::new();
        let mut left = len;
        while left > 0 {
            let part = self.take(left)?;
            bytes.extend_from_slice(part);
            let taken = part.len() as u64;
            if taken == 0 {
                return Err(ArchiveFault::Truncated { offset: self.offset });
            }
            left -= taken;
        }
        self.skip_padding(len)?;
        Ok(bytes)
    }

    fn skip_padded(&mut self, len: u64) -> Result<(), ArchiveFault> {
        self.skip(len)?;
        self.skip_padding(len)
    }

    /// Skips what fills the last block of `len` bytes. Some programs leave it out at the very end, together with the blocks
    /// of zeros: the content is whole all the same, and its digest is checked.
    fn skip_padding(&mut self, len: u64) -> Result<(), ArchiveFault> {
        let mut left = padding(len);
        while left > 0 {
            match self.take(left)?.len() as u64 {
                0 => return Ok(()),
                taken => left -= taken,
            }
        }
        Ok(())
    }

    fn skip(&mut self, mut left: u64) -> Result<(), ArchiveFault> {
        while left > 0 {
            match self.take(left)?.len() as u64 {
                0 => return Err(ArchiveFault::Truncated { offset: self.offset }),
                taken => left -= taken,
            }
        }
        Ok(())
    }

    /// Reads what is left, so that the blob's digest is checked.
    fn drain(&mut self) -> Result<(), ArchiveFault> {
        while !self.take(u64::MAX)?.is_empty() {}
        Ok(())
    }
}

fn padding(len: u64) -> u64 {
    len.wrapping_neg() % BLOCK as u64
}

fn checksum(block: &[u8; BLOCK]) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>();
    sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..])
}

/// An error of ours that a reader had to carry, or the reader's own.
fn read_fault(error: std::io::Error) -> ArchiveFault {
    match error.downcast::<ArchiveFault>() {
        Ok(fault) => fault,
        Err(error) => ArchiveFault::Read(error),
    }
}
