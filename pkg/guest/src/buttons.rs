//! The power button: an input device with the key KEY_POWER (`linux/input-event-codes.h`).

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

const KEY_POWER: usize = 116;
const EV_KEY: u16 = 1;
const KEY_DOWN: i32 = 1;
/// `struct input_event`: two longs of time, type, code, value.
const EVENT_BYTES: usize = 2 * size_of::<usize>() + 8;
const WORD_BITS: usize = usize::BITS as usize;

/// One open button.
#[derive(Debug)]
pub struct Button {
    path: PathBuf,
    device: OwnedFd,
}

/// Opens the power buttons that are not among `open` yet.
pub fn find(open: &[Button]) -> Vec<Button> {
    let entries = fs::read_dir("/sys/class/input").into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("event"))
        .filter(|entry| {
            let keys = fs::read_to_string(entry.path().join("device/capabilities/key"));
            keys.is_ok_and(|keys| has_key(&keys, KEY_POWER))
        })
        .map(|entry| Path::new("/dev/input").join(entry.file_name()))
        .filter(|path| open.iter().all(|button| button.path != *path))
        .filter_map(|path| {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let device = rustix::fs::open(&path, flags, Mode::empty()).ok()?;
            Some(Button { path, device })
        })
        .collect()
}

impl Button {
    /// Whether it was pressed since the last time.
    ///
    /// # Errors
    /// The device is gone.
    pub fn pressed(&self) -> io::Result<bool> {
        let mut pressed = false;
        let mut buffer = [0; EVENT_BYTES * 16];
        loop {
            match rustix::io::read(&self.device, &mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => pressed |= buffer.get(..len).unwrap_or_default().chunks_exact(EVENT_BYTES).any(is_press),
                Err(rustix::io::Errno::AGAIN) => return Ok(pressed),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Button {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

fn is_press(event: &[u8]) -> bool {
    let Some([t0, t1, c0, c1, value @ ..]) = event.get(EVENT_BYTES - 8..) else { return false };
    let value: Result<[u8; 4], _> = value.try_into();
    u16::from_ne_bytes([*t0, *t1]) == EV_KEY
        && usize::from(u16::from_ne_bytes([*c0, *c1])) == KEY_POWER
        && value.is_ok_and(|value| i32::from_ne_bytes(value) == KEY_DOWN)
}

/// Reads sysfs' bit field: hexadecimal words, the highest first.
fn has_key(capabilities: &str, key: usize) -> bool {
    let word = capabilities.split_ascii_whitespace().rev().nth(key / WORD_BITS);
    word.and_then(|word| u64::from_str_radix(word, 16).ok()).is_some_and(|word| word >> (key % WORD_BITS) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_the_right_word_only() {
        assert!(has_key("10000000000000 0\n", KEY_POWER));
        assert!(!has_key("10000000000000\n", KEY_POWER));
        assert!(!has_key("zz 0\n", KEY_POWER));
        assert!(!has_key("", KEY_POWER));
        // A keyboard has it among many others.
        assert!(has_key("402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe", 1));
    }

    #[test]
    fn only_pressing_the_power_key_counts() {
        let event = |kind: u16, code: u16, value: i32| {
            let mut bytes = vec![0; EVENT_BYTES - 8];
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(code.to_ne_bytes());
            bytes.extend(value.to_ne_bytes());
            is_press(&bytes)
        };
        assert!(event(1, 116, 1));
        assert!(!event(1, 116, 0));
        assert!(!event(1, 30, 1));
        assert!(!event(0, 116, 1));
        assert!(!is_press(&[]));
    }
}
