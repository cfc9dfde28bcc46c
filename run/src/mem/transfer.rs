//! Moves bytes between guest memory and files, without a copy of our own.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use kiln_net::port::Outlet;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::GuestMemory;

/// Pieces that the kernel takes in one call (Linux: `UIO_MAXIOV`).
const PIECES_AT_ONCE: usize = 1024;

/// A piece of guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where it starts.
    pub address: GuestAddress,
    /// Its length in bytes.
    pub len: u32,
}

/// Length of all `spans` together, in bytes.
#[must_use]
pub fn total_len(spans: &[Span]) -> u64 {
    spans.iter().map(|span| u64::from(span.len)).sum()
}

/// The part of `spans` that begins `skip` bytes from their start and is at most `len` bytes long.
#[must_use]
pub fn part(spans: &[Span], skip: u64, len: u64) -> Vec<Span> {
    let (mut skip, mut left) = (skip, len);
    let mut parts = Vec::with_capacity(spans.len());
    for span in spans {
        let skipped = skip.min(u64::from(span.len));
        skip -= skipped;
        let taken = (u64::from(span.len) - skipped).min(left);
        left -= taken;
        if let (Some(start), Ok(len @ 1..)) = (span.address.0.checked_add(skipped), u32::try_from(taken)) {
            parts.push(Span { address: GuestAddress(start), len });
        }
    }
    parts
}

/// Copies from the start of `spans` into `data`; returns the bytes copied, fewer if the spans end or leave memory.
pub fn copy_from_guest(memory: &GuestMemory, spans: &[Span], data: &mut [u8]) -> usize {
    let mut done = 0;
    for span in spans {
        let len = usize::try_from(span.len).unwrap_or(usize::MAX).min(data.len() - done);
        let Some(piece) = data.get_mut(done..done + len).filter(|piece| !piece.is_empty()) else { break };
        if memory.read_slice(piece, span.address).is_err() {
            break;
        }
        done += len;
    }
    done
}

/// Copies `data` to the start of `spans`; returns the bytes copied, fewer if the spans end or leave memory.
pub fn copy_to_guest(memory: &GuestMemory, spans: &[Span], data: &[u8]) -> usize {
    let mut done = 0;
    for span in spans {
        let len = usize::try_from(span.len).unwrap_or(usize::MAX).min(data.len() - done);
        let Some(piece) = data.get(done..done + len).filter(|piece| !piece.is_empty()) else { break };
        if memory.write_slice(piece, span.address).is_err() {
            break;
        }
        done += len;
    }
    done
}

/// Fills `spans` from the file at `offset`. Fails with `UnexpectedEof` if the file ends before the spans do.
pub fn read_at(file: &File, memory: &GuestMemory, spans: &[Span], offset: u64) -> io::Result<()> {
    move_all(memory, spans, offset, io::ErrorKind::UnexpectedEof, |pieces, count, at| {
        // SAFETY: `pieces` holds `count` pieces of guest memory, which stays mapped while `memory` is borrowed. The
        // kernel writes there as a device would: Rust holds no reference into guest memory.
        unsafe { libc::preadv(file.as_raw_fd(), pieces, count, at) }
    })
}

/// As [`read_at`], and fills with zeros what is behind the file's end.
pub fn read_at_or_zeros(file: &File, memory: &GuestMemory, spans: &[Span], offset: u64) -> io::Result<()> {
    match read_at(file, memory, spans, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let len = (&*file).seek(SeekFrom::End(0))?.saturating_sub(offset);
            read_at(file, memory, &part(spans, 0, len), offset)?;
            fill_with_zeros(memory, &part(spans, len, u64::MAX));
            Ok(())
        }
        result => result,
    }
}

/// Fills `spans` with zeros.
pub fn fill_with_zeros(memory: &GuestMemory, spans: &[Span]) {
    static ZEROS: [u8; 4096] = [0; 4096];
    for span in spans {
        for done in (0..span.len).step_by(ZEROS.len()) {
            let rest = part(std::slice::from_ref(span), done.into(), ZEROS.len() as u64);
            copy_to_guest(memory, &rest, &ZEROS);
        }
    }
}

