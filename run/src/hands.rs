//! What can be done to a running machine, whichever back end has it.

use serde::{Deserialize, Serialize};

/// A hand on a machine, from any thread. Nothing here ends the program; a machine that has ended refuses.
pub trait Hands: Send + Sync {
    /// Stops the guest's processors; its clock goes on. Returns when they stand still. A machine that is paused stays so.
    fn pause(&self) -> Result<(), Refusal>;

    /// Lets them go on. A machine that is not paused stays as it is.
    fn resume(&self) -> Result<(), Refusal>;

    /// What its memory takes.
    fn memory(&self) -> Result<MemoryUse, Refusal>;

    /// Asks the guest to give so much memory to its balloon, in bytes, and to take back what is above that.
    fn set_balloon(&self, target_bytes: u64) -> Result<(), Refusal>;
}

/// What a machine's memory takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// What the guest was given at its start.
    pub total_bytes: u64,
    /// What of that the host really holds now. In the fallback, all that QEMU takes.
    pub resident_bytes: u64,
    /// The balloon, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balloon: Option<BalloonUse>,
}

/// A balloon, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonUse {
    /// Memory that the guest is asked to give.
    pub target_bytes: u64,
    /// Memory that it has given.
    pub actual_bytes: u64,
    /// Memory that nothing in the guest uses, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// Memory that new programs of the guest could have, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_bytes: Option<u64>,
}

/// Why something was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no guest.
    #[error("the machine has not started yet, or has ended")]
    NotRunning,
    /// There is no balloon.
    #[error("the machine has no balloon: it was started with `-no-balloon` or `-hugepages`")]
    NoBalloon,
    /// Its processors do not stand still.
    #[error("a processor of the machine waits for the reader of its console, and cannot be paused")]
    Busy,
    /// The host does not tell.
    #[error("this host does not tell what the machine's memory takes")]
    Unknown,
}
