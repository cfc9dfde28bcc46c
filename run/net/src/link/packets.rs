//! A descriptor that carries one frame in each call: a socket of datagrams, or a tap.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::outgoing::{Gone, Outgoing};
use crate::Millis;
use crate::port::{GuestFrame, GuestPort, Outlet};
use crate::stream::Framing;
use crate::wire::{HEADERS_LIMIT_BYTES, Offload, VIRTIO_HEADER_BYTES};

/// Longest frame, with a header in front: a segment of 64 KiB with its headers.
pub(super) const FRAME_LIMIT_BYTES: usize = 65_536 + HEADERS_LIMIT_BYTES + VIRTIO_HEADER_BYTES;
/// Frames that are given to the guest before others have their turn.
const FRAMES_A_TURN: u32 = 256;
/// A frame that is longer than the guest's room is lost after so long: some guests never have more.
const HOLD_MS: Millis = 20;

/// What the descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A socket of datagrams, which knows no end.
    Datagrams,
    /// A connection of packets.
    Connection,
    /// A tap.
    Device,
}

/// A descriptor, and what waits on either side of it.
#[derive(Debug)]
pub(super) struct Packets {
    fd: OwnedFd,
    kind: Kind,
    framing: Framing,
    outgoing: Outgoing,
    /// Something may be there to read.
    is_readable: bool,
    /// A frame that waits for the guest's room.
    held: Option<Vec<u8>>,
    patience: Patience,
    lost: u64,
}

/// How long a frame waits that is longer than the guest's room.
#[derive(Debug, Default)]
pub(super) struct Patience {
    since: Option<Millis>,
}

/// What became of a frame for the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    Sent,
    Lost,
    /// There is no room yet.
    Waits,
}

impl Patience {
    /// Gives a frame to the guest, unless it must wait.
    pub(super) fn give(&mut self, (frame, offload): (&[u8], &Offload), port: &mut dyn GuestPort, now: Millis) -> Given {
        let room = port.room(0);
        if room < frame.len() && (room == 0 || now.saturating_sub(*self.since.get_or_insert(now)) < HOLD_MS) {
            return Given::Waits;
        }
        self.since = None;
        if port.send_frame(frame, offload) { Given::Sent } else { Given::Lost }
    }

    /// When it ends.
    pub(super) fn deadline(&self) -> Option<Millis> {
        self.since.map(|since| since + HOLD_MS)
    }
}

/// What a turn ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turned {
    /// Everything is done, or will be later.
    Done,
    /// There is more, for which the guest must take frames or others have their turn first.
    More,
}

impl Packets {
    /// Takes a descriptor that is ready to carry frames.
    pub(super) fn new(fd: OwnedFd, kind: Kind, framing: Framing) -> Self {
        Self {
            fd,
            kind,
            framing,
            outgoing: Outgoing::default(),
            is_readable: true,
            held: None,
            patience: Patience::default(),
            lost: 0,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Something came.
    pub(super) fn set_readable(&mut self) {
        self.is_readable = true;
    }

    /// Sends a frame of the guest's.
    pub(super) fn send(&mut self, frame: &dyn GuestFrame, now: Millis) -> Result<(), Gone> {
        let header = frame.offload().bytes(1);
        let prefix = if self.framing == Framing::Virtio { &header[..] } else { &[] };
        self.outgoing.send((prefix, frame), outlet(&self.fd, self.kind), now)
    }

    /// Moves frames both ways. Only frames that `may_pass` lets through reach the guest.
    pub(super) fn turn(
        &mut self,
        scratch: &mut Vec<u8>,
        mut may_pass: impl FnMut(&[u8], &Offload) -> bool,
        port: &mut dyn GuestPort,
        now: Millis,
    ) -> Result<Turned, Gone> {
        self.outgoing.flush(outlet(&self.fd, self.kind), now)?;
        scratch.resize(FRAME_LIMIT_BYTES, 0);
        for _ in 0..FRAMES_A_TURN {
            let held = self.held.take();
            let whole = match &held {
                Some(held) => held.as_slice(),
                None if !self.is_readable => return Ok(Turned::Done),
                None if port.room(0) == 0 => return Ok(Turned::More),
                None => match self.read(scratch)? {
                    Some(len) => scratch.get(..len).unwrap_or_default(),
                    None => continue,
                },
            };
            let split = self.framing.split(whole).ok();
            let split = split.filter(|(frame, offload)| held.is_some() || may_pass(frame, offload));
            let Some((frame, offload)) = split else {
                self.lost += 1;
                continue;
            };
            match self.patience.give((frame, &offload), port, now) {
                Given::Sent => {}
                Given::Lost => self.lost += 1,
                Given::Waits => {
                    let whole = whole.to_vec();
                    self.held = Some(held.unwrap_or(whole));
                    // With some room, but too little, it is looked at again when there is more, or in a moment.
                    return Ok(if self.patience.deadline().is_some() { Turned::Done } else { Turned::More });
                }
            }
        }
        Ok(Turned::More)
    }

    /// Reads a frame into `buffer`; `None` if none came that can be one.
    fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Gone> {
        let read = match self.kind {
            Kind::Device => rustix::io::read(&self.fd, &mut *buffer),
            _ => recv(&self.fd, &mut *buffer, RecvFlags::DONTWAIT | RecvFlags::TRUNC).map(|(_, len)| len),
        };
        match read {
            Ok(0) if self.kind != Kind::Datagrams => Err(Gone),
            Ok(len) if (1..=buffer.len()).contains(&len) => Ok(Some(len)),
            Ok(_) => {
                self.lost += 1;
                Ok(None)
            }
            Err(Errno::INTR) => Ok(None),
            Err(Errno::CONNRESET | Errno::NOTCONN | Errno::BADFD | Errno::CONNREFUSED) => Err(Gone),
            // Nothing more; or a device that is down, which tells when it is up again.
            Err(_) => {
                self.is_readable = false;
                Ok(None)
            }
        }
    }

    /// Whether too much waits for the other side.
    pub(super) fn is_full(&self) -> bool {
        self.outgoing.is_full()
    }

    /// Nobody is there to take what waits.
    pub(super) fn clear(&mut self) {
        self.outgoing.clear();
    }

    /// A frame of the guest's went nowhere.
    pub(super) fn lose(&mut self) {
        self.lost += 1;
    }

    /// When [`turn`](Self::turn) is to be called even if nothing happens.
    pub(super) fn deadline(&self) -> Option<Millis> {
        [self.outgoing.deadline(), self.patience.deadline()].into_iter().flatten().min()
    }

    /// Frames that were lost, either way.
    pub(super) fn lost(&self) -> u64 {
        self.lost + self.outgoing.lost()
    }
}

fn outlet(fd: &OwnedFd, kind: Kind) -> Outlet<'_> {
    match kind {
        Kind::Device => Outlet::Device(fd.as_fd()),
        Kind::Datagrams | Kind::Connection => Outlet::Socket(fd.as_fd()),
    }
}
