//! The OCI runtime: libcontainer, in this process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use rustix::process::Pid;

use super::Bundle;

/// The runtime's refusal.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Namespaces, mounts, groups, capabilities: the source says which.
    #[error("cannot create the container")]
    Create(#[source] Box<LibcontainerError>),
    /// It was created, and its process did not start.
    #[error("cannot start the container's process")]
    Start(#[source] Box<LibcontainerError>),
    /// The runtime's folder.
    #[error("cannot make `{}`", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A container whose process waits for its start.
pub struct Created {
    container: Container,
    pid: u32,
}

/// Where the runtime keeps its own state of one container.
fn root(bundle: &Bundle) -> PathBuf {
    bundle.state().join("oci")
}

/// Creates the container from the configuration in `state`.
pub fn create(bundle: &Bundle, state: &Path) -> Result<Created, RuntimeError> {
    let path = root(bundle);
    fs::create_dir_all(&path).map_err(|source| RuntimeError::Folder { path: path.clone(), source })?;
    let create = || -> Result<Container, LibcontainerError> {
        ContainerBuilder::new(bundle.id.clone(), SyscallType::default())
            .with_root_path(&path)?
            .validate_id()?
            .as_init(state)
            .with_systemd(false)
            .with_detach(true)
            .as_sibling(true)
            .build()
    };
    let container = create().map_err(|error| RuntimeError::Create(Box::new(error)))?;
    let pid = container.pid().and_then(|pid| u32::try_from(pid.as_raw()).ok()).unwrap_or_default();
    Ok(Created { container, pid })
}

impl Created {
    /// The container's first process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it run.
    pub fn start(mut self) -> Result<(), RuntimeError> {
        self.container.start().map_err(|error| RuntimeError::Start(Box::new(error)))
    }
}

/// Starts a further process in a running container: `process` is a file with its description. It is a child of the
/// caller, and has the caller's standard streams.
pub fn run_inside(bundle: &Bundle, process: &Path) -> Result<Pid, RuntimeError> {
    let run = || -> Result<Pid, LibcontainerError> {
        let pid = ContainerBuilder::new(bundle.id.clone(), SyscallType::default())
            .with_root_path(root(bundle))?
            .as_tenant()
            .with_process(Some(process))
            .with_detach(true)
            .build()?;
        Pid::from_raw(pid.as_raw()).ok_or_else(|| LibcontainerError::Other("its process has no number".to_owned()))
    };
    run().map_err(|error| RuntimeError::Start(Box::new(error)))
}

/// Ends and forgets whatever an earlier start left.
pub fn forget(bundle: &Bundle) {
    let folder = root(bundle).join(&bundle.id);
    if let Ok(mut container) = Container::load(folder.clone()) {
        // A container that is half there is forgotten below.
        let _ = container.delete(true);
    }
    let _ = fs::remove_dir_all(folder);
}
