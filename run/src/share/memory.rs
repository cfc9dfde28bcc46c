//! A guest without a device: requests in memory, for tests and the fuzzer.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Exchange;

/// A request, and the room for its answer.
#[derive(Debug)]
pub struct Memory {
    request: Vec<u8>,
    answer: RefCell<Vec<u8>>,
}

impl Memory {
    /// A request of these bytes, whose answer may have `room_bytes`.
    #[must_use]
    pub fn new(request: Vec<u8>, room_bytes: usize) -> Self {
        Self { request, answer: RefCell::new(vec![0; room_bytes]) }
    }

    /// All the room, with the answer at its start.
    #[must_use]
    pub fn into_answer(self) -> Vec<u8> {
        self.answer.into_inner()
    }
}

impl Exchange for Memory {
    fn request(&self, to: &mut [u8]) -> usize {
        let (len, from) = (to.len().min(self.request.len()), &self.request);
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        len
    }

    fn room(&self) -> u64 {
        self.answer.borrow().len() as u64
    }

    fn write_to(&self, file: &File, offset: u64, from: usize, len: u32) -> io::Result<usize> {
        let data = from.checked_add(len as usize).and_then(|end| self.request.get(from..end));
        file.write_at(data.ok_or(io::ErrorKind::InvalidInput)?, offset)
    }

    fn read_from(&self, file: &File, offset: u64, to: usize, len: u32) -> io::Result<usize> {
        let mut answer = self.answer.borrow_mut();
        let end = answer.len().min(to.saturating_add(len as usize));
        file.read_at(answer.get_mut(to..end).unwrap_or_default(), offset)
    }

    fn answer(&self, bytes: &[u8]) {
        self.answer.borrow_mut().iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    }
}

/// The bytes of a request of this user and group about `node`. `operation` is FUSE's number of it.
#[must_use]
pub fn request(operation: u32, node: u64, owner: u32, fields: &[u8]) -> Vec<u8> {
    let len = u32::try_from(super::abi::IN_HEADER_BYTES + fields.len()).unwrap_or(u32::MAX);
    let (unique, owner) = (7_u64.to_le_bytes(), owner.to_le_bytes());
    let head =
        [&len.to_le_bytes()[..], &operation.to_le_bytes(), &unique, &node.to_le_bytes(), &owner, &owner, &[0; 8]];
    [&head.concat()[..], fields].concat()
}
