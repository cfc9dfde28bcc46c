//! TCP between the guest and a socket of the host: a splice with just enough of the protocol (RFC 9293).
//!
//! Towards the guest there is no buffer: what a peer sent stays in the host's socket until the guest has acknowledged it,
//! and is looked at again when it must be sent again (where the kernel cannot do that, it is kept here). From the guest, what the socket does not take at once is kept and
//! the window closed by it: a byte that was accepted is never dropped.

mod flow;
mod kept;
mod outgoing;
mod reassembly;
mod receive;
mod remembered;
mod send;
mod socket;
mod table;
mod talk;

pub use flow::{Context, Ending, Flow, FlowKey, Remembered, Stage};
pub use kept::Looked;
pub use receive::Budget;
pub use socket::{Keeping, StreamSocket};
pub(crate) use table::connecting_to;
pub use table::{Table, Target, Unreachable};

use crate::Millis;

/// What a link carries: an Ethernet frame less IP and TCP headers without options, for MTU 1500 and IPv4.
pub const DEFAULT_MSS: u16 = 1460;

/// What a host must take that tells no size (RFC 9293 section 3.7.1).
const LEAST_MSS: u16 = 536;

/// Our windows are shifted by so much: 8 MiB at most.
const WINDOW_SCALE: u8 = 7;

#[cfg(test)]
mod tests;
