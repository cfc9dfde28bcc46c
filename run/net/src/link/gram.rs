//! A socket of datagrams of another program's, one frame each: gvproxy's and vfkit's form.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, bind, connect, send, socket_with};

use super::address::Address;
use super::outgoing::Gone;
use super::packets::{Kind, Packets, Turned};
use super::retry::Retry;
use super::watch::Watch;
use super::{Link, LinkError};
use crate::Millis;
use crate::port::{Abilities, GuestFrame, GuestPort};
use crate::stream::Framing;

/// What may wait in the kernel, as vfkit has it: with less a burst is lost. The kernel gives less where it has a limit.
const SEND_BUFFER_BYTES: usize = 1 << 20;
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// How often it is looked whether another program has taken the peer's place: a socket of datagrams does not tell.
const LOOK_MS: Millis = 2_000;

/// What is sent before the first frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Greeting {
    /// Nothing.
    None,
    /// The word by which gvproxy knows a virtual machine.
    Vfkit,
}

impl Greeting {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::None => &[],
            Self::Vfkit => b"VFKT",
        }
    }
}

/// A link to a socket of datagrams. A peer that goes away is looked for again, where it was; until then frames are lost.
#[derive(Debug)]
pub struct UnixGram {
    watch: Watch,
    packets: Packets,
    scratch: Vec<u8>,
    /// `None` for a socket that was inherited.
    peer: Option<Peer>,
    is_up: bool,
    retry: Retry,
}

#[derive(Debug)]
struct Peer {
    path: PathBuf,
    greeting: Greeting,
    /// Device and number of the file when it was connected to.
    file: Option<(u64, u64)>,
    /// Where its answers come.
    _own: OwnPath,
    looked: Millis,
}

/// A socket's file, which goes with its owner.
#[derive(Debug)]
struct OwnPath(PathBuf);

impl Drop for OwnPath {
    fn drop(&mut self) {
        // Gone already, perhaps with its folder.
        let _ = fs::remove_file(&self.0);
    }
}

impl UnixGram {
    /// Connects to the socket at `path`. Answers come to a socket at `own`, which replaces what was left there, and goes
    /// with the link.
    ///
    /// # Errors
    /// Nobody listens at `path`; `own` cannot be made, or is too long for a socket's name (107 bytes).
    pub fn connect(path: &Path, own: &Path, greeting: Greeting) -> Result<Self, LinkError> {
        let bind_error = |source| LinkError::Bind { path: own.to_owned(), source };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).map_err(io::Error::from)?;
        if fs::symlink_metadata(own).is_ok_and(|metadata| is_socket(&metadata)) {
            fs::remove_file(own).map_err(bind_error)?;
        }
        // The peer answers to the name as it stands: a short way to it is of no use.
        let name = rustix::net::SocketAddrUnix::new(own).map_err(|error| bind_error(error.into()))?;
        bind(&socket, &name).map_err(|error| bind_error(error.into()))?;
        set_buffers(&socket);
        let peer = Peer { path: path.to_owned(), greeting, file: None, _own: OwnPath(own.to_owned()), looked: 0 };
        let mut link = Self::new(socket, Some(peer))?;
        link.greet().map_err(|source| LinkError::Connect { path: path.to_owned(), source })?;
        Ok(link)
    }

    /// Takes a connected socket.
    pub(super) fn of_socket(socket: OwnedFd) -> Result<Self, LinkError> {
        set_buffers(&socket);
        Self::new(socket, None)
    }

    fn new(socket: OwnedFd, peer: Option<Peer>) -> Result<Self, LinkError> {
        let kind = match rustix::net::sockopt::socket_type(&socket).map_err(io::Error::from)? {
            SocketType::SEQPACKET => Kind::Connection,
            _ => Kind::Datagrams,
        };
        let watch = Watch::new()?;
        watch.add(socket.as_fd(), 0)?;
        let packets = Packets::new(socket, kind, Framing::Plain);
        Ok(Self { watch, packets, scratch: Vec::new(), peer, is_up: true, retry: Retry::default() })
    }

    /// Connects to whoever is at the path now.
    fn greet(&mut self) -> io::Result<()> {
        let Some(peer) = &mut self.peer else { return Err(io::ErrorKind::NotConnected.into()) };
        peer.file = file_of(&peer.path);
        connect(self.packets.fd(), &Address::of(&peer.path)?.unix)?;
        let greeting = peer.greeting.bytes();
        if !greeting.is_empty() {
            send(self.packets.fd(), greeting, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }

    fn lose_peer(&mut self, now: Millis) {
        self.is_up = false;
        self.packets.clear();
        if self.peer.is_some() {
            self.retry.begin(now);
        }
    }

    fn look_for_peer(&mut self, now: Millis) {
        if let Some(peer) = &mut self.peer
            && self.is_up
            && now.saturating_sub(peer.looked) >= LOOK_MS
        {
            peer.looked = now;
            if file_of(&peer.path) != peer.file {
                self.lose_peer(now);
            }
        }
        if !self.is_up && self.retry.is_due(now) {
            match self.greet() {
                Ok(()) => {
                    self.is_up = true;
                    self.retry.end();
                }
                Err(_) => self.retry.again(now),
            }
        }
    }
}

fn set_buffers(socket: &OwnedFd) {
    // Less is slower, nothing else.
    let _ = set_socket_send_buffer_size(socket, SEND_BUFFER_BYTES);
    let _ = set_socket_recv_buffer_size(socket, RECEIVE_BUFFER_BYTES);
}

fn is_socket(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_socket()
}

fn file_of(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Link for UnixGram {
    fn fd(&self) -> BorrowedFd<'_> {
        self.watch.fd()
    }

    fn takes(&self) -> Abilities {
        Abilities::default()
    }

    fn from_guest(&mut self, frame: &dyn GuestFrame, _: &mut dyn GuestPort, now: Millis) {
        if !self.is_up {
            self.packets.lose();
        } else if self.packets.send(frame, now).is_err() {
            self.packets.lose();
            self.lose_peer(now);
        }
    }

    fn turn(&mut self, port: &mut dyn GuestPort, now: Millis) -> io::Result<bool> {
        for happened in self.watch.happened()? {
            if happened.is_readable {
                self.packets.set_readable();
            }
        }
        self.look_for_peer(now);
        match self.packets.turn(&mut self.scratch, |_, _| true, port, now) {
            Ok(turned) => Ok(turned == Turned::More),
            Err(Gone) => {
                self.lose_peer(now);
                Ok(false)
            }
        }
    }

    fn deadline(&self) -> Option<Millis> {
        let look = self.peer.as_ref().filter(|_| self.is_up).map(|peer| peer.looked + LOOK_MS);
        [self.packets.deadline(), self.retry.deadline(), look].into_iter().flatten().min()
    }

    fn is_full(&self) -> bool {
        self.packets.is_full()
    }

    fn is_up(&self) -> bool {
        self.is_up
    }

    fn lost(&self) -> u64 {
        self.packets.lost()
    }
}
