//! The process that does one request. It starts with one thread, goes where the request is to be done, and becomes the
//! program that is asked for, or does the work itself. What goes wrong is said on standard error.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use kiln_abi::{AgentProgram, AgentRequest, AgentTask, LOOK_FILE, LOOK_FOLDER, LOOK_NOTHING};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::process::{chroot, fchdir, ioctl_tiocsctty, setsid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space, set_thread_gid, set_thread_groups, set_thread_uid};
use signal_hook::consts::{SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};

use crate::{touch, user};

/// First word of the process.
pub const ENTER: &str = "__enter";
/// Exit code when the way there failed.
const NO_WAY: u8 = 125;
/// Exit codes of shells for what cannot be started, and what is not there.
const NOT_STARTED: u8 = 126;
const NOT_FOUND: u8 = 127;
/// Where programs are looked for, unless the request says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Other namespaces that a container may have, by their names in `/proc`, in the order in which they are entered.
const NAMESPACES: [(&str, LinkNameSpaceType); 7] = [
    ("user", LinkNameSpaceType::User),
    ("cgroup", LinkNameSpaceType::ControlGroup),
    ("ipc", LinkNameSpaceType::InterProcessCommunication),
    ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
    ("net", LinkNameSpaceType::Network),
    ("pid", LinkNameSpaceType::ProcessID),
    ("mnt", LinkNameSpaceType::Mount),
];
/// Signals that a process must not end by while it waits for the program that they are for.
const FOR_THE_PROGRAM: [i32; 10] =
    [SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH];

/// Why the request is not done.
#[derive(Debug, thiserror::Error)]
enum EnterError {
    #[error("this is no request")]
    Request(#[source] serde_json::Error),
    #[error("cannot go where the request is to be done")]
    Way(#[source] io::Error),
    #[error("cannot take the terminal")]
    Terminal(#[source] io::Error),
    #[error("no program is named")]
    NoProgram,
    #[error(transparent)]
    User(#[from] user::Nobody),
    #[error("cannot become that user")]
    Become(#[source] io::Error),
    #[error("cannot work in the folder `{0}`")]
    Folder(String, #[source] io::Error),
    #[error("cannot start `{0}`")]
    Start(String, #[source] io::Error),
    #[error(transparent)]
    Copy(#[from] kiln_copy::CopyError),
    #[error("cannot tell of changes in a shared folder")]
    Touch(#[source] io::Error),
}

/// Does a request, as JSON, where the process `pid` is.
pub fn enter(pid: &str, request: &str) -> ExitCode {
    match obey(pid, request) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
        Err(error) => {
            let mut told = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                told = format!("{told}: {error}");
                cause = error.source();
            }
            say(&told);
            ExitCode::from(match &error {
                EnterError::Start(_, source) if source.kind() == io::ErrorKind::NotFound => NOT_FOUND,
                EnterError::Start(..) => NOT_STARTED,
                EnterError::Copy(_) => 1,
                _ => NO_WAY,
            })
        }
    }
}

fn obey(pid: &str, request: &str) -> Result<i32, EnterError> {
    let request: AgentRequest = serde_json::from_str(request).map_err(EnterError::Request)?;
    let in_other_pids = go_to(pid).map_err(EnterError::Way)?;
    match request.task {
        AgentTask::Run(program) => run(&program, in_other_pids),
        AgentTask::Look { path } => Ok(match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => LOOK_FOLDER,
            Ok(_) => LOOK_FILE,
            // A link to nowhere is something too.
            Err(_) if fs::symlink_metadata(&path).is_ok() => LOOK_FILE,
            Err(_) => LOOK_NOTHING,
        }),
        AgentTask::Pack { path, name } => {
            for left_out in kiln_copy::pack(Path::new(&path), &name, io::stdout().lock())? {
                say(&format!("`{}` cannot be copied: left out", left_out.display()));
            }
            Ok(0)
        }
        AgentTask::Unpack { folder } => {
            kiln_copy::unpack(Path::new(&folder), None, io::stdin().lock())?;
            Ok(0)
        }
        AgentTask::Touch { tag } => {
            touch::touch_all(&tag, io::stdin().lock()).map_err(EnterError::Touch)?;
            Ok(0)
        }
    }
}

/// Into the root and the namespaces of a process. True when programs get another view of processes than this one.
fn go_to(pid: &str) -> io::Result<bool> {
    let place = format!("/proc/{pid}");
    let root = open_path(&format!("{place}/root"))?;
    let mut others: Vec<(OwnedFd, LinkNameSpaceType)> = vec![];
    for (name, kind) in NAMESPACES {
        let theirs = format!("{place}/ns/{name}");
        if fs::read_link(&theirs)? != fs::read_link(format!("/proc/self/ns/{name}"))? {
            others.push((File::open(theirs)?.into(), kind));
        }
    }
    for (namespace, kind) in &others {
        move_into_link_name_space(namespace.as_fd(), Some(*kind))?;
    }
    let (theirs, ours) = (rustix::fs::fstat(&root)?, rustix::fs::stat("/")?);
    if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino) {
        fchdir(&root)?;
        chroot(".")?;
    }
    std::env::set_current_dir("/")?;
    Ok(others.iter().any(|(_, kind)| *kind == LinkNameSpaceType::ProcessID))
}

fn open_path(path: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Becomes the program, or, to be in another view of processes, starts it and waits.
fn run(program: &AgentProgram, in_other_pids: bool) -> Result<i32, EnterError> {
    let (name, words) = program.command.split_first().ok_or(EnterError::NoProgram)?;
    if program.terminal.is_some() {
        setsid().and_then(|_| ioctl_tiocsctty(io::stdin())).map_err(|error| EnterError::Terminal(error.into()))?;
    }
    let user = user::find(Path::new("/"), program.user.as_deref())?;
    let folder = program.folder.as_deref().unwrap_or("/");
    std::env::set_current_dir(folder).map_err(|error| EnterError::Folder(folder.into(), error))?;
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    set_thread_groups(&groups)
        .and_then(|()| set_thread_gid(Gid::from_raw(user.gid)))
        .and_then(|()| set_thread_uid(Uid::from_raw(user.uid)))
        .map_err(|error| EnterError::Become(error.into()))?;
    let mut command = Command::new(name);
    command.args(words).env_clear().env("PATH", PATH).env("HOME", &user.home);
    for variable in &program.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        if !name.is_empty() {
            command.env(OsStr::new(name), value);
        }
    }
    let failed = |error| EnterError::Start(name.clone(), error);
    if !in_other_pids {
        return Err(failed(command.exec()));
    }
    for signal in FOR_THE_PROGRAM {
        // A handler, and not to ignore it: the program would begin with that.
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false))).map_err(failed)?;
    }
    let status = command.status().map_err(failed)?;
    Ok(status.code().or_else(|| Some(128 + status.signal()?)).unwrap_or(i32::from(NO_WAY)))
}

#[expect(clippy::print_stderr, reason = "its user sees it")]
fn say(text: &str) {
    eprintln!("kiln: {text}");
}
