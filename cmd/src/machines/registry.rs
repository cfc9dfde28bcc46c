//! The names of this user's machines: a folder with a link for each to its state folder. A link counts only while
//! somebody answers at that folder's control socket, which ends with its process, however that ends.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kiln_run::control::Client;
use rustix::fs::{FlockOperation, flock};

/// Those that ended, in a folder of the folder.
const ENDED: &str = "ended";
/// Held while links are made or moved.
const LOCK: &str = ".lock";
/// Machines that ended and are still known: the oldest are forgotten.
const MAX_ENDED: usize = 64;
/// Longest name, in bytes.
const NAME_BYTES: usize = 63;
/// How many machines of the same name get a number behind it.
const MAX_NUMBER: u32 = 10_000;

/// The folder of links.
#[derive(Debug, Clone)]
pub struct Registry {
    folder: PathBuf,
}

/// A machine by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Its state folder.
    pub state_dir: PathBuf,
}

/// The name that a machine is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// This one and no other.
    Exactly(String),
    /// This one, or with a number behind it.
    Like(String),
}

/// Why a machine does not get a name.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// It is none.
    #[error(
        "`{0}` is no name of a machine: it has letters, digits, `-`, `_` and `.`, begins with a letter or digit, and has at most {NAME_BYTES}"
    )]
    NoName(String),
    /// Another one has it.
    #[error("a machine called `{0}` runs already")]
    Taken(String),
    /// The folder.
    #[error("cannot keep the names of machines in `{}`", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Checks a name that its user chose.
pub fn checked_name(name: &str) -> Result<&str, NameError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let good = begins && name.len() <= NAME_BYTES && name.chars().all(plain) && name != ENDED;
    if good { Ok(name) } else { Err(NameError::NoName(name.into())) }
}

/// The name of a machine whose user chose none: what its files are called, as far as that is a name.
pub fn likely_name(files: &Path) -> String {
    let text = files.file_name().unwrap_or_default().to_string_lossy();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String =
        text.chars().map(plain).skip_while(|c| !c.is_ascii_alphanumeric()).take(NAME_BYTES - 6).collect();
    if name.is_empty() || name == ENDED { "machine".into() } else { name }
}

impl Registry {
    /// The links in `folder`, which is made when the first machine comes.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Gives the machine with this state folder, whose control socket is there, a name until the claim is dropped.
    pub fn claim(&self, wanted: &Wanted, state_dir: &Path) -> Result<Claim, NameError> {
        let failed = |source| NameError::Folder { folder: self.folder.clone(), source };
        let state_dir = fs::canonicalize(state_dir).map_err(failed)?;
        let _alone = self.lock().map_err(failed)?;
        let (name, most) = match wanted {
            Wanted::Exactly(name) => (name, 1),
            Wanted::Like(name) => (name, MAX_NUMBER),
        };
        let numbered = |number| if number == 1 { name.clone() } else { format!("{name}-{number}") };
        for candidate in (1..=most).map(numbered) {
            if self.make_free(&candidate, &state_dir).map_err(failed)? {
                symlink(&state_dir, self.folder.join(&candidate)).map_err(failed)?;
                // Who comes now is not the one who went.
                let _was_none = fs::remove_file(self.folder.join(ENDED).join(&candidate));
                return Ok(Claim { registry: self.clone(), name: candidate, state_dir });
            }
        }
        Err(NameError::Taken(name.clone()))
    }

    /// Those that run, by name.
    pub fn running(&self) -> Vec<Named> {
        let (running, dead): (Vec<Named>, _) =
            self.links(&self.folder).into_iter().partition(|named| runs(&named.state_dir));
        if !dead.is_empty() {
            // Cleared away; if that fails, the next one does it.
            let _next_time = self.clear(&dead);
        }
        running
    }

    /// Those that ended and are still known, by name.
    pub fn ended(&self) -> Vec<Named> {
        self.links(&self.folder.join(ENDED))
    }

