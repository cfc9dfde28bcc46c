//! Stands in for the crate `rust-criu`, by way of `[patch.crates-io]`.
//!
//! libcontainer can freeze containers to disk with it. PID 1 never does, yet the real one builds a compiler for protocol
//! buffers first, a third of the time of the whole program. Here a checkpoint is refused before it begins: there is no
//! value of [`Criu`], so nothing that would need one can run.

use std::os::fd::RawFd;

/// How control groups are treated in a checkpoint.
#[derive(Clone, Debug)]
pub enum CgMode {}

/// The only answer.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("checkpoints of containers are left out of this program")]
pub struct CriuError;

/// A checkpoint being made.
#[derive(Debug)]
pub enum Criu {}

impl Criu {
    /// None.
    ///
    /// # Errors
    /// Always.
    pub fn new() -> Result<Self, CriuError> {
        Err(CriuError)
    }
}

/// Methods that libcontainer names, and that nobody can call.
macro_rules! unreachable_methods {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        #[expect(missing_docs, reason = "there is nothing to call them on")]
        #[expect(clippy::missing_errors_doc, reason = "there is nothing to call them on")]
        impl Criu {
            $(pub fn $name(&mut self, $(_: $argument),*) $(-> $result)? {
                match *self {}
            })*
        }
    };
}

unreachable_methods! {
    get_criu_version() -> Result<u32, CriuError>;
    dump() -> Result<(), CriuError>;
    add_external(String);
    cgroups_mode(CgMode);
    set_ext_unix_sk(bool);
    set_external_mount(String, String);
    set_file_locks(bool);
    set_images_dir_fd(RawFd);
    set_leave_running(bool);
    set_link_remap(bool);
    set_log_file(String);
    set_log_level(i32);
    set_manage_cgroups(bool);
    set_orphan_pts_master(bool);
    set_pid(i32);
    set_root(String);
    set_shell_job(bool);
    set_tcp_established(bool);
    set_work_dir_fd(RawFd);
}

/// The name under which a namespace outside of a checkpoint is known.
#[must_use]
pub fn criu_ns_to_key(name: &str) -> String {
    name.to_owned()
}
