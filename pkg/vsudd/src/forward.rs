//! Carries bytes between two streams until both ways have ended.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::{self, Builder};
use std::time::Duration;

use kiln_guest::{socket, vsock};

use crate::arguments::{Forward, Place};

/// Bytes carried at once.
const CHUNK_BYTES: usize = 32 << 10;
/// A thread needs little more than the chunk; there may be thousands.
const STACK_BYTES: usize = 64 << 10;
/// Rest after a connection could not be taken, for want of descriptors perhaps.
const REST: Duration = Duration::from_millis(100);

/// Where connections come from.
enum Source {
    Vsock(vsock::Listener),
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Source {
    fn accept(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Vsock(listener) => Ok(listener.accept()?.0.into()),
            Self::Unix(listener) => Ok(listener.accept()?.0.into()),
            Self::Tcp(listener) => Ok(listener.accept()?.0.into()),
        }
    }
}

/// Where they go.
enum Destination {
    Host(u32),
    Place(Place),
}

impl Destination {
    fn connect(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Host(port) => Ok(vsock::connect_to_host(*port)?.into()),
            Self::Place(Place::Unix(path)) => Ok(UnixStream::connect(path)?.into()),
            Self::Place(Place::Tcp(address)) => Ok(TcpStream::connect(address)?.into()),
        }
    }
}

/// A forward whose source is open.
pub struct Open {
    source: Source,
    destination: Destination,
}

impl Open {
    /// Opens it.
    ///
    /// # Errors
    /// The port or the path is taken, or the kernel has no vsock.
    pub fn new(forward: &Forward) -> io::Result<Self> {
        Ok(match forward {
            Forward::In(port, place) => Self {
                source: Source::Vsock(vsock::Listener::bind(*port)?),
                destination: Destination::Place(place.clone()),
            },
            Forward::Out(port, place) => {
                let source = match place {
                    Place::Unix(path) => Source::Unix(socket::listen(path)?),
                    Place::Tcp(address) => Source::Tcp(TcpListener::bind(address)?),
                };
                Self { source, destination: Destination::Host(*port) }
            }
        })
    }

    /// Serves it for ever. `tell` hears what went wrong.
    pub fn serve(&self, tell: &(dyn Fn(&str) + Sync)) {
        thread::scope(|scope| {
            loop {
                let carried = self.source.accept().and_then(|caller| {
                    let carry = move || self.carry(caller, tell);
                    Builder::new().stack_size(STACK_BYTES + CHUNK_BYTES).spawn_scoped(scope, carry).map(drop)
                });
                if let Err(error) = carried {
                    tell(&format!("cannot take a connection: {error}"));
                    thread::sleep(REST);
                }
            }
        });
    }

    fn carry(&self, caller: OwnedFd, tell: &(dyn Fn(&str) + Sync)) {
        match self.destination.connect() {
            Ok(other) => {
                // Whichever breaks, both end.
                let _broken = join(caller, other);
            }
            Err(error) => tell(&format!("cannot connect to {}: {error}", self.destination)),
        }
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host(port) => write!(f, "vsock port {port} of the host"),
            Self::Place(Place::Unix(path)) => path.display().fmt(f),
            Self::Place(Place::Tcp(address)) => address.fmt(f),
        }
    }
}

/// Carries both ways between two streams of any family until both have ended.
///
/// # Errors
/// No thread for the second way.
pub fn join(one: OwnedFd, other: OwnedFd) -> io::Result<()> {
    // Reading, writing and ending one way are the same for all of them.
    let (one, other) = (UnixStream::from(one), UnixStream::from(other));
    thread::scope(|scope| {
        let back = || carry(&other, &one);
        let back = Builder::new().stack_size(STACK_BYTES + CHUNK_BYTES).spawn_scoped(scope, back)?;
        carry(&one, &other);
        // A panic has told of itself.
        let _panicked = back.join();
        Ok(())
    })
}

/// Carries one way to its end, and passes the end on.
fn carry(mut from: &UnixStream, mut to: &UnixStream) {
    let mut chunk = [0; CHUNK_BYTES];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) if to.write_all(chunk.get(..len).unwrap_or_default()).is_ok() => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Nobody takes more, or nothing more comes.
            _ => {
                let _ = from.shutdown(Shutdown::Read);
                break;
            }
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_way_ends_while_the_other_goes_on() {
        let (mut caller, one) = UnixStream::pair().unwrap();
        let (mut server, other) = UnixStream::pair().unwrap();
        let joined = thread::spawn(|| join(one.into(), other.into()));
        caller.write_all(b"question").unwrap();
        caller.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        server.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "question");
        server.write_all(b"answer").unwrap();
        drop(server);
        heard.clear();
        caller.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "answer");
        joined.join().unwrap().unwrap();
    }

    #[test]
    fn one_who_takes_no_more_is_told_to_the_other() {
        let (mut caller, one) = UnixStream::pair().unwrap();
        let (server, other) = UnixStream::pair().unwrap();
        let joined = thread::spawn(|| join(one.into(), other.into()));
        drop(server);
        assert_eq!(caller.read(&mut [0]).unwrap(), 0);
        // The first bytes may still find room.
        while caller.write_all(&[0; 4096]).is_ok() {}
        drop(caller);
        joined.join().unwrap().unwrap();
    }
}
