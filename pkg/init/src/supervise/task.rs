//! One thing that PID 1 runs: a container, or a program of the image.

use std::path::PathBuf;
use std::time::Duration;

use kiln_abi::{ContainerState, ContainerStatus, ServicePolicy, Stage};

use super::backoff::Backoff;

/// What is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A bundle.
    Container {
        /// When it runs.
        stage: Stage,
        /// Its folder.
        folder: PathBuf,
    },
    /// An executable of `/etc/init.d` or `/etc/shutdown.d`.
    Script(PathBuf),
    /// PID 1's own mounting of all volumes.
    Volumes,
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not run yet.
    Idle,
    /// Being mounted and created, until then at most.
    Starting {
        /// Then it has failed.
        until: Duration,
    },
    /// Its process runs.
    Running {
        /// That process.
        pid: u32,
        /// Then it is killed.
        until: Option<Duration>,
    },
    /// To be started again at that time.
    Waiting {
        /// When.
        until: Duration,
    },
    /// Asked to end; killed at that time.
    Stopping {
        /// Its process.
        pid: u32,
        /// `None` once it was killed.
        kill_at: Option<Duration>,
    },
    /// Over.
    Done,
}

/// A task and all that is known of it. Times are since the machine booted.
#[derive(Clone, Debug)]
pub struct Task {
    /// As it is called on the console.
    pub name: String,
    /// What is run.
    pub kind: Kind,
    /// For services.
    pub policy: ServicePolicy,
    /// Where it stands.
    pub phase: Phase,
    /// For services.
    pub backoff: Backoff,
    /// How the last run ended.
    pub exit_code: Option<i32>,
    /// Why the last start failed.
    pub error: Option<String>,
    /// Number of starts.
    pub starts: u32,
    /// The last start.
    pub started: Duration,
    /// The last end.
    pub ended: Option<Duration>,
}

impl Task {
    /// A task that has not run.
    pub fn new(name: String, kind: Kind, policy: ServicePolicy) -> Self {
        Self {
            name,
            kind,
            policy,
            phase: Phase::Idle,
            backoff: Backoff::default(),
            exit_code: None,
            error: None,
            starts: 0,
            started: Duration::ZERO,
            ended: None,
        }
    }

    /// Its kind and name, as in `service web`.
    pub fn title(&self) -> String {
        match &self.kind {
            Kind::Container { stage, .. } => format!("{} {}", stage.as_str(), self.name),
            Kind::Script(path) => path.display().to_string(),
            Kind::Volumes => "volumes".to_owned(),
        }
    }

    /// Whether it is a service.
    pub fn is_service(&self) -> bool {
        matches!(self.kind, Kind::Container { stage: Stage::Service, .. })
    }

    /// Whether something of it runs, or will by itself.
    pub fn is_live(&self) -> bool {
        !matches!(self.phase, Phase::Idle | Phase::Done)
    }

    /// The process, while there is one.
    pub fn pid(&self) -> Option<u32> {
        match self.phase {
            Phase::Running { pid, .. } | Phase::Stopping { pid, .. } => Some(pid),
            _ => None,
        }
    }

    /// When something has to happen to it.
    pub fn deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Starting { until } | Phase::Waiting { until } => Some(until),
            Phase::Running { until, .. } => until,
            Phase::Stopping { kill_at, .. } => kill_at,
            Phase::Idle | Phase::Done => None,
        }
    }

    /// For the status file; only containers that were started are in it.
    pub fn status(&self) -> Option<ContainerStatus> {
        let Kind::Container { stage, .. } = self.kind else { return None };
        let state = match self.phase {
            Phase::Idle => return None,
            Phase::Starting { .. } => ContainerState::Starting,
            Phase::Running { .. } => ContainerState::Running,
            Phase::Waiting { .. } => ContainerState::Waiting,
            Phase::Stopping { .. } => ContainerState::Stopping,
            Phase::Done if self.error.is_some() => ContainerState::Failed,
            Phase::Done => ContainerState::Ended,
        };
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Some(ContainerStatus {
            name: self.name.clone(),
            stage,
            state,
            pid: self.pid(),
            exit_code: self.exit_code,
            error: self.error.clone(),
            restarts: self.starts.saturating_sub(1),
            started_ms: ms(self.started),
            ended_ms: self.ended.map(ms),
        })
    }
}
