//! The guest's side in memory of our own, for tests and fuzzers.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::guest::{Inbox, Payload, Received};
use super::packet::Header;

impl Payload for Vec<u8> {
    fn len_bytes(&self) -> usize {
        self.len()
    }

    fn send_to(&self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        Ok(send(socket, self, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn copy_to(&self, skip: usize, to: &mut VecDeque<u8>) {
        to.extend(self.get(skip..).unwrap_or_default());
    }
}

/// Buffers of a guest, all of one size, and the packets that came.
#[derive(Debug)]
pub struct MemoryInbox {
    /// Buffers that are left.
    pub left: usize,
    /// Data that each has room for.
    pub bytes: usize,
    /// What came, the oldest first.
    pub packets: VecDeque<(Header, Vec<u8>)>,
}

impl Inbox for MemoryInbox {
    fn room(&mut self) -> Option<usize> {
        (self.left > 0).then_some(self.bytes)
    }

    fn send(&mut self, header: &Header, data: &[u8]) {
        assert!(self.left > 0 && data.len() <= self.bytes, "there is room");
        assert_eq!(u64::from(header.len), data.len() as u64, "a length is true");
        self.left -= 1;
        self.packets.push_back((*header, data.to_vec()));
    }

    fn receive(&mut self, socket: BorrowedFd<'_>, limit: usize, header: &Header) -> io::Result<Received> {
        let room = limit.min(self.bytes);
        let mut data = vec![0; room];
        let (bytes, _) = recv(socket, &mut data[..], RecvFlags::DONTWAIT)?;
        data.truncate(bytes);
        if bytes > 0 {
            self.send(&Header { len: u32::try_from(bytes).unwrap_or(u32::MAX), ..*header }, &data);
        }
        Ok(Received { bytes, is_short: bytes < room })
    }
}
