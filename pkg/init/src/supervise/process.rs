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
const SIGTERM_BIT: u32 = 15 - 1;

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

/// Asks the first process of a container to end.
///
/// The first process of a PID namespace does not die of a SIGTERM that it does not handle. Then the container's other
/// processes are asked, as their parent often ends with them; and if there are none, waiting would be in vain.
pub fn terminate(pid: u32, cgroup: Option<&Path>) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    if !ignores_terminate(&status) {
        return signal(pid, Signal::TERM);
    }
    let Some(others) = others(pid, cgroup) else { return signal(pid, Signal::TERM) };
    if others.is_empty() {
        return signal(pid, Signal::KILL);
    }
    for other in others {
        signal(other, Signal::TERM);
    }
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

/// From `/proc/PID/status`: the first of a PID namespace, and SIGTERM neither caught nor blocked (then it is waited for).
fn ignores_terminate(status: &str) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let has_terminate = |name: &str| {
        field(name).and_then(|mask| u64::from_str_radix(mask, 16).ok()).is_none_or(|mask| mask >> SIGTERM_BIT & 1 == 1)
    };
    let ids: Vec<&str> = field("NSpid").map(|ids| ids.split_ascii_whitespace().collect()).unwrap_or_default();
    ids.len() > 1 && ids.last() == Some(&"1") && !has_terminate("SigCgt") && !has_terminate("SigBlk")
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
        assert!(ignores_terminate(&status("77\t1", none, none)));
        assert!(!ignores_terminate(&status("77\t1", term, none)));
        assert!(!ignores_terminate(&status("77\t1", none, term)));
        assert!(!ignores_terminate(&status("77", none, none)));
        assert!(!ignores_terminate(&status("77\t5", none, none)));
        assert!(!ignores_terminate(""));
    }
}
