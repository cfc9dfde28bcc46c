//! What host and guest agree on: paths, names, annotation keys and the small types that travel in files. No I/O.
//!
//! `kiln build` writes these, the guest's `init` reads them; neither may change alone.

mod agent;
mod annotation;
mod bundle;
mod ready;
mod signal;
mod status;
mod time;

pub use agent::{
    AGENT_PORT, AGENT_VERSION, AgentProgram, AgentRequest, AgentTask, FRAME_BYTES, FRAME_HEAD_BYTES, FrameError,
    FrameHead, FrameKind, INPUT_WINDOW_BYTES, LOOK_FILE, LOOK_FOLDER, LOOK_NOTHING, TOUCH_NANOSECONDS, TOUCH_SECONDS,
    frame, read_frame, size_contents, size_of,
};
pub use annotation::{
    ANNOTATION_AFTER, ANNOTATION_READY, ANNOTATION_RESTART, ANNOTATION_RESTART_DELAY, ANNOTATION_RESTART_LIMIT,
    ANNOTATION_RESTART_MAX_DELAY, ANNOTATION_STOP_SIGNAL, ANNOTATION_STOP_TIMEOUT, AnnotationError,
    RESTART_DELAY_DEFAULT, RESTART_DELAY_FLOOR, RESTART_DELAY_LIMIT, RESTART_MAX_DELAY_DEFAULT, RestartPolicy,
    STOP_TIMEOUT_DEFAULT, STOP_TIMEOUT_LIMIT, ServicePolicy, StartConditions,
};
pub use bundle::{BindNamespaces, Interface, Mount, Prepare};
pub use ready::{Ready, ReadyCheck, ReadyError};
pub use signal::Signal;
pub use status::{ContainerState, ContainerStatus, Stage, Status};
pub use time::{date, date_and_time, parse_duration, write_duration};

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

/// The program that a boot initrd runs first: it gets at a root on a disk or CD. Its place in the image.
pub const ROOT_PROGRAM: &str = "/usr/lib/kiln/root";
/// What it loads, in a boot initrd: one module a line in loading order, `always PATH` or, for what is loaded until the root
/// has appeared, `disk PATH`.
pub const ROOT_MODULES: &str = "/modules";
