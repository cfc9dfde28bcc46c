//! Packages with a Dockerfile: their context, base images and arguments are put together here, another program builds,
//! and its result goes into the store.
//!
//! Base images come from the store, pulled into it as any other image is, so that credentials, certificates, mirrors and
//! `--offline` are the same everywhere and the builder itself needs no network. Its storage is a folder that goes away
//! with the build.

mod archive;
mod arguments;
mod builder;
mod command;
mod context;
mod import;
mod parse;
mod scratch;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use arguments::BuildArgument;
pub use builder::{Builder, BuilderError};

use self::archive::Saved;
use self::builder::own_architecture;
use self::command::{Order, Storage, Words};
use self::parse::{Architectures, Arguments, DOCKERFILE_BYTES_MAX, Needs};
use self::scratch::Scratch;
use super::build::BuildContext;
use super::error::{PackageError, io_error};
use super::git::{HEAD, Repository};
use super::program::{self, Program};
use super::{Package, pack};
use crate::oci::{Digest, Image, Platform, Reference, Store};
use crate::plan::{self, ImageUse, PullOptions};
use crate::progress::Progress;
use crate::tree::TreePath;

/// The builder's storage in the scratch folder.
const STORAGE: &str = "storage";
/// What it keeps while something runs.
const STORAGE_RUN: &str = "storage/run";
/// The layout with base images in the scratch folder.
const BASES: &str = "bases";
/// Needs neither root nor a file system of its own.
const STORAGE_DRIVER: &str = "vfs";
/// Debian's package with `unshare` and `setpriv`.
const UNSHARE_PACKAGE: &str = "util-linux";
/// Short names are Docker's; nothing is asked of anybody that the user's own file names.
const REGISTRIES: &str = "unqualified-search-registries = [\"docker.io\"]\nshort-name-mode = \"disabled\"\n";

/// What a Dockerfile build is told besides its package.
#[derive(Debug, Clone, Default)]
pub struct DockerfileOptions {
    /// Who builds; `None`: the first that works.
    pub builder: Option<Builder>,
    /// Build arguments, behind the package's own.
    pub arguments: Vec<BuildArgument>,
}

/// Base images, pinned for one platform.
struct Pins<'a> {
    store: &'a Store,
    platform: Platform,
    options: PullOptions,
    progress: &'a dyn Progress,
}

impl Pins<'_> {
    /// The image behind `name`, in the store now. `place` is for messages.
    fn pin(&self, name: &str, place: &str) -> Result<Image, PackageError> {
        let used = ImageUse { reference: name.to_owned(), place: place.to_owned() };
        let plan = plan::pin(&[used], &self.platform, self.store, &self.options, self.progress)?;
        plan.image(name).cloned().ok_or_else(|| PackageError::Unpinned { name: name.to_owned() })
    }
}

/// A base image of a Dockerfile, in the store.
struct Pinned {
    name: String,
    reference: Reference,
    root: Digest,
    architecture: String,
}

/// Everything that is known before anything is built.
struct Prepared {
    builder: Builder,
    dockerfile: PathBuf,
    arguments: Arguments,
    labels: Vec<(String, String)>,
    needs: Needs,
}

/// Why the builder cannot build `package` for the platform, if so.
///
/// Errors: no builder; a Dockerfile that cannot be read.
pub(super) fn hindrance(package: &Package, context: &BuildContext) -> Result<Option<String>, PackageError> {
    let prepared = prepare(package, context)?;
    let architecture = &context.platform.architecture;
    let can = !prepared.needs.runs_on_target || prepared.builder.runs(architecture);
    let builder = prepared.builder;
    let why = format!("{builder} cannot run {architecture}'s programs here; install `qemu-user-static`");
    Ok((!can).then_some(why))
}

/// Builds `package` for the platform and puts the image into the store.
///
/// Errors: no builder, base images that cannot be had, a build that failed (with its last lines).
pub(super) fn build(
    package: &Package,
    store: &Store,
    context: &BuildContext,
    progress: &dyn Progress,
) -> Result<Image, PackageError> {
    let prepared = prepare(package, context)?;
    let scratch = Scratch::new(&context.cache_folder.join("tmp"), prepared.builder)?;
    let bases = pin_bases(&prepared, store, context, progress)?;
    let pins = pins(store, context, &context.platform.architecture, progress);
    let folder = context::context(package, &pins, &scratch)?;
    let dockerfile = prepared.dockerfile.strip_prefix(&package.folder).map(|name| folder.join(name));
    let dockerfile = dockerfile.unwrap_or_else(|_| prepared.dockerfile.clone());
    let layout = scratch.folder(BASES)?;
    let names = bases.iter().enumerate().map(|(number, base)| (format!("base{number}"), base.root));
    import::layout_of(&names.collect::<Vec<_>>(), store, &layout)?;
    let order = order(package, context, &prepared, &folder, &dockerfile);
    let out = scratch.path("image");
    let working = Working { context, progress, label: label(package, context), scratch: &scratch };
    match prepared.builder {
        Builder::Docker => {
            let place = |base: &Pinned| {
                let mut place = OsString::from("oci-layout://");
                place.push(&layout);
                place.push(format!("@{}", base.root));
                (base.name.clone(), place)
            };
            let bases: Vec<_> = bases.iter().map(place).collect();
            working.show(&command::buildx(&order, &bases, &out), &[])?;
        }
        Builder::Buildah | Builder::Podman => {
            without_daemon(&working, prepared.builder, &order, &bases, &out)?;
        }
    }
    import::import(&out, package.full_reference(), &context.platform, store, &context.cancel)
}

