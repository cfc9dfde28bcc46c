//! Packages: a folder with a `build.yml` becomes an image in the content store, with no Docker.
//!
//! This is what stands behind `kiln pkg` and behind `@pkg:DIR` in a YAML. A package's reference holds the hash of all
//! that it is made from, so that an image that is in the store already is the right one. The only room of a build that
//! starts other programs: cargo, git, apt-get and depmod. docs/packages.md describes `build.yml`.

mod apt;
mod build;
mod cargo;
mod deb;
mod error;
mod hash;
mod kernel;
mod lock;
mod pack;
mod pattern;
mod program;
mod recipe;
mod stage;
mod workspace;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use build::BuildContext;
pub use error::PackageError;
use error::io_error;
pub use program::ProgramError;
pub use recipe::{
    Bin, Cargo, Debian, Depends, DockerImages, FileContent, FileEntry, ImagePath, Kernel, Links, Process, Recipe,
    Source,
};

use crate::config;
use crate::oci::Reference;

/// The file that makes a folder a package.
const RECIPE_FILE: &str = "build.yml";
/// Part of every native package's hash: changed whenever the same sources give another image.
const NATIVE_FORMAT: &str = "kiln native package, format 1\n";

/// What is decided on the command line instead of in `build.yml`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackageOptions {
    /// Another file than `build.yml`.
    pub recipe_file: Option<String>,
    /// Another organisation.
    pub org: Option<String>,
    /// Another tag; `{{.Hash}}` stands for the content hash.
    pub tag: Option<String>,
    /// Another content hash than the right one.
    pub hash: Option<String>,
}

/// A package.
#[derive(Debug, Clone)]
pub struct Package {
    folder: PathBuf,
    recipe: Recipe,
    reference: Reference,
    short: String,
}

impl Package {
    /// Reads the package in `folder` and computes its hash.
    ///
    /// Errors: no `build.yml`, a fault in it, or files that cannot be read.
    pub fn load(folder: &Path) -> Result<Self, PackageError> {
        Self::load_with(folder, &PackageOptions::default())
    }

    /// As [`load`](Self::load), with some things decided.
    pub fn load_with(folder: &Path, options: &PackageOptions) -> Result<Self, PackageError> {
        let file = options.recipe_file.as_deref().unwrap_or(RECIPE_FILE);
        let mut recipe = read_recipe(folder, file)?;
        if let Some(org) = &options.org {
            recipe.org.clone_from(org);
        }
        if let Some(tag) = &options.tag {
            recipe.tag.clone_from(tag);
        }
        let hash = match &options.hash {
            Some(hash) => hash.clone(),
            None => hash::content_hash(&contents(folder, &recipe)?)?,
        };
        let refuse = || PackageError::Tag { tag: recipe.tag.clone(), folder: folder.to_owned() };
        let tag = recipe.tag_for(&hash).ok_or_else(refuse)?;
        let short = format!("{}/{}:{tag}", recipe.org, recipe.image);
        let reference =
            short.parse().map_err(|source| PackageError::Reference { folder: folder.to_owned(), source })?;
        Ok(Self { folder: folder.to_owned(), recipe, reference, short })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its `build.yml`.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The full reference that its image has in the store.
    pub fn full_reference(&self) -> &Reference {
        &self.reference
    }

    /// `ORG/IMAGE:TAG`, as `kiln pkg show-tag` prints it and a YAML can hold it.
    pub fn reference(&self) -> &str {
        &self.short
    }
}

fn read_recipe(folder: &Path, file: &str) -> Result<Recipe, PackageError> {
    let path = folder.join(file);
    let text = fs::read_to_string(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => PackageError::NoRecipe { folder: folder.to_owned(), file: file.to_owned() },
        _ => io_error("read", &path, source),
    })?;
    Ok(config::decode(config::Source { name: &path.to_string_lossy(), text: &text })?)
}

