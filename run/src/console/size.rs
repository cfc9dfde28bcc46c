//! The size of the terminal, as a device may show it to its driver.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::event::Flag;

/// Columns and rows of the terminal. Cheap to clone; all clones see the same size.
#[derive(Debug, Clone)]
pub struct TerminalSize {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Columns above, rows below: one value, so that nobody sees half a change.
    cells: AtomicU32,
    changed: Flag,
}

impl TerminalSize {
    /// A size to begin with.
    pub fn new(columns: u16, rows: u16) -> io::Result<Self> {
        let shared = Shared { cells: AtomicU32::new(pack(columns, rows)), changed: Flag::new()? };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Columns and rows now.
    #[must_use]
    pub fn get(&self) -> (u16, u16) {
        let [r0, r1, c0, c1] = self.shared.cells.load(Ordering::SeqCst).to_le_bytes();
        (u16::from_le_bytes([c0, c1]), u16::from_le_bytes([r0, r1]))
    }

    /// Raised when the size has changed.
    #[must_use]
    pub fn changed(&self) -> &Flag {
        &self.shared.changed
    }

    /// The terminal has a new size.
    pub fn set(&self, columns: u16, rows: u16) {
        if self.shared.cells.swap(pack(columns, rows), Ordering::SeqCst) != pack(columns, rows) {
            self.shared.changed.raise();
        }
    }
}

fn pack(columns: u16, rows: u16) -> u32 {
    u32::from(columns) << 16 | u32::from(rows)
}
