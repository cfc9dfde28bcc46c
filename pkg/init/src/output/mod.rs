//! What containers print: whole lines for the console, every byte for the log files.

mod lines;
mod stream;

pub use stream::{Drained, Log, Stream, Which};
