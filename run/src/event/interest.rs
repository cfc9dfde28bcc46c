//! What a handler waits for.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::{EventHandler, Flag};

/// Events fetched by one call to the kernel; more wait for the next call.
pub(super) const EVENTS_AT_ONCE: usize = 16;

/// The descriptors that one handler waits for.
#[derive(Debug)]
pub struct Interest<'a> {
    epoll: &'a Epoll,
    /// Marks the handler in the upper half of an event's data; the lower half is the handler's token.
    handler: u32,
    watched: &'a mut Vec<RawFd>,
}

impl<'a> Interest<'a> {
    pub(super) fn new(epoll: &'a Epoll, handler: u32, watched: &'a mut Vec<RawFd>) -> Self {
        Self { epoll, handler, watched }
    }

    /// Waits for `descriptor` to become readable. Fails with `PermissionDenied` for a regular file, which is always
    /// readable.
    pub fn watch(&mut self, descriptor: &impl AsRawFd, token: u32) -> io::Result<()> {
        let fd = descriptor.as_raw_fd();
        let data = u64::from(self.handler) << 32 | u64::from(token);
        self.epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, data))?;
        self.watched.push(fd);
        Ok(())
    }

    /// Waits no longer for `descriptor`.
    pub fn ignore(&mut self, descriptor: &impl AsRawFd) {
        let fd = descriptor.as_raw_fd();
        if let Some(at) = self.watched.iter().position(|watched| *watched == fd) {
            self.watched.swap_remove(at);
            forget(self.epoll, fd);
        }
    }

    /// Waits for nothing any longer.
    pub fn clear(&mut self) {
        for fd in self.watched.drain(..) {
            forget(self.epoll, fd);
        }
    }
}

fn forget(epoll: &Epoll, fd: RawFd) {
    // Fails only for a descriptor that is not watched; then there is nothing to end.
    let _ = epoll.ctl(ControlOperation::Delete, fd, EpollEvent::default());
}

/// Waits for events. A signal that arrives meanwhile counts as no event.
pub(super) fn wait(epoll: &Epoll, events: &mut [EpollEvent]) -> io::Result<usize> {
    match epoll.wait(-1, events) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        result => result,
    }
}

/// Splits an event's data into handler and token.
pub(super) fn parts(event: &EpollEvent) -> (u32, u32) {
    let data = event.data();
    #[expect(clippy::cast_possible_truncation, reason = "takes the two halves apart")]
    ((data >> 32) as u32, data as u32)
}

/// Serves one handler on this thread until `stop` is raised.
pub fn serve(handler: &mut impl EventHandler, stop: &Flag) -> io::Result<()> {
    const STOP: u32 = u32::MAX;
    let epoll = Epoll::new()?;
    let (mut stop_fds, mut fds) = (Vec::new(), Vec::new());
    Interest::new(&epoll, STOP, &mut stop_fds).watch(stop, 0)?;
    let mut interest = Interest::new(&epoll, 0, &mut fds);
    handler.start(&mut interest)?;
    let mut events = [EpollEvent::default(); EVENTS_AT_ONCE];
    loop {
        let count = wait(&epoll, &mut events)?;
        for event in events.iter().take(count) {
            match parts(event) {
                (STOP, _) => return Ok(()),
                (_, token) => handler.ready(token, &mut interest),
            }
        }
    }
}
