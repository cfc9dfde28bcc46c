//! Machines that run: their names, and the commands that reach them by these.

pub mod attach;
pub mod copy;
pub mod exec;
pub mod list;
pub mod logs;
pub mod record;
pub mod registry;
pub mod remove;
pub mod stop;

use std::path::{Path, PathBuf};

use kiln_run::control::{AskError, Client, SOCKET};

use self::record::RECORD;
use self::registry::Registry;
use crate::failure::Failure;
use crate::run::names::with_suffix;
use crate::run::roots;
use crate::surroundings::{self, variable};

/// This user's machines.
pub fn registry() -> Result<Registry, Failure> {
    let folder = surroundings::machines(&variable).ok_or_else(|| {
        Failure::new("there is no folder for the names of machines: neither XDG_RUNTIME_DIR nor HOME is set")
    })?;
    Ok(Registry::new(folder))
}

/// The state folder of the machine that `name` means: what `kiln ps` calls it, else what was given to `kiln run`, or the
/// state folder itself.
pub fn state_dir(name: &Path) -> PathBuf {
    let known = name.to_str().and_then(|name| registry().ok()?.find(name));
    known.unwrap_or_else(|| {
        let built = roots::of_file(name).map_or_else(|| name.to_owned(), |(built, _)| built);
        let named = with_suffix(&built, "-state");
        let is = |folder: &Path| folder.join(SOCKET).exists() || folder.join(RECORD).exists();
        if is(name) && !is(&named) { name.to_owned() } else { named }
    })
}

/// The running machine that `name` means.
pub fn connect(name: &Path) -> Result<Client, Failure> {
    Client::connect(&state_dir(name)).map_err(|error| match error {
        AskError::NotRunning { .. } => not_running(name),
        error => Failure::new(error),
    })
}

/// No machine of this name runs.
pub fn not_running(name: &Path) -> Failure {
    Failure::new(format!("no machine called `{}` runs", name.display()))
        .hint("`kiln ps` lists those that run; the NAME that `kiln run` got will do, or the folder of its `-state`")
}