    /// The state folder of the machine of this name, running or ended.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        let name = checked_name(name).ok()?;
        let [running, ended] = [self.folder.join(name), self.folder.join(ENDED).join(name)];
        fs::read_link(running).or_else(|_| fs::read_link(ended)).ok()
    }

    /// Forgets a machine that ended.
    pub fn forget(&self, named: &Named) -> io::Result<()> {
        fs::remove_file(self.folder.join(ENDED).join(&named.name))
    }

    fn links(&self, folder: &Path) -> Vec<Named> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut found: Vec<Named> = entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let state_dir = fs::read_link(entry.path()).ok()?;
                Some(Named { name: checked_name(&name).ok()?.to_owned(), state_dir })
            })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// Whether the name is free now: nobody had it, its machine has ended, or it is this machine's own of an earlier run.
    fn make_free(&self, name: &str, state_dir: &Path) -> io::Result<bool> {
        match fs::read_link(self.folder.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
            Ok(found) if found != state_dir && runs(&found) => Ok(false),
            Ok(_) => self.move_away(name).map(|()| true),
        }
    }

    fn clear(&self, dead: &[Named]) -> io::Result<()> {
        let _alone = self.lock()?;
        for named in dead {
            // It may have been replaced meanwhile.
            if fs::read_link(self.folder.join(&named.name)).is_ok_and(|found| !runs(&found)) {
                self.move_away(&named.name)?;
            }
        }
        Ok(())
    }

    /// From those that run to those that ended. Under the lock.
    fn move_away(&self, name: &str) -> io::Result<()> {
        let ended = self.folder.join(ENDED);
        make_folder(&ended)?;
        fs::rename(self.folder.join(name), ended.join(name))?;
        let mut all: Vec<(SystemTime, PathBuf)> = fs::read_dir(&ended)?
            .flatten()
            .filter_map(|entry| Some((fs::symlink_metadata(entry.path()).ok()?.modified().ok()?, entry.path())))
            .collect();
        all.sort();
        let surplus = all.len().saturating_sub(MAX_ENDED);
        all.into_iter().take(surplus).try_for_each(|(_, path)| fs::remove_file(path))
    }

    fn lock(&self) -> io::Result<File> {
        make_folder(&self.folder)?;
        let lock = File::options().write(true).create(true).truncate(false).open(self.folder.join(LOCK))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        Ok(lock)
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn runs(state_dir: &Path) -> bool {
    Client::connect(state_dir).is_ok()
}

/// A machine's name while it runs.
#[derive(Debug)]
pub struct Claim {
    registry: Registry,
    name: String,
    state_dir: PathBuf,
}

impl Claim {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let Ok(_alone) = self.registry.lock() else { return };
        let link = self.registry.folder.join(&self.name);
        if fs::read_link(link).is_ok_and(|found| found == self.state_dir) {
            // If it cannot be moved, the next command does it.
            let _next_time = self.registry.move_away(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use kiln_run::control::SOCKET;

    use super::*;

    struct Rig {
        folder: tempfile::TempDir,
        registry: Registry,
    }

    /// A machine as far as the registry can tell.
    struct Machine {
        state_dir: PathBuf,
        _listener: UnixListener,
    }

    impl Rig {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let registry = Registry::new(folder.path().join("run/machines"));
            Self { folder, registry }
        }

        fn machine(&self, name: &str) -> Machine {
            let state_dir = fs::canonicalize(self.folder.path()).unwrap().join(name);
            fs::create_dir_all(&state_dir).unwrap();
            let _was_none = fs::remove_file(state_dir.join(SOCKET));
            Machine { _listener: UnixListener::bind(state_dir.join(SOCKET)).unwrap(), state_dir }
        }

        fn claim(&self, wanted: &Wanted, machine: &Machine) -> Result<Claim, NameError> {
            self.registry.claim(wanted, &machine.state_dir)
        }

        fn names(&self) -> (Vec<String>, Vec<String>) {
            let names = |all: Vec<Named>| all.into_iter().map(|named| named.name).collect();
            (names(self.registry.running()), names(self.registry.ended()))
        }
    }

    fn exactly(name: &str) -> Wanted {
        Wanted::Exactly(name.into())
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in ["", ".x", "-x", "a/b", "a b", "..", "ended", "ä", &"x".repeat(64)] {
            assert!(matches!(checked_name(name), Err(NameError::NoName(_))), "{name}");
        }
        for (files, name) in [("out/minimal", "minimal"), ("./my vm.iso", "my-vm.iso"), ("..", "machine"), ("_a", "a")]
        {
            assert_eq!(likely_name(Path::new(files)), name);
            checked_name(&likely_name(Path::new(files))).unwrap();
        }
    }

    #[test]
    fn a_name_that_is_taken_is_refused_or_gets_a_number() {
        let rig = Rig::new();
        let [a, b] = ["a", "b"].map(|name| rig.machine(name));
        let first = rig.claim(&exactly("vm"), &a).unwrap();
        assert!(matches!(rig.claim(&exactly("vm"), &b), Err(NameError::Taken(name)) if name == "vm"));
        let second = rig.claim(&Wanted::Like("vm".into()), &b).unwrap();
        assert_eq!((first.name(), second.name()), ("vm", "vm-2"));
        assert_eq!(rig.names().0, ["vm", "vm-2"]);
        assert_eq!(rig.registry.find("vm-2").as_deref(), Some(&*b.state_dir));
        assert_eq!(rig.registry.find("../vm"), None);
    }

    #[test]
    fn a_machine_that_was_killed_is_among_the_ended_at_the_next_look_and_its_name_is_free() {
        let rig = Rig::new();
        let [a, b] = ["a", "b"].map(|name| rig.machine(name));
        // Nothing of it is dropped, as nothing is in a process that is killed.
        std::mem::forget(rig.claim(&exactly("vm"), &a).unwrap());
        drop(a);
        assert_eq!(rig.names(), (vec![], vec!["vm".to_owned()]));
        let claim = rig.claim(&exactly("vm"), &b).unwrap();
        assert_eq!(rig.names(), (vec!["vm".to_owned()], vec![]));
        drop(claim);
        assert_eq!(rig.names(), (vec![], vec!["vm".to_owned()]));
    }

    #[test]
    fn only_so_many_that_ended_are_known() {
        let rig = Rig::new();
        let machine = rig.machine("a");
        for number in 0..MAX_ENDED + 3 {
            drop(rig.claim(&exactly(&format!("vm{number}")), &machine).unwrap());
        }
        assert_eq!(rig.registry.ended().len(), MAX_ENDED);
        let named = rig.registry.ended().remove(0);
        rig.registry.forget(&named).unwrap();
        assert_eq!(rig.registry.ended().len(), MAX_ENDED - 1);
    }
}
