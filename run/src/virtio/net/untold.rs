//! When the driver hears that its frames were taken.
//!
//! Most frames are short and on their own, and something comes back: the driver is interrupted for that, and sees then
//! what was taken as well. So the word about such a frame waits a moment, and one interrupt serves for both. A driver
//! may wait for room before it sends more (Linux does, for each connection): it never waits with more than one frame.

use kiln_net::Millis;

/// How long the driver waits for something to come. Drivers that hear nothing of a single frame lack nothing meanwhile.
const PATIENCE_MS: Millis = 10;
/// How long it waits at most, if something comes again and again.
const LIMIT_MS: Millis = 100;
/// Frames after which the driver hears of them, even if something came for it each time: it need not look at both queues.
const FRAMES: u32 = 16;
/// Longest frame that counts as short, with its header: what fits most links. Longer ones are of those who send a lot.
const SHORT_BYTES: u64 = 2_048;

/// Frames that were taken, and that the driver was not told of.
#[derive(Debug, Default)]
pub(super) struct Untold {
    /// Since it was told.
    count: u32,
    /// Since it was told, or something came for it.
    unseen: u32,
    has_long: bool,
    /// The first of them, and when the driver is told.
    waits: Option<(Millis, Millis)>,
}

impl Untold {
    /// A frame of so many bytes was taken.
    pub(super) fn took(&mut self, len_bytes: u64, now: Millis) {
        self.count = self.count.saturating_add(1);
        self.unseen = self.unseen.saturating_add(1);
        self.has_long |= len_bytes > SHORT_BYTES;
        self.waits.get_or_insert((now, now + PATIENCE_MS));
    }

    /// The driver is interrupted because something came for it.
    pub(super) fn interrupted(&mut self, now: Millis) {
        self.unseen = 0;
        if let Some((since, at)) = &mut self.waits {
            *at = (now + PATIENCE_MS).min(*since + LIMIT_MS);
        }
    }

    /// Whether the driver is to be told now; from then on it knows of all.
    pub(super) fn is_due(&mut self, now: Millis) -> bool {
        let is_late = self.waits.is_some_and(|(_, at)| at <= now);
        let is_due = self.count > 0 && (self.unseen > 1 || self.count >= FRAMES || self.has_long || is_late);
        if is_due {
            *self = Self::default();
        }
        is_due
    }

    /// When [`is_due`](Self::is_due) is to be asked again.
    pub(super) fn deadline(&self) -> Option<Millis> {
        self.waits.map(|(_, at)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_frames_and_several_are_told_at_once() {
        for lens in [&[SHORT_BYTES + 1][..], &[60, 60], &[60, 60, 60]] {
            let mut untold = Untold::default();
            lens.iter().for_each(|len| untold.took(*len, 5));
            assert!(untold.is_due(5), "{lens:?}");
            assert!(!untold.is_due(1_000) && untold.deadline().is_none());
        }
    }

    #[test]
    fn a_short_frame_waits_for_something_to_come() {
        let mut untold = Untold::default();
        untold.took(SHORT_BYTES, 5);
        assert!(!untold.is_due(14));
        assert_eq!(untold.deadline(), Some(15));
        assert!(untold.is_due(15));
        untold.took(60, 20);
        assert!(!untold.is_due(20));
        untold.took(60, 21);
        assert!(untold.is_due(21), "two of them wait for nothing");
    }

    #[test]
    fn a_driver_that_is_interrupted_anyway_hears_of_every_sixteenth() {
        let mut untold = Untold::default();
        for number in 1..=64 {
            untold.took(60, 5);
            assert_eq!(untold.is_due(5), number % 16 == 0, "{number}");
            untold.interrupted(5);
        }
        assert!(!untold.is_due(1_000));
        // And of one at last, however often it is interrupted.
        untold.took(60, 20);
        for now in 20..120 {
            assert!(!untold.is_due(now));
            untold.interrupted(now);
        }
        assert!(untold.is_due(120));
    }
}
