//! A machine out of a registry: pulled into the store, verified, and booted from there.

use kiln_build::oci::{self, Extent, Machine, Reference, Store};

use crate::args;
use crate::build::{cancel_on_signals, own_architecture};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::progress::Shown;
use crate::surroundings::{self, variable};

/// Kernel, initrd and command line, and the store that they are in: as long as it is held, nobody removes them.
pub fn machine(
    name: &Reference,
    asked: &args::Run,
    global: &args::Global,
    printer: &Printer,
) -> Result<(Machine, Store), Failure> {
    let store = Store::open(&surroundings::store(global, &variable)?)?;
    let known = match asked.pull {
        true => None,
        false => store.root_digest(name)?.map(|root| oci::machine(&store, name, root)),
    };
    let machine = match known {
        Some(Ok(machine)) => machine,
        Some(Err(error @ oci::MachineError::NoMachine { .. })) => return Err(Failure::new(error)),
        // What is not whole in the store is fetched.
        None | Some(Err(_)) => {
            let cancel = cancel_on_signals()?;
            let registry = surroundings::registries(global, &variable)?;
            let progress = Shown::new(printer);
            let pulled = oci::pull(name, Extent::All, &store, &registry, &cancel, &progress);
            let root = pulled.map_err(|error| Failure::unless_interrupted(error, &cancel))?;
            oci::machine(&store, name, root)?
        }
    };
    if machine.architecture != own_architecture() {
        let text = format!("`{name}` is for {}, this machine is {}", machine.architecture, own_architecture());
        return Err(Failure::new(text));
    }
    Ok((machine, store))
}