/// Gives the image to a running Docker.
pub(super) fn load_into_docker(
    package: &Package,
    image: Image,
    store: &Store,
    context: &BuildContext,
) -> Result<(), PackageError> {
    let builder = Builder::Docker;
    let scratch = Scratch::new(&context.cache_folder.join("tmp"), builder)?;
    let architecture = &context.platform.architecture;
    let mut names = vec![format!("{}-{architecture}", package.reference())];
    if architecture == own_architecture() {
        names.push(package.reference().to_owned());
    }
    let saved = Saved { names, image, reference: package.full_reference().clone() };
    let path = scratch.path("image.tar");
    let failed = |source| io_error("write", &path, source);
    let file = fs::File::create(&path).map_err(failed)?;
    archive::save(&[saved], store, &scratch.folder("save")?, file).map_err(failed)?;
    let load = Program::new(builder.name(), builder.debian_package()).args(["load", "--quiet", "--input"]).arg(&path);
    load.until(&context.cancel).run()?;
    Ok(())
}

/// The command line that [`build`] would start, as a shell takes it; its folders are examples.
pub(super) fn dry_run(package: &Package, context: &BuildContext) -> Result<String, PackageError> {
    let prepared = prepare(package, context)?;
    let folder = context.cache_folder.join("tmp/dockerfile-0");
    let order = order(package, context, &prepared, &package.folder, &prepared.dockerfile);
    let words = match prepared.builder {
        Builder::Docker => command::buildx(&order, &[], &folder.join("image")),
        builder => storage_of(builder).build(&order, &folder.join("id"), is_root()),
    };
    Ok(command::shown(&words))
}

fn prepare(package: &Package, context: &BuildContext) -> Result<Prepared, PackageError> {
    if package.commit.as_deref().is_some_and(|commit| commit != HEAD) {
        return Err(PackageError::OtherCommit { folder: package.folder.clone() });
    }
    let refuse = |source| PackageError::DockerfilePath { folder: package.folder.clone(), source };
    let inside = TreePath::from_user(&package.recipe.dockerfile).map_err(refuse)?;
    let dockerfile = context::place(&package.folder, &inside);
    let mut text = String::new();
    let read = fs::File::open(&dockerfile).and_then(|file| file.take(DOCKERFILE_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => PackageError::NoDockerfile { path: dockerfile.clone() },
        _ => io_error("read", &dockerfile, source),
    })?;
    let builder = builder::choose(context.dockerfile.builder)?;
    let arguments = arguments::all(package, &context.dockerfile.arguments)?;
    let architectures = Architectures { target: &context.platform.architecture, builder: own_architecture() };
    let needs = parse::needs(&text, &arguments, architectures);
    Ok(Prepared { builder, dockerfile, labels: labels(package)?, arguments, needs })
}

fn labels(package: &Package) -> Result<Vec<(String, String)>, PackageError> {
    let mut labels =
        pack::labels(&package.recipe).map_err(|error| io_error("describe", &package.folder, error.into()))?;
    if let Some(repository) = Repository::around(&package.folder)? {
        if !package.recipe.gitrepo.is_empty() {
            labels.push(("org.opencontainers.image.source".into(), package.recipe.gitrepo.clone()));
        }
        if !package.is_dirty() {
            labels.push(("org.opencontainers.image.revision".into(), repository.head()?));
        }
    }
    labels.sort();
    Ok(labels)
}

fn order<'a>(
    package: &'a Package,
    context: &'a BuildContext,
    prepared: &'a Prepared,
    folder: &'a Path,
    dockerfile: &'a Path,
) -> Order<'a> {
    Order {
        architecture: &context.platform.architecture,
        context: folder,
        dockerfile,
        arguments: &prepared.arguments,
        labels: &prepared.labels,
        network: package.recipe.network,
        cache: !package.recipe.disable_cache,
        source_date_s: context.source_date_s,
    }
}

