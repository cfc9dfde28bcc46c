//! `kiln pkg`: package folders to images in the store, and what `@pkg:` in a YAML means.

mod build;

use std::path::{Path, PathBuf};

use kiln_build::cancel::Cancel;
use kiln_build::compat::Compat;
use kiln_build::oci::{Platform, Reference, Store};
use kiln_build::package::{self, BuildContext, DockerfileOptions, Package, PackageError, PackageOptions, Publishing};
use kiln_build::plan::PullOptions;
use kiln_build::progress::Progress;

use crate::args::{self, PkgCommand, PkgNaming};
use crate::failure::Failure;
use crate::interrupt::cancel_on_signals;
use crate::printer::Printer;
use crate::progress::Shown;
use crate::surroundings::{self, SurroundingsError, Variables, variable};

/// What `kiln pkg` cannot do with its words.
#[derive(Debug, thiserror::Error)]
enum PkgError {
    /// Nobody said whose packages these are.
    #[error("`--dev` names packages for the user, but USER is not set; give `--org`")]
    NoUser,
}

/// What packages are built with, and the store that they go to.
pub struct Workbench {
    /// Opened, which makes it, only once there is a package.
    store: PathBuf,
    context: BuildContext,
    /// Whose tags they have.
    compat: Compat,
}

impl Workbench {
    /// Describes it; nothing is made yet.
    pub fn new(
        store: &Path,
        architecture: &str,
        source_date_s: i64,
        pull: PullOptions,
        cancel: Cancel,
    ) -> Result<Self, Failure> {
        let cache_folder = surroundings::kept("packages", &variable).ok_or(SurroundingsError::NoHome)?;
        let context = BuildContext {
            cache_folder,
            platform: Platform::linux(architecture),
            source_date_s,
            cancel,
            pull,
            dockerfile: DockerfileOptions::default(),
        };
        Ok(Self { store: store.to_owned(), context, compat: Compat::Right })
    }

    /// LinuxKit's templates know no `tag` of a package.
    fn options(&self) -> PackageOptions {
        let tag = self.compat.is_linuxkit().then(|| "{{.Hash}}".into());
        PackageOptions { org: org_from_environment(&variable), tag, ..PackageOptions::default() }
    }

    /// The same, with the tags that `compat` gives.
    pub fn like(self, compat: Compat) -> Self {
        Self { compat, ..self }
    }

    /// The reference of the package in `folder`, built now if it was missing.
    pub fn resolve(&self, folder: &Path, progress: &dyn Progress) -> Result<String, PackageError> {
        let options = self.options();
        Package::load_with(folder, &options)?.resolve(&Store::open(&self.store)?, &self.context, progress)
    }

    /// The reference of the package in `folder`, which is not built.
    pub fn reference(&self, folder: &Path) -> Result<String, PackageError> {
        let options = self.options();
        Ok(Package::load_with(folder, &options)?.reference().to_string())
    }
}

/// Does what `kiln pkg` asks for.
pub fn pkg(asked: &args::Pkg, global: &args::Global, printer: &Printer) -> Result<(), Failure> {
    let mut options = options(&asked.naming, &variable)?;
    if let PkgCommand::Build(asked) | PkgCommand::Push(asked) = &asked.command {
        options.dockerfile.clone_from(&asked.dockerfile);
    }
    // Its hash stays the same whatever changes.
    let anew = asked.naming.dev;
    match &asked.command {
        PkgCommand::Build(asked) => build::build(asked, options, asked.push, anew, global, printer),
        PkgCommand::Push(asked) => build::build(asked, options, true, anew, global, printer),
        PkgCommand::ShowTag(asked) => show_tag(asked, &options, printer),
        PkgCommand::Manifest(asked) => manifest(asked, &options, global, printer),
        PkgCommand::RemoteTag(asked) => remote_tag(asked, global, printer),
    }
}

/// Prints the reference of each package, one a line.
fn show_tag(asked: &args::PkgShowTag, options: &PackageOptions, printer: &Printer) -> Result<(), Failure> {
    for folder in &asked.dirs {
        let package = Package::load_with(folder, options)?;
        let line = match asked.canonical {
            true => format!("{}\n", package.full_reference()),
            false => format!("{}\n", package.reference()),
        };
        printer.data(line.as_bytes())?;
    }
    Ok(())
}

