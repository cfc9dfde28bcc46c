//! A guest in memory: frames are bytes. For frames that came another way than a queue, for tests and for fuzzing.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::net::{SendFlags, send};

use crate::port::{Abilities, GuestFrame, GuestPort, Reading, Shape};
use crate::wire::{HEADERS_LIMIT_BYTES, Headers, Offload};

/// Longest payload, as that of the longest IP packet.
const PAYLOAD_LIMIT_BYTES: usize = 65_535;

/// A frame of the guest's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryFrame<B = Vec<u8>> {
    /// All of it.
    pub bytes: B,
    /// What is not done about it.
    pub offload: Offload,
}

impl<B: AsRef<[u8]>> MemoryFrame<B> {
    /// A frame that lacks nothing.
    pub fn whole(bytes: B) -> Self {
        Self { bytes, offload: Offload::default() }
    }
}

impl<B: AsRef<[u8]>> GuestFrame for MemoryFrame<B> {
    fn head(&self) -> &[u8] {
        let bytes = self.bytes.as_ref();
        bytes.get(..HEADERS_LIMIT_BYTES).unwrap_or(bytes)
    }

    fn len_bytes(&self) -> usize {
        self.bytes.as_ref().len()
    }

    fn send_to(&self, range: Range<usize>, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let bytes = self.bytes.as_ref().get(range).unwrap_or_default();
        Ok(send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn copy_to(&self, range: Range<usize>, to: &mut Vec<u8>) {
        to.extend_from_slice(self.bytes.as_ref().get(range).unwrap_or_default());
    }

    fn offload(&self) -> Offload {
        self.offload
    }
}

/// Keeps the frames to the guest, with complete checksums.
#[derive(Debug, Default)]
pub struct MemoryPort {
    /// What the guest is said to do by itself.
    pub abilities: Abilities,
    /// How many frames there is room for.
    pub room: usize,
    frames: Vec<Vec<u8>>,
    received: Vec<u8>,
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
