//! DHCP for IPv4 (RFC 2131, options RFC 2132), with rapid commit (RFC 4039), classless routes (RFC 3442) and search lists
//! (RFC 3397).

mod client;
mod lease;
mod message;

pub use client::{Act, Client};
pub use lease::{Lease, Unusable};
pub use message::{Kind, Message, Request};
