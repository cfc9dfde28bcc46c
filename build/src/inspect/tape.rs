//! An archive as it passes by, with a look ahead.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use super::ArchiveFault;
use crate::cancel::Cancel;

const BUFFER_BYTES: usize = 128 << 10;

/// What all tapes of one file share.
#[derive(Clone)]
pub(super) struct Budget<'a> {
    left: Rc<Cell<u64>>,
    limit_bytes: u64,
    cancel: &'a Cancel,
}

impl<'a> Budget<'a> {
    /// For `limit_bytes`, compressed and unpacked together.
    pub fn new(limit_bytes: u64, cancel: &'a Cancel) -> Self {
        Self { left: Rc::new(Cell::new(limit_bytes)), limit_bytes, cancel }
    }
}

/// Reads through a buffer, and no further than the budget allows.
pub(super) struct Tape<'a> {
    content: Box<dyn Read + 'a>,
    budget: Budget<'a>,
    buffer: Vec<u8>,
    ready: std::ops::Range<usize>,
    offset: u64,
}

impl<'a> Tape<'a> {
    pub fn new(content: Box<dyn Read + 'a>, budget: Budget<'a>) -> Self {
        Self { content, budget, buffer: vec![0; BUFFER_BYTES], ready: 0..0, offset: 0 }
    }

    pub fn budget(&self) -> Budget<'a> {
        self.budget.clone()
    }

    /// How much was taken.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes, up to `most`, which fit into the buffer; fewer only at the end. They are not taken.
    pub fn peek(&mut self, most: usize) -> Result<&[u8], ArchiveFault> {
        let most = most.min(BUFFER_BYTES);
        while self.ready.len() < most {
            if self.fill()? == 0 {
                break;
            }
        }
        let end = self.ready.end.min(self.ready.start + most);
        Ok(&self.buffer[self.ready.start..end])
    }

    /// Takes `len` bytes and drops them.
    pub fn skip(&mut self, mut len: u64) -> Result<(), ArchiveFault> {
        while len > 0 {
            if self.ready.is_empty() && self.fill()? == 0 {
                return Err(ArchiveFault::Truncated { offset: self.offset });
            }
            let part = self.ready.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            self.advance(part);
            len -= part as u64;
        }
        Ok(())
    }

    /// Takes `len` bytes. The caller has a limit for it; memory grows only with what is there.
    pub fn take(&mut self, len: u64) -> Result<Vec<u8>, ArchiveFault> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < len {
            if self.ready.is_empty() && self.fill()? == 0 {
                return Err(ArchiveFault::Truncated { offset: self.offset });
            }
            let left = usize::try_from(len - bytes.len() as u64).unwrap_or(usize::MAX);
            let part = self.ready.len().min(left);
            bytes.extend_from_slice(&self.buffer[self.ready.start..self.ready.start + part]);
            self.advance(part);
        }
        Ok(bytes)
    }

    /// Takes zeros, as many as there are.
    pub fn skip_zeros(&mut self) -> Result<(), ArchiveFault> {
        loop {
            if self.ready.is_empty() && self.fill()? == 0 {
                return Ok(());
            }
            let ready = &self.buffer[self.ready.clone()];
            let zeros = ready.iter().position(|&byte| byte != 0).unwrap_or(ready.len());
            self.advance(zeros);
            if !self.ready.is_empty() {
                return Ok(());
            }
        }
    }

    fn advance(&mut self, len: usize) {
        self.ready.start += len;
        self.offset += len as u64;
    }

    /// Reads more behind what is ready. Returns how much; 0 at the end.
    fn fill(&mut self) -> Result<usize, ArchiveFault> {
        self.budget.cancel.check()?;
        self.buffer.copy_within(self.ready.clone(), 0);
        self.ready = 0..self.ready.len();
        let len = loop {
            match self.content.read(&mut self.buffer[self.ready.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.downcast::<ArchiveFault>().unwrap_or_else(ArchiveFault::Io)),
                Ok(len) => break len,
            }
        };
        self.ready.end += len;
        let Budget { left, limit_bytes, .. } = &self.budget;
        match left.get().checked_sub(len as u64) {
            Some(rest) => left.set(rest),
            None => return Err(ArchiveFault::Bomb { limit_bytes: *limit_bytes }),
        }
        Ok(len)
    }
}

impl Read for Tape<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut ready = self.fill_buf()?;
        let len = ready.read(buffer)?;
        self.consume(len);
        Ok(len)
    }
}

/// For decompressors: they take exactly what is theirs.
impl BufRead for Tape<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.ready.is_empty() {
            self.fill().map_err(io::Error::other)?;
        }
        Ok(&self.buffer[self.ready.clone()])
    }

    fn consume(&mut self, len: usize) {
        self.advance(len.min(self.ready.len()));
    }
}
