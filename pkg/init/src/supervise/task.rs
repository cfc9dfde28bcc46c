//! One thing that PID 1 runs: a container, or a program of the image.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use kiln_abi::{ContainerState, ContainerStatus, ServicePolicy, Signal, Stage};

use super::backoff::Backoff;

/// The check ends by itself when its time is over, and tells what is missing. Without its word, this much later.
const CHECK_GRACE: Duration = Duration::from_secs(2);

/// Place of a task in the machine's list.
pub type Index = usize;

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

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// Killed.
    Signal(i32),
}

impl Exit {
    /// As a shell says it: the code, or 128 + the signal's number.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(number) => number.saturating_add(128),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => match Signal::of(&number.to_string()) {
                Some(signal) => write!(f, "killed by {signal}"),
                None => write!(f, "killed by signal {number}"),
            },
        }
    }
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not run yet.
    Idle,
    /// A service, to be started once those that it comes after are there.
    Held,
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
    /// Asked to end.
    Stopping {
        /// Its process.
        pid: u32,
        /// Then it is killed, and if it was killed, given up.
        until: Duration,
        /// It was killed.
        killed: bool,
    },
    /// Over.
    Done,
}

/// Whether a service can do what others wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Without a check: it is ready as soon as it runs.
    Unchecked,
    /// Checked while it runs. From the first start in a row without success it is waited for until then.
    Wanted {
        /// [`None`] before that start.
        until: Option<Duration>,
    },
    /// Its check succeeded in this run.
    Ready,
    /// Its time is over; nobody waits for it.
    Overdue,
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
    /// The services that this one comes after.
    pub after: Vec<Index>,
    /// How long others wait for it, if its readiness is checked.
    pub ready_timeout: Duration,
    /// What is known of its readiness.
    pub readiness: Readiness,
    /// Where it stands.
    pub phase: Phase,
    /// For services.
    pub backoff: Backoff,
    /// How the last run ended.
    pub exit: Option<Exit>,
    /// Why the last start failed.
    pub error: Option<String>,
    /// Number of starts.
    pub starts: u32,
    /// The last start.
    pub started: Duration,
    /// Since when its process runs, after that start.
    pub running_since: Option<Duration>,
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
            after: Vec::new(),
            ready_timeout: Duration::ZERO,
            readiness: Readiness::Unchecked,
            phase: Phase::Idle,
            backoff: Backoff::default(),
            exit: None,
            error: None,
            starts: 0,
            started: Duration::ZERO,
            running_since: None,
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

    /// How long its last process ran; making it ready is not counted.
    pub fn ran(&self, now: Duration) -> Duration {
        self.running_since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// When something has to happen to it.
    pub fn deadline(&self) -> Option<Duration> {
        self.phase_deadline().into_iter().chain(self.ready_deadline()).min()
    }

    /// When its phase has lasted long enough.
    pub fn phase_deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Starting { until } | Phase::Waiting { until } => Some(until),
            Phase::Running { until, .. } => until,
            Phase::Stopping { until, .. } => Some(until),
            Phase::Idle | Phase::Held | Phase::Done => None,
        }
    }

    /// When nobody waits for its readiness any longer, whatever its check says.
    pub fn ready_deadline(&self) -> Option<Duration> {
        match (self.phase, self.readiness) {
            (Phase::Starting { .. } | Phase::Waiting { .. } | Phase::Running { .. }, Readiness::Wanted { until }) => {
                until.map(|until| until + CHECK_GRACE)
            }
            _ => None,
        }
    }

    /// Whether what comes after it may start. One that has ended for good will not come, and that has been said.
    pub fn is_there(&self) -> bool {
        match self.phase {
            Phase::Done => true,
            Phase::Running { .. } => !matches!(self.readiness, Readiness::Wanted { .. }),
            _ => self.readiness == Readiness::Overdue,
        }
    }

    /// For the status file; only containers that were started are in it.
    pub fn status(&self) -> Option<ContainerStatus> {
        let Kind::Container { stage, .. } = self.kind else { return None };
        let state = match self.phase {
            Phase::Idle => return None,
            Phase::Held => ContainerState::Held,
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
            exit_code: self.exit.map(Exit::code),
            error: self.error.clone(),
            restarts: self.starts.saturating_sub(1),
            started_ms: ms(self.started),
            ended_ms: self.ended.map(ms),
        })
    }
}
