//! Requests about network links (rtnetlink, `rtnetlink(7)`): up, make, move into a namespace.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const RTM_NEWLINK: u16 = 16;
const RTM_SETLINK: u16 = 19;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFF_UP: u32 = 1;
/// The kernel's IFNAMSIZ with its NUL.
const NAME_LIMIT_BYTES: usize = 15;
const HEADER_BYTES: usize = 16;
const REPLY_BYTES: usize = 4096;

/// A link that could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Not a name the kernel can take.
    #[error("`{0}` is no name of a network interface: 1 to {NAME_LIMIT_BYTES} bytes without `/` and space")]
    Name(String),
    /// No route socket.
    #[error("cannot open a route socket")]
    Socket(#[source] io::Error),
    /// The kernel refused.
    #[error("cannot {action} network interface `{name}`")]
    Request {
        /// What was asked.
        action: &'static str,
        /// Of which link.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A link to make.
#[derive(Clone, Copy, Debug)]
pub struct NewLink<'a> {
    /// Its name.
    pub name: &'a str,
    /// `veth`, `dummy`, `bridge` and so on.
    pub kind: &'a str,
    /// Name of a `veth`'s other end, which stays in the caller's namespace.
    pub peer: Option<&'a str>,
    /// The process into whose network namespace it goes.
    pub namespace_pid: Option<u32>,
}

/// A route socket.
#[derive(Debug)]
pub struct Links {
    socket: OwnedFd,
}

impl Links {
    /// Opens the socket in the caller's network namespace.
    ///
    /// # Errors
    /// [`LinkError::Socket`].
    pub fn open() -> Result<Self, LinkError> {
        let open = || -> rustix::io::Result<OwnedFd> {
            let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
            rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
            Ok(socket)
        };
        Ok(Self { socket: open().map_err(|errno| LinkError::Socket(errno.into()))? })
    }

    /// Sets a link up.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn up(&self, name: &str) -> Result<(), LinkError> {
        let mut message = Message::new(RTM_SETLINK, 0, IFF_UP);
        message.attribute(IFLA_IFNAME, &terminated(name)?);
        self.ask("set up", name, &message.finish())
    }

    /// Moves a link into the network namespace of a process.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn enter_namespace(&self, name: &str, pid: u32) -> Result<(), LinkError> {
        let mut message = Message::new(RTM_SETLINK, 0, 0);
        message.attribute(IFLA_IFNAME, &terminated(name)?);
        message.attribute(IFLA_NET_NS_PID, &pid.to_ne_bytes());
        self.ask("move", name, &message.finish())
    }

    /// Makes a link.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn add(&self, link: &NewLink) -> Result<(), LinkError> {
        let mut message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0);
        message.attribute(IFLA_IFNAME, &terminated(link.name)?);
        if let Some(pid) = link.namespace_pid {
            message.attribute(IFLA_NET_NS_PID, &pid.to_ne_bytes());
        }
        let info = message.open(IFLA_LINKINFO);
        message.attribute(IFLA_INFO_KIND, link.kind.as_bytes());
        if let Some(peer) = link.peer {
            let data = message.open(IFLA_INFO_DATA);
            let end = message.open(VETH_INFO_PEER);
            message.link_header(0);
            message.attribute(IFLA_IFNAME, &terminated(peer)?);
            message.close(end);
            message.close(data);
        }
        message.close(info);
        self.ask("make", link.name, &message.finish())
    }

    fn ask(&self, action: &'static str, name: &str, message: &[u8]) -> Result<(), LinkError> {
        let exchange = || -> io::Result<()> {
            let kernel = SocketAddrNetlink::new(0, 0);
            rustix::net::sendto(&self.socket, message, SendFlags::empty(), &kernel)?;
            let mut reply = [0; REPLY_BYTES];
            let (len, _) = rustix::net::recv(&self.socket, &mut reply[..], RecvFlags::empty())?;
            acknowledged(reply.get(..len).unwrap_or_default())
        };
        exchange().map_err(|source| LinkError::Request { action, name: name.to_owned(), source })
    }
}

fn terminated(name: &str) -> Result<Vec<u8>, LinkError> {
    let bad = |byte: u8| byte == b'/' || byte == 0 || byte.is_ascii_whitespace();
    if name.is_empty() || name.len() > NAME_LIMIT_BYTES || name.bytes().any(bad) {
        return Err(LinkError::Name(name.to_owned()));
    }
    Ok([name.as_bytes(), &[0]].concat())
}

/// The kernel answers with an error message whose code is 0 for success and a negated errno otherwise.
fn acknowledged(reply: &[u8]) -> io::Result<()> {
    let word = |at: usize| Some(i32::from_ne_bytes(reply.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let kind = reply.get(4..6).and_then(|bytes| Some(u16::from_ne_bytes(bytes.try_into().ok()?)));
    match (kind, word(HEADER_BYTES)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(code)) => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A request under construction: header, `ifinfomsg`, attributes.
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16, set: u32) -> Self {
        let mut message = Self { bytes: Vec::with_capacity(128) };
        message.bytes.extend(0_u32.to_ne_bytes());
        message.bytes.extend(kind.to_ne_bytes());
        message.bytes.extend((flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        message.bytes.extend([0; 8]);
        message.link_header(set);
        message
    }

    /// `ifinfomsg`: family, type and index unset, the flags in `set` to be set.
    fn link_header(&mut self, set: u32) {
        self.bytes.extend([0; 8]);
        self.bytes.extend(set.to_ne_bytes());
        self.bytes.extend(set.to_ne_bytes());
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let at = self.open(kind);
        self.bytes.extend(value);
        self.close(at);
    }

    fn open(&mut self, kind: u16) -> usize {
        let at = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        at
    }

    fn close(&mut self, at: usize) {
        let len = u16::try_from(self.bytes.len().saturating_sub(at)).unwrap_or(u16::MAX);
        if let Some(field) = self.bytes.get_mut(at..at.saturating_add(2)) {
            field.copy_from_slice(&len.to_ne_bytes());
        }
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    fn finish(mut self) -> Vec<u8> {
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        if let Some(field) = self.bytes.get_mut(..4) {
            field.copy_from_slice(&len.to_ne_bytes());
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_kernel_would_not_take_are_refused() {
        for name in ["", "a/b", "a b", "sixteen-letters-", "a\0"] {
            assert!(matches!(terminated(name), Err(LinkError::Name(_))), "{name:?}");
        }
    }

    #[test]
    fn an_answer_that_is_cut_short_is_an_error() {
        assert!(acknowledged(&[]).is_err());
        assert!(acknowledged(&[0; 18]).is_err());
    }

    #[test]
    fn lengths_cover_what_is_nested_and_padding_does_not_count() {
        let mut message = Message::new(RTM_NEWLINK, 0, 0);
        let outer = message.open(IFLA_LINKINFO);
        message.attribute(IFLA_INFO_KIND, b"veth1");
        message.close(outer);
        let bytes = message.finish();
        assert_eq!(bytes.len(), 16 + 16 + 4 + 12);
        assert_eq!(bytes[..4], 48_u32.to_ne_bytes());
        assert_eq!(bytes[32..34], 16_u16.to_ne_bytes());
        assert_eq!(bytes[36..38], 9_u16.to_ne_bytes());
    }
}