/// Makes and pushes the index of each package; prints its reference.
fn manifest(
    asked: &args::PkgManifest,
    options: &PackageOptions,
    global: &args::Global,
    printer: &Printer,
) -> Result<(), Failure> {
    let registry = surroundings::registries(global, &variable)?;
    let cancel = cancel_on_signals()?;
    let progress = Shown::new(printer);
    let with = Publishing { registry: &registry, cancel: &cancel, progress: &progress };
    for folder in &asked.dirs {
        let package = Package::load_with(folder, options)?;
        let pushed = package.push_index(asked.release.as_deref(), with);
        pushed.map_err(|error| Failure::unless_interrupted(error, &cancel))?;
        printer.data(format!("{}\n", package.reference()).as_bytes())?;
    }
    Ok(())
}

/// Gives an image in a registry another tag.
fn remote_tag(asked: &args::PkgRemoteTag, global: &args::Global, printer: &Printer) -> Result<(), Failure> {
    let reference = |text: &str| text.parse::<Reference>().map_err(Failure::usage);
    let (from, to) = (reference(&asked.from)?, reference(&asked.to)?);
    let registry = surroundings::registries(global, &variable)?;
    let cancel = cancel_on_signals()?;
    let progress = Shown::new(printer);
    let with = Publishing { registry: &registry, cancel: &cancel, progress: &progress };
    let digest = package::remote_tag(&from, &to, with);
    let digest = digest.map_err(|error| Failure::unless_interrupted(error, &cancel))?;
    printer.note(&format!("`{to}` is {digest}"));
    Ok(())
}

/// What the flags and the environment decide about every package.
fn options(naming: &PkgNaming, variables: Variables) -> Result<PackageOptions, Failure> {
    let mut org = naming.org.clone();
    if naming.dev && org.is_none() {
        let user = variables("USER").ok_or(PkgError::NoUser)?;
        org = Some(user.to_string_lossy().into_owned());
    }
    let dev_hash = naming.dev.then(|| String::from("dev"));
    Ok(PackageOptions {
        recipe_file: naming.build_yml.clone(),
        org: org.or_else(|| org_from_environment(variables)),
        tag: naming.tag.clone(),
        hash: naming.hash.clone().or(dev_hash),
        commit: naming.hash_commit.clone(),
        hash_folder: naming.hash_path.clone(),
        force_dirty: naming.force_dirty,
        network: either(naming.network, naming.nonetwork),
        disable_cache: either(naming.disable_cache, naming.enable_cache),
        dockerfile: None,
    })
}

fn org_from_environment(variables: Variables) -> Option<String> {
    let org = variables("KILN_PKG_ORG").or_else(|| variables("LINUXKIT_PKG_ORG"));
    org.map(|org| org.to_string_lossy().into_owned())
}

/// Of two flags that exclude each other: what the given one says.
fn either(yes: bool, no: bool) -> Option<bool> {
    (yes || no).then_some(yes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn named(words: &str, set: &[(&str, &str)]) -> Result<PackageOptions, Failure> {
        let words = format!("kiln pkg {words} show-tag x");
        let cli = args::parse(words.split_whitespace().map(Into::into)).unwrap();
        let args::Command::Pkg(asked) = cli.command else { panic!("no pkg") };
        options(&asked.naming, &|name| set.iter().find(|(known, _)| *known == name).map(|(_, v)| OsString::from(v)))
    }

    #[test]
    fn dev_needs_to_know_the_user() {
        assert!(named("-dev", &[]).unwrap_err().error.to_string().contains("USER"));
        assert_eq!(named("-dev -org a", &[]).unwrap().org.as_deref(), Some("a"));
        let options = named("--dev", &[("USER", "u"), ("KILN_PKG_ORG", "k")]).unwrap();
        assert_eq!((options.org.as_deref(), options.hash.as_deref()), (Some("u"), Some("dev")));
    }

    #[test]
    fn flags_win_over_the_environment() {
        let both = [("KILN_PKG_ORG", "k"), ("LINUXKIT_PKG_ORG", "l")];
        for (words, set, expected) in
            [("-org f", &both[..], Some("f")), ("", &both, Some("k")), ("", &both[1..], Some("l")), ("", &[], None)]
        {
            assert_eq!(named(words, set).unwrap().org.as_deref(), expected, "{words} {set:?}");
        }
        let options = named("-nonetwork -enable-cache", &[]).unwrap();
        assert_eq!((options.network, options.disable_cache), (Some(false), Some(false)));
    }
}
