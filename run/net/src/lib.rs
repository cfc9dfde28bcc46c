//! A user-mode network: Ethernet frames of a guest on one side, sockets of the host on the other. It knows no virtual
//! machine, asks for no privilege and starts no thread: whoever owns it turns it.

pub mod chance;
pub mod dhcp;
pub mod dhcpv6;
pub mod dns;
pub mod echo;
pub mod faulty;
pub mod fragments;
pub mod limits;
pub mod link;
pub mod listen;
pub mod memory;
pub mod ndp;
pub mod packets;
pub mod pcap;
pub mod policy;
pub mod poll;
pub mod port;
pub mod publish;
pub mod serve;
pub mod stack;
pub mod stream;
pub mod tcp;
pub mod udp;
pub mod wire;

/// Milliseconds since some start: the clock of all timers. Given from outside, so that tests can turn it.
pub type Millis = u64;
