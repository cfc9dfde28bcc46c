//! One container's bundle, in a process of its own: mounts, OCI runtime, namespaces.
//!
//! PID 1 starts itself once for each start and each removal (`kiln-bundle start|remove`), reads the report when that
//! process has ended, and is the container's parent from then on. Whatever a bundle breaks, it breaks there.

mod binds;
mod configuration;
mod held;
mod interfaces;
mod prepare;
mod ready;
mod report;
mod runtime;
mod volumes;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use configuration::annotations;
pub use held::mount_held;
pub use prepare::PrepareError;
pub use ready::wait_ready;
pub use report::{Report, Started, take_missing, write_missing};
pub use runtime::RuntimeError;
pub use volumes::mount_volumes;

/// What PID 1 keeps about containers while the machine runs.
const STATE_DIR: &str = "/run/kiln/containers";
/// Largest `config.json` or `runtime.json` that is read.
const JSON_LIMIT_BYTES: u64 = 4 << 20;

/// A bundle that does not run.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// One of its files is missing or unreadable.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is too long to be real.
    #[error("`{}` is longer than {JSON_LIMIT_BYTES} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It is not what it should be.
    #[error("`{}` makes no sense", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// Its state could not be kept.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Around the runtime.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// In the runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The runtime would run it without its seccomp profile, and say nothing.
    #[error("`{}` has a seccomp profile, which this machine cannot enforce: leave `linux.seccomp` out", path.display())]
    Seccomp {
        /// The configuration.
        path: PathBuf,
    },
    /// The machine has not what the container is to see.
    #[error("`{}`, bound to `{}` in the container, is not there", path.display(), destination.display())]
    NoSource {
        /// In the machine.
        path: PathBuf,
        /// In the container.
        destination: PathBuf,
    },
    /// The container has no place for a mount, and none can be made.
    #[error("`{}`, which something is mounted on, is not in the read-only image: leave `readonly` out, or make it there", destination.display())]
    NoTarget {
        /// In the container.
        destination: PathBuf,
    },
    /// An annotation has no meaning.
    #[error(transparent)]
    Annotation(#[from] kiln_abi::AnnotationError),
}

/// Where a container's bundle and state are.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Name of its folder; unique for the runtime together with the stage's.
    pub id: String,
    /// The bundle as the build laid it out.
    pub folder: PathBuf,
}

impl Bundle {
    /// The bundle in `folder`, whose name is used as the container's id.
    pub fn new(folder: PathBuf) -> Self {
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self { id: name(&folder), folder }
    }

    /// Folder of its state, which lasts over restarts.
    pub fn state(&self) -> PathBuf {
        // Services and onboot containers may have the same name.
        let stage = self.folder.parent().and_then(Path::file_name).unwrap_or_default();
        Path::new(STATE_DIR).join(stage).join(&self.id)
    }

    /// Mounts, creates and starts the container. The caller's standard streams become the container's.
    pub fn start(&self) -> Result<Started, BundleError> {
        let state = self.state();
        let write = |path: PathBuf| move |source| BundleError::Write { path, source };
        fs::create_dir_all(&state).map_err(write(state.clone()))?;
        runtime::forget(self);
        let prepare = prepare::read(&self.folder)?;
        let marker = state.join("prepared");
        if !marker.exists() {
            // The writable layer of a service lasts until the machine stops, so this is done once.
            prepare::before_create(&prepare, &self.folder.join("rootfs"))?;
            fs::write(&marker, "").map_err(write(marker.clone()))?;
        }
        let own_cgroup = configuration::write_for_runtime(self, &state)?;
        let created = runtime::create(self, &state)?;
        let pid = created.pid();
        prepare::after_create(&prepare, pid).inspect_err(|_| runtime::forget(self))?;
        created.start()?;
        Ok(Started { pid, cgroup: own_cgroup })
    }

    /// Ends what is left of the container and unmounts what was mounted for it.
    pub fn remove(&self) -> Result<(), BundleError> {
        runtime::forget(self);
        if self.state().join("prepared").exists() {
            let prepare = prepare::read(&self.folder)?;
            prepare::undo(&prepare, &self.folder);
        }
        // Gone at the next boot anyway.
        let _ = fs::remove_dir_all(self.state());
        Ok(())
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, BundleError> {
    let fail = |source| BundleError::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(fail)?.len() > JSON_LIMIT_BYTES {
        return Err(BundleError::TooLong { path: path.to_owned() });
    }
    let bytes = fs::read(path).map_err(fail)?;
    serde_json::from_slice(&bytes).map_err(|source| BundleError::Json { path: path.to_owned(), source })
}
