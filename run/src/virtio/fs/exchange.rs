//! A chain of buffers as a request and the room for its answer.

use std::{fs::File, io};

use crate::{
    mem::{
        GuestMemory,
        transfer::{copy_from_guest, copy_to_guest, part, read_some_at, total_len, write_some_at},
    },
    share::Exchange,
    virtio::Chain,
};

/// One chain.
pub(super) struct ChainExchange<'a> {
    pub memory: &'a GuestMemory,
    pub chain: &'a Chain,
}

impl Exchange for ChainExchange<'_> {
    fn request(&self, to: &mut [u8]) -> usize {
        copy_from_guest(self.memory, self.chain.readable(), to)
    }

    fn room(&self) -> u64 {
        total_len(self.chain.writable())
    }

    fn write_to(&self, file: &File, offset: u64, from: usize, len: u32) -> io::Result<usize> {
        let spans = part(self.chain.readable(), from as u64, len.into());
        if total_len(&spans) < len.into() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        write_some_at(file, self.memory, &spans, offset)
    }

    fn read_from(&self, file: &File, offset: u64, to: usize, len: u32) -> io::Result<usize> {
        let spans = part(self.chain.writable(), to as u64, len.into());
        read_some_at(file, self.memory, &spans, offset)
    }

    fn answer(&self, bytes: &[u8]) {
        copy_to_guest(self.memory, self.chain.writable(), bytes);
    }
}
