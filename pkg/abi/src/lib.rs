//! What host and guest agree on: paths, names, annotation keys and the small types that travel in files. No I/O.
//!
//! `kiln build` writes these, the guest's `init` reads them; neither may change alone.

mod annotation;
mod bundle;
mod status;

pub use annotation::{
    ANNOTATION_RESTART, ANNOTATION_STOP_TIMEOUT, AnnotationError, RestartPolicy, STOP_TIMEOUT_DEFAULT,
    STOP_TIMEOUT_LIMIT, ServicePolicy,
};
pub use bundle::{BindNamespaces, Interface, Mount, Prepare};
pub use status::{ContainerState, ContainerStatus, Stage, Status};

/// Folder of all bundles in the root.
pub const CONTAINERS_DIR: &str = "/containers";
/// Bundles that run once, in the order of their names (`%03d-NAME`), before the services.
pub const ONBOOT_DIR: &str = "/containers/onboot";
/// Bundles that run once, in the order of their names (`%03d-NAME`), when the machine stops.
pub const ONSHUTDOWN_DIR: &str = "/containers/onshutdown";
/// Bundles that run as long as the machine.
pub const SERVICES_DIR: &str = "/containers/services";
/// Volumes: `NAME/{lower,tmp,merged}`.
pub const VOLUMES_DIR: &str = "/containers/volumes";
/// The OCI runtime configuration of a bundle.
pub const BUNDLE_CONFIG: &str = "config.json";
/// What is to be done around the OCI runtime: see [`Prepare`].
pub const BUNDLE_PREPARE: &str = "runtime.json";

/// What the guest keeps for itself while it runs.
pub const RUN_DIR: &str = "/run/kiln";
/// JSON of [`Status`], replaced as a whole whenever a container changes.
pub const STATUS_FILE: &str = "/run/kiln/status.json";
/// Logs of services: `NAME.log` is stderr, `NAME.out.log` stdout.
pub const SERVICE_LOG_DIR: &str = "/var/log";
/// Logs of onboot containers: `onboot.NNN-NAME.log` and `.out.log`; `/var/log/onboot` leads here.
pub const ONBOOT_LOG_DIR: &str = "/run/log/onboot";
/// Logs of onshutdown containers.
pub const ONSHUTDOWN_LOG_DIR: &str = "/run/log/shutdown";
