//! What is said over the socket.

use std::net::SocketAddr;
use std::path::PathBuf;

use kiln_net::publish::{Host, Published, Transport};
use serde::{Deserialize, Serialize};

use crate::config::{HostPort, Publish};
use crate::hands::MemoryUse;

/// What is asked of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// All published ports.
    PortList {},
    /// One more.
    PortAdd {
        /// Where the host listens.
        host: PortHost,
        /// The guest's port.
        guest_port: u16,
        /// `tcp` or `udp`.
        transport: Carries,
        /// Whether connections begin with who made them.
        #[serde(default)]
        tells_caller: bool,
    },
    /// One less.
    PortRemove {
        /// The card that it leads to.
        card: usize,
        /// Its number there.
        number: u32,
    },
    /// The guest's processors stand still.
    Pause {},
    /// They go on.
    Resume {},
    /// What the machine's memory takes.
    Memory {},
    /// So much memory is asked of the guest.
    Balloon {
        /// In bytes.
        target_bytes: u64,
    },
    /// The console. Behind the answer the connection is no longer of lines: the machine sends what the guest prints, and
    /// takes frames of [`kiln_abi`], `Input` and `Size`.
    Console {
        /// Whether the end of what was printed before comes first.
        scrollback: bool,
    },
    /// Press the power button: the guest is asked to power off.
    PowerButton {},
    /// End the machine as if its plug were pulled.
    Kill {},
}

/// Where the host listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortHost {
    /// At this port of both loopbacks; 0 for one that is free.
    Loopback(u16),
    /// At this address and port.
    Address(SocketAddr),
    /// At this path.
    Path(PathBuf),
}

/// What a port carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carries {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The card that it leads to, from 0 on.
    pub card: usize,
    /// Its number there.
    pub number: u32,
    /// Where the host listens: an address or a path.
    pub host: PortHost,
    /// The guest's port.
    pub guest_port: u16,
    /// What it carries.
    pub transport: Carries,
}

/// What the machine answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// The ports that were asked for, opened or closed.
    #[serde(default)]
    pub(super) ports: Vec<Port>,
    /// What the machine's memory takes, if that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) memory: Option<MemoryUse>,
    /// Why it was not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

impl Request {
    /// The request for one more port.
    pub fn add(publish: &Publish) -> Self {
        let host = match &publish.host {
            HostPort::Loopback(port) => PortHost::Loopback(*port),
            HostPort::At(address) => PortHost::Address(*address),
            HostPort::Unix(path) => PortHost::Path(path.clone()),
        };
        let Publish { guest_port, tells_caller, .. } = *publish;
        Self::PortAdd { host, guest_port, transport: publish.transport.into(), tells_caller }
    }
}

impl Port {
    pub(super) fn new(card: usize, (number, published): (u32, Published)) -> Self {
        let host = match published.host {
            Host::Ip(address) => PortHost::Address(address),
            Host::Unix(path) => PortHost::Path(path),
        };
        Self { card, number, host, guest_port: published.guest_port, transport: published.transport.into() }
    }
}

impl From<PortHost> for HostPort {
    fn from(host: PortHost) -> Self {
        match host {
            PortHost::Loopback(port) => Self::Loopback(port),
            PortHost::Address(address) => Self::At(address),
            PortHost::Path(path) => Self::Unix(path),
        }
    }
}

impl From<Transport> for Carries {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp,
            Transport::Udp => Self::Udp,
        }
    }
}

impl From<Carries> for Transport {
    fn from(carries: Carries) -> Self {
        match carries {
            Carries::Tcp => Self::Tcp,
            Carries::Udp => Self::Udp,
        }
    }
}
