//! A guest in memory.

use std::io;
use std::os::fd::BorrowedFd;

use super::Link;
use crate::Millis;
use crate::port::{Abilities, GuestPort, Reading, Shape};
use crate::wire::{Headers, Offload};

/// Keeps what the guest got.
pub(crate) struct Got {
    pub(crate) abilities: Abilities,
    pub(crate) frames: Vec<(Vec<u8>, Offload)>,
    /// Bytes that the next frame may have.
    pub(crate) room: usize,
}

impl Got {
    pub(crate) fn new() -> Self {
        Self { abilities: Abilities::default(), frames: Vec::new(), room: 65_549 }
    }

    pub(crate) fn bytes(&self) -> Vec<&[u8]> {
        self.frames.iter().map(|(frame, _)| frame.as_slice()).collect()
    }
}

impl GuestPort for Got {
    fn abilities(&self) -> Abilities {
        self.abilities
    }

    fn room(&mut self, header_bytes: usize) -> usize {
        self.room.saturating_sub(header_bytes)
    }

    fn send(&mut self, headers: Headers, payload: &[u8]) -> bool {
        let frame = [headers.bytes(), payload].concat();
        if frame.len() > self.room {
            return false;
        }
        self.frames.push((frame, headers.offload()));
        true
    }

    fn receive(&mut self, _: Shape, _: usize, _: BorrowedFd<'_>, _: Reading) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn send_received(&mut self, _: Headers) {}
}

/// Turns a link until `is_done`, with a clock that runs as fast as it is looked at; what should happen happens before 10
/// minutes of it.
pub(crate) fn turn_until(
    link: &mut dyn Link,
    got: &mut Got,
    now: &mut Millis,
    is_done: impl Fn(&dyn Link, &Got) -> bool,
) {
    let end = *now + 600_000;
    while !is_done(link, got) {
        assert!(*now < end, "it does not happen: {} frames", got.frames.len());
        *now = link.deadline().unwrap_or(*now + 10).clamp(*now + 1, *now + 1_000);
        link.turn(got, *now).unwrap();
    }
}
