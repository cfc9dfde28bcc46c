//! When to ask again: each wait twice the one before, and never quite the same, so that machines that start together do not
//! ask together (RFC 2131 section 4.1, RFC 8415 section 15).

use crate::Millis;

/// Random numbers (xorshift64): for waits and transaction numbers.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Numbers that follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next one.
    pub fn number(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 >> 32).unwrap_or_default()
    }

    /// `wait`, up to a tenth longer or shorter.
    pub fn around(&mut self, wait: Millis) -> Millis {
        let tenth = wait / 10;
        (wait - tenth).saturating_add(u64::from(self.number()) % (tenth * 2 + 1))
    }
}

/// The wait after `sent` messages: `first`, doubled each time, at most `longest`.
pub fn wait(first: Millis, longest: Millis, sent: u32) -> Millis {
    let doublings = sent.saturating_sub(1).min(20);
    first.saturating_mul(1 << doublings).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_limit_and_differ_by_a_tenth() {
        assert_eq!(
            [0, 1, 2, 3, 30, u32::MAX].map(|sent| wait(1000, 64_000, sent)),
            [1000, 1000, 2000, 4000, 64_000, 64_000]
        );
        let mut random = Random::new(7);
        let waits: Vec<_> = (0..1000).map(|_| random.around(1000)).collect();
        assert!(waits.iter().all(|wait| (900..=1100).contains(wait)));
        assert!(waits.iter().any(|wait| *wait < 950) && waits.iter().any(|wait| *wait > 1050));
        assert_eq!(random.around(0), 0);
    }
}
