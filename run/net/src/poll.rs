//! Waiting for many sockets at once.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFlags, Timespec};

/// Events that are looked at in one turn.
const EVENTS_AT_ONCE: usize = 256;

/// Whose socket something happened to. A number that was given before means somebody who is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// What kind of owner it has.
    pub owner: Owner,
    /// Its place there.
    pub place: u32,
    /// Which one of those that had this place.
    pub generation: u32,
}

/// Who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Owner {
    /// A TCP connection.
    Tcp = 0,
    /// A UDP socket.
    Udp = 1,
    /// An echo socket.
    Echo = 2,
    /// A question to a name server.
    Dns = 3,
    /// A published port.
    Publish = 4,
    /// A socket that others connect to.
    Listener = 5,
    /// A connection that is on no network.
    Stream = 6,
    /// The way to the guest.
    Port = 7,
}

const GENERATION_BITS: u32 = 28;

impl Token {
    /// Generations are counted up to here, and then from 0 on again.
    pub const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;

    fn to_bits(self) -> u64 {
        u64::from(self.place) << 32 | u64::from(self.generation & Self::GENERATION_MASK) << 4 | self.owner as u64
    }

    fn from_bits(bits: u64) -> Option<Self> {
        let owner = match bits & 0xf {
            0 => Owner::Tcp,
            1 => Owner::Udp,
            2 => Owner::Echo,
            3 => Owner::Dns,
            4 => Owner::Publish,
            5 => Owner::Listener,
            6 => Owner::Stream,
            7 => Owner::Port,
            _ => return None,
        };
        let place = u32::try_from(bits >> 32).ok()?;
        let generation = u32::try_from(bits >> 4 & u64::from(Self::GENERATION_MASK)).ok()?;
        Some(Self { owner, place, generation })
    }
}

/// What happened to a socket since somebody last looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// Whose it is.
    pub token: Token,
    /// There is something to read, or an end, or an error.
    pub is_readable: bool,
    /// There is room, or an error.
    pub is_writable: bool,
    /// There is an end, an error or urgent data: what was read last may be short though something is behind it.
    pub has_ended: bool,
}

/// The sockets of one stack. Clones are the same.
#[derive(Debug, Clone)]
pub struct Poll {
    epoll: Arc<OwnedFd>,
}

impl Poll {
    /// No sockets yet.
    ///
    /// # Errors
    /// The host's: no more descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: Arc::new(epoll::create(CreateFlags::CLOEXEC)?) })
    }

    /// Readable when something happened to one of the sockets.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Tells whenever something changes at `socket`, until it is closed.
    ///
    /// # Errors
    /// The host's.
    pub fn add(&self, socket: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::PRI | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&*self.epoll, socket, EventData::new_u64(token.to_bits()), flags)?)
    }

    /// Tells as long as the guest's socket is as `wanted`, which is changed if `again`.
    ///
    /// # Errors
    /// The host's.
    pub fn watch(&self, port: BorrowedFd<'_>, wanted: PollFlags, again: bool) -> io::Result<()> {
        let flag = |flag, event| if wanted.contains(flag) { event } else { EventFlags::empty() };
        let flags = flag(PollFlags::IN, EventFlags::IN) | flag(PollFlags::OUT, EventFlags::OUT);
        let data = EventData::new_u64(Token { owner: Owner::Port, place: 0, generation: 0 }.to_bits());
        let set = if again { epoll::modify } else { epoll::add };
        Ok(set(&self.epoll, port, data, flags)?)
    }

    /// No longer tells of the guest's socket.
    pub fn forget(&self, port: BorrowedFd<'_>) {
        // It is gone already otherwise.
        let _ = epoll::delete(&*self.epoll, port);
    }

    /// What happened, without waiting.
    ///
    /// # Errors
    /// The host's.
    pub fn ready(&self) -> io::Result<Vec<Ready>> {
        self.wait(Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))
    }

    /// What happens before the time is over.
    ///
    /// # Errors
    /// The host's.
    pub fn wait(&self, timeout: Option<&Timespec>) -> io::Result<Vec<Ready>> {
        let mut events = [const { MaybeUninit::<Event>::uninit() }; EVENTS_AT_ONCE];
        let events = match epoll::wait(&*self.epoll, &mut events[..], timeout) {
            Ok((events, _)) => events,
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let broken = EventFlags::ERR | EventFlags::HUP;
        let ready = events.iter().filter_map(|event| {
            // The structure is packed: its fields are copied.
            let (flags, data) = (event.flags, event.data);
            Some(Ready {
                token: Token::from_bits(data.u64())?,
                is_readable: flags.intersects(EventFlags::IN | EventFlags::RDHUP | broken),
                is_writable: flags.intersects(EventFlags::OUT | broken),
                has_ended: flags.intersects(EventFlags::RDHUP | EventFlags::PRI | broken),
            })
        });
        Ok(ready.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_as_it_was() {
        for owner in [Owner::Tcp, Owner::Udp, Owner::Echo, Owner::Dns, Owner::Publish, Owner::Stream, Owner::Port] {
            for (place, generation) in [(0, 0), (u32::MAX, Token::GENERATION_MASK), (7, 1)] {
                let token = Token { owner, place, generation };
                assert_eq!(Token::from_bits(token.to_bits()), Some(token));
            }
        }
        assert_eq!(Token::from_bits(0xf), None);
    }
}
