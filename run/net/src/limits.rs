//! How much of the host one guest may have.

use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// Connections at once, if the host has descriptors for them.
const CONNECTIONS: usize = 10_000;
/// UDP ports of the guest at once.
const DATAGRAM_PORTS: usize = 1_024;
/// Questions to name servers on their way at once.
const QUESTIONS: usize = 256;
/// Conversations of echoes at once.
const ECHOES: usize = 64;

/// What a guest may have at once, in descriptors of this process: together not more than four fifths of those that it
/// may open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// TCP connections.
    pub connections: usize,
    /// UDP ports.
    pub datagram_ports: usize,
    /// Questions to name servers.
    pub questions: usize,
    /// Conversations of echoes.
    pub echoes: usize,
}

impl Limits {
    /// Those that this process can bear, by its limit of open files.
    pub fn of_process() -> Self {
        let most = getrlimit(Resource::Nofile).current;
        Self::of_descriptors(most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX))
    }

    fn of_descriptors(most: usize) -> Self {
        let share = most / 5 * 4;
        let datagram_ports = DATAGRAM_PORTS.min(share / 8).max(1);
        let questions = QUESTIONS.min(share / 8).max(1);
        let echoes = ECHOES.min(share / 16).max(1);
        let connections = share.saturating_sub(datagram_ports + questions + echoes).clamp(1, CONNECTIONS);
        Self { connections, datagram_ports, questions, echoes }
    }
}

/// The limit of open files before it was raised.
static BEFORE: OnceLock<Rlimit> = OnceLock::new();

/// Lets this process open as many files as it may at most: by default that is much more than it may without asking.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    BEFORE.get_or_init(|| limit);
    // If it cannot be, guests have less at once.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Gives the process `child` the limit back that this one had before [`raise`]: there are programs that take each
/// descriptor that could be open in turn, or cannot wait for high ones.
pub fn give_back(child: u32) {
    let Some(before) = BEFORE.get() else { return };
    let pid = i32::try_from(child).ok().and_then(Pid::from_raw);
    // It is gone already, or has more than it needs.
    let _ = pid.map(|pid| prlimit(Some(pid), Resource::Nofile, *before));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_never_has_all_descriptors() {
        for most in [0, 1, 20, 256, 1_024, 4_096, 20_000, 1_048_576, usize::MAX] {
            let Limits { connections, datagram_ports, questions, echoes } = Limits::of_descriptors(most);
            let all = connections + datagram_ports + questions + echoes;
            assert!(all <= (most / 5 * 4).max(4), "{most}: {all}");
        }
        assert_eq!(Limits::of_descriptors(1_024).connections, 819 - 102 - 102 - 51 - 3);
        let enough = Limits::of_descriptors(65_536);
        assert_eq!((enough.connections, enough.datagram_ports), (CONNECTIONS, DATAGRAM_PORTS));
    }
}
