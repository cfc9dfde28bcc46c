//! A stream socket of another program's: QEMU, passt, gvproxy, socket_vmnet. Each frame stands behind its length, four
//! bytes, the highest first.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::address::Address;
use super::outgoing::{Gone, Outgoing};
use super::packets::{Given, Patience, Turned};
use super::retry::Retry;
use super::watch::Watch;
use super::{Link, LinkError};
use crate::Millis;
use crate::port::{Abilities, GuestFrame, GuestPort, Outlet};
use crate::stream::{Framing, Incoming, LENGTH_BYTES};

/// Frames that are given to the guest before others have their turn.
const FRAMES_A_TURN: u32 = 256;

/// A link to a stream socket. A peer that goes away is looked for again, where it was; until then frames are lost.
#[derive(Debug)]
pub struct UnixStream {
    watch: Watch,
    /// Where the peer is; `None` if it cannot be looked for again.
    path: Option<PathBuf>,
    socket: Option<OwnedFd>,
    incoming: Incoming,
    outgoing: Outgoing,
    is_readable: bool,
    patience: Patience,
    retry: Retry,
    lost: u64,
}

impl UnixStream {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(path: &Path) -> Result<Self, LinkError> {
        let socket = dial(path).map_err(|source| LinkError::Connect { path: path.to_owned(), source })?;
        Self::new(socket, Some(path.to_owned()))
    }

    /// Takes a connected socket. When its peer goes away, nobody comes again.
    pub(super) fn of_socket(socket: OwnedFd) -> Result<Self, LinkError> {
        Self::new(socket, None)
    }

    fn new(socket: OwnedFd, path: Option<PathBuf>) -> Result<Self, LinkError> {
        let watch = Watch::new()?;
        watch.add(socket.as_fd(), 0)?;
        Ok(Self {
            watch,
            path,
            socket: Some(socket),
            incoming: Incoming::new(Framing::Plain),
            outgoing: Outgoing::default(),
            is_readable: true,
            patience: Patience::default(),
            retry: Retry::default(),
            lost: 0,
        })
    }

    fn disconnect(&mut self, now: Millis) {
        self.socket = None;
        self.outgoing.clear();
        self.incoming = Incoming::new(Framing::Plain);
        self.patience = Patience::default();
        if self.path.is_some() {
            self.retry.begin(now);
        }
    }

    fn reconnect(&mut self, now: Millis) {
        let Some(path) = self.path.as_deref().filter(|_| self.socket.is_none() && self.retry.is_due(now)) else {
            return;
        };
        match dial(path).and_then(|socket| self.watch.add(socket.as_fd(), 0).map(|()| socket)) {
            Ok(socket) => {
                self.socket = Some(socket);
                self.is_readable = true;
                self.retry.end();
            }
            Err(_) => self.retry.again(now),
        }
    }

    /// Moves frames both ways.
    fn exchange(&mut self, port: &mut dyn GuestPort, now: Millis) -> Result<Turned, Gone> {
        let Some(socket) = &self.socket else { return Ok(Turned::Done) };
        self.outgoing.flush(Outlet::Socket(socket.as_fd()), now)?;
        for _ in 0..FRAMES_A_TURN {
            // What speaks something else is as good as gone.
            let Some(frame) = self.incoming.first().map_err(|_| Gone)? else {
                if !self.is_readable {
                    return Ok(Turned::Done);
                }
                match self.incoming.fill(socket.as_fd()) {
                    Ok(true) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_readable = false,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(false) | Err(_) => return Err(Gone),
                }
                continue;
            };
            match self.patience.give((frame, &Default::default()), port, now) {
                Given::Sent => {}
                Given::Lost => self.lost += 1,
                Given::Waits if self.patience.deadline().is_some() => return Ok(Turned::Done),
                Given::Waits => return Ok(Turned::More),
            }
            self.incoming.skip();
        }
        Ok(Turned::More)
    }
}

/// Connects without waiting.
fn dial(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &Address::of(path)?.unix)?;
    Ok(socket)
}

impl Link for UnixStream {
    fn fd(&self) -> BorrowedFd<'_> {
        self.watch.fd()
    }

    fn takes(&self) -> Abilities {
        Abilities::default()
    }

    fn from_guest(&mut self, frame: &dyn GuestFrame, _: &mut dyn GuestPort, now: Millis) {
        let (Some(socket), Ok(len)) = (&self.socket, u32::try_from(frame.len_bytes())) else {
            self.lost += 1;
            return;
        };
        let length: [u8; LENGTH_BYTES] = len.to_be_bytes();
        if self.outgoing.send((&length, frame), Outlet::Socket(socket.as_fd()), now).is_err() {
            self.lost += 1;
            self.disconnect(now);
        }
    }

    fn turn(&mut self, port: &mut dyn GuestPort, now: Millis) -> io::Result<bool> {
        for happened in self.watch.happened()? {
            self.is_readable |= happened.is_readable;
        }
        self.reconnect(now);
        match self.exchange(port, now) {
            Ok(turned) => Ok(turned == Turned::More),
            Err(Gone) => {
                self.disconnect(now);
                Ok(false)
            }
        }
    }

    fn deadline(&self) -> Option<Millis> {
        let deadlines = [self.outgoing.deadline(), self.patience.deadline(), self.retry.deadline()];
        deadlines.into_iter().flatten().min()
    }

    fn is_full(&self) -> bool {
        self.outgoing.is_full()
    }

    fn is_up(&self) -> bool {
        self.socket.is_some()
    }

    fn lost(&self) -> u64 {
        self.lost + self.outgoing.lost()
    }
}
