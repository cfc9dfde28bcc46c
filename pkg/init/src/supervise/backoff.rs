//! How long a service waits before it is started again, and when it is not any more.

use std::time::Duration;

use kiln_abi::ServicePolicy;

/// A service that ran this long was well: the next wait is the first one again.
const WELL_AFTER: Duration = Duration::from_secs(10);

/// The restarts of one service in a row.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    /// Restarts since the last good run.
    row: u32,
    /// The last wait.
    last: Option<Duration>,
}

impl Backoff {
    /// The wait after a run of that length: doubled each time. [`None`] if the policy allows no more restarts.
    pub fn after(&mut self, ran: Duration, policy: &ServicePolicy) -> Option<Duration> {
        if ran >= WELL_AFTER {
            *self = Self::default();
        }
        if policy.restart_limit.is_some_and(|limit| self.row >= limit) {
            return None;
        }
        let doubled = self.last.map(|last| last.saturating_mul(2));
        let wait = doubled.unwrap_or(policy.restart_delay).min(policy.restart_max_delay);
        self.row = self.row.saturating_add(1);
        self.last = Some(wait);
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: ServicePolicy = ServicePolicy::DEFAULT;

    #[test]
    fn waits_double_up_to_a_limit_and_a_good_run_resets_them() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..11).map(|_| backoff.after(Duration::ZERO, &POLICY).unwrap().as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]);
        let almost = WELL_AFTER - Duration::from_millis(1);
        assert_eq!(backoff.after(almost, &POLICY), Some(POLICY.restart_max_delay));
        assert_eq!(backoff.after(WELL_AFTER, &POLICY), Some(POLICY.restart_delay));
        assert_eq!(backoff.after(Duration::ZERO, &POLICY), Some(POLICY.restart_delay * 2));
    }

    #[test]
    fn the_number_of_restarts_in_a_row_is_limited() {
        let policy = ServicePolicy { restart_limit: Some(2), ..POLICY };
        let mut backoff = Backoff::default();
        let mut comes_back = |ran| backoff.after(ran, &policy).is_some();
        assert_eq!([(); 3].map(|()| comes_back(Duration::ZERO)), [true, true, false]);
        assert_eq!([WELL_AFTER, Duration::ZERO, Duration::ZERO].map(comes_back), [true, true, false]);
        assert_eq!(Backoff::default().after(WELL_AFTER, &ServicePolicy { restart_limit: Some(0), ..POLICY }), None);
    }
}