/// All that the package is made from.
fn contents(folder: &Path, recipe: &Recipe) -> Result<hash::Contents, PackageError> {
    let mut contents = hash::Contents { folders: vec![folder.to_owned()], facts: String::new() };
    for source in &recipe.extra_sources {
        let (host, _) = source.split_once(':').unwrap_or((source, ""));
        contents.folders.push(folder.join(host));
    }
    if recipe.is_native() {
        contents.facts.push_str(NATIVE_FORMAT);
    }
    for cargo in recipe.cargo() {
        let made_from = workspace::Workspace::above(folder)?.ingredients(&cargo.package, &cargo.profile)?;
        contents.folders.extend(made_from.folders);
        contents.facts.push_str(&made_from.facts);
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(recipe: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(RECIPE_FILE), recipe).unwrap();
        folder
    }

    fn fault(recipe: &str) -> String {
        Package::load(package(recipe).path()).expect_err(recipe).to_string()
    }

    #[test]
    fn what_is_no_package_is_refused() {
        let empty = tempfile::tempdir().unwrap();
        let error = Package::load(empty.path()).unwrap_err().to_string();
        assert!(error.contains("has no `build.yml`"), "{error}");
        for (recipe, expected) in [
            ("", "empty"),
            ("org: kiln\n", "field `image` is missing"),
            ("image: a\nimagee: b\n", "unknown field `imagee`, did you mean `image`?"),
            ("image: a\nnetwork: maybe\n", "expected true or false"),
            ("image: A\n", "name that no image can have"),
            ("image: a\ntag: '{{.Date}}'\n", "no other template"),
            ("image: a\nconfig:\n  bind: [/a:/a]\n", "unknown field `bind`, did you mean `binds`?"),
            ("image: a\nsource:\n- files: []\n  debian: {packages: [a]}\n", "exactly one of `cargo`"),
            ("image: a\nsource:\n- {}\n", "exactly one of `cargo`"),
            ("image: a\nsource:\n- files:\n  - path: /a\n", "exactly one of `directory`"),
            ("image: a\nsource:\n- files:\n  - {path: ../a, directory: true}\n", "component `..`"),
            ("image: a\nsource:\n- files:\n  - {path: /a, source: ../../etc/passwd}\n", "component `..`"),
            ("image: a\nsource:\n- files:\n  - {path: /a, directory: true, mode: \"99\"}\n", "no file mode"),
            ("image: a\nsource:\n- cargo: {package: a, bins: []}\n", "has a `cargo` source, but neither"),
        ] {
            let error = fault(recipe);
            assert!(error.contains(expected), "{recipe}: {error}");
        }
    }

    #[test]
    fn a_fault_shows_its_line() {
        let error = fault("image: a\nsource:\n- file: []\n");
        assert!(
            error.contains("build.yml:3:3") && error.contains("3 | - file: []") && error.contains("^^^^"),
            "{error}"
        );
    }

    #[test]
    fn every_field_of_linuxkit_is_read() {
        let recipe = "image: a\norg: acme\ntag: v1-{{ .Hash }}\ndockerfile: Other\narches: [amd64]\n\
            extra-sources: ['.:b']\ngitrepo: https://example.org\nnetwork: true\ndisable-cache: true\n\
            config: {binds: ['/a:/a'], capabilities: [all]}\nbuildArgs: [A=1]\n\
            depends: {docker-images: {target: t, target-dir: d, from-file: f, list: [x]}}\n";
        let folder = package(recipe);
        let options = PackageOptions { hash: Some("0123".into()), ..PackageOptions::default() };
        let package = Package::load_with(folder.path(), &options).unwrap();
        assert_eq!(package.reference(), "acme/a:v1-0123");
        assert!(!package.recipe().is_native() && package.recipe().disable_cache);
        let options = PackageOptions { org: Some("127.0.0.1:5000/x".into()), tag: Some("t".into()), ..options };
        assert_eq!(Package::load_with(folder.path(), &options).unwrap().reference(), "127.0.0.1:5000/x/a:t");
    }

    #[test]
    fn the_reference_follows_the_content() {
        let folder = package("image: a\n");
        let before = Package::load(folder.path()).unwrap();
        assert!(before.reference().starts_with("kiln/a:"), "{}", before.reference());
        fs::write(folder.path().join("more"), "x").unwrap();
        assert_ne!(Package::load(folder.path()).unwrap().reference(), before.reference());
    }
}
