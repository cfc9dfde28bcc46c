//! Packages: a folder with a `build.yml` becomes an image in the content store, with no Docker.
//!
//! This is what stands behind `kiln pkg` and behind `@pkg:DIR` in a YAML. A package's reference holds the hash of all
//! that it is made from, so that an image that is in the store already is the right one. The only room of a build that
//! starts other programs: cargo, git, apt-get and depmod. docs/packages.md describes `build.yml`.

mod apt;
mod build;
mod cargo;
mod cross;
mod deb;
mod dockerfile;
mod error;
mod git;
mod hash;
mod identity;
mod kernel;
mod lock;
mod pack;
mod pattern;
mod program;
mod publish;
mod recipe;
mod stage;
mod workspace;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use build::BuildContext;
pub use dockerfile::{BuildArgument, Builder, BuilderError, DockerfileOptions};
pub use error::PackageError;
use error::io_error;
use identity::{Identity, Question};
pub use program::ProgramError;
pub use publish::{Publishing, remote_tag};
pub use recipe::{
    Bin, Cargo, Debian, Depends, DockerImages, FileContent, FileEntry, ImagePath, Kernel, Links, Process, Recipe,
    Source,
};

use crate::config;
use crate::oci::Reference;
use crate::tree::TreePath;

/// The file that makes a folder a package.
const RECIPE_FILE: &str = "build.yml";
/// Longest `build.yml` that is read, in bytes. Real ones have a kilobyte or two.
const RECIPE_BYTES_MAX: u64 = 1 << 20;
/// Part of every native package's hash: changed whenever the same sources give another image.
const NATIVE_FORMAT: &str = "kiln native package, format 3\n";

/// What is decided on the command line instead of in `build.yml`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackageOptions {
    /// Another file than `build.yml`.
    pub recipe_file: Option<String>,
    /// Another organisation.
    pub org: Option<String>,
    /// Another tag; `{{.Hash}}` stands for the hash.
    pub tag: Option<String>,
    /// Another hash than the right one.
    pub hash: Option<String>,
    /// Another commit than `HEAD` to take the hash from. Such a package cannot be built.
    pub commit: Option<String>,
    /// Another folder to take the hash from: one above the package.
    pub hash_folder: Option<PathBuf>,
    /// The package counts as changed even if it is not.
    pub force_dirty: bool,
    /// Whether a Dockerfile's commands have a network, in the place of the package's `network`.
    pub network: Option<bool>,
    /// Whether a Dockerfile build starts anew, in the place of the package's `disable-cache`.
    pub disable_cache: Option<bool>,
    /// Another Dockerfile than the package's.
    pub dockerfile: Option<String>,
}

/// A package.
#[derive(Debug, Clone)]
pub struct Package {
    folder: PathBuf,
    recipe: Recipe,
    extra_sources: Vec<ExtraSource>,
    identity: Identity,
    commit: Option<String>,
    reference: Reference,
    short: String,
}

/// A further folder of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ExtraSource {
    /// On this host.
    folder: PathBuf,
    /// Its place in the build context.
    place: TreePath,
}

impl Package {
    /// Reads the package in `folder` and computes its hash.
    ///
    /// Errors: no `build.yml`, a fault in it, files that cannot be read, or a folder that git should know and does not.
    pub fn load(folder: &Path) -> Result<Self, PackageError> {
        Self::load_with(folder, &PackageOptions::default())
    }

