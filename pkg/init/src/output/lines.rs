//! Cutting a stream of bytes into lines.

use std::time::Duration;

/// A longer line is cut: the console is no place for a file.
const LINE_LIMIT_BYTES: usize = 4096;
/// The begin of a line is shown after this time: somebody may be waiting at a prompt.
const PATIENCE: Duration = Duration::from_secs(1);

/// The line that has not ended yet.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
    since: Duration,
}

impl Lines {
    /// Takes what arrived at `now` and gives `line` each line without its end.
    pub fn take(&mut self, now: Duration, bytes: &[u8], mut line: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.partial.is_empty() {
                self.since = now;
            }
            let (text, ended) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            for part in text.chunks(LINE_LIMIT_BYTES) {
                if self.partial.len() + part.len() > LINE_LIMIT_BYTES {
                    line(&std::mem::take(&mut self.partial));
                }
                self.partial.extend_from_slice(part);
            }
            if ended {
                let text = std::mem::take(&mut self.partial);
                line(text.strip_suffix(b"\r").unwrap_or(&text));
            }
        }
    }

    /// When the begin of a line is to be shown.
    pub fn deadline(&self) -> Option<Duration> {
        (!self.partial.is_empty()).then_some(self.since + PATIENCE)
    }

    /// Gives up waiting for the end of a line.
    pub fn flush(&mut self) -> Option<Vec<u8>> {
        (!self.partial.is_empty()).then(|| std::mem::take(&mut self.partial))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collect(lines: &mut Lines, bytes: &[u8]) -> Vec<String> {
        let mut out = Vec::new();
        lines.take(Duration::ZERO, bytes, |line| out.push(String::from_utf8_lossy(line).into_owned()));
        out
    }

    #[test]
    fn a_line_without_an_end_is_cut_and_nothing_of_it_is_lost() {
        let mut lines = Lines::default();
        let mut out = Vec::new();
        for _ in 0..10 {
            out.extend(collect(&mut lines, &[b'x'; 1000]));
        }
        assert!(out.iter().all(|line| line.len() <= LINE_LIMIT_BYTES));
        let rest = lines.flush().unwrap();
        assert_eq!(out.iter().map(String::len).sum::<usize>() + rest.len(), 10_000);
        let huge = collect(&mut lines, &[b'y'; 10_000]);
        assert_eq!(huge.iter().map(String::len).collect::<Vec<_>>(), [4096, 4096]);
    }

    #[test]
    fn lines_are_joined_over_reads_and_empty_ones_kept() {
        let mut lines = Lines::default();
        assert_eq!(collect(&mut lines, b"one\n\ntw"), ["one", ""]);
        assert_eq!(collect(&mut lines, b"o\r\nthree"), ["two"]);
        assert_eq!(lines.flush().as_deref(), Some(&b"three"[..]));
        assert_eq!(lines.flush(), None);
    }

    #[test]
    fn the_begin_of_a_line_waits_a_second_from_its_first_byte() {
        let mut lines = Lines::default();
        assert_eq!(lines.deadline(), None);
        lines.take(Duration::from_secs(5), b"a\nlogin: ", |_| {});
        lines.take(Duration::from_secs(6), b"x", |_| {});
        assert_eq!(lines.deadline(), Some(Duration::from_secs(6)));
    }
}
