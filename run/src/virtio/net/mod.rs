//! The network card (section 5.1). Frames go between its queues and a [`Stack`](kiln_net::stack::Stack) without a copy of
//! their payload: the host's sockets read and write guest memory.

mod device;
mod frame;
mod port;
mod spec;
#[cfg(test)]
mod tests;
mod worker;

pub use device::VirtioNet;
