//! What a machine has of the host, opened before it starts, so that what cannot be is told at once.

use crate::cards::{self, CardError, OpenCard};
use crate::config::{Boot, MachineConfig};
use crate::firmware::{FirmwareError, OpenFirmware};
use crate::share::{self, OpenShare, ShareError};
use crate::vsock::{OpenVsock, VsockError};

/// All that was opened for one machine. It outlasts resets; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Opened {
    /// The firmware, if that starts it.
    pub firmware: Option<OpenFirmware>,
    /// The network cards, in order.
    pub cards: Vec<OpenCard>,
    /// The shared folders, in order.
    pub(crate) shares: Vec<OpenShare>,
    /// The sockets between host and guest.
    pub vsock: Option<OpenVsock>,
}

/// Something that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The firmware or its variables.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// A network card.
    #[error(transparent)]
    Card(#[from] CardError),
    /// A shared folder.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// A socket of a vsock port.
    #[error(transparent)]
    Vsock(#[from] VsockError),
}

impl Opened {
    /// Opens it all. The state folder exists, and is this machine's.
    ///
    /// # Errors
    /// The first thing that cannot be had.
    pub fn open(config: &MachineConfig) -> Result<Self, OpenError> {
        let firmware = match &config.boot {
            Boot::Linux { .. } => None,
            Boot::Firmware(firmware) => Some(OpenFirmware::open(firmware)?),
        };
        let cards = cards::open_all(&config.cards, &config.state_dir)?;
        let shares = share::open_all(&config.shares, &config.state_dir)?;
        let vsock = config.vsock.as_ref().map(|vsock| OpenVsock::open(vsock, &config.state_dir)).transpose()?;
        Ok(Self { firmware, cards, shares, vsock })
    }
}
