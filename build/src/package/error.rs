//! What can be wrong with a package.

use std::io;
use std::path::{Path, PathBuf};

use super::program::ProgramError;
use crate::cancel::Cancelled;
use crate::config::ConfigError;
use crate::oci::{FetchError, PushError, ReferenceError, StoreError};
use crate::plan::PlanError;
use crate::tree::{PathFault, TreeError};

/// Why a package has no image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// The folder is no package.
    #[error("`{}` is no package: it has no `{file}`", folder.display())]
    NoRecipe {
        /// The folder.
        folder: PathBuf,
        /// The file that is missing.
        file: String,
    },
    /// `build.yml` cannot be used.
    #[error(transparent)]
    Recipe(#[from] ConfigError),
    /// The tag asks for what is not known.
    #[error("tag `{tag}` of `{}` can hold `{{{{.Hash}}}}` and no other template", folder.display())]
    Tag {
        /// As it is written.
        tag: String,
        /// The package's folder.
        folder: PathBuf,
    },
    /// Organisation, image and tag make no reference.
    #[error("package `{}` has a name that no image can have", folder.display())]
    Reference {
        /// The package's folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: ReferenceError,
    },
    /// The folder is in a repository and not in the commit that its hash is taken from.
    #[error("`{}` is not in `{commit}` of its git repository; commit it, or give the hash with `--hash`", folder.display())]
    NotCommitted {
        /// The folder.
        folder: PathBuf,
        /// The commit.
        commit: String,
    },
    /// An extra source without a tree hash.
    #[error("extra source `{}` is in no git repository, so it has no hash; give one with `--hash`", folder.display())]
    NotInGit {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder to hash is not above the package.
    #[error("`{}` is not the folder of package `{}` or one above it", hash_folder.display(), folder.display())]
    HashFolder {
        /// The folder to hash.
        hash_folder: PathBuf,
        /// The package's folder.
        folder: PathBuf,
    },
    /// An entry of `extra-sources` that names no destination, or more than one.
    #[error("extra source `{entry}` of `{}` should be `FOLDER:PLACE`, the place without `..`", folder.display())]
    ExtraSource {
        /// As it is written.
        entry: String,
        /// The package's folder.
        folder: PathBuf,
    },
    /// A question that only git's hash of a Dockerfile package answers.
    #[error("package `{}` is native: its hash has more in it than git knows, so there is no `{flag}` for it", folder.display())]
    NativeHash {
        /// The package's folder.
        folder: PathBuf,
        /// The flag.
        flag: &'static str,
    },
    /// Nothing here builds Dockerfiles.
    #[error(
        "nothing here builds Dockerfiles ({faults}); install a builder, on Debian with `apt-get install {package}`"
    )]
    NoBuilder {
        /// What is wrong with each that was tried.
        faults: String,
        /// Debian's package with one.
        package: &'static str,
    },
    /// It has neither native sources nor a Dockerfile.
    #[error("there is no `{}`, and `build.yml` has no `source`", path.display())]
    NoDockerfile {
        /// The file.
        path: PathBuf,
    },
    /// A Dockerfile that is not in its package.
    #[error("the Dockerfile of `{}` should be in it", folder.display())]
    DockerfilePath {
        /// The package's folder.
        folder: PathBuf,
        /// Why it is not.
        #[source]
        source: PathFault,
    },
    /// What is on disk is not what the hash says.
    #[error("package `{}` has the hash of another commit than `HEAD`; check that commit out to build it", folder.display())]
    OtherCommit {
        /// The package's folder.
        folder: PathBuf,
    },
    /// A build argument that is none.
    #[error("build argument `{argument}` of `{}` cannot be used: {fault}", folder.display())]
    BuildArgument {
        /// As it is written.
        argument: String,
        /// The package's folder.
        folder: PathBuf,
        /// Why.
        fault: String,
    },
    /// `depends.docker-images` that cannot be done.
    #[error("`depends.docker-images` of `{}` cannot be used: {fault}", folder.display())]
    Depends {
        /// The package's folder.
        folder: PathBuf,
        /// Why.
        fault: String,
    },
    /// A base image or an image that the package depends on cannot be had.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// An image that was pinned and is not among the pinned.
    #[error("image `{name}` was not pinned")]
    Unpinned {
        /// The image.
        name: String,
    },
    /// None of the package's architectures can be built.
    #[error("package `{}` cannot be built for {architecture}: {why}", folder.display())]
    Unable {
        /// The package's folder.
        folder: PathBuf,
        /// Go's name.
        architecture: String,
        /// Why.
        why: String,
    },
    /// It differs from what is committed.
    #[error("package `{}` differs from what is committed, so it is not pushed; commit it first", folder.display())]
    Dirty {
        /// The package's folder.
        folder: PathBuf,
    },
    /// The store does not have its image.
    #[error("`{reference}` is not in the store; `kiln pkg build` builds it")]
    NotBuilt {
        /// The image.
        reference: String,
    },
    /// No architecture of it is in the registry.
    #[error("the registry has no `{reference}-ARCH` of any of the package's architectures")]
    NothingPushed {
        /// The image.
        reference: String,
    },
    /// An image that is to get another tag is not there.
    #[error("the registry has no `{reference}`")]
    NotThere {
        /// The image.
        reference: String,
    },
    /// A tag for another repository.
    #[error("`{to}` is no other tag of `{from}`; both should be tags of one repository")]
    OtherRepository {
        /// The image.
        from: String,
        /// What it should be called too.
        to: String,
    },
    /// A tag that no image can have.
    #[error("`{tag}` cannot be a tag")]
    BadTag {
        /// The tag.
        tag: String,
        /// Why.
        #[source]
        source: ReferenceError,
    },
    /// The registry did not answer as it should.
    #[error(transparent)]
    Fetch(#[from] Box<FetchError>),
    /// The registry did not take what was pushed.
    #[error(transparent)]
    Push(#[from] Box<PushError>),
    /// It is not for this architecture.
    #[error("package `{}` is for {}, not for {wanted}", folder.display(), arches.join(", "))]
    Architecture {
        /// The package's folder.
        folder: PathBuf,
        /// What it is for.
        arches: Vec<String>,
        /// What was asked for.
        wanted: String,
    },
    /// The host's file system refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// Such as `read`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program did not do its work.
    #[error(transparent)]
    Program(ProgramError),
    /// Somebody cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The content store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The image's tree refused a file.
    #[error("package `{}` cannot be put together", folder.display())]
    Tree {
        /// The package's folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: TreeError,
    },
    /// A package with cargo sources that is in no workspace.
    #[error("`{}` has a `cargo` source, but neither it nor a folder above it has a `Cargo.toml` with `[workspace]`", folder.display())]
    NoWorkspace {
        /// The package's folder.
        folder: PathBuf,
    },
    /// The workspace has no such crate.
    #[error("the workspace in `{}` has no crate `{name}`", root.display())]
    NoCrate {
        /// The crate.
        name: String,
        /// The workspace's folder.
        root: PathBuf,
    },
    /// A `Cargo.toml` or `Cargo.lock` that cannot be read.
    #[error("`{}` is not valid TOML", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Rust has no library for the architecture.
    #[error(
        "this Rust cannot build for `{target}`; `rustup target add {target}` gives it what it lacks, or, for Debian's own \
         Rust, the {architecture} edition of the package `libstd-rust-dev` or `libstd-rust-web-dev`"
    )]
    NoRustTarget {
        /// Rust's name of the target.
        target: String,
        /// Debian's architecture.
        architecture: String,
    },
    /// Nothing here links programs for the architecture.
    #[error(
        "linker `{linker}` is missing; install it, on Debian with `apt-get install {packages}`, or name another in `{variable}`"
    )]
    NoLinker {
        /// The program.
        linker: String,
        /// Debian's packages with it and the C library.
        packages: String,
        /// Cargo's variable.
        variable: String,
    },
    /// Cargo made no such program.
    #[error("crate `{package}` has no program `{bin}`")]
    NoBinary {
        /// The crate.
        package: String,
        /// The program.
        bin: String,
    },
    /// A program that needs shared libraries, which the image does not have.
    #[error(
        "program `{bin}` is linked dynamically and needs `{interpreter}`; link it statically, or say `dynamic: true`"
    )]
    Dynamic {
        /// The program.
        bin: String,
        /// Its dynamic linker.
        interpreter: String,
    },
    /// No ELF program at all.
    #[error("program `{bin}` is no ELF program")]
    NotElf {
        /// The program.
        bin: String,
    },
    /// A damaged Debian package.
    #[error("`{}` is no sound Debian package: {fault}", path.display())]
    Deb {
        /// The package's file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// A name in a Debian package that leads elsewhere.
    #[error("`{}` is no sound Debian package: member `{member}` cannot be unpacked", path.display())]
    DebMember {
        /// The package's file.
        path: PathBuf,
        /// The member.
        member: String,
        /// Why.
        #[source]
        source: PathFault,
    },
    /// apt did not say what was expected.
    #[error("apt knows no package `{package}` for {architecture}")]
    NoDebianPackage {
        /// The package.
        package: String,
        /// Debian's architecture.
        architecture: String,
    },
    /// A Debian package that is no kernel.
    #[error("Debian package `{package}` has no `{wanted}`, so it is no kernel that can be used")]
    NoKernel {
        /// The package.
        package: String,
        /// What is missing.
        wanted: &'static str,
    },
    /// A pattern that no module fits.
    #[error("the kernel has no module `{pattern}`")]
    NoModule {
        /// The pattern.
        pattern: String,
    },
    /// A pattern that no device tree fits.
    #[error("Debian package `{package}` has no device tree `{pattern}`")]
    NoDeviceTree {
        /// The package.
        package: String,
        /// The pattern.
        pattern: String,
    },
    /// Nothing of some Debian packages is taken.
    #[error("nothing in Debian's {} fits `include` and is not in `exclude`", packages.join(", "))]
    NothingIncluded {
        /// The packages.
        packages: Vec<String>,
    },
    /// A pattern of `joined` that fits no file.
    #[error("no file of the sources before fits `joined: {pattern}`")]
    NothingToJoin {
        /// The pattern.
        pattern: String,
    },
    /// Debian packages do not have what is asked of them.
    #[error("`{name}` of `include` is not in Debian's {}, nor in what is unpacked with them", packages.join(", "))]
    NotIncluded {
        /// The path.
        name: String,
        /// The packages.
        packages: Vec<String>,
    },
}

impl PackageError {
    /// Whether a base image, or another image that is needed, does not exist for the platform.
    pub fn is_platform_missing(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if matches!(error.downcast_ref(), Some(StoreError::Platform { .. })) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

impl From<ProgramError> for PackageError {
    fn from(error: ProgramError) -> Self {
        match error {
            ProgramError::Cancelled(cancelled) => Self::Cancelled(cancelled),
            other => Self::Program(other),
        }
    }
}

/// An [`PackageError::Io`].
pub(super) fn io_error(action: &'static str, path: &Path, source: io::Error) -> PackageError {
    PackageError::Io { action, path: path.to_owned(), source }
}
