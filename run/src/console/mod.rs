//! The machine's console on the host's side: what the guest prints goes to a [`ConsoleSink`], what the user types comes
//! out of a [`ConsoleInput`], and a terminal is raw for exactly as long as the machine runs.
//!
//! Nothing that the guest printed is lost: a slow reader holds the printing device back ([`ConsoleSink::write`] waits),
//! and [`Console::finish`] returns only when all of it was written. Where the reader is gone for good (a closed pipe, a
//! full disk), the machine runs on, the rest is thrown away, and `finish` says so.
//!
//! Devices see the sink and the input only; they never learn whether a terminal, a pipe or a file is behind them.

mod input;
mod sink;
mod size;

pub use input::ConsoleInput;
pub use sink::{AbandonOutput, ConsoleSink, OutputThread};
pub use size::TerminalSize;
