//! The network card (section 5.1). Frames go between its queues and a [`Link`](kiln_net::link::Link) without a copy of
//! their payload: the host's sockets read and write guest memory.

mod control;
mod device;
mod frame;
mod port;
mod spec;
mod untold;
mod worker;

pub use device::VirtioNet;

#[cfg(test)]
mod tests;
