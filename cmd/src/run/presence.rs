//! A machine as others see it while it runs: its name, its record, and the moment from which it is there.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use kiln_run::Started;
use kiln_run::config::MachineConfig;
use kiln_run::console::ConsoleEnd;
use kiln_run::detach::Terminal;

use crate::args::ConsoleFlags;
use crate::failure::Failure;
use crate::machines::record::{Ended, Record, now_s};
use crate::machines::registry;
use crate::machines::registry::{Claim, NameError, Wanted, checked_name, likely_name};
use crate::printer::Printer;

/// Messages of a detached run, in its state folder.
const OWN_LOG: &str = "kiln.log";

/// Who waits for the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// Its user, at this process.
    User,
    /// Another process, until the machine runs; then nobody.
    Process,
}

/// What is known of a machine before it runs.
pub struct Card<'a> {
    /// Its description.
    pub config: &'a MachineConfig,
    /// What was run.
    pub from: &'a Path,
    /// Its console and name, as asked for.
    pub flags: &'a ConsoleFlags,
    /// `kvm` or `qemu`.
    pub backend: &'static str,
    /// Who waits for it.
    pub waits: Waits,
}

/// A machine that others can find. Its name is free again when this is dropped.
pub struct Presence {
    record: Record,
    claim: Claim,
    waits: Waits,
}

/// The name that is asked for, if it can be one.
pub fn wanted(flags: &ConsoleFlags, from: &Path) -> Result<Wanted, Failure> {
    Ok(match &flags.name {
        Some(name) => Wanted::Exactly(checked_name(name).map_err(Failure::usage)?.to_owned()),
        None => Wanted::Like(likely_name(from)),
    })
}

impl Presence {
    /// Gives the machine its name, and writes its record. Its control socket is there by now.
    pub fn announce(card: &Card<'_>, pty: Option<&Path>) -> Result<Self, Failure> {
        let config = card.config;
        let wanted = wanted(card.flags, card.from)?;
        let claim = registry()?.claim(&wanted, &config.state_dir).map_err(|error| match error {
            NameError::Taken(_) => {
                Failure::new(error).hint("`kiln ps` lists those that run; give this one another `-name`")
            }
            error => Failure::new(error),
        })?;
        let record = Record {
            name: claim.name().to_owned(),
            from: card.from.display().to_string(),
            state_dir: fs::canonicalize(&config.state_dir)?,
            pid: std::process::id(),
            backend: card.backend.to_owned(),
            cpus: config.cpus,
            memory_mib: config.memory_mib,
            disks: config.disks.iter().map(|disk| disk.path.clone()).collect(),
            cards: config.cards.len(),
            console: word(&card.flags.console),
            pty: pty.map(PathBuf::from),
            detached: card.waits == Waits::Process,
            started_s: now_s(),
            ended: None,
        };
        record.write()?;
        Ok(Self { record, claim, waits: card.waits })
    }

    /// What is to be done when the machine runs: whoever waits for that is told.
    pub fn started(&self, printer: &Printer) -> io::Result<Started> {
        if self.waits == Waits::User {
            return Ok(Started::default());
        }
        let terminal = Terminal::hold(own_log(&self.record.state_dir)?)?;
        let (name, printer) = (self.claim.name().to_owned(), printer.clone());
        Ok(Started::then(move || {
            printer.lose_terminal();
            terminal.let_go(&name);
        }))
    }

    /// The machine has ended.
    pub fn end(mut self, how: &str, status: u8) {
        self.record.ended = Some(Ended { at_s: now_s(), status, how: how.to_owned() });
        // Without it the machine is said to have been killed; nothing hangs on that.
        let _unwritten = self.record.write();
    }
}

fn own_log(state_dir: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(state_dir.join(OWN_LOG))
}

fn word(console: &ConsoleEnd) -> String {
    match console {
        ConsoleEnd::Stdio => "stdio".into(),
        ConsoleEnd::Pty => "pty".into(),
        ConsoleEnd::None => "none".into(),
        ConsoleEnd::File(path) => format!("file:{}", path.display()),
        ConsoleEnd::Unix(path) => format!("unix:{}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_none_is_wrong_usage() {
        let flags = |name: Option<&str>| ConsoleFlags { name: name.map(Into::into), ..ConsoleFlags::default() };
        assert_eq!(wanted(&flags(Some("a/b")), Path::new("x")).unwrap_err().status, 2);
        assert_eq!(wanted(&flags(None), Path::new("out/x y")).unwrap(), Wanted::Like("x-y".into()));
        assert_eq!(wanted(&flags(Some("vm")), Path::new("x")).unwrap(), Wanted::Exactly("vm".into()));
    }

    #[test]
    fn a_console_is_written_as_it_is_read() {
        for text in ["stdio", "pty", "none", "file:a b", "unix:./c"] {
            assert_eq!(word(&text.parse().unwrap()), text);
        }
    }
}
