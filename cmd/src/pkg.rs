//! `kiln pkg`: package folders to images in the store, and what `@pkg:` in a YAML means.

use std::path::Path;

use kiln_build::oci::{Platform, Store};
use kiln_build::package::{self, BuildContext, Package, PackageError};
use kiln_build::progress::Progress;

use crate::args;
use crate::build::own_architecture;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::progress::Shown;
use crate::surroundings::{self, SurroundingsError, variable};

/// What packages are built with, and the store that they go to.
pub struct Workbench {
    store: Store,
    context: BuildContext,
}

impl Workbench {
    /// Opens the store.
    pub fn open(store: &Path, architecture: &str, source_date_s: i64) -> Result<Self, Failure> {
        let cache_folder = surroundings::kept("packages", &variable).ok_or(SurroundingsError::NoHome)?;
        let context = BuildContext { cache_folder, platform: Platform::linux(architecture), source_date_s };
        Ok(Self { store: Store::open(store)?, context })
    }

    /// The reference of the package in `folder`, built now if it was missing.
    pub fn resolve(&self, folder: &Path, progress: &dyn Progress) -> Result<String, PackageError> {
        package::resolve(folder, &self.store, &self.context, progress)
    }
}

/// Builds each package, or with force builds it anew, and prints its reference.
pub fn build(asked: &args::PkgBuild, global: &args::Global, printer: &Printer) -> Result<(), Failure> {
    let store = surroundings::store(global, &variable)?;
    let source_date_s = surroundings::source_date_s(&variable)?;
    let architecture = asked.arch.clone().unwrap_or_else(|| own_architecture().into());
    let bench = Workbench::open(&store, &architecture, source_date_s)?;
    let progress = Shown::new(printer);
    for folder in &asked.dirs {
        let package = Package::load(folder)?;
        if asked.force {
            package.build(&bench.store, &bench.context, &progress)?;
        } else {
            package.ensure(&bench.store, &bench.context, &progress)?;
        }
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
