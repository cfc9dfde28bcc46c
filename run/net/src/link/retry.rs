//! When to look again for somebody who is gone.

use crate::Millis;

const FIRST_MS: Millis = 100;
const LONGEST_MS: Millis = 3_200;

/// Waits twice as long each time.
#[derive(Debug, Default)]
pub(super) struct Retry {
    next: Option<(Millis, Millis)>,
}

impl Retry {
    /// Somebody is gone.
    pub(super) fn begin(&mut self, now: Millis) {
        self.next.get_or_insert((now + FIRST_MS, FIRST_MS));
    }

    pub(super) fn is_due(&self, now: Millis) -> bool {
        self.next.is_some_and(|(next, _)| next <= now)
    }

    /// He was not there.
    pub(super) fn again(&mut self, now: Millis) {
        let pause = self.next.map_or(FIRST_MS, |(_, pause)| (2 * pause).min(LONGEST_MS));
        self.next = Some((now + pause, pause));
    }

    /// He is there.
    pub(super) fn end(&mut self) {
        self.next = None;
    }

    pub(super) fn deadline(&self) -> Option<Millis> {
        self.next.map(|(next, _)| next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit_and_begin_anew() {
        let mut retry = Retry::default();
        assert!(!retry.is_due(Millis::MAX));
        retry.begin(1_000);
        let mut now = 1_000;
        let pauses: Vec<Millis> = (0..8)
            .map(|_| {
                let pause = retry.deadline().unwrap() - now;
                now += pause;
                assert!(!retry.is_due(now - 1) && retry.is_due(now));
                retry.again(now);
                pause
            })
            .collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 3_200, 3_200]);
        retry.end();
        retry.begin(now);
        assert_eq!(retry.deadline(), Some(now + FIRST_MS));
    }
}
