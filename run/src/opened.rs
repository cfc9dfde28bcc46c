//! What a machine has of the host, opened before it starts, so that what cannot be is told at once.

use crate::cards::{self, CardError, OpenCard};
use crate::config::MachineConfig;

/// All that was opened for one machine. It outlasts resets; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Opened {
    /// The network cards, in order.
    pub cards: Vec<OpenCard>,
}

/// Something that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A network card.
    #[error(transparent)]
    Card(#[from] CardError),
}

impl Opened {
    /// Opens it all. The state folder exists, and is this machine's.
    ///
    /// # Errors
    /// The first thing that cannot be had.
    pub fn open(config: &MachineConfig) -> Result<Self, OpenError> {
        Ok(Self { cards: cards::open_all(&config.cards, &config.state_dir)? })
    }
}
