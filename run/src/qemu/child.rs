//! Starts QEMU with our ends of its sockets, and sees it to its end.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::command::{self, Descriptors};
use super::machine::{Programs, QemuError};
use super::tied::TIED_COMMAND;
use super::vhost_user::Served;
use crate::cards::OpenCard;
use crate::config::MachineConfig;

/// Held while descriptors exist that any child inherits, so that no other machine's QEMU gets them: it would keep them
/// open after ours has ended.
static INHERITABLE: Mutex<()> = Mutex::new(());

/// A running QEMU and our ends.
pub(super) struct Running {
    pub process: Child,
    pub qmp: UnixStream,
    pub serial: UnixStream,
    pub virtio_console: UnixStream,
    /// Our ends of the network cards' cables, in the order of the cards.
    pub cables: Vec<UnixStream>,
    /// Our ends of the sockets of the devices that we serve, in their order.
    pub devices: Vec<UnixStream>,
    /// Reading end of the pipe for processor resets.
    pub log: OwnedFd,
}

/// Starts QEMU for this machine. It is killed when the calling thread ends, if the programs say how.
pub(super) fn start(
    config: &MachineConfig,
    cards: &[OpenCard],
    served: &[Served],
    overlays: &[Option<File>],
    programs: &Programs,
) -> Result<Running, QemuError> {
    let _alone = INHERITABLE.lock().unwrap_or_else(PoisonError::into_inner);
    let (qmp, their_qmp) = pair().map_err(QemuError::Sockets)?;
    let (serial, their_serial) = pair().map_err(QemuError::Sockets)?;
    let (virtio_console, their_virtio_console) = pair().map_err(QemuError::Sockets)?;
    let pairs = |count: usize| (0..count).map(|_| pair()).collect::<Result<Vec<_>, _>>().map_err(QemuError::Sockets);
    let (cables, devices) = (pairs(cards.len())?, pairs(served.len())?);
    let (log, their_log) = log_pipe().map_err(QemuError::Sockets)?;
    let table = table_file().map_err(QemuError::Sockets)?;
    let descriptors = Descriptors {
        qmp: their_qmp.as_raw_fd(),
        serial: their_serial.as_raw_fd(),
        virtio_console: their_virtio_console.as_raw_fd(),
        log: their_log.as_raw_fd(),
        watchdog_table: table.as_raw_fd(),
        cables: theirs(&cables),
        devices: theirs(&devices),
        overlays: overlays.iter().map(|overlay| overlay.as_ref().map(AsRawFd::as_raw_fd)).collect(),
    };
    let mut start = match &programs.tied_by {
        Some(own) => {
            let mut start = Command::new(own);
            start.arg(TIED_COMMAND).arg(std::process::id().to_string()).arg(&programs.qemu);
            start
        }
        None => Command::new(&programs.qemu),
    };
    start.args(command::arguments(config, cards, served, &descriptors)?);
    // A group of its own: the terminal's Ctrl-C is for this process, which then presses the power button.
    start.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let process = start.spawn().map_err(|source| QemuError::Start { program: start.get_program().into(), source })?;
    kiln_net::limits::give_back(process.id());
    let ours = |pairs: Vec<(UnixStream, OwnedFd)>| pairs.into_iter().map(|(ours, _)| ours).collect();
    Ok(Running { process, qmp, serial, virtio_console, cables: ours(cables), devices: ours(devices), log })
}

fn theirs(pairs: &[(UnixStream, OwnedFd)]) -> Vec<RawFd> {
    pairs.iter().map(|(_, theirs)| theirs.as_raw_fd()).collect()
}

/// Our end closes on exec, theirs does not.
fn pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None)?;
    rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::CLOEXEC)?;
    Ok((ours.into(), theirs))
}

fn log_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = pipe_with(PipeFlags::empty())?;
    rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::CLOEXEC)?;
    Ok((ours, theirs))
}

/// The table of the watchdog in a file that has no name.
fn table_file() -> io::Result<File> {
    let mut file = File::from(memfd_create("watchdog-table", MemfdFlags::empty())?);
    file.write_all(&table())?;
    Ok(file)
}

#[cfg(target_arch = "x86_64")]
fn table() -> Vec<u8> {
    crate::acpi::watchdog_table()
}

/// Q35 is a machine of x86's.
#[cfg(not(target_arch = "x86_64"))]
fn table() -> Vec<u8> {
    Vec::new()
}

/// Waits for the end of `process`, and kills it when it takes longer than `patience`.
pub(super) fn see_off(process: &mut Child, patience: Duration) -> io::Result<ExitStatus> {
    if !ends_within(process, patience) {
        process.kill()?;
    }
    process.wait()
}

fn ends_within(process: &Child, patience: Duration) -> bool {
    let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
    let Some(watch) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else { return false };
    let timeout = Timespec::try_from(patience).ok();
    loop {
        match poll(&mut [PollFd::new(&watch, PollFlags::IN)], timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            ready => return ready.is_ok_and(|count| count > 0),
        }
    }
}
