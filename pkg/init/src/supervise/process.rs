//! Starting, asking and ending the processes of tasks.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const CGROUPS: &str = "/sys/fs/cgroup";

/// PID 1's own program under another name, with a clean environment.
pub fn own(name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(name).env_clear().env("PATH", PATH).env("HOME", "/").env("TERM", "linux");
    command.current_dir("/").stdin(Stdio::null());
    command
}

/// Starts it with these outputs; PID 1 reaps it like every other child. Returns its process id.
pub fn spawn(mut command: Command, out: OwnedFd, error: OwnedFd) -> io::Result<u32> {
    Ok(command.stdout(out).stderr(error).spawn()?.id())
}

/// Sends a signal; a process that is gone already needs none.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Asks the first process of a container to end, with the signal that its service wants for it.
///
/// The first process of a PID namespace does not die of a signal that it does not handle. Then the container's other
/// processes are asked, as their parent often ends with them; and if there are none, waiting would be in vain.
pub fn terminate(pid: u32, cgroup: Option<&Path>, wanted: kiln_abi::Signal) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let others = if ignores(&status, wanted) { others(pid, cgroup) } else { None };
    match others {
        None => send(pid, wanted),
        Some(others) if others.is_empty() => signal(pid, Signal::KILL),
        Some(others) => others.into_iter().for_each(|other| send(other, wanted)),
    }
}

fn send(pid: u32, wanted: kiln_abi::Signal) {
    // One that is gone already needs none.
    let _ = kiln_guest::signals::send(pid, wanted.number());
}

/// Ends a container: all processes of its cgroup if that is its own, else its first process.
pub fn kill(pid: u32, cgroup: Option<&Path>) {
    if let Some(cgroup) = cgroup {
        // Version 1 has no such file; its PID namespace does the same.
        let _ = fs::write(v2(cgroup).join("cgroup.kill"), "1");
    }
    signal(pid, Signal::KILL);
}

/// The group's folder in version 2's hierarchy.
fn v2(cgroup: &Path) -> PathBuf {
    Path::new(CGROUPS).join(cgroup.strip_prefix("/").unwrap_or(cgroup))
}

/// The other processes of the container whose first process is `pid`: those of its group, or (version 1, and groups
/// that are shared) at least its children.
fn others(pid: u32, cgroup: Option<&Path>) -> Option<Vec<u32>> {
    let members = cgroup.and_then(|cgroup| fs::read_to_string(v2(cgroup).join("cgroup.procs")).ok());
    let text = members.or_else(|| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok())?;
    Some(text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).filter(|other| *other != pid).collect())
}

/// From `/proc/PID/status`: the first of a PID namespace, and the signal neither caught nor blocked (then it is waited
/// for).
fn ignores(status: &str, wanted: kiln_abi::Signal) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let is_in = |name: &str| {
        let mask = field(name).and_then(|mask| u64::from_str_radix(mask, 16).ok());
        mask.is_none_or(|mask| mask >> wanted.number().saturating_sub(1) & 1 == 1)
    };
    let ids: Vec<&str> = field("NSpid").map(|ids| ids.split_ascii_whitespace().collect()).unwrap_or_default();
    // SIGKILL is caught by nobody and comes from outside of the namespace all the same.
    let first = ids.len() > 1 && ids.last() == Some(&"1") && wanted != kiln_abi::Signal::KILL;
    first && !is_in("SigCgt") && !is_in("SigBlk")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(nspid: &str, caught: &str, blocked: &str) -> String {
        format!("Name:\tx\nNSpid:\t{nspid}\nSigBlk:\t{blocked}\nSigIgn:\t0\nSigCgt:\t{caught}\n")
    }

    #[test]
    fn only_the_first_of_a_namespace_without_a_handler_ignores_the_signal() {
        let (none, term) = ("0000000000000000", "0000000000004000");
        let ignores_terminate = |status: &str| ignores(status, kiln_abi::Signal::TERM);
        assert!(ignores_terminate(&status("77\t1", none, none)));
        assert!(!ignores_terminate(&status("77\t1", term, none)));
        assert!(!ignores_terminate(&status("77\t1", none, term)));
        assert!(!ignores_terminate(&status("77", none, none)));
        assert!(!ignores_terminate(&status("77\t5", none, none)));
        assert!(!ignores_terminate(""));
        let other = kiln_abi::Signal::of("SIGRTMIN+3").unwrap();
        assert!(ignores(&status("77\t1", term, none), other));
        assert!(!ignores(&status("77\t1", "0000001000000000", none), other));
        assert!(!ignores(&status("77\t1", none, none), kiln_abi::Signal::KILL));
    }
}