fn pins<'a>(store: &'a Store, context: &BuildContext, architecture: &str, progress: &'a dyn Progress) -> Pins<'a> {
    let options = PullOptions { cancel: context.cancel.clone(), ..context.pull.clone() };
    Pins { store, platform: Platform::linux(architecture), options, progress }
}

/// All base images that can be told, in the store.
fn pin_bases(
    prepared: &Prepared,
    store: &Store,
    context: &BuildContext,
    progress: &dyn Progress,
) -> Result<Vec<Pinned>, PackageError> {
    let mut pinned = Vec::new();
    for base in &prepared.needs.bases {
        // What is no reference is the builder's to refuse: it knows the line.
        let Ok(reference) = base.name.parse::<Reference>() else { continue };
        let place = format!("{}:{}", prepared.dockerfile.display(), base.line);
        let image = pins(store, context, &base.architecture, progress).pin(&base.name, &place)?;
        let root = store.root_digest(&reference)?.unwrap_or(image.manifest);
        pinned.push(Pinned { name: base.name.clone(), reference, root, architecture: base.architecture.clone() });
    }
    Ok(pinned)
}

/// What is seen of a build.
struct Working<'a> {
    context: &'a BuildContext,
    progress: &'a dyn Progress,
    label: String,
    scratch: &'a Scratch,
}

impl Working<'_> {
    fn program(&self, words: &Words, environment: &[(&str, &Path)]) -> Program {
        let mut words = words.clone();
        if program::is_installed("setpriv") {
            // It ends when we do, however that comes.
            words.splice(0..0, ["setpriv", "--pdeathsig", "TERM", "--"].map(OsString::from));
        }
        let mut words = words.into_iter();
        let program = Program::new(words.next().unwrap_or_default(), UNSHARE_PACKAGE).args(words);
        let program = program.folder(self.scratch.root()).until(&self.context.cancel);
        environment.iter().fold(program, |program, (name, value)| program.env(name, value))
    }

    /// Runs it and shows what it says.
    fn show(&self, words: &Words, environment: &[(&str, &Path)]) -> Result<(), PackageError> {
        let say = |line: &str| self.progress.note(&format!("{}: {line}", self.label));
        Ok(self.program(words, environment).show(&say)?)
    }

    /// Runs it silently; gives what it wrote to stdout.
    fn run(&self, words: &Words, environment: &[(&str, &Path)]) -> Result<String, PackageError> {
        let out = self.program(words, environment).run()?;
        Ok(String::from_utf8_lossy(&out).trim().to_owned())
    }
}

/// buildah's and podman's way: base images into a storage of its own, build there, and the result out of it.
fn without_daemon(
    working: &Working<'_>,
    builder: Builder,
    order: &Order<'_>,
    bases: &[Pinned],
    out: &Path,
) -> Result<(), PackageError> {
    let scratch = working.scratch;
    scratch.folder(STORAGE_RUN)?;
    let storage = storage_of(builder);
    let registries = scratch.path("registries.conf");
    fs::write(&registries, REGISTRIES).map_err(|source| io_error("write", &registries, source))?;
    let environment = [("CONTAINERS_REGISTRIES_CONF", registries.as_path())];
    for (number, base) in bases.iter().enumerate() {
        // Relative: the image is named for this path, and names have no capitals.
        let from = format!("oci:{BASES}:base{number}");
        let id = working.run(&storage.call(&["pull", "--quiet", "--arch", &base.architecture, &from]), &environment)?;
        // An image that is asked for by digest is found by it once any tag of its repository is there.
        let tag = base.reference.tag().unwrap_or("latest");
        let name = format!("{}/{}:{tag}", base.reference.registry(), base.reference.repository());
        working.run(&storage.call(&["tag", &id, &name]), &environment)?;
    }
    let id = scratch.path("id");
    working.show(&storage.build(order, &id, is_root()), &environment)?;
    let id = fs::read_to_string(&id).map_err(|source| io_error("read", &id, source))?;
    let to = format!("oci:{}:image", out.display());
    working.run(&storage.call(&["push", "--quiet", id.trim(), &to]), &environment)?;
    Ok(())
}

/// The storage in the scratch folder, where builders are started: podman takes no long path for it.
fn storage_of(builder: Builder) -> Storage<'static> {
    let driver = std::env::var_os("STORAGE_DRIVER").is_none().then_some(STORAGE_DRIVER);
    Storage { builder, root: Path::new(STORAGE), run_root: Path::new(STORAGE_RUN), driver }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn label(package: &Package, context: &BuildContext) -> String {
    format!("{} {}", package.recipe.image, context.platform.architecture)
}
