//! Requests about network links (rtnetlink, `rtnetlink(7)`): up, make, move into a namespace.

use std::io;

use super::message::{CREATE, EXCLUSIVE, Message};
use super::socket::RouteSocket;

const RTM_NEWLINK: u16 = 16;
const RTM_SETLINK: u16 = 19;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFF_UP: u32 = 1;
/// The kernel's IFNAMSIZ with its NUL.
const NAME_LIMIT_BYTES: usize = 15;

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
    socket: RouteSocket,
}

impl Links {
    /// Opens the socket in the caller's network namespace.
    ///
    /// # Errors
    /// [`LinkError::Socket`].
    pub fn open() -> Result<Self, LinkError> {
        Ok(Self { socket: RouteSocket::open(0).map_err(LinkError::Socket)? })
    }

    /// Sets a link up.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn up(&self, name: &str) -> Result<(), LinkError> {
        let mut message = link_message(RTM_SETLINK, 0, IFF_UP);
        message.attribute(IFLA_IFNAME, &terminated(name)?);
        self.ask("set up", name, message.finish())
    }

    /// Moves a link into the network namespace of a process.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn enter_namespace(&self, name: &str, pid: u32) -> Result<(), LinkError> {
        let mut message = link_message(RTM_SETLINK, 0, 0);
        message.attribute(IFLA_IFNAME, &terminated(name)?);
        message.attribute(IFLA_NET_NS_PID, &pid.to_ne_bytes());
        self.ask("move", name, message.finish())
    }

    /// Makes a link.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn add(&self, link: &NewLink) -> Result<(), LinkError> {
        let mut message = link_message(RTM_NEWLINK, CREATE | EXCLUSIVE, 0);
        message.attribute(IFLA_IFNAME, &terminated(link.name)?);
        if let Some(pid) = link.namespace_pid {
            message.attribute(IFLA_NET_NS_PID, &pid.to_ne_bytes());
        }
        let info = message.open(IFLA_LINKINFO);
        message.attribute(IFLA_INFO_KIND, link.kind.as_bytes());
        if let Some(peer) = link.peer {
            let data = message.open(IFLA_INFO_DATA);
            let end = message.open(VETH_INFO_PEER);
            message.body(&link_header(0));
            message.attribute(IFLA_IFNAME, &terminated(peer)?);
            message.close(end);
            message.close(data);
        }
        message.close(info);
        self.ask("make", link.name, message.finish())
    }

    fn ask(&self, action: &'static str, name: &str, message: Vec<u8>) -> Result<(), LinkError> {
        let done = self.socket.ask(message);
        done.map_err(|source| LinkError::Request { action, name: name.to_owned(), source })
    }
}

fn link_message(kind: u16, flags: u16, set: u32) -> Message {
    let mut message = Message::new(kind, flags);
    message.body(&link_header(set));
    message
}

/// `ifinfomsg`: family, type and index unset, the flags in `set` to be set.
fn link_header(set: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[8..12].copy_from_slice(&set.to_ne_bytes());
    header[12..].copy_from_slice(&set.to_ne_bytes());
    header
}

fn terminated(name: &str) -> Result<Vec<u8>, LinkError> {
    let bad = |byte: u8| byte == b'/' || byte == 0 || byte.is_ascii_whitespace();
    if name.is_empty() || name.len() > NAME_LIMIT_BYTES || name.bytes().any(bad) {
        return Err(LinkError::Name(name.to_owned()));
    }
    Ok([name.as_bytes(), &[0]].concat())
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
    fn lengths_cover_what_is_nested_and_padding_does_not_count() {
        let mut message = link_message(RTM_NEWLINK, 0, 0);
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
