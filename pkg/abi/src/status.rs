//! What became of each container: the guest's status file.

use serde::{Deserialize, Serialize};

/// All containers that the machine has or had, in the order in which they were first started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// One entry a container.
    pub containers: Vec<ContainerStatus>,
}

/// One container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// Name without the number that orders it.
    pub name: String,
    /// When in the machine's life it runs.
    pub stage: Stage,
    /// Where it stands.
    pub state: ContainerState,
    /// Process id of its first process while that runs.
    pub pid: Option<u32>,
    /// How its last run ended: the exit code, or 128 + the number of the signal that killed it.
    pub exit_code: Option<i32>,
    /// Why it could not be started the last time.
    pub error: Option<String>,
    /// Starts after the first one.
    pub restarts: u32,
    /// Start of the last run, in milliseconds since the machine booted.
    pub started_ms: u64,
    /// End of the last run, in milliseconds since the machine booted.
    pub ended_ms: Option<u64>,
}

/// When a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Once, before the services.
    Onboot,
    /// As long as the machine.
    Service,
    /// Once, when the machine stops.
    Onshutdown,
}

/// Where a container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    /// A service that is to start when those that it comes after are there.
    Held,
    /// Being mounted and created.
    Starting,
    /// Its first process runs.
    Running,
    /// It ended and will be started again after a while.
    Waiting,
    /// It was asked to stop.
    Stopping,
    /// It ended and stays so.
    Ended,
    /// It could not be started and stays so.
    Failed,
}

impl Stage {
    /// As it is written on the console and in names of files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Onboot => "onboot",
            Self::Service => "service",
            Self::Onshutdown => "onshutdown",
        }
    }
}
