//! `kmsg`: says every message of the kernel, those of the boot first (`Documentation/ABI/testing/dev-kmsg`).

use std::fs::File;
use std::io::{self, Read};

use crate::{Failure, Voice};

const DEVICE: &str = "/dev/kmsg";
/// The kernel's limit of a record is 8192 bytes (CONSOLE_EXT_LOG_MAX).
const RECORD_LIMIT_BYTES: usize = 16 << 10;

/// Why no more is read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read `{DEVICE}`; the container needs it bound, and CAP_SYSLOG")]
struct KmsgError(#[source] io::Error);

/// Follows the log until the process is ended.
///
/// # Errors
/// The log cannot be read.
pub fn run(_arguments: &[String], say: Voice<'_>) -> Result<(), Failure> {
    let mut device = File::open(DEVICE).map_err(|error| Failure::of(KmsgError(error)))?;
    let mut record = vec![0; RECORD_LIMIT_BYTES];
    loop {
        match device.read(&mut record) {
            Ok(0) => return Ok(()),
            Ok(len) => {
                if let Some(line) = line(record.get(..len).unwrap_or_default()) {
                    say(&line);
                }
            }
            // Older ones were overwritten before they were read; the next read goes on with the oldest there is.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => say("messages of the kernel were lost"),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::of(KmsgError(error))),
        }
    }
}

/// `PRIORITY,NUMBER,MICROSECONDS,…;TEXT`, and lines that say more of it.
fn line(record: &[u8]) -> Option<String> {
    let record = String::from_utf8_lossy(record);
    let (head, text) = record.split_once(';')?;
    let micros: u64 = head.split(',').nth(2)?.parse().ok()?;
    let text = text.lines().next().unwrap_or_default();
    Some(format!("[{:5}.{:06}] {text}", micros / 1_000_000, micros % 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_becomes_a_line_with_its_time_and_nonsense_none() {
        for nonsense in ["", ";", "6,1;x", "6,1,x,-;text"] {
            assert_eq!(line(nonsense.as_bytes()), None, "{nonsense}");
        }
        let record = b"6,339,5140900,-;NET: Registered; family 10\n SUBSYSTEM=net\n";
        assert_eq!(line(record).unwrap(), "[    5.140900] NET: Registered; family 10");
    }
}
