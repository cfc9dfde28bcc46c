//! A network on a Unix socket, for guests of other programs: QEMU's `-netdev stream`, and whatever speaks to passt. One
//! guest at a time, one after the other.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketFlags, SocketType, accept_with, bind, connect, listen, shutdown, socket_with,
};

use crate::link::{Address, Link};
use crate::serve::serve;
use crate::stream::{Framing, Incoming, StreamPort};

/// Guests that wait until the one before is gone.
const BACKLOG: i32 = 8;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another program is there.
    #[error("another program listens at `{}`", path.display())]
    Taken {
        /// The path.
        path: PathBuf,
    },
    /// It is no socket, and perhaps precious.
    #[error("`{}` is there, and no socket: give another path", path.display())]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// Anything else.
    #[error("cannot make the socket `{}`", path.display())]
    Host {
        /// The path.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
}

/// A socket that guests come to. Its file goes with it.
#[derive(Debug)]
pub struct Listener {
    socket: Arc<OwnedFd>,
    path: PathBuf,
    current: Arc<Mutex<Current>>,
}

/// Who is there.
#[derive(Debug, Default)]
struct Current {
    guest: Option<OwnedFd>,
    is_over: bool,
}

/// Ends a [`Listener`]'s work from another thread.
#[derive(Debug, Clone)]
pub struct Stopper {
    socket: Arc<OwnedFd>,
    current: Arc<Mutex<Current>>,
}

impl Stopper {
    /// No more guests; the one that is there is sent away.
    pub fn stop(&self) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.is_over = true;
        // One that is gone already needs no more.
        for socket in current.guest.iter().chain([&*self.socket]) {
            let _ = shutdown(socket, Shutdown::Both);
        }
    }
}

impl Listener {
    /// Listens at `path`, for this user alone. A socket that was left behind is replaced.
    ///
    /// # Errors
    /// Somebody listens there already, or it is no socket.
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        let host = |source: io::Error| ListenError::Host { path: path.to_owned(), source };
        if let Ok(metadata) = fs::symlink_metadata(path) {
            if !metadata.file_type().is_socket() {
                return Err(ListenError::NoSocket { path: path.to_owned() });
            }
            if is_live(path).map_err(host)? {
                return Err(ListenError::Taken { path: path.to_owned() });
            }
            fs::remove_file(path).map_err(host)?;
        }
        let socket = socket(SocketFlags::CLOEXEC).map_err(host)?;
        bind(&socket, &Address::of(path).map_err(host)?.unix).map_err(|error| host(error.into()))?;
        let listener =
            Self { socket: Arc::new(socket), path: path.to_owned(), current: Arc::new(Mutex::new(Current::default())) };
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(host)?;
        listen(&listener.socket, BACKLOG).map_err(|error| host(error.into()))?;
        Ok(listener)
    }

    /// What ends [`serve`](Self::serve).
    pub fn stopper(&self) -> Stopper {
        Stopper { socket: Arc::clone(&self.socket), current: Arc::clone(&self.current) }
    }

    /// Gives each guest that comes `link`, until it is stopped. What a guest did wrong ends with its connection, and is
    /// told to `tell`.
    ///
    /// # Errors
    /// No guest can come any more.
    pub fn serve(&self, link: &mut dyn Link, mut tell: impl FnMut(io::Error)) -> io::Result<()> {
        let start = Instant::now();
        loop {
            let guest = match accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(guest) => guest,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(_) if self.is_over() => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            {
                let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
                if current.is_over {
                    return Ok(());
                }
                current.guest = Some(guest.as_fd().try_clone_to_owned()?);
            }
            link.change_guest();
            let mut port = StreamPort::new(guest, Framing::Plain);
            let served = serve(link, &mut port, &mut Incoming::new(Framing::Plain), start, |_| {});
            self.current.lock().unwrap_or_else(PoisonError::into_inner).guest = None;
            if let Err(error) = served {
                tell(error);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).is_over
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Gone already, perhaps with its folder.
        let _ = fs::remove_file(&self.path);
    }
}

fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

fn is_live(path: &Path) -> io::Result<bool> {
    let socket = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    match connect(&socket, &Address::of(path)?.unix) {
        Err(Errno::CONNREFUSED) => Ok(false),
        // Busy is live too; and what cannot be known is left alone.
        _ => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::thread;

    use super::*;
    use crate::stack::{Network, Stack};

    /// Who has the gateway's address, asked by the guest whose hardware address ends in `last`.
    fn asks(stream: &mut UnixStream, last: u8) -> bool {
        let mac = [0x52, 0x54, 0, 0, 0, last];
        let question = [
            &[0, 0, 0, 42][..],
            &[0xff; 6],
            &mac,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &mac,
            &[10, 0, 2, 15],
            &[0; 6],
            &[10, 0, 2, 2],
        ];
        stream.write_all(&question.concat()).unwrap();
        let mut answer = [0; 46];
        stream.read_exact(&mut answer).is_ok() && answer[4..10] == mac
    }

    #[test]
    fn a_path_where_something_is_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.sock");
        let live = UnixListener::bind(&path).unwrap();
        assert!(matches!(Listener::bind(&path).unwrap_err(), ListenError::Taken { .. }));
        drop(live);
        drop(Listener::bind(&path).unwrap());
        assert!(!path.exists(), "its file goes with it");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Listener::bind(&path).unwrap_err(), ListenError::NoSocket { .. }));
        assert!(path.exists());
        assert!(matches!(Listener::bind(&path.join("x")).unwrap_err(), ListenError::Host { .. }));
    }

    #[test]
    fn guests_come_one_after_the_other_until_it_is_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.sock");
        let listener = Listener::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let stopper = listener.stopper();
        let serving = thread::spawn(move || {
            let mut errors = 0;
            listener.serve(&mut Stack::new(Network::default()).unwrap(), |_| errors += 1).map(|()| errors)
        });
        let mut first = UnixStream::connect(&path).unwrap();
        assert!(asks(&mut first, 1));
        drop(first);
        let mut nonsense = UnixStream::connect(&path).unwrap();
        nonsense.write_all(&[0xff; 64]).unwrap();
        assert_eq!(nonsense.read(&mut [0; 9]).unwrap_or(0), 0, "whoever speaks something else is sent away");
        let mut second = UnixStream::connect(&path).unwrap();
        assert!(asks(&mut second, 2), "another guest has another address");
        stopper.stop();
        assert_eq!(serving.join().unwrap().unwrap(), 1);
        assert!(!path.exists() && UnixStream::connect(&path).is_err());
        assert_eq!(second.read(&mut [0; 9]).unwrap(), 0);
    }
}
