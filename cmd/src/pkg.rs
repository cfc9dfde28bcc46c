//! `kiln pkg`: package folders to images in the store.

use kiln_build::package::Package;

use crate::args;
use crate::failure::Failure;
use crate::printer::Printer;

/// Prints the reference of each package, one a line.
pub fn show_tag(asked: &args::PkgShowTag, printer: &Printer) -> Result<(), Failure> {
    for folder in &asked.dirs {
        let package = Package::load(folder)?;
        printer.data(format!("{}\n", package.reference()).as_bytes())?;
    }
    Ok(())
}
