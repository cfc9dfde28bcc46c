//! What the process that starts a container tells PID 1: one small file, replaced as a whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const MISSING_FILE: &str = "missing";

/// The outcome of a start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Report {
    /// The container runs.
    Started(Started),
    /// It does not; the text has the whole chain of causes.
    Failed(String),
}

/// A running container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its first process, seen from PID 1.
    pub pid: u32,
    /// Its cgroup, if that is nobody else's, below the mount of the hierarchies.
    pub cgroup: Option<PathBuf>,
}

impl Report {
    fn path(state: &Path) -> PathBuf {
        state.join("report.json")
    }

    /// Removes the report of an earlier start.
    pub fn clear(state: &Path) {
        // What is not there cannot be taken for the new one.
        let _ = fs::remove_file(Self::path(state));
    }

    /// Leaves the report for PID 1.
    pub fn write(&self, state: &Path) -> io::Result<()> {
        let path = Self::path(state);
        let temporary = path.with_extension("new");
        fs::create_dir_all(state)?;
        fs::write(&temporary, serde_json::to_vec(self)?)?;
        fs::rename(temporary, path)
    }

    /// Reads it; `None` if the process ended without one.
    pub fn read(state: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(Self::path(state)).ok()?).ok()
    }
}

/// Leaves word of what keeps a service from being ready.
pub fn write_missing(state: &Path, text: &str) -> io::Result<()> {
    fs::write(state.join(MISSING_FILE), text)
}

/// Takes that word: it is read once.
pub fn take_missing(state: &Path) -> Option<String> {
    let path = state.join(MISSING_FILE);
    let text = fs::read_to_string(&path).ok()?;
    // What cannot be removed is overwritten by the next check.
    let _ = fs::remove_file(path);
    Some(text)
}
