//! The port that firmware made for debugging prints to (EDK II, `OvmfPkg/Library/PlatformDebugLibIoPort`); others print
//! nothing.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use crate::bus::BusDevice;

/// Its number.
pub const PORT: u64 = 0x402;
/// What it reads as: somebody listens.
const LISTENS: u8 = 0xE9;
/// Most bytes that are kept of one run: the guest can print without end.
const MOST_BYTES: usize = 8 << 20;
/// Bytes are written to the file in pieces of this size, and when the machine ends.
const PIECE: usize = 4096;

/// The port. Its file is made with the first byte.
pub struct DebugPort {
    path: PathBuf,
    file: Option<File>,
    waiting: Vec<u8>,
    left: usize,
}

impl DebugPort {
    /// A port that prints to the file `path`.
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None, waiting: vec![], left: MOST_BYTES }
    }

    /// A log that cannot be written is no reason to stop the machine.
    fn flush(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        if self.file.is_none() && !waiting.is_empty() {
            self.file = File::create(&self.path).ok();
        }
        let written = self.file.as_mut().map(|file| file.write_all(&waiting));
        if !matches!(written, Some(Ok(()))) {
            self.left = 0;
        }
    }
}

impl Drop for DebugPort {
    fn drop(&mut self) {
        if !self.waiting.is_empty() {
            self.flush();
        }
    }
}

impl BusDevice for DebugPort {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(LISTENS);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        let data = data.get(..self.left).unwrap_or(data);
        self.left -= data.len();
        self.waiting.extend(data);
        if self.waiting.len() >= PIECE {
            self.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_prints_without_end_fills_no_disk_and_one_that_prints_nothing_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("firmware.log");
        drop(DebugPort::new(path.clone()));
        assert!(!path.exists());
        let mut port = DebugPort::new(path.clone());
        (0..MOST_BYTES / 4 + 10).for_each(|_| port.write(0, b"text"));
        drop(port);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), MOST_BYTES as u64);
        let mut port = DebugPort::new("/nowhere/at/all".into());
        (0..2 * PIECE).for_each(|_| port.write(0, b"x"));
    }
}
