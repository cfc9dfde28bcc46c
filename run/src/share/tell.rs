//! Tells the guest what the host changes in a share. Linux' virtiofs has no message for that: the agent in the guest
//! touches each path with a time that means nothing else ([`TOUCH_SECONDS`]), which changes nothing here, and its kernel
//! tells who watches.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use kiln_abi::{AGENT_VERSION, AgentRequest, AgentTask};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::own::OwnChanges;
use super::watch::{Paths, Tree};
use crate::agent::{Sender, Session};

/// How long nothing else may happen before the guest is told.
const QUIET: Timespec = Timespec { tv_sec: 0, tv_nsec: 30_000_000 };
/// Times in a row that it is waited for that: who changes something all the time is heard too.
const QUIET_TRIES: u32 = 5;

/// A thread that tells of one share, until this is dropped.
#[derive(Debug)]
pub(super) struct Teller(OwnedFd);

impl Drop for Teller {
    fn drop(&mut self) {
        // It fails only when it was raised very often. The thread may wait for the guest: nobody waits for it.
        let _raised = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl Teller {
    /// Starts to tell the guest of the machine that has this state folder of what changes in `tree`.
    ///
    /// # Errors
    /// The host has no thread or no descriptor.
    pub(super) fn start(tag: &str, tree: Tree, own: Arc<OwnChanges>, state_dir: &Path) -> io::Result<Self> {
        let end = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let ended = end.try_clone()?;
        let mut guest = Guest { state_dir: state_dir.to_owned(), tag: tag.to_owned(), talk: None };
        thread::Builder::new().name(format!("watch-{tag}")).spawn(move || tell(tree, &own, &mut guest, &ended))?;
        Ok(Self(end))
    }
}

fn tell(mut tree: Tree, own: &OwnChanges, guest: &mut Guest, end: &OwnedFd) {
    let mut changed = Paths::new();
    let mut tries = 0;
    loop {
        let mut waits = [PollFd::new(tree.events(), PollFlags::IN), PollFd::new(end, PollFlags::IN)];
        let ready = poll(&mut waits, if changed.is_empty() { None } else { Some(&QUIET) });
        let [events, ended] = waits.map(|wait| !wait.revents().is_empty());
        if ended || ready.is_err_and(|error| error != rustix::io::Errno::INTR) {
            return;
        }
        if events && tree.read(own, &mut changed).is_err() {
            return;
        }
        tries += 1;
        if changed.is_empty() {
            tries = 0;
        } else if !events || tries > QUIET_TRIES {
            guest.tell(std::mem::take(&mut changed));
            tries = 0;
        }
    }
}

/// The way to the agent.
struct Guest {
    state_dir: PathBuf,
    tag: String,
    talk: Option<Sender>,
}

impl Guest {
    /// A guest without an agent is not told.
    fn tell(&mut self, paths: Paths) {
        let text: Vec<u8> = paths.into_iter().flat_map(|path| [path, vec![0]].concat()).collect();
        // A guest that started again has another agent.
        for _ in 0..2 {
            if self.talk.is_none() {
                self.talk = self.connect();
            }
            match &self.talk {
                Some(talk) if talk.input(&text).is_ok() => return,
                Some(_) => self.talk = None,
                None => return,
            }
        }
    }

    fn connect(&self) -> Option<Sender> {
        let task = AgentTask::Touch { tag: self.tag.clone() };
        let request = AgentRequest { version: AGENT_VERSION, service: None, task };
        let session = Session::start(&self.state_dir, &request).ok()?;
        let sender = session.sender();
        // Hears how far the agent is; ends with the connection.
        let hear = move || drop(session.hear(&mut io::sink(), &mut io::sink()));
        thread::Builder::new().name(format!("told-{}", self.tag)).spawn(hear).ok()?;
        Some(sender)
    }
}