/// Writes `spans` to the file at `offset`.
pub fn write_at(file: &File, memory: &GuestMemory, spans: &[Span], offset: u64) -> io::Result<()> {
    move_all(memory, spans, offset, io::ErrorKind::WriteZero, |pieces, count, at| {
        // SAFETY: as in `read_at`; the kernel only reads from the pieces.
        unsafe { libc::pwritev(file.as_raw_fd(), pieces, count, at) }
    })
}

/// Fills the start of `spans` from the file at `offset`, in one call; returns how many bytes came. 0: the file ends there.
pub fn read_some_at(file: &File, memory: &GuestMemory, spans: &[Span], offset: u64) -> io::Result<usize> {
    move_some(memory, spans, offset, |pieces, count, at| {
        // SAFETY: as in `read_at`.
        unsafe { libc::preadv(file.as_raw_fd(), pieces, count, at) }
    })
}

/// Writes the start of `spans` to the file at `offset`, in one call; returns how many bytes it took.
pub fn write_some_at(file: &File, memory: &GuestMemory, spans: &[Span], offset: u64) -> io::Result<usize> {
    move_some(memory, spans, offset, |pieces, count, at| {
        // SAFETY: as in `write_at`.
        unsafe { libc::pwritev(file.as_raw_fd(), pieces, count, at) }
    })
}

