//! Where a request is done: the machine's own root, or a service's container, by the process that is in it.

use std::fs;
use std::path::Path;

use kiln_abi::{ContainerState, STATUS_FILE, Stage, Status};

/// Why there is no such place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    /// Nobody tells of services.
    #[error("the machine does not tell which services run")]
    Unknown,
    /// No such service, or it does not run.
    #[error("no service called `{name}` runs; {}", known(running))]
    NotRunning {
        /// The name.
        name: String,
        /// Those that run.
        running: Vec<String>,
    },
}

fn known(running: &[String]) -> String {
    if running.is_empty() { "none does".into() } else { format!("those that do are {}", running.join(", ")) }
}

/// The process whose place is meant; `machine` is one in the machine's own root.
pub(crate) fn process(service: Option<&str>, machine: u32) -> Result<u32, TargetError> {
    let Some(name) = service else { return Ok(machine) };
    let file = Path::new("/proc").join(machine.to_string()).join("root").join(STATUS_FILE.trim_start_matches('/'));
    let text = fs::read(file).map_err(|_| TargetError::Unknown)?;
    let status: Status = serde_json::from_slice(&text).map_err(|_| TargetError::Unknown)?;
    of(&status, name)
}

fn of(status: &Status, name: &str) -> Result<u32, TargetError> {
    let runs = |container: &&kiln_abi::ContainerStatus| {
        let is_up = matches!(container.state, ContainerState::Running | ContainerState::Stopping);
        container.stage == Stage::Service && is_up && container.pid.is_some()
    };
    let running: Vec<_> = status.containers.iter().filter(runs).collect();
    let found = running.iter().find(|container| container.name == name).and_then(|container| container.pid);
    found.ok_or_else(|| TargetError::NotRunning {
        name: name.into(),
        running: running.iter().map(|container| container.name.clone()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use kiln_abi::ContainerStatus;

    use super::*;

    #[test]
    fn only_a_service_that_runs_can_be_entered() {
        let container = |name: &str, stage, state, pid| ContainerStatus {
            name: name.into(),
            stage,
            state,
            pid,
            exit_code: None,
            error: None,
            restarts: 0,
            started_ms: 0,
            ended_ms: None,
        };
        let status = Status {
            containers: vec![
                container("first", Stage::Onboot, ContainerState::Running, Some(5)),
                container("down", Stage::Service, ContainerState::Ended, None),
                container("web", Stage::Service, ContainerState::Running, Some(7)),
            ],
        };
        assert_eq!(of(&status, "web").unwrap(), 7);
        for name in ["first", "down", "nobody"] {
            let error = of(&status, name).unwrap_err().to_string();
            assert_eq!(error, format!("no service called `{name}` runs; those that do are web"));
        }
        assert_eq!(process(None, 1).unwrap(), 1);
    }
}
