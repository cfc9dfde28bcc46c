//! The way to a running machine from other programs: a socket in its state folder, which only its user may open. A
//! request is a line of JSON, and so is its answer.

mod client;
mod server;
mod words;

use std::io;
use std::path::PathBuf;

pub use client::{AskError, Client};
pub use server::{ControlSocket, Desk};
pub use words::{Carries, Port, PortHost, Request};

/// Name of the socket.
pub const SOCKET: &str = "control.sock";
/// Longest line, either way: a list of the most ports that can be.
const LINE_BYTES: u64 = 1 << 20;

/// The socket cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the machine's control socket `{}`", path.display())]
pub struct ControlError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

#[cfg(test)]
mod tests;
