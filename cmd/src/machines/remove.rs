//! `kiln rm`: machines that ended, with all that they kept.

use std::fs;
use std::path::Path;

use super::record::RECORD;
use super::registry::Named;
use crate::args;
use crate::failure::Failure;
use crate::run::state;

/// Removes state folders.
pub fn remove(asked: &args::Rm) -> Result<(), Failure> {
    asked.names.iter().try_for_each(|name| one(name))
}

fn one(name: &Path) -> Result<(), Failure> {
    let folder = super::state_dir(name);
    if !folder.join(RECORD).is_file() {
        let text = format!(
            "no machine called `{}` has ended: there is no `{}`",
            name.display(),
            folder.join(RECORD).display()
        );
        return Err(Failure::new(text).hint("`kiln ps -a` lists those that ended"));
    }
    // Nobody starts it meanwhile.
    let _own = state::take(&folder).map_err(|error| match error {
        state::StateError::InUse { .. } => Failure::new(error).hint("`kiln stop` or `kiln kill` first"),
        error => Failure::new(error),
    })?;
    let registry = super::registry()?;
    // Moves the link of a machine that was killed to the others that ended.
    drop(registry.running());
    let same = |named: &Named| fs::canonicalize(&folder).is_ok_and(|folder| folder == named.state_dir);
    let known: Vec<Named> = registry.ended().into_iter().filter(same).collect();
    fs::remove_dir_all(&folder)?;
    Ok(known.iter().try_for_each(|named| registry.forget(named))?)
}
