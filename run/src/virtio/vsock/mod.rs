//! The socket device (section 5.10): packets between its queues and a [`Muxer`](crate::vsock::Muxer), without a copy of
//! their data where the sockets keep up.

mod device;
mod inbox;
mod spec;
mod worker;

pub use device::VirtioVsock;

#[cfg(test)]
mod tests;
