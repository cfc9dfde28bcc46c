//! A machine out of a registry or an archive: taken into the store, verified, and booted from there.

use std::path::{Path, PathBuf};

use kiln_build::oci::{self, Extent, Machine, MachineError, Platform, Reference, Source, SourceOptions, Store};

use crate::args;
use crate::failure::Failure;
use crate::interrupt::cancel_on_signals;
use crate::printer::Printer;
use crate::progress::Shown;
use crate::push;
use crate::surroundings::own_architecture;
use crate::surroundings::{self, variable};

/// What an archive's name is written with, as for images.
const ARCHIVE: &str = "oci-archive:";

/// A machine, and the store that it is in: as long as it is held, nobody removes it.
pub struct Pulled {
    /// Kernel, initrd and command line.
    pub machine: Machine,
    /// Prefix of the files that it keeps here.
    pub prefix: PathBuf,
    _store: Store,
}

/// Whether a name is one for [`machine`].
pub fn is_meant(name: &str) -> bool {
    name.starts_with(push::SCHEME) || name.starts_with(ARCHIVE)
}

/// The machine called `text`, `oci://NAME` or `oci-archive:FILE`.
pub fn machine(text: &str, asked: &args::Run, global: &args::Global, printer: &Printer) -> Result<Pulled, Failure> {
    let store = Store::open(&surroundings::store(global, &variable)?)?;
    let (machine, prefix) = match text.starts_with(ARCHIVE) {
        true => in_archive(text, &store, printer)?,
        false => {
            let name = push::target(text)?;
            (in_registry(&name, &store, asked, global, printer)?, push::prefix(&name))
        }
    };
    if machine.architecture != own_architecture() {
        let text = format!("`{text}` is for {}, this machine is {}", machine.architecture, own_architecture());
        return Err(Failure::new(text));
    }
    Ok(Pulled { machine, prefix, _store: store })
}

fn in_registry(
    name: &Reference,
    store: &Store,
    asked: &args::Run,
    global: &args::Global,
    printer: &Printer,
) -> Result<Machine, Failure> {
    let text = name.to_string();
    let known = match asked.pull {
        true => None,
        false => store.root_digest(name)?.map(|root| oci::machine(store, &text, root)),
    };
    match known {
        Some(Ok(machine)) => Ok(machine),
        Some(Err(error @ MachineError::NoMachine { .. })) => Err(Failure::new(error)),
        // What is not whole in the store is fetched.
        None | Some(Err(_)) => {
            let cancel = cancel_on_signals()?;
            let registry = surroundings::registries(global, &variable)?;
            let progress = Shown::new(printer);
            let pulled = oci::pull(name, Extent::All, store, &registry, &cancel, &progress);
            let root = pulled.map_err(|error| Failure::unless_interrupted(error, &cancel))?;
            Ok(oci::machine(store, &text, root)?)
        }
    }
}

/// Its blobs get no name in the store: what was there already is not written again, and `kiln cache gc` removes them.
fn in_archive(text: &str, store: &Store, printer: &Printer) -> Result<(Machine, PathBuf), Failure> {
    let source: Source = text.parse().map_err(Failure::usage)?;
    let cancel = cancel_on_signals()?;
    let (options, progress) = (SourceOptions::default(), Shown::new(printer));
    let platform = Platform::linux(own_architecture());
    let root = oci::import_source(&source, &platform, store, &options, &cancel, &progress);
    let root = root.map_err(|error| Failure::unless_interrupted(error, &cancel))?;
    let path = match source {
        Source::Files(files) => files.path,
        _ => PathBuf::new(),
    };
    Ok((oci::machine(store, text, root)?, prefix(&path)))
}

/// `demo/vm.oci.tar` keeps what `demo/vm` keeps.
fn prefix(archive: &Path) -> PathBuf {
    let name = archive.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(".tar").unwrap_or(&name);
    archive.with_file_name(stem.strip_suffix(".oci").unwrap_or(stem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_keeps_its_files_where_the_build_of_its_name_does() {
        for (archive, expected) in [("d/vm.oci.tar", "d/vm"), ("vm.tar", "vm"), ("vm", "vm")] {
            assert_eq!(prefix(Path::new(archive)), Path::new(expected));
        }
    }
}
