//! One bit between threads that an event loop can wait for.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use rustix::event::{EventfdFlags, eventfd};

/// A bit that any thread may raise and that a poll sees as readable while it is raised (an eventfd).
#[derive(Debug)]
pub struct Flag {
    event: OwnedFd,
}

impl Flag {
    /// A flag that is down.
    pub fn new() -> io::Result<Self> {
        Ok(Self { event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// Raises the flag; stays raised until [`Self::take`].
    pub fn raise(&self) {
        // The one failure is a full counter, and then the flag is raised already.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    /// Takes the flag down; true if it was raised.
    pub fn take(&self) -> bool {
        // Reading resets the counter whatever its value; it fails when the counter is zero.
        rustix::io::read(&self.event, &mut [0; 8]).is_ok()
    }

    /// The same flag for another owner.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { event: self.event.try_clone()? })
    }
}

impl AsFd for Flag {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl AsRawFd for Flag {
    fn as_raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_taken_once_however_often_it_was_raised() {
        let flag = Flag::new().unwrap();
        assert!(!flag.take());
        flag.raise();
        flag.try_clone().unwrap().raise();
        assert!(flag.take());
        assert!(!flag.take());
    }
}
