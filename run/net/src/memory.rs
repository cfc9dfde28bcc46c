//! A port in memory, for tests and fuzzing: frames are lists of bytes.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::net::{SendFlags, send};

use crate::port::{Abilities, GuestFrame, GuestPort, Reading, Shape};
use crate::wire::{HEADERS_LIMIT_BYTES, Headers};

/// Longest payload, as that of the longest IP packet.
const PAYLOAD_LIMIT_BYTES: usize = 65_535;

/// A frame of the guest's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryFrame(pub Vec<u8>);

impl GuestFrame for MemoryFrame {
    fn head(&self) -> &[u8] {
        self.0.get(..HEADERS_LIMIT_BYTES).unwrap_or(&self.0)
    }

    fn len_bytes(&self) -> usize {
        self.0.len()
    }

    fn send_to(&self, range: Range<usize>, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let bytes = self.0.get(range).unwrap_or_default();
        Ok(send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn copy_to(&self, range: Range<usize>, to: &mut Vec<u8>) {
        to.extend_from_slice(self.0.get(range).unwrap_or_default());
    }
}

/// Keeps the frames to the guest, with complete checksums.
#[derive(Debug, Default)]
pub struct MemoryPort {
    /// What the guest is said to do by itself.
    pub abilities: Abilities,
    frames: Vec<Vec<u8>>,
    received: Vec<u8>,
    room: usize,
}

impl MemoryPort {
    /// Room for so many frames.
    pub fn new(room: usize) -> Self {
        Self { room, ..Self::default() }
    }

    /// The frames that came; there is room again.
    pub fn take_frames(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.frames)
    }
}

impl GuestPort for MemoryPort {
    fn abilities(&self) -> Abilities {
        self.abilities
    }

    fn room(&mut self, header_bytes: usize) -> usize {
        if self.frames.len() < self.room { PAYLOAD_LIMIT_BYTES - header_bytes } else { 0 }
    }

    fn send(&mut self, mut headers: Headers, payload: &[u8]) -> bool {
        if self.frames.len() >= self.room {
            return false;
        }
        headers.complete_checksum(payload);
        self.frames.push([headers.bytes(), payload].concat());
        true
    }

    fn receive(&mut self, shape: Shape, limit: usize, socket: BorrowedFd<'_>, reading: Reading) -> io::Result<usize> {
        let room = self.reach(shape).min(limit);
        reading.into_memory(room, socket, &mut self.received)
    }

    fn send_received(&mut self, headers: Headers) {
        let payload = std::mem::take(&mut self.received);
        self.send(headers, &payload);
    }
}
