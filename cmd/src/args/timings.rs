//! How `kiln build -timings` shows where time went.

use clap::ValueEnum;

/// In which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Timings {
    /// A line for each step
    Table,
    /// One line of JSON
    Json,
}
