//! The logs that are read.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use rustix::event::PollFd;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::readable;

/// Most logs at a time; a machine has two for each container.
const SOURCE_LIMIT: usize = 1024;
/// Longest name of a log (NAME_MAX of `linux/limits.h`): it becomes a file's.
const NAME_LIMIT_BYTES: usize = 255;
/// What is read of one log before the others have their turn.
const TURN_BYTES: usize = 64 << 10;

#[derive(Debug)]
struct Source {
    name: String,
    from: OwnedFd,
    /// The begin of a line, as far as it counts.
    begun: Vec<u8>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Sources {
    all: Vec<Source>,
    line_bytes: usize,
}

impl Sources {
    /// None yet. Of a line `line_bytes` count.
    pub fn new(line_bytes: usize) -> Self {
        Self { all: vec![], line_bytes }
    }

    /// What is waited for.
    pub fn waited(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.all.iter().map(|source| readable(&source.from))
    }

    /// Takes the logs that were sent. What comes with more or less than one descriptor, or is one too many, is dropped.
    pub fn take_new(&mut self, socket: &UnixDatagram) {
        loop {
            let mut name = [0; NAME_LIMIT_BYTES];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let len = match recvmsg(socket, &mut [IoSliceMut::new(&mut name)], &mut control, flags) {
                Ok(message) => message.bytes,
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return,
            };
            let descriptors: Vec<OwnedFd> = control
                .drain()
                .filter_map(|message| if let RecvAncillaryMessage::ScmRights(all) = message { Some(all) } else { None })
                .flatten()
                .collect();
            let Ok([from]) = <[OwnedFd; 1]>::try_from(descriptors) else { continue };
            let nonblocking = rustix::io::ioctl_fionbio(&from, true);
            if nonblocking.is_ok() && self.all.len() < SOURCE_LIMIT {
                let name = String::from_utf8_lossy(name.get(..len).unwrap_or_default()).into_owned();
                self.all.push(Source { name, from, begun: vec![] });
            }
        }
    }

    /// Gives `line` the name and text of each line that is there.
    pub fn drain(&mut self, mut line: impl FnMut(&str, &str)) {
        let limit = self.line_bytes;
        self.all.retain_mut(|source| source.drain(limit, &mut line).is_ok());
    }
}

impl Source {
    /// An error when the log has ended.
    fn drain(&mut self, limit: usize, line: &mut impl FnMut(&str, &str)) -> io::Result<()> {
        let mut buffer = [0; 8192];
        let mut taken = 0;
        while taken < TURN_BYTES {
            let len = match rustix::io::read(&self.from, &mut buffer) {
                Ok(0) => {
                    self.end(line);
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(len) => len,
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(errno) => {
                    self.end(line);
                    return Err(errno.into());
                }
            };
            taken += len;
            for piece in buffer.get(..len).unwrap_or_default().split_inclusive(|byte| *byte == b'\n') {
                let text = piece.strip_suffix(b"\n").unwrap_or(piece);
                let room = limit.saturating_sub(self.begun.len()).min(text.len());
                self.begun.extend_from_slice(text.get(..room).unwrap_or_default());
                if text.len() < piece.len() {
                    let begun = std::mem::take(&mut self.begun);
                    let text = begun.strip_suffix(b"\r").unwrap_or(&begun);
                    line(&self.name, &String::from_utf8_lossy(text));
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, line: &mut impl FnMut(&str, &str)) {
        if !self.begun.is_empty() {
            line(&self.name, &String::from_utf8_lossy(&std::mem::take(&mut self.begun)));
        }
    }
}
