//! Unpacked layers in the cache: the layer's content as it is, behind it its members, behind them where they start and the
//! checksums of both. The members are checked here, the content when somebody wants some of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::Archive;
use super::archive::{Member, MemberKind};
use crate::cache::{Cache, Shelf};
use crate::oci::Digest;
use crate::tree::{Attributes, Body, Spool, TreePath};

/// Says what the file is and, by its number, how it is written.
const MAGIC: [u8; 8] = *b"kilnlay1";

/// Content length, members' length, content's checksum, checksum of members and digest, magic.
const FOOTER_BYTES: usize = 8 + 8 + 4 + 4 + 8;

/// Longest list of members that is read: what [`super::LayerLimits`] allow, written in full.
const MEMBERS_LIMIT_BYTES: u64 = 1 << 29;

/// The layer `digest` as an earlier build unpacked it.
pub(super) fn find(cache: &Cache, digest: Digest) -> Option<Archive> {
    let file = cache.file(Shelf::Layers, digest.as_bytes())?;
    let path = cache.path(Shelf::Layers, digest.as_bytes())?;
    let found = read(path, file, digest);
    if found.is_none() {
        cache.forget(Shelf::Layers, digest.as_bytes());
    }
    found
}

/// Keeps a layer that was just unpacked. `crc32` is the checksum of its content.
pub(super) fn keep(cache: &Cache, digest: Digest, archive: &Archive, crc32: u32) {
    let &Body::Spooled { ref spool, len: len_bytes, .. } = &archive.content else { return };
    let list = encode(&archive.members);
    let footer = footer(digest, len_bytes, crc32, &list);
    let written = spool
        .file()
        .write_all_at(&list, len_bytes)
        .and_then(|()| spool.file().write_all_at(&footer, len_bytes + list.len() as u64));
    if written.is_ok() {
        cache.keep_file(Shelf::Layers, digest.as_bytes(), spool.file());
    }
}

fn footer(digest: Digest, len_bytes: u64, crc32: u32, list: &[u8]) -> Vec<u8> {
    let head = [&len_bytes.to_le_bytes()[..], &(list.len() as u64).to_le_bytes(), &crc32.to_le_bytes()].concat();
    let check = checksum(&[digest.as_bytes(), list, &head]);
    [&head[..], &check.to_le_bytes(), &MAGIC].concat()
}

fn checksum(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

fn read(path: PathBuf, file: File, digest: Digest) -> Option<Archive> {
    let file_bytes = file.metadata().ok()?.len();
    let footer_start = file_bytes.checked_sub(FOOTER_BYTES as u64)?;
    let mut end = [0; FOOTER_BYTES];
    file.read_exact_at(&mut end, footer_start).ok()?;
    let mut fields = Reader(&end);
    let (len_bytes, list_bytes, crc32) = (fields.u64()?, fields.u64()?, fields.u32()?);
    if len_bytes.checked_add(list_bytes)? != footer_start || list_bytes > MEMBERS_LIMIT_BYTES {
        return None;
    }
    let list = read_at(&file, len_bytes, list_bytes).ok()?;
    if footer(digest, len_bytes, crc32, &list) != end {
        return None;
    }
    let members = decode(&list)?;
    let spool = Arc::new(Spool::cached((path, file), *digest.as_bytes(), len_bytes, crc32));
    Some(Archive { members, content: Body::Spooled { spool, start: 0, len: len_bytes } })
}

fn read_at(file: &File, start: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}

fn encode(members: &[Member]) -> Vec<u8> {
    let mut out = Vec::new();
    for Member { path, attributes, kind } in members {
        let (tag, (a, b), text): (u8, (u64, u64), &[u8]) = match kind {
            MemberKind::Directory => (0, (0, 0), b""),
            &MemberKind::File { start, len } => (1, (start, len), b""),
            MemberKind::HardLink(target) => (2, (0, 0), target.as_bytes()),
            MemberKind::Symlink(target) => (3, (0, 0), target),
            &MemberKind::CharDevice { major, minor } => (4, (major.into(), minor.into()), b""),
            &MemberKind::BlockDevice { major, minor } => (5, (major.into(), minor.into()), b""),
            MemberKind::Fifo => (6, (0, 0), b""),
        };
        out.push(tag);
        out.extend_from_slice(&a.to_le_bytes());
        out.extend_from_slice(&b.to_le_bytes());
        for number in [attributes.mode, attributes.uid, attributes.gid] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&attributes.mtime_s.to_le_bytes());
        put_text(&mut out, path.as_bytes());
        put_text(&mut out, text);
        put_len(&mut out, attributes.xattrs.len());
        for (name, value) in &attributes.xattrs {
            put_text(&mut out, name);
            put_text(&mut out, value);
        }
    }
    out
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_len(out, text.len());
    out.extend_from_slice(text);
}

/// Names, links and attributes are far below 4 GiB, see [`super::LayerLimits::metadata_bytes`].
fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
}

fn decode(list: &[u8]) -> Option<Vec<Member>> {
    let mut from = Reader(list);
    let mut members = Vec::new();
    while !from.0.is_empty() {
        members.push(from.member()?);
    }
    Some(members)
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn member(&mut self) -> Option<Member> {
        let tag = *self.bytes(1)?.first()?;
        let (a, b) = (self.u64()?, self.u64()?);
        let (mode, uid, gid) = (self.u32()?, self.u32()?, self.u32()?);
        let mtime_s = i64::from_le_bytes(self.bytes(8)?.try_into().ok()?);
        let path = TreePath::from_member(self.text()?).ok()?;
        let text = self.text()?;
        let mut attributes = Attributes { mode, uid, gid, mtime_s, ..Attributes::default() };
        for _ in 0..self.u32()? {
            attributes.xattrs.insert(self.text()?.into(), self.text()?.into());
        }
        let device = || Some((u32::try_from(a).ok()?, u32::try_from(b).ok()?));
        let kind = match tag {
            0 => MemberKind::Directory,
            1 => MemberKind::File { start: a, len: b },
            2 => MemberKind::HardLink(TreePath::from_member(text).ok()?),
            3 => MemberKind::Symlink(text.into()),
            4 => device().map(|(major, minor)| MemberKind::CharDevice { major, minor })?,
            5 => device().map(|(major, minor)| MemberKind::BlockDevice { major, minor })?,
            6 => MemberKind::Fifo,
            _ => return None,
        };
        Some(Member { path, attributes, kind })
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.bytes(usize::try_from(len).ok()?)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }
}