    /// As [`load`](Self::load), with some things decided.
    pub fn load_with(folder: &Path, options: &PackageOptions) -> Result<Self, PackageError> {
        let file = options.recipe_file.as_deref().unwrap_or(RECIPE_FILE);
        let recipe = decided(read_recipe(folder, file)?, options);
        let extra_sources = extra_sources(folder, &recipe)?;
        let identity = if recipe.is_native() {
            native_identity(folder, &recipe, &extra_sources, options)?
        } else {
            git_identity(folder, &extra_sources, options)?
        };
        let refuse = || PackageError::Tag { tag: recipe.tag.clone(), folder: folder.to_owned() };
        let tag = identity::tag(&recipe.tag, &identity.hash).ok_or_else(refuse)?;
        let short = format!("{}/{}:{tag}", recipe.org(), recipe.image);
        let reference =
            short.parse().map_err(|source| PackageError::Reference { folder: folder.to_owned(), source })?;
        let (folder, commit) = (folder.to_owned(), options.commit.clone());
        Ok(Self { folder, recipe, extra_sources, identity, commit, reference, short })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its `build.yml`, with what was decided elsewhere.
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

    /// Whether its name holds the hash of what it is made from, so that an image of that name is the right one.
    pub fn is_named_for_content(&self) -> bool {
        !self.identity.hash.is_empty() && self.recipe.tag.contains("{{")
    }

    /// Whether something differs from what is committed, so that nobody else can make the same image.
    pub fn is_dirty(&self) -> bool {
        self.identity.is_dirty
    }
}

fn decided(mut recipe: Recipe, options: &PackageOptions) -> Recipe {
    if let Some(org) = &options.org {
        recipe.org = Some(org.clone());
    }
    for (field, value) in [(&mut recipe.tag, &options.tag), (&mut recipe.dockerfile, &options.dockerfile)] {
        if let Some(value) = value {
            field.clone_from(value);
        }
    }
    recipe.network = options.network.unwrap_or(recipe.network);
    recipe.disable_cache = options.disable_cache.unwrap_or(recipe.disable_cache);
    recipe
}

fn read_recipe(folder: &Path, file: &str) -> Result<Recipe, PackageError> {
    let path = folder.join(file);
    let mut text = String::new();
    let read = fs::File::open(&path).and_then(|file| file.take(RECIPE_BYTES_MAX + 1).read_to_string(&mut text));
    let read = read.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => PackageError::NoRecipe { folder: folder.to_owned(), file: file.to_owned() },
        _ => io_error("read", &path, source),
    })?;
    if read as u64 > RECIPE_BYTES_MAX {
        return Err(io_error("read", &path, io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 1 MiB")));
    }
    Ok(config::decode(config::Source { name: &path.to_string_lossy(), text: &text })?)
}

fn extra_sources(folder: &Path, recipe: &Recipe) -> Result<Vec<ExtraSource>, PackageError> {
    let extra_source = |entry: &String| {
        let (host, place) = entry.split_once(':').filter(|(_, place)| !place.contains(':'))?;
        Some(ExtraSource { folder: folder.join(host), place: TreePath::from_user(place).ok()? })
    };
    let refuse = |entry: &String| PackageError::ExtraSource { entry: entry.clone(), folder: folder.to_owned() };
    recipe.extra_sources.iter().map(|entry| extra_source(entry).ok_or_else(|| refuse(entry))).collect()
}

fn git_identity(
    folder: &Path,
    extra_sources: &[ExtraSource],
    options: &PackageOptions,
) -> Result<Identity, PackageError> {
    let hash_folder = options.hash_folder.as_deref().unwrap_or(folder);
    let is_above = identity::is_within(folder, hash_folder);
    if !is_above.map_err(|source| io_error("open", hash_folder, source))? {
        return Err(PackageError::HashFolder { hash_folder: hash_folder.to_owned(), folder: folder.to_owned() });
    }
    let extra: Vec<PathBuf> = extra_sources.iter().map(|source| source.folder.clone()).collect();
    identity::of_folder(&Question {
        folder,
        hash_folder,
        extra: &extra,
        commit: options.commit.as_deref().unwrap_or(git::HEAD),
        hash: options.hash.as_deref(),
        force_dirty: options.force_dirty,
    })
}

fn native_identity(
    folder: &Path,
    recipe: &Recipe,
    extra_sources: &[ExtraSource],
    options: &PackageOptions,
) -> Result<Identity, PackageError> {
    let commit = options.commit.as_deref().filter(|commit| *commit != git::HEAD).map(|_| "--hash-commit");
    if let Some(flag) = commit.or(options.hash_folder.as_ref().map(|_| "--hash-path")) {
        return Err(PackageError::NativeHash { folder: folder.to_owned(), flag });
    }
    let mut contents = hash::Contents { folders: vec![folder.to_owned()], facts: NATIVE_FORMAT.into() };
    contents.folders.extend(extra_sources.iter().map(|source| source.folder.clone()));
    for cargo in recipe.cargo() {
        let made_from = workspace::Workspace::above(folder)?.ingredients(&cargo.package, &cargo.profile)?;
        contents.folders.extend(made_from.folders);
        contents.facts.push_str(&made_from.facts);
    }
    let mut identity = hash::of_contents(&contents, options.force_dirty)?;
    if let Some(hash) = &options.hash {
        identity.hash.clone_from(hash);
    }
    Ok(identity)
}

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
            ("image: a\nextra-sources: [../b]\n", "`FOLDER:PLACE`"),
            ("image: a\nextra-sources: ['../b:/../c']\n", "`FOLDER:PLACE`"),
            ("image: a\nextra-sources: ['a:b:c']\n", "`FOLDER:PLACE`"),
            ("image: a\nsource:\n- cargo: {package: a, bins: []}\n", "has a `cargo` source, but neither"),
        ] {
            let error = fault(recipe);
            assert!(error.contains(expected), "{recipe}: {error}");
        }
    }

    #[test]
    fn hostile_sizes_are_refused() {
        let folder = package("image: a\n");
        let error = |text: &str| {
            fs::write(folder.path().join(RECIPE_FILE), text).unwrap();
            Package::load(folder.path()).unwrap_err().to_string()
        };
        assert!(
            error(&format!("image: a\n{}", "#".repeat(usize::try_from(RECIPE_BYTES_MAX).unwrap())))
                .contains("cannot read")
        );
        let aliases = (0..30).map(|n| format!("x{n}: &x{n} [*x{0}, *x{0}]\n", n - 1)).collect::<String>();
        for text in [
            format!("image: a\nbuildArgs: {}", "[".repeat(100_000)),
            format!("image: a\nbuildArgs:\n{}", "- ".repeat(100_000)),
            format!("x-1: &x-1 [a]\n{aliases}image: a\n"),
        ] {
            assert!(error(&text).contains("build.yml"), "{}", error(&text));
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
            extra-sources: ['/:b/c']\ngitrepo: https://example.org\nnetwork: true\ndisable-cache: true\n\
            config: {binds: ['/a:/a'], capabilities: [all]}\nbuildArgs: [A=1]\n\
            depends: {docker-images: {target: t, target-dir: d, from-file: f, list: [x]}}\n";
        let folder = package(recipe);
        let options = PackageOptions { hash: Some("0123".into()), ..PackageOptions::default() };
        let package = Package::load_with(folder.path(), &options).unwrap();
        assert_eq!(package.reference(), "acme/a:v1-0123");
        assert!(!package.recipe().is_native() && package.recipe().disable_cache && !package.is_dirty());
        let options = PackageOptions { org: Some("127.0.0.1:5000/x".into()), tag: Some("t".into()), ..options };
        assert_eq!(Package::load_with(folder.path(), &options).unwrap().reference(), "127.0.0.1:5000/x/a:t");
    }

    #[test]
    fn the_reference_of_a_native_package_follows_the_content() {
        let folder = package("image: a\nsource:\n- files: []\n");
        let before = Package::load(folder.path()).unwrap();
        assert!(before.reference().starts_with("kiln/a:"), "{}", before.reference());
        fs::write(folder.path().join("more"), "x").unwrap();
        assert_ne!(Package::load(folder.path()).unwrap().reference(), before.reference());
    }

    #[test]
    fn outside_of_git_a_dockerfile_package_is_the_latest() {
        let folder = package("image: a\n");
        assert_eq!(Package::load(folder.path()).unwrap().reference(), "linuxkit/a:latest");
        let options = PackageOptions { tag: Some("v-{{.Hash}}".into()), ..PackageOptions::default() };
        assert_eq!(Package::load_with(folder.path(), &options).unwrap().reference(), "linuxkit/a:v-");
    }

    #[test]
    fn the_folder_to_hash_is_above_the_package() {
        let folder = package("image: a\n");
        let with = |hash_folder: &Path| {
            let options = PackageOptions { hash_folder: Some(hash_folder.to_owned()), ..PackageOptions::default() };
            Package::load_with(folder.path(), &options)
        };
        let other = tempfile::tempdir().unwrap();
        assert!(matches!(with(other.path()), Err(PackageError::HashFolder { .. })));
        assert!(with(folder.path().parent().unwrap()).is_ok());
        fs::write(folder.path().join(RECIPE_FILE), "image: a\nsource:\n- files: []\n").unwrap();
        assert!(matches!(with(folder.path()), Err(PackageError::NativeHash { flag: "--hash-path", .. })));
    }
}
