//! A DHCP client for the cards of a machine: DHCPv4, DHCPv6, and what router advertisements say of name servers.
//!
//! `v4` and `v6` are protocols without sockets and clocks: they are given messages and the time, and say what is to be done.
//! `card` does it for one network card, `watch` for all of them. What comes from the network is read in `wire`, `name`,
//! `v4::message`, `v6::message` and `advertisement`, each of which takes any bytes.

pub mod advertisement;
pub mod arguments;
pub mod card;
pub mod name;
pub mod resolv;
pub mod retry;
pub mod v4;
pub mod v6;
pub mod watch;
pub mod wire;

/// Milliseconds since the machine booted, sleep included.
pub type Millis = u64;

/// A second.
pub const SECOND: Millis = 1000;
