//! What happened to the few descriptors of a link, behind one descriptor that others wait for.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// Events that are looked at in one turn.
const EVENTS_AT_ONCE: usize = 64;

/// The descriptors of one link.
#[derive(Debug)]
pub(super) struct Watch {
    epoll: OwnedFd,
}

/// What happened to a descriptor since somebody last looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Happened {
    /// Whose it is.
    pub(super) token: u64,
    /// There is something to read, or an end.
    pub(super) is_readable: bool,
}

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Tells whenever something changes at `fd`, until it is closed.
    pub(super) fn add(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token), flags)?)
    }

    /// Tells as long as `fd` is readable.
    pub(super) fn add_level(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN)?)
    }

    /// What happened, without waiting.
    pub(super) fn happened(&self) -> io::Result<Vec<Happened>> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut events = [const { MaybeUninit::<Event>::uninit() }; EVENTS_AT_ONCE];
        let events = match epoll::wait(&self.epoll, &mut events[..], Some(&now)) {
            Ok((events, _)) => events,
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let end = EventFlags::IN | EventFlags::RDHUP | EventFlags::ERR | EventFlags::HUP;
        let happened = events.iter().map(|event| {
            // The structure is packed: its fields are copied.
            let (flags, data) = (event.flags, event.data);
            Happened { token: data.u64(), is_readable: flags.intersects(end) }
        });
        Ok(happened.collect())
    }
}
