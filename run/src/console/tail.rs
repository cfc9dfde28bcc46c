//! The end of what the guest printed, and whether its kernel's last words are the end of that.

use std::collections::VecDeque;

/// Kept, in bytes: some screens full.
const KEPT_BYTES: usize = 8192;
/// Looked at of each line, in bytes.
const LINE_BYTES: usize = 256;

/// How Linux begins to tell that it cannot go on.
const PANIC: &[u8] = b"Kernel panic - not syncing: ";
/// How it ends, when it then waits for somebody to switch the machine off. It prints nothing after that.
const PANIC_END: &[u8] = b"---[ end Kernel panic - not syncing";

/// The end of what was printed.
#[derive(Debug, Default)]
pub(super) struct Tail {
    kept: VecDeque<u8>,
    /// The beginning of the line that is being printed.
    line: Vec<u8>,
    panic: Option<String>,
    /// The last line was the last of a panic, and whole.
    ended: bool,
}

impl Tail {
    /// Adds what was printed. True when the last line of it is a panic's last.
    pub(super) fn add(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                b'\r' => {}
                byte => {
                    self.ended = false;
                    if self.line.len() < LINE_BYTES {
                        self.line.push(*byte);
                    }
                }
            }
        }
        let fresh = bytes.get(bytes.len().saturating_sub(KEPT_BYTES)..).unwrap_or_default();
        self.kept.extend(fresh);
        self.kept.drain(..self.kept.len().saturating_sub(KEPT_BYTES));
        self.ended
    }

    fn end_line(&mut self) {
        // A line of nothing after the last one is still nothing.
        if self.line.is_empty() {
            return;
        }
        let said = without_time(&self.line);
        if let Some(reason) = said.strip_prefix(PANIC) {
            self.panic = Some(String::from_utf8_lossy(reason).trim_end().to_owned());
        }
        self.ended = self.panic.is_some() && said.starts_with(PANIC_END);
        self.line.clear();
    }

    /// Why the kernel panicked, if it said so since the last [`Self::start`].
    pub(super) fn panic(&self) -> Option<&str> {
        self.panic.as_deref()
    }

    /// Whether a panic's last line is the last that was printed.
    pub(super) fn ends_with_panic(&self) -> bool {
        self.ended
    }

    /// The machine starts: what was said before is another kernel's.
    pub(super) fn start(&mut self) {
        (self.panic, self.ended) = (None, false);
    }

    /// At most so many lines, the last one last; empty ones count for nothing.
    pub(super) fn last_lines(&self, most: usize) -> Vec<String> {
        let bytes: Vec<u8> = self.kept.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        // The first may be half a line.
        let whole = if bytes.len() < KEPT_BYTES { 0 } else { 1 };
        lines.iter().skip(lines.len().saturating_sub(most).max(whole)).map(|line| (*line).to_owned()).collect()
    }
}

/// A line of the kernel's without what it may put before it: `[    1.234567] `, `[    T1] `.
fn without_time(mut line: &[u8]) -> &[u8] {
    while line.first() == Some(&b'[') {
        let Some(end) = line.windows(2).position(|pair| pair == b"] ") else { break };
        line = line.get(end + 2..).unwrap_or_default();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST: &str = "[    2.5] ---[ end Kernel panic - not syncing: no init ]---\r\n";

    fn printed(pieces: &[&str]) -> Tail {
        let mut tail = Tail::default();
        for piece in pieces {
            tail.add(piece.as_bytes());
        }
        tail
    }

    #[test]
    fn only_a_kernel_s_own_last_line_at_the_very_end_is_a_panic_s_end() {
        let first = "[    2.4][    T1] Kernel panic - not syncing: no init\r\nCPU: 0\r\n";
        for (pieces, panics, ends) in [
            (vec![""], false, false),
            (vec![LAST], false, false),
            (vec![first], true, false),
            (vec![first, LAST], true, true),
            (vec![first, LAST, "\r\n"], true, true),
            (vec![first, LAST, "/ # "], true, false),
            (vec![first, LAST.trim_end()], true, false),
            (vec!["echo Kernel panic - not syncing: x\n", LAST], false, false),
        ] {
            let tail = printed(&pieces);
            assert_eq!((tail.panic().is_some(), tail.ends_with_panic()), (panics, ends), "{pieces:?}");
        }
        let mut tail = printed(&[first, LAST]);
        assert_eq!(tail.panic(), Some("no init"));
        tail.start();
        assert_eq!((tail.panic(), tail.ends_with_panic()), (None, false));
    }

    #[test]
    fn words_that_come_byte_by_byte_are_understood() {
        let mut tail = Tail::default();
        let text = format!("Kernel panic - not syncing: a\n{LAST}");
        let ends: Vec<bool> = text.bytes().map(|byte| tail.add(&[byte])).collect();
        assert_eq!(ends.iter().filter(|end| **end).count(), 1);
        assert_eq!(ends.last(), Some(&true));
    }

    #[test]
    fn the_last_lines_are_whole_and_few() {
        assert_eq!(printed(&["a\r\n\r\nb\n", "c"]).last_lines(2), ["b", "c"]);
        assert_eq!(printed(&[]).last_lines(2), [""; 0]);
        let many: String = (0..5000).map(|n| format!("line {n}\n")).collect();
        let tail = printed(&[&many]);
        let lines = tail.last_lines(10_000);
        assert!(lines.len() < 1000 && lines.iter().all(|line| line.starts_with("line ")), "{}", lines.len());
        assert_eq!(lines.last().map(String::as_str), Some("line 4999"));
    }
}
