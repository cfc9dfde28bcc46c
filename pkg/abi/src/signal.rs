//! Signals by name. The numbers are Linux's on x86, ARM and RISC-V (`signal(7)`).

use std::fmt;

/// First real-time signal that programs may use: the C libraries keep two for themselves. Container engines count
/// `SIGRTMIN+N` from here.
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

const NAMES: [(&str, u8); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// A signal, 1 to 64. Shows as `SIGTERM`, `SIGRTMIN+3`; as a number where it has no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(u8);

impl Signal {
    /// The usual request to end.
    pub const TERM: Self = Self(15);
    /// The end.
    pub const KILL: Self = Self(9);

    /// The signal of this name: `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`, `SIGRTMAX-1`, in any case. [`None`] if there is none.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return word.parse().ok().filter(|number| (1..=RTMAX).contains(number)).map(Self);
        }
        let upper = word.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Some(Self(*number));
        }
        let number = if let Some(rest) = name.strip_prefix("RTMIN") {
            RTMIN.checked_add(offset(rest, '+')?)
        } else {
            RTMAX.checked_sub(offset(name.strip_prefix("RTMAX")?, '-')?)
        };
        number.filter(|number| (RTMIN..=RTMAX).contains(number)).map(Self)
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// Every name without `SIG`, except for the real-time ones.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, _)| *name)
    }
}

/// What follows `RTMIN` or `RTMAX`: nothing, or the sign and digits.
fn offset(rest: &str, sign: char) -> Option<u8> {
    match rest.strip_prefix(sign) {
        Some(digits) if digits.bytes().all(|c| c.is_ascii_digit()) => digits.parse().ok(),
        None if rest.is_empty() => Some(0),
        _ => None,
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => write!(out, "SIG{name}"),
            None if self.0 == RTMIN => out.write_str("SIGRTMIN"),
            None if self.0 > RTMIN => write!(out, "SIGRTMIN+{}", self.0 - RTMIN),
            None => write!(out, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_signal_is_none() {
        for word in
            ["", "SIG", "TERMINATE", "0", "65", "-1", "1x", "RTMIN-1", "RTMIN+31", "RTMAX-31", "RTMIN+", "RTMIN+ 1"]
        {
            assert_eq!(Signal::of(word), None, "{word}");
        }
    }

    #[test]
    fn every_spelling_of_a_signal_is_the_same_signal() {
        for (word, number, shown) in [
            ("SIGTERM", 15, "SIGTERM"),
            ("term", 15, "SIGTERM"),
            ("15", 15, "SIGTERM"),
            ("SIGRTMIN+3", 37, "SIGRTMIN+3"),
            ("RTMAX-1", 63, "SIGRTMIN+29"),
            ("sigrtmin", 34, "SIGRTMIN"),
            ("33", 33, "33"),
        ] {
            let signal = Signal::of(word).unwrap();
            assert_eq!((signal.number(), signal.to_string().as_str()), (number, shown), "{word}");
            assert_eq!(Signal::of(shown), Some(signal));
        }
    }
}