/// Sends `spans` to a socket, which is not waited for; returns how many bytes it took.
pub fn send(socket: BorrowedFd<'_>, memory: &GuestMemory, spans: &[Span]) -> io::Result<usize> {
    let mut pieces = pieces(memory, spans)?;
    let message = message(&mut pieces);
    // SAFETY: the message names pieces of guest memory, which stays mapped while `memory` is borrowed, and lives until
    // the call returns; the kernel only reads from the pieces.
    let sent =
        unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Sends `prefix` and then `spans` in one call, which does not wait; returns how many bytes were taken.
pub fn send_behind(prefix: &[u8], to: Outlet<'_>, memory: &GuestMemory, spans: &[Span]) -> io::Result<usize> {
    let mut pieces = pieces(memory, spans)?;
    pieces.insert(0, libc::iovec { iov_base: prefix.as_ptr().cast_mut().cast(), iov_len: prefix.len() });
    let message = message(&mut pieces);
    let fd = to.as_fd().as_raw_fd();
    let sent = match to {
        // SAFETY: as in `send`; `prefix` outlives the call, and the kernel only reads from it too.
        Outlet::Socket(_) => unsafe { libc::sendmsg(fd, &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) },
        Outlet::Device(_) => {
            let count = i32::try_from(message.msg_iovlen).unwrap_or(i32::MAX);
            // SAFETY: as above.
            unsafe { libc::writev(fd, message.msg_iov, count) }
        }
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Whether what is received goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receiving {
    /// It does.
    Take,
    /// It stays where it is.
    Peek,
}

/// Receives from a socket, which is not waited for, into `spans`; returns how many bytes came.
pub fn receive(socket: BorrowedFd<'_>, memory: &GuestMemory, spans: &[Span], how: Receiving) -> io::Result<usize> {
    let mut pieces = pieces(memory, spans)?;
    let mut message = message(&mut pieces);
    let peek = if how == Receiving::Peek { libc::MSG_PEEK } else { 0 };
    // SAFETY: as in `send`; the kernel writes into the pieces as a device would: Rust holds no reference there.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT | peek) };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

fn message(pieces: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: a message header of zeros is valid: no name, no pieces, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = pieces.as_mut_ptr();
    message.msg_iovlen = pieces.len().min(PIECES_AT_ONCE);
    message
}

/// Calls `transfer` until all of `spans` is moved.
fn move_all(
    memory: &GuestMemory,
    spans: &[Span],
    offset: u64,
    at_end: io::ErrorKind,
    transfer: impl Fn(*const libc::iovec, i32, libc::off_t) -> isize,
) -> io::Result<()> {
    let mut pieces = pieces(memory, spans)?;
    let mut left = pieces.as_mut_slice();
    let mut at = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    while !left.is_empty() {
        let count = i32::try_from(left.len().min(PIECES_AT_ONCE)).unwrap_or(i32::MAX);
        let moved = transfer(left.as_ptr(), count, at);
        if moved < 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        if moved == 0 {
            return Err(at_end.into());
        }
        at = at.checked_add(moved as libc::off_t).ok_or(io::ErrorKind::InvalidInput)?;
        left = advance(left, moved.unsigned_abs());
    }
    Ok(())
}

/// Calls `transfer` once; a signal does not count.
fn move_some(
    memory: &GuestMemory,
    spans: &[Span],
    offset: u64,
    transfer: impl Fn(*const libc::iovec, i32, libc::off_t) -> isize,
) -> io::Result<usize> {
    let pieces = pieces(memory, spans)?;
    let count = i32::try_from(pieces.len().min(PIECES_AT_ONCE)).unwrap_or(i32::MAX);
    let at = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    loop {
        if let Ok(moved) = usize::try_from(transfer(pieces.as_ptr(), count, at)) {
            return Ok(moved);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Takes `moved` bytes off the front of `pieces`.
fn advance(mut pieces: &mut [libc::iovec], mut moved: usize) -> &mut [libc::iovec] {
    while let Some(first) = pieces.first_mut() {
        if first.iov_len > moved {
            first.iov_base = first.iov_base.cast::<u8>().wrapping_add(moved).cast();
            first.iov_len -= moved;
            break;
        }
        moved -= first.iov_len;
        pieces = pieces.split_first_mut().map_or(&mut [], |(_, rest)| rest);
    }
    pieces
}

/// The spans as the kernel takes them.
pub(super) fn pieces(memory: &GuestMemory, spans: &[Span]) -> io::Result<Vec<libc::iovec>> {
    let mut pieces = Vec::with_capacity(spans.len());
    for span in spans.iter().filter(|span| span.len > 0) {
        let len = usize::try_from(span.len).map_err(io::Error::other)?;
        for slice in GuestMemoryBackend::get_slices(memory, span.address, len) {
            let slice = slice.map_err(io::Error::other)?;
            pieces.push(libc::iovec { iov_base: slice.ptr_guard_mut().as_ptr().cast(), iov_len: slice.len() });
        }
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn memory() -> GuestMemory {
        GuestMemory::from_ranges(&[(GuestAddress(0), 0x4000), (GuestAddress(0x4000), 0x4000)]).unwrap()
    }

    fn span(address: u64, len: u32) -> Span {
        Span { address: GuestAddress(address), len }
    }

    #[test]
    fn what_lies_outside_of_memory_is_refused_and_nothing_moves() {
        let file = tempfile::tempfile().unwrap();
        for bad in [span(0x8000, 1), span(0x7fff, 2), span(u64::MAX, 2), span(0, u32::MAX)] {
            assert!(write_at(&file, &memory(), &[span(0, 16), bad], 0).is_err());
            assert!(read_at(&file, &memory(), &[bad], 0).is_err());
        }
        assert_eq!(file.metadata().unwrap().len(), 0);
        assert!(read_at(&file, &memory(), &[span(0, 1)], u64::MAX).is_err());
    }

    #[test]
    fn a_file_that_ends_early_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 10], 0).unwrap();
        let error = read_at(&file, &memory(), &[span(0, 8), span(8, 8)], 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn bytes_keep_their_order_across_pieces_and_regions() {
        let (memory, file) = (memory(), tempfile::tempfile().unwrap());
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(copy_to_guest(&memory, &[span(0x3f80, 0x100)], &bytes), 0x100);
        let mut many: Vec<Span> = (0..2000).map(|_| span(0x100, 1)).collect();
        many.extend([span(0x3f80, 0x80), span(0x4000, 0x80)]);
        write_at(&file, &memory, &many, 5).unwrap();
        read_at(&file, &memory, &[span(0x5000, 0x10), span(0x3ff0, 0xf0)], 2005).unwrap();
        let mut back = [0; 0x100];
        assert_eq!(copy_from_guest(&memory, &[span(0x5000, 0x10), span(0x3ff0, 0xf0)], &mut back), 0x100);
        assert_eq!(back.as_slice(), bytes);
    }

    #[test]
    fn a_part_is_cut_out_of_spans() {
        let spans = [span(10, 4), span(100, 4), span(200, 4)];
        assert_eq!(part(&spans, 3, 6), [span(13, 1), span(100, 4), span(200, 1)]);
        assert_eq!(part(&spans, 8, u64::MAX), [span(200, 4)]);
        assert_eq!(part(&spans, 12, 1), []);
        assert_eq!(total_len(&spans), 12);
    }
}
