//! The agent: takes requests from the host over vsock, and does each in a process of its own, in the machine's root or in
//! a service. README.md has the protocol.

pub mod enter;
mod feed;
pub mod session;
mod target;
mod touch;
mod user;
