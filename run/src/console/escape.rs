//! Keys that are for this program and not for the guest, the same as QEMU's: Ctrl-A x ends the machine, Ctrl-A Ctrl-A
//! sends one Ctrl-A. Any other key after Ctrl-A goes to the guest together with it.

/// The key that begins an escape.
const CTRL_A: u8 = 0x01;

/// Looks for escapes in what is typed.
#[derive(Debug, Default)]
pub(super) struct Escape {
    begun: bool,
}

impl Escape {
    /// Returns what is for the guest, at most one byte more than `typed`, and whether the user wants to quit. What was
    /// typed after that is dropped.
    pub fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len() + 1);
        for &key in typed {
            match (std::mem::take(&mut self.begun), key) {
                (false, CTRL_A) => self.begun = true,
                (true, b'x' | b'X') => return (passed, true),
                (true, CTRL_A) => passed.push(CTRL_A),
                (true, key) => passed.extend([CTRL_A, key]),
                (false, key) => passed.push(key),
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ctrl_a_x_quits_and_all_else_reaches_the_guest() {
        let cases: [(&[u8], &[u8], bool); 8] = [
            (b"x", b"x", false),
            (b"\x03\x04\x1c", b"\x03\x04\x1c", false),
            (b"ab\x01xcd", b"ab", true),
            (b"\x01X", b"", true),
            (b"\x01\x01x", b"\x01x", false),
            (b"\x01b", b"\x01b", false),
            (b"\x01\x01\x01\x01", b"\x01\x01", false),
            (b"\x01", b"", false),
        ];
        for (typed, passed, quits) in cases {
            assert_eq!(Escape::default().filter(typed), (passed.to_vec(), quits), "{typed:?}");
        }
    }

    #[test]
    fn an_escape_may_come_in_two_parts() {
        let mut escape = Escape::default();
        assert_eq!(escape.filter(b"a\x01"), (b"a".to_vec(), false));
        assert_eq!(escape.filter(b"x"), (vec![], true));
        let mut escape = Escape::default();
        assert_eq!(escape.filter(b"\x01"), (vec![], false));
        assert_eq!(escape.filter(b"y"), (b"\x01y".to_vec(), false));
    }
}
