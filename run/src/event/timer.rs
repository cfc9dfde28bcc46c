//! A moment that an event loop can wait for.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_gettime,
    timerfd_settime,
};

const NEVER: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// A timer that is readable once its time has come (a timerfd). It does not run while the host sleeps.
#[derive(Debug)]
pub struct Timer {
    timer: OwnedFd,
}

impl Timer {
    /// A timer that is not set.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self { timer: timerfd_create(TimerfdClockId::Monotonic, flags)? })
    }

    /// Its time comes once, after `time`; what was set before counts no more.
    pub fn set(&self, time: Duration) {
        // Zero would mean never.
        let time = time.max(Duration::from_nanos(1));
        self.set_to(Timespec::try_from(time).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 }));
    }

    /// Its time does not come.
    pub fn clear(&self) {
        self.set_to(NEVER);
    }

    /// How long it still takes; `None` when it is not set, or its time has come.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        let left = timerfd_gettime(&self.timer).ok()?.it_value;
        Duration::try_from(left).ok().filter(|left| !left.is_zero())
    }

    /// Whether its time has come since it was set; asked once.
    #[must_use]
    pub fn take(&self) -> bool {
        rustix::io::read(&self.timer, &mut [0; 8]).is_ok()
    }

    fn set_to(&self, time: Timespec) {
        let spec = Itimerspec { it_interval: NEVER, it_value: time };
        let result = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec);
        debug_assert!(result.is_ok(), "a timer of our own takes every time");
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    #[test]
    fn a_timer_comes_once_and_not_when_it_was_cleared() {
        let timer = Timer::new().unwrap();
        assert!(!timer.take() && timer.left().is_none());
        timer.set(Duration::ZERO);
        poll(&mut [PollFd::from_borrowed_fd(rustix::fd::AsFd::as_fd(&timer.timer), PollFlags::IN)], None).unwrap();
        assert!(timer.take() && !timer.take());
        timer.set(Duration::from_secs(3600));
        assert!(timer.left().is_some_and(|left| left > Duration::from_secs(3500)));
        timer.clear();
        assert!(timer.left().is_none() && !timer.take());
    }
}
