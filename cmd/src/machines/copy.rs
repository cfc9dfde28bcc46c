//! `kiln cp`: files and folders into a running machine and out of it.

use std::fs;
use std::io::{self, PipeReader};
use std::path::{Path, PathBuf};
use std::thread;

use kiln_abi::{AgentTask, LOOK_FILE, LOOK_FOLDER, LOOK_NOTHING};
use kiln_copy::{pack, unpack};

use super::exec::start;
use crate::args;
use crate::failure::Failure;
use crate::printer::Printer;

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
enum Side<'a> {
    /// A path here.
    Here(&'a Path),
    /// A path in a machine.
    There(&'a Path, &'a str),
}

/// Where something goes: a folder, and its name in there.
#[derive(Debug, PartialEq, Eq)]
struct Goal {
    folder: String,
    name: String,
}

/// Copies.
pub fn copy(asked: &args::Cp, printer: &Printer) -> Result<(), Failure> {
    match (side(&asked.from), side(&asked.to)) {
        (Side::Here(from), Side::There(machine, to)) => inwards(asked, from, machine, to, printer),
        (Side::There(machine, from), Side::Here(to)) => outwards(asked, machine, from, to),
        _ => Err(Failure::usage("one side is a path here, the other one NAME:PATH in a machine")
            .hint("a path here that has a `:` is written with a `./` before it")),
    }
}

/// `NAME:PATH`, unless a `/` stands before the `:`.
fn side(word: &str) -> Side<'_> {
    match word.split_once(':') {
        Some((name, path)) if !name.is_empty() && !name.contains('/') => Side::There(Path::new(name), path),
        _ => Side::Here(Path::new(word)),
    }
}

fn inwards(asked: &args::Cp, from: &Path, machine: &Path, to: &str, printer: &Printer) -> Result<(), Failure> {
    fs::symlink_metadata(from).map_err(|error| Failure::new(format!("cannot read `{}`: {error}", from.display())))?;
    let own = last_name(from)?;
    let to = absolute(to);
    let look = start(machine, asked.service.clone(), AgentTask::Look { path: to.clone() })?;
    let found = look.hear(&mut io::stdout(), &mut io::stderr())?;
    let goal = goal(&to, &own, found)?;
    let session = start(machine, asked.service.clone(), AgentTask::Unpack { folder: goal.folder })?;
    let mut sender = session.sender();
    let (from, name) = (from.to_owned(), goal.name);
    let packing = thread::Builder::new().name("pack".into()).spawn(move || {
        let packed = pack(&from, &name, &mut sender);
        // The guest waits for it, whatever went wrong.
        let _gone = sender.end_of_input();
        packed
    })?;
    let code = session.hear(&mut io::stdout(), &mut io::stderr())?;
    if code != 0 {
        return Err(Failure::told(crate::failure::FAILED));
    }
    let packed = packing.join().map_err(|_| Failure::told(crate::failure::FAILED))?;
    for left_out in packed? {
        printer.note(&format!("`{}` cannot be copied: left out", left_out.display()));
    }
    Ok(())
}

fn outwards(asked: &args::Cp, machine: &Path, from: &str, to: &Path) -> Result<(), Failure> {
    let from = absolute(from);
    let own = last_name(Path::new(&from))?;
    let found = match fs::metadata(to) {
        Ok(metadata) if metadata.is_dir() => LOOK_FOLDER,
        Ok(_) => LOOK_FILE,
        Err(_) => LOOK_NOTHING,
    };
    let goal = goal(&to.to_string_lossy(), &own, found)?;
    let session = start(machine, asked.service.clone(), AgentTask::Pack { path: from, name: goal.name.clone() })?;
    let (reader, mut writer) = io::pipe()?;
    let unpacking = thread::Builder::new().name("unpack".into()).spawn(move || {
        let unpacked = unpack(Path::new(&goal.folder), Some(&goal.name), &reader);
        // The rest of the stream is heard to its end, unless it is refused.
        if unpacked.is_ok() {
            read_out(reader)
        } else {
            drop(reader)
        }
        unpacked
    })?;
    let heard = session.hear(&mut writer, &mut io::stderr());
    drop(writer);
    let unpacked = unpacking.join().map_err(|_| Failure::told(crate::failure::FAILED))?;
    match (heard, unpacked) {
        // The guest has told why.
        (Ok(1..), _) => Err(Failure::told(crate::failure::FAILED)),
        (_, Err(error)) => Err(Failure::new(error)),
        (Err(error), Ok(())) => Err(Failure::new(error)),
        (Ok(_), Ok(())) => Ok(()),
    }
}

fn read_out(mut reader: PipeReader) {
    // What follows the end of an archive is padding.
    let _padding = io::copy(&mut reader, &mut io::sink());
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn last_name(path: &Path) -> Result<String, Failure> {
    let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    name.ok_or_else(|| Failure::usage(format!("`{}` ends in no name; name a file or folder", path.display())))
}

/// Into a folder that is there, else under the name that is given. `found` is what is there.
fn goal(to: &str, own: &str, found: i32) -> Result<Goal, Failure> {
    if found == LOOK_FOLDER {
        let folder = if to.is_empty() { "." } else { to };
        return Ok(Goal { folder: folder.into(), name: own.into() });
    }
    if to.ends_with('/') {
        return Err(Failure::new(format!("`{to}` is no folder")));
    }
    let path = PathBuf::from(to);
    let parent = path.parent().map(Path::to_string_lossy).filter(|parent| !parent.is_empty());
    Ok(Goal { folder: parent.map_or_else(|| ".".into(), |parent| parent.into_owned()), name: last_name(&path)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_before_a_colon_is_a_machine() {
        for word in ["x", "./a:b", "/a:b", ":x", "dir/a:b"] {
            assert_eq!(side(word), Side::Here(Path::new(word)), "{word}");
        }
        assert_eq!(side("vm:etc/x:y"), Side::There(Path::new("vm"), "etc/x:y"));
        assert_eq!(side("vm:"), Side::There(Path::new("vm"), ""));
    }

    #[test]
    fn something_goes_into_a_folder_or_under_a_new_name() {
        let goal = |to, found| goal(to, "own", found).ok().map(|Goal { folder, name }| (folder, name));
        let is = |folder: &str, name: &str| Some((folder.to_owned(), name.to_owned()));
        assert_eq!(goal("/tmp", LOOK_FOLDER), is("/tmp", "own"));
        assert_eq!(goal("/tmp/", LOOK_FOLDER), is("/tmp/", "own"));
        assert_eq!(goal("/tmp/new", LOOK_NOTHING), is("/tmp", "new"));
        assert_eq!(goal("/tmp/old", LOOK_FILE), is("/tmp", "old"));
        assert_eq!(goal("new", LOOK_NOTHING), is(".", "new"));
        assert_eq!(goal("/tmp/none/", LOOK_NOTHING), None);
        assert_eq!(goal("..", LOOK_NOTHING), None);
    }
}
