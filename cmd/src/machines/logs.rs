//! `kiln logs`: what a machine printed that runs detached, or ran.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use kiln_run::console::{CONSOLE_LOG, log_before};
use kiln_run::control::Client;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::fs::inotify;
use rustix::process::{PidfdFlags, pidfd_open};

use crate::args;
use crate::failure::Failure;
use crate::printer::Printer;

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Prints the log, and with `-f` what comes until the machine ends.
pub fn logs(asked: &args::Logs, printer: &Printer) -> Result<(), Failure> {
    let state_dir = super::state_dir(&asked.name);
    let path = state_dir.join(CONSOLE_LOG);
    // Watched before the first look, so that nothing comes between.
    let watch = asked.follow.then(|| Watch::new(&state_dir)).transpose();
    let mut log = File::open(&path).map_err(|error| missing(&asked.name, &path, error))?;
    if let Some(lines) = asked.lines {
        let before = File::open(log_before(&path)).ok();
        print_last(before, &mut log, lines, printer)?;
    } else {
        if let Ok(mut before) = File::open(log_before(&path)) {
            // Of this run, if this one's was begun anew; the log of the run before is older than the record.
            if is_of_this_run(&state_dir, &before) {
                copy(&mut before, printer)?;
            }
        }
        copy(&mut log, printer)?;
    }
    let Some(watch) = watch? else { return Ok(()) };
    follow(&path, log, &watch, printer)
}

fn missing(name: &Path, path: &Path, error: io::Error) -> Failure {
    if error.kind() != io::ErrorKind::NotFound {
        return Failure::new(format!("cannot read `{}`: {error}", path.display()));
    }
    match super::connect(name) {
        Ok(_) => Failure::new(format!("`{}` has no log: it does not run detached", name.display()))
            .hint("`kiln console` shows what it prints"),
        Err(failure) => failure,
    }
}

/// Whether a log was written to after the last machine of the folder started.
fn is_of_this_run(state_dir: &Path, log: &File) -> bool {
    let started = super::record::Record::read(state_dir).ok().map(|record| record.started_s);
    let written = log.metadata().ok().and_then(|metadata| u64::try_from(metadata.mtime()).ok());
    matches!((started, written), (Some(started), Some(written)) if written >= started)
}

fn copy(log: &mut File, printer: &Printer) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match log.read(&mut chunk)? {
            0 => return Ok(()),
            len => printer.data(chunk.get(..len).unwrap_or_default())?,
        }
    }
}

/// The last lines of both logs together.
fn print_last(before: Option<File>, log: &mut File, lines: usize, printer: &Printer) -> io::Result<()> {
    let mut bytes = Vec::new();
    // Both have a limit of their own: a few MiB.
    for mut file in before.into_iter().chain([log.try_clone()?]) {
        file.read_to_end(&mut bytes)?;
    }
    log.seek(SeekFrom::End(0))?;
    printer.data(last_lines(&bytes, lines))
}

fn last_lines(bytes: &[u8], lines: usize) -> &[u8] {
    let ends = bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    // The end of the last line begins no line.
    let mut starts = ends.filter(|at| *at < bytes.len());
    match lines.checked_sub(1) {
        None => &[],
        Some(before) => bytes.get(starts.nth(before).unwrap_or(0)..).unwrap_or_default(),
    }
}

/// Tells when something in the state folder changes, or its machine ends.
struct Watch {
    changes: OwnedFd,
    process: Option<OwnedFd>,
}

impl Watch {
    fn new(state_dir: &Path) -> Result<Self, Failure> {
        let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&changes, state_dir, events)?;
        let pid = Client::connect(state_dir).ok().and_then(|machine| machine.pid().ok());
        let process = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Ok(Self { changes, process })
    }

    /// Waits for a change; false when the machine has ended.
    fn changed(&self) -> bool {
        let Some(process) = &self.process else { return false };
        let mut waits = [PollFd::new(process, PollFlags::IN), PollFd::new(&self.changes, PollFlags::IN)];
        match poll(&mut waits, None) {
            Err(rustix::io::Errno::INTR) => true,
            Err(_) => false,
            Ok(_) if waits.first().is_some_and(|process| !process.revents().is_empty()) => false,
            Ok(_) => {
                // Which change it was does not matter.
                while rustix::io::read(&self.changes, &mut [0; 4096]).is_ok() {}
                true
            }
        }
    }
}

fn follow(path: &Path, mut log: File, watch: &Watch, printer: &Printer) -> Result<(), Failure> {
    loop {
        let runs = watch.changed();
        copy(&mut log, printer)?;
        // It was begun anew: the rest of the old one has been shown.
        if let Ok(now) = File::open(path)
            && now.metadata()?.ino() != log.metadata()?.ino()
        {
            copy(&mut log, printer)?;
            log = now;
            copy(&mut log, printer)?;
        }
        if !runs {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_whole_and_the_last_may_have_no_end() {
        for (text, lines, expected) in [
            ("", 3, ""),
            ("a\nb\nc\n", 0, ""),
            ("a\nb\nc\n", 1, "c\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\nc\n", 3, "a\nb\nc\n"),
            ("a\nb\nc\n", 9, "a\nb\nc\n"),
            ("\n\n", 1, "\n"),
        ] {
            assert_eq!(last_lines(text.as_bytes(), lines), expected.as_bytes(), "{text:?} {lines}");
        }
    }
}
