//! What is at the other end of a card's cable: the user-mode stack, a socket of another program, a device of the host.

mod address;
mod bridge;
mod error;
mod gram;
mod inherited;
mod outgoing;
mod packets;
mod retry;
mod stream;
mod switch;
mod tap;
mod watch;

#[cfg(test)]
mod real;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Millis;
use crate::port::{Abilities, GuestFrame, GuestPort};

pub(crate) use address::Address;
pub use bridge::bridge;
pub use error::LinkError;
pub use gram::{Greeting, UnixGram};
pub use inherited::inherited;
pub use stream::UnixStream;
pub use switch::{JoinError, Member};
pub use tap::Tap;

/// What ended a [wait](Link::wait).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Woken {
    /// The guest's socket has something to read, or ends.
    pub port: bool,
    /// The link has something, of which only [`turn`](Link::turn) tells.
    pub link: bool,
    /// Neither: the time was over.
    pub is_late: bool,
}

/// The other end of a card's cable. It starts no thread and reads no clock: whoever owns it turns it. Nothing but
/// [`wait`](Self::wait) waits.
pub trait Link: Send {
    /// Readable when [`turn`](Self::turn) has something to do. The same one as long as the link lives.
    fn fd(&self) -> BorrowedFd<'_>;

    /// What frames from the guest may lack: a card offers no more than this to its driver.
    fn takes(&self) -> Abilities;

    /// A frame came from the guest. After the last one of a batch, [`turn`](Self::turn) is to be called.
    #[expect(clippy::wrong_self_convention, reason = "the frame came from the guest; nothing is made of it")]
    fn from_guest(&mut self, frame: &dyn GuestFrame, port: &mut dyn GuestPort, now: Millis);

    /// Does all that there is to do. True if there is more, for which the guest must take frames or others have their
    /// turn first.
    ///
    /// # Errors
    /// The host cannot say what happened to its descriptors.
    fn turn(&mut self, port: &mut dyn GuestPort, now: Millis) -> io::Result<bool>;

    /// The same while [`fd`](Self::fd) is known not to be readable: what frames from the guest and the clock ask for.
    ///
    /// # Errors
    /// As those of [`turn`](Self::turn).
    fn settle(&mut self, port: &mut dyn GuestPort, now: Millis) -> io::Result<bool> {
        self.turn(port, now)
    }

    /// Waits until there is something to do, or until `port`, which the guest is behind, is as `wanted`; at most as long as
    /// `timeout`. Before another port is waited for, this one is to be [forgotten](Self::forget).
    ///
    /// # Errors
    /// The host's.
    fn wait(&mut self, port: BorrowedFd<'_>, wanted: PollFlags, timeout: Option<&Timespec>) -> io::Result<Woken> {
        let link = self.fd();
        let mut fds = [PollFd::new(&link, PollFlags::IN), PollFd::new(&port, wanted)];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_late = fds.iter().all(|fd| fd.revents().is_empty());
        let [link, port] = fds.map(|fd| fd.revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR));
        Ok(Woken { port, link, is_late })
    }

    /// Waits no longer for `port`.
    fn forget(&mut self, _port: BorrowedFd<'_>) {}

    /// When [`turn`](Self::turn) is to be called even if nothing happens.
    fn deadline(&self) -> Option<Millis>;

    /// From now on another guest is at the other side: nothing is left of what the one before began.
    fn change_guest(&mut self) {}

    /// Whether no frame is to be taken from the guest now: whoever is behind the link is slow. [`turn`](Self::turn) says
    /// when that is over.
    fn is_full(&self) -> bool {
        false
    }

    /// Whether somebody is at the other end.
    fn is_up(&self) -> bool {
        true
    }

    /// Frames that were lost, in either direction, because somebody was slow or not there.
    fn lost(&self) -> u64 {
        0
    }
}

impl Link for Box<dyn Link> {
    fn fd(&self) -> BorrowedFd<'_> {
        (**self).fd()
    }

    fn takes(&self) -> Abilities {
        (**self).takes()
    }

    fn from_guest(&mut self, frame: &dyn GuestFrame, port: &mut dyn GuestPort, now: Millis) {
        (**self).from_guest(frame, port, now);
    }

    fn turn(&mut self, port: &mut dyn GuestPort, now: Millis) -> io::Result<bool> {
        (**self).turn(port, now)
    }

    fn settle(&mut self, port: &mut dyn GuestPort, now: Millis) -> io::Result<bool> {
        (**self).settle(port, now)
    }

    fn wait(&mut self, port: BorrowedFd<'_>, wanted: PollFlags, timeout: Option<&Timespec>) -> io::Result<Woken> {
        (**self).wait(port, wanted, timeout)
    }

    fn forget(&mut self, port: BorrowedFd<'_>) {
        (**self).forget(port);
    }

    fn deadline(&self) -> Option<Millis> {
        (**self).deadline()
    }

    fn change_guest(&mut self) {
        self.as_mut().change_guest();
    }

    fn is_full(&self) -> bool {
        (**self).is_full()
    }

    fn is_up(&self) -> bool {
        (**self).is_up()
    }

    fn lost(&self) -> u64 {
        (**self).lost()
    }
}
