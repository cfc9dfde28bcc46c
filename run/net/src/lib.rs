//! A user-mode network: Ethernet frames of a guest on one side, sockets of the host on the other. It knows no virtual
//! machine, asks for no privilege and starts no thread: whoever owns it turns it.

pub mod policy;
pub mod poll;
pub mod port;
pub mod tcp;
pub mod wire;
