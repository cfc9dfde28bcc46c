//! News about devices (`NETLINK_KOBJECT_UEVENT`): one datagram each, `action@path` and `KEY=value` strings, NUL between.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, sockopt};

/// The multicast group of the kernel's own messages.
const KERNEL_GROUP: u32 = 1;
/// The kernel's limit is 2048 bytes of variables (UEVENT_BUFFER_SIZE) and the path.
const DATAGRAM_LIMIT_BYTES: usize = 8192;
/// Room for the events of a cold plug: a few hundred devices at about 500 bytes.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// A socket on which the kernel tells of devices from now on.
#[derive(Debug)]
pub struct Uevents {
    socket: OwnedFd,
}

/// What happened to one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uevent {
    /// `add`, `remove`, `change`, `bind` and so on.
    pub action: String,
    /// Path below `/sys`.
    pub path: String,
    /// What modules call it, if it has a driver to be found.
    pub modalias: Option<String>,
    /// Such as `input` or `block`.
    pub subsystem: Option<String>,
}

impl Uevents {
    /// Opens the socket; events queue from this moment.
    ///
    /// # Errors
    /// The kernel's.
    pub fn listen() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
        sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_BYTES)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES))?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
        Ok(Self { socket })
    }

    /// The next event, if one is waiting. Messages that do not come from the kernel are passed over.
    ///
    /// # Errors
    /// The kernel's; `ENOBUFS` when events were lost.
    pub fn receive(&mut self) -> io::Result<Option<Uevent>> {
        let mut datagram = [0; DATAGRAM_LIMIT_BYTES];
        loop {
            let (len, sender) = match rustix::net::recvfrom(&self.socket, &mut datagram[..], RecvFlags::empty()) {
                Ok((len, _, sender)) => (len, sender),
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let from_kernel =
                sender.and_then(|address| SocketAddrNetlink::try_from(address).ok()).is_some_and(|a| a.pid() == 0);
            let event = datagram.get(..len).and_then(Uevent::parse);
            if let (true, Some(event)) = (from_kernel, event) {
                return Ok(Some(event));
            }
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Uevent {
    /// Reads one datagram; `None` if it does not start with `action@path`.
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let mut strings = datagram.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let first = strings.next()?;
        let (action, path) = first.split_once('@')?;
        let mut event = Self { action: action.to_owned(), path: path.to_owned(), ..Self::default() };
        for string in strings {
            match string.split_once('=') {
                Some(("MODALIAS", value)) => event.modalias = Some(value.to_owned()),
                Some(("SUBSYSTEM", value)) => event.subsystem = Some(value.to_owned()),
                _ => {}
            }
        }
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_of_something_else_is_no_event() {
        for datagram in [&b""[..], b"libudev\0\xfe\xed", b"\0\0\0", b"ADD=1\0"] {
            assert_eq!(Uevent::parse(datagram), None);
        }
    }

    #[test]
    fn an_event_is_read_without_the_variables_nobody_asks_for() {
        let datagram =
            b"add@/devices/pci0/virtio1\0ACTION=add\0MODALIAS=virtio:d00000002v00001AF4\0SUBSYSTEM=virtio\0=\0";
        let event = Uevent::parse(datagram).unwrap();
        assert_eq!((event.action.as_str(), event.path.as_str()), ("add", "/devices/pci0/virtio1"));
        assert_eq!(event.modalias.as_deref(), Some("virtio:d00000002v00001AF4"));
        assert_eq!(event.subsystem.as_deref(), Some("virtio"));
    }

    #[test]
    fn bytes_that_are_no_text_do_not_stop_the_reader() {
        let event = Uevent::parse(b"add@/x\0\xff\xff=\xff\0MODALIAS=a:b").unwrap();
        assert_eq!(event.modalias.as_deref(), Some("a:b"));
    }
}
