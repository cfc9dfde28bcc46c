//! DHCP for IPv6 (RFC 8415): one address where routers say that there are some to be had, else only name servers.

mod client;
mod message;

pub use client::{Act, Client, Mode};
pub use message::{Kind, Lease, Reply, Request};
