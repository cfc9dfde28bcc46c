//! `kiln pkg`: package folders to images in the store, and what `@pkg:` in a YAML means.

use std::path::{Path, PathBuf};

use kiln_build::cancel::Cancel;
use kiln_build::oci::{Platform, Store};
use kiln_build::package::{BuildContext, Package, PackageError};
use kiln_build::progress::Progress;

use crate::args;
use crate::build::{cancel_on_signals, own_architecture};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::progress::Shown;
use crate::surroundings::{self, SurroundingsError, variable};

/// What packages are built with, and the store that they go to.
pub struct Workbench {
    /// Opened, which makes it, only once there is a package.
    store: PathBuf,
    context: BuildContext,
}

impl Workbench {
    /// Describes it; nothing is made yet.
    pub fn new(store: &Path, architecture: &str, source_date_s: i64, cancel: Cancel) -> Result<Self, Failure> {
        let cache_folder = surroundings::kept("packages", &variable).ok_or(SurroundingsError::NoHome)?;
        let context = BuildContext { cache_folder, platform: Platform::linux(architecture), source_date_s, cancel };
        Ok(Self { store: store.to_owned(), context })
    }

    /// The reference of the package in `folder`, built now if it was missing.
    pub fn resolve(&self, folder: &Path, progress: &dyn Progress) -> Result<String, PackageError> {
        Package::load(folder)?.resolve(&Store::open(&self.store)?, &self.context, progress)
    }
}

/// Builds each package, or with force builds it anew, and prints its reference.
pub fn build(asked: &args::PkgBuild, global: &args::Global, printer: &Printer) -> Result<(), Failure> {
    let store = surroundings::store(global, &variable)?;
    let source_date_s = surroundings::source_date_s(&variable)?;
    let architecture = asked.arch.clone().unwrap_or_else(|| own_architecture().into());
    let cancel = cancel_on_signals()?;
    let bench = Workbench::new(&store, &architecture, source_date_s, cancel.clone())?;
    let progress = Shown::new(printer);
    for folder in &asked.dirs {
        let package = Package::load(folder)?;
        let store = Store::open(&bench.store)?;
        let built = if asked.force {
            package.build(&store, &bench.context, &progress)
        } else {
            package.ensure(&store, &bench.context, &progress)
        };
        built.map_err(|error| Failure::unless_interrupted(error, &cancel))?;
        printer.data(format!("{}\n", package.reference()).as_bytes())?;
    }
    Ok(())
}

/// Prints the reference of each package, one a line.
pub fn show_tag(asked: &args::PkgShowTag, printer: &Printer) -> Result<(), Failure> {
    for folder in &asked.dirs {
        let package = Package::load(folder)?;
        printer.data(format!("{}\n", package.reference()).as_bytes())?;
    }
    Ok(())
}
