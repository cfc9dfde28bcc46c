//! `machine.json` in the state folder: what was started, when and by which process, and how it ended.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Name of the file.
pub const RECORD: &str = "machine.json";
/// Longest file that is read, in bytes: the paths of the most disks.
const RECORD_BYTES: u64 = 1 << 20;

/// One run of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// What was run: a name of files, or a reference.
    pub from: String,
    /// The folder for what it keeps.
    pub state_dir: PathBuf,
    /// The process that runs it.
    pub pid: u32,
    /// `kvm` or `qemu`.
    pub backend: String,
    /// Number of processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The files behind its disks.
    pub disks: Vec<PathBuf>,
    /// Number of network cards.
    pub cards: usize,
    /// What its console is, as `-console` takes it.
    pub console: String,
    /// The pseudoterminal, if the console is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pty: Option<PathBuf>,
    /// Whether it was left alone by who started it.
    pub detached: bool,
    /// When it was started, in seconds since 1970.
    pub started_s: u64,
    /// How it ended; missing as long as it runs, and for ever if its process was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When, in seconds since 1970.
    pub at_s: u64,
    /// Exit status of `kiln run`.
    pub status: u8,
    /// In words.
    pub how: String,
}

impl Record {
    /// Reads the record in a state folder.
    pub fn read(state_dir: &Path) -> io::Result<Self> {
        let mut text = Vec::new();
        File::open(state_dir.join(RECORD))?.take(RECORD_BYTES).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Replaces the record in its state folder, as a whole.
    pub fn write(&self) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let new = self.state_dir.join("machine.json.new");
        fs::write(&new, text)?;
        fs::rename(new, self.state_dir.join(RECORD))
    }

    /// How long it has run, in seconds.
    pub fn age_s(&self) -> u64 {
        let until = self.ended.as_ref().map_or_else(now_s, |ended| ended.at_s);
        until.saturating_sub(self.started_s)
    }
}

/// Seconds since 1970.
pub fn now_s() -> u64 {
    // A clock before 1970 is no clock.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A record of a machine that runs.
    pub fn record(state_dir: &Path) -> Record {
        Record {
            name: "vm".into(),
            from: "out/vm".into(),
            state_dir: state_dir.into(),
            pid: 7,
            backend: "kvm".into(),
            cpus: 2,
            memory_mib: 1024,
            disks: vec!["disk.img".into()],
            cards: 1,
            console: "stdio".into(),
            pty: None,
            detached: true,
            started_s: 100,
            ended: None,
        }
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Record::read(folder.path()).is_err());
        fs::write(folder.path().join(RECORD), "{}").unwrap();
        assert!(Record::read(folder.path()).is_err());
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let running = record(folder.path());
        running.write().unwrap();
        assert_eq!(Record::read(folder.path()).unwrap(), running);
        let ended = Record { ended: Some(Ended { at_s: 160, status: 0, how: "powered off".into() }), ..running };
        ended.write().unwrap();
        let read = Record::read(folder.path()).unwrap();
        assert_eq!((read.age_s(), &read), (60, &ended));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
