//! What cargo needs to build for another architecture than this machine's: Rust's own library for it, and a linker.
//!
//! The target is the one that a machine of that architecture builds for itself, so that settings of the workspace hold for
//! both. Its linker is Debian's cross compiler unless the user's environment names another.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::apt::debian_architecture;
use super::error::PackageError;
use super::program::{self, Program};
use crate::cancel::Cancel;

/// How cargo is called for another architecture.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cross {
    /// Rust's name of what is built for.
    pub target: String,
    /// A variable of cargo's environment, if one must be set.
    pub variable: Option<(String, String)>,
}

impl Cross {
    /// For Go's `architecture`, with the toolchain that is used in `folder`.
    ///
    /// Errors: [`PackageError::NoRustTarget`], [`PackageError::NoLinker`], and what rustc says.
    pub fn find(architecture: &str, folder: &Path, cancel: &Cancel) -> Result<Self, PackageError> {
        let target = format!("{}-unknown-linux-gnu", rust_name(architecture));
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
        let call = Program::new(rustc, "rustc").until(cancel).folder(folder);
        let said = call.args(["--print", "target-libdir", "--target", &target]).run()?;
        let library = PathBuf::from(String::from_utf8_lossy(&said).trim());
        if !library.is_dir() {
            return Err(PackageError::NoRustTarget { target, architecture: debian_architecture(architecture).into() });
        }
        let variable = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"));
        let is_set = std::env::var_os(&variable).is_some();
        let linker = linker(architecture);
        match (is_set, program::is_installed(&linker)) {
            (true, _) => Ok(Self { target, variable: None }),
            (false, true) => Ok(Self { target, variable: Some((variable, linker)) }),
            (false, false) => Err(no_linker(architecture, linker, variable)),
        }
    }
}

fn no_linker(architecture: &str, linker: String, variable: String) -> PackageError {
    let compiler = linker.replace('_', "-").trim_end_matches("-gcc").to_owned();
    let packages = format!("gcc-{compiler} libc6-dev-{}-cross", debian_architecture(architecture));
    PackageError::NoLinker { linker, packages, variable }
}

/// What Debian calls its cross compiler.
fn linker(architecture: &str) -> String {
    let cpu = match architecture {
        "riscv64" => "riscv64",
        other => rust_name(other),
    };
    format!("{cpu}-linux-gnu-gcc")
}

/// Rust's name of Go's architecture.
fn rust_name(architecture: &str) -> &str {
    match architecture {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "riscv64" => "riscv64gc",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architecture_that_rust_does_not_know_is_told_with_rusts_words() {
        let error = Cross::find("pdp11", Path::new("/"), &Cancel::default()).unwrap_err().to_string();
        assert!(error.contains("pdp11-unknown-linux-gnu"), "{error}");
    }

    #[test]
    fn a_missing_linker_is_told_with_what_brings_it() {
        for (architecture, wanted) in [
            ("arm64", "`apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross`"),
            ("amd64", "`apt-get install gcc-x86-64-linux-gnu libc6-dev-amd64-cross`"),
            ("riscv64", "`apt-get install gcc-riscv64-linux-gnu libc6-dev-riscv64-cross`"),
        ] {
            let error = no_linker(architecture, linker(architecture), "CARGO_X_LINKER".into()).to_string();
            assert!(error.contains(wanted) && error.contains("CARGO_X_LINKER"), "{error}");
        }
    }
}
