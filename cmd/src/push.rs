//! `kiln push`: what was built, to a registry.

use std::path::{Path, PathBuf};

use indicatif::HumanBytes;
use kiln_build::oci::{self, MachineFiles, PushRequest, Reference, Store};

use crate::args;
use crate::failure::Failure;
use crate::interrupt::cancel_on_signals;
use crate::printer::Printer;
use crate::progress::Shown;
use crate::run::artifacts;
use crate::surroundings::{self, variable};

/// What a registry's name is written with, where a file's could stand too.
pub const SCHEME: &str = "oci://";

/// Packs the files of a machine into the store and pushes them.
pub fn push(asked: &args::Push, global: &args::Global, printer: &Printer) -> Result<(), Failure> {
    let target = target(&asked.target)?;
    let found = artifacts::find(&artifacts::Asked {
        name: Some(PathBuf::from(&asked.name)),
        kernel: asked.kernel.clone(),
        initrd: asked.initrd.clone(),
        cmdline: asked.cmdline.clone(),
        root: None,
    })?;
    if let Some(root) = found.root.as_ref() {
        let failure =
            Failure::new(format!("`{}` is a root on a disk, which has no place in a registry", root.display()));
        return Err(failure.hint("`kiln build -format kernel+initrd` makes a root that has one"));
    }
    let artifacts::Found { kernel, initrd, cmdline, .. } = found;
    let files = MachineFiles { kernel, initrd, cmdline, architecture: asked.arch.clone() };
    let registry = surroundings::registries(global, &variable)?;
    let cancel = cancel_on_signals()?;
    let store = Store::open(&surroundings::store(global, &variable)?)?;
    let root = oci::put_machine(&store, &target, &files)?;
    let request = PushRequest { root, target: &target, platform: None };
    let pushed = oci::push(&request, &store, &registry, &cancel, &Shown::new(printer));
    let pushed = pushed.map_err(|error| Failure::unless_interrupted(error, &cancel))?;
    printer.note(&format!("{SCHEME}{target} is {root} ({} sent)", HumanBytes(pushed.sent_bytes)));
    Ok(())
}

/// The name behind `oci://`.
pub fn target(text: &str) -> Result<Reference, Failure> {
    let name = text.strip_prefix(SCHEME).ok_or_else(|| {
        Failure::usage(format!("`{text}` is no place to push to")).hint("write it like oci://registry/name:tag")
    })?;
    name.parse().map_err(Failure::usage)
}

/// Prefix of the files that a machine from a registry keeps here: the last part of its name, and its tag.
pub fn prefix(name: &Reference) -> PathBuf {
    let last = name.repository().rsplit('/').next().unwrap_or("machine");
    match name.tag() {
        Some(tag) => Path::new(&format!("{last}-{tag}")).to_owned(),
        None => Path::new(last).to_owned(),
    }
}
