//! A package's image: its sources one after another, then a layer, then a name in the store.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use super::apt::{Apt, Closure, debian_architecture};
use super::deb::{Selection, unpack};
use super::error::{PackageError, io_error};
use super::recipe::{Debian, Source};
use super::stage::Stage;
use super::{DockerfileOptions, Package, cargo, dockerfile, kernel, lock, pack};
use crate::cancel::Cancel;
use crate::oci::{Image, Platform, RegistryOptions, Store, StoreError};
use crate::plan::{self, ImageUse, PlanError, Pull, PullOptions};
use crate::progress::{Progress, Silent};
use crate::tree::TreePath;

/// What a package is built with.
#[derive(Debug, Clone)]
pub struct BuildContext {
    /// Downloads and locks are kept here; it is made if it is missing.
    pub cache_folder: PathBuf,
    /// What the image is to run on.
    pub platform: Platform,
    /// Time of every file in the image, in seconds since 1970.
    pub source_date_s: i64,
    /// Stops a build, with the programs that it has started; nothing is left behind but what they had finished.
    pub cancel: Cancel,
    /// How registries are asked, for base images and for packages that somebody else may have built.
    pub pull: PullOptions,
    /// For packages with a Dockerfile.
    pub dockerfile: DockerfileOptions,
}

impl Package {
    /// The reference, whose image is then in `store`: built now if it was missing. This is what `@pkg:FOLDER` means. Of a
    /// package that only has a Dockerfile the image may be missing still, where nothing here can build it.
    ///
    /// Errors: as of [`build`](Self::build).
    pub fn resolve(
        &self,
        store: &Store,
        context: &BuildContext,
        progress: &dyn Progress,
    ) -> Result<String, PackageError> {
        match self.ensure(store, context, progress) {
            Ok(_) => {}
            Err(error @ PackageError::NoBuilder { .. }) => progress.note(&format!("`{}`: {error}", self.reference())),
            Err(error) => return Err(error),
        }
        Ok(self.reference().to_owned())
    }

    /// The image: from the store if it is there intact, else from the registry if nobody else could have built another
    /// one, else built. Native packages are never asked of a registry.
    ///
    /// Errors: as of [`build`](Self::build).
    pub fn ensure(
        &self,
        store: &Store,
        context: &BuildContext,
        progress: &dyn Progress,
    ) -> Result<Image, PackageError> {
        match self.find_or_pull(store, context, progress)? {
            Some(image) => Ok(image),
            None => self.build_missing(store, context, progress),
        }
    }

    /// The image, if the store or the registry has it.
    pub fn find_or_pull(
        &self,
        store: &Store,
        context: &BuildContext,
        progress: &dyn Progress,
    ) -> Result<Option<Image>, PackageError> {
        match self.find(store, context)? {
            Some(image) => Ok(Some(image)),
            None => self.pull(store, context, progress),
        }
    }

    /// Builds the image, unless the store has it by now.
    ///
    /// Errors: as of [`build`](Self::build).
    pub fn build_missing(
        &self,
        store: &Store,
        context: &BuildContext,
        progress: &dyn Progress,
    ) -> Result<Image, PackageError> {
        let _lock = self.lock(context, progress)?;
        // Somebody else may have built it while we waited.
        match self.find(store, context)? {
            Some(image) => Ok(image),
            None => self.build_locked(store, context, progress),
        }
    }

    /// The image, if the registry has it.
    fn pull(
        &self,
        store: &Store,
        context: &BuildContext,
        progress: &dyn Progress,
    ) -> Result<Option<Image>, PackageError> {
        let is_known = !self.is_dirty() && self.is_named_for_content();
        if self.recipe().is_native() || !is_known || context.pull.pull == Pull::Never {
            return Ok(None);
        }
        let used = ImageUse { reference: self.reference().to_owned(), place: self.folder().display().to_string() };
        // Most often it is simply not there; a registry that fails is no reason to wait.
        let registry = RegistryOptions { attempts: 1, ..context.pull.registry.clone() };
        let options = PullOptions { cancel: context.cancel.clone(), registry, ..context.pull.clone() };
        match plan::pin(&[used], &context.platform, store, &options, progress) {
            Ok(plan) => Ok(plan.image(self.reference()).cloned()),
            Err(PlanError::Cancelled(cancelled)) => Err(cancelled.into()),
            Err(error) => {
                let why = error.source().map_or_else(|| error.to_string(), |source| innermost(source).to_string());
                progress.note(&format!("`{}` cannot be pulled for {}: {why}", self.reference(), context.platform));
                Ok(None)
            }
        }
    }

    /// Builds the image, whether the store has it or not.
    ///
    /// Errors: everything that a source can meet; without sources [`PackageError::NoBuilder`], base images that cannot be
    /// had, and what the builder says.
    pub fn build(&self, store: &Store, context: &BuildContext, progress: &dyn Progress) -> Result<Image, PackageError> {
        let _lock = self.lock(context, progress)?;
        self.build_locked(store, context, progress)
    }

    /// The image, if the store has all of it.
    ///
    /// Errors: a store that cannot be read.
    pub fn find(&self, store: &Store, context: &BuildContext) -> Result<Option<Image>, PackageError> {
        match store.find(self.full_reference(), &context.platform) {
            // Known for other platforms, or damaged: to be built.
            Err(StoreError::Missing { .. } | StoreError::Damaged { .. } | StoreError::Platform { .. }) => Ok(None),
            other => Ok(other?),
        }
    }

    /// Whether it can be built for the platform: `None`, or why not.
    ///
    /// Errors: no builder; a Dockerfile that cannot be read.
    pub fn hindrance(&self, context: &BuildContext) -> Result<Option<String>, PackageError> {
        let (arches, wanted) = (&self.recipe().arches, &context.platform.architecture);
        if !arches.contains(wanted) {
            return Ok(Some(format!("its `arches` are {}", arches.join(", "))));
        }
        if self.recipe().is_native() { Ok(None) } else { dockerfile::hindrance(self, context) }
    }

    /// The command line that a build would start, as a shell takes it; `None` for a native package.
    pub fn dry_run(&self, context: &BuildContext) -> Result<Option<String>, PackageError> {
        if self.recipe().is_native() { Ok(None) } else { dockerfile::dry_run(self, context).map(Some) }
    }

    /// Gives the image to Docker, as `TAG-ARCH`, and as `TAG` too if it is for this machine.
    ///
    /// Errors: the store lacks it; no Docker.
    pub fn load_into_docker(&self, store: &Store, context: &BuildContext) -> Result<(), PackageError> {
        let missing = || PackageError::NotBuilt { reference: self.reference().to_owned() };
        let image = self.find(store, context)?.ok_or_else(missing)?;
        dockerfile::load_into_docker(self, image, store, context)
    }

    fn lock(&self, context: &BuildContext, progress: &dyn Progress) -> Result<fs::File, PackageError> {
        let name = self.reference().replace(['/', ':'], "_");
        lock::wait(&context.cache_folder.join("locks").join(name), self.reference(), &context.cancel, progress)
    }

    fn build_locked(
        &self,
        store: &Store,
        context: &BuildContext,
        progress: &dyn Progress,
    ) -> Result<Image, PackageError> {
        let recipe = self.recipe();
        let architecture = &context.platform.architecture;
        if !recipe.arches.contains(architecture) {
            let (folder, arches) = (self.folder().to_owned(), recipe.arches.clone());
            return Err(PackageError::Architecture { folder, arches, wanted: architecture.clone() });
        }
        let _meter = progress.begin(&format!("package {}", self.reference()), None);
        if !recipe.is_native() {
            return dockerfile::build(self, store, context, progress);
        }
        let stage = self.stage(context, progress)?;
        context.cancel.check()?;
        let (layer, diff_id) = pack::write_layer(&stage.tree, store, &Silent)?;
        let config = pack::image_config(recipe, &context.platform, diff_id);
        let config = config.map_err(|error| io_error("describe", self.folder(), error.into()))?;
        Ok(store.put_image(self.full_reference(), &context.platform, &config, vec![layer])?)
    }

    /// All sources, put together.
    fn stage(&self, context: &BuildContext, progress: &dyn Progress) -> Result<Stage, PackageError> {
        let temporary = context.cache_folder.join("tmp");
        fs::create_dir_all(&temporary).map_err(|source| io_error("make folder", &temporary, source))?;
        let mut stage = Stage::new(self.folder(), &temporary, context.source_date_s)?;
        let architecture = context.platform.architecture.as_str();
        let apt = || Apt::open(context, progress);
        for source in &self.recipe().source {
            context.cancel.check()?;
            match source {
                Source::Cargo(cargo) => {
                    let _meter = progress.begin(&format!("cargo build {}", cargo.package), None);
                    cargo::add(cargo, architecture, &context.cancel, &mut stage)?;
                }
                Source::Debian(debian) => add_debian(debian, &apt()?, &mut stage)?,
                Source::Kernel(kernel) => kernel::add(kernel, &apt()?, debian_architecture(architecture), &mut stage)?,
                Source::Files(files) => stage.add_files(files)?,
                Source::Links(links) => {
                    for name in &links.names {
                        stage.symlink(&links.folder.0.append(&name.0), links.to.as_bytes())?;
                    }
                }
            }
        }
        Ok(stage)
    }
}

/// Where it began.
fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    error.source().map_or(error, innermost)
}

fn add_debian(debian: &Debian, apt: &Apt<'_>, stage: &mut Stage) -> Result<(), PackageError> {
    let closure = if debian.with_depends { Closure::WithDepends } else { Closure::Alone };
    let debs = apt.fetch(&debian.packages, closure)?;
    let selection = Selection { include: &debian.include, exclude: &debian.exclude };
    let mut taken = 0;
    for deb in &debs {
        taken += unpack(deb, selection, apt.cancel, stage)?;
    }
    let packages = || debian.packages.clone();
    if taken == 0 {
        return Err(PackageError::NothingIncluded { packages: packages() });
    }
    // A pattern may fit nothing; a name that does is a program that moved to another package.
    for name in debian.include.iter().filter(|name| !name.contains(['*', '?'])) {
        if !TreePath::from_user(name).is_ok_and(|path| stage.tree.get(&path).is_some()) {
            return Err(PackageError::NotIncluded { name: name.clone(), packages: packages() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::RECIPE_FILE;
    use super::*;
    use std::io::Read;

    struct Room {
        folder: tempfile::TempDir,
        store: Store,
        context: BuildContext,
    }

    fn room(recipe: &str) -> Room {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a").join(RECIPE_FILE), recipe).unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let context = BuildContext {
            cache_folder: folder.path().join("cache"),
            platform: Platform::linux("amd64"),
            source_date_s: 1_000_000,
            cancel: Cancel::default(),
            pull: PullOptions { pull: Pull::Never, ..PullOptions::default() },
            dockerfile: DockerfileOptions::default(),
        };
        Room { folder, store, context }
    }

    impl Room {
        fn package(&self) -> Package {
            Package::load(&self.folder.path().join("a")).unwrap()
        }

        fn build(&self) -> Result<Image, PackageError> {
            self.package().build(&self.store, &self.context, &Silent)
        }
    }

    #[test]
    fn a_package_with_nothing_to_build_is_refused() {
        let room = room("image: a\n");
        assert!(matches!(room.build(), Err(PackageError::NoDockerfile { .. })));
        fs::write(room.folder.path().join("a/build.yml"), "image: a\ndockerfile: ../Dockerfile\n").unwrap();
        assert!(matches!(room.build(), Err(PackageError::DockerfilePath { .. })));
    }

    #[test]
    fn a_cancelled_build_stops_even_while_it_waits_for_another() {
        let room = room(FILES);
        let lock = room.package().lock(&room.context, &Silent).unwrap();
        room.context.cancel.cancel();
        assert!(matches!(room.build(), Err(PackageError::Cancelled(_))));
        drop(lock);
        assert!(matches!(room.build(), Err(PackageError::Cancelled(_))));
        assert!(room.package().find(&room.store, &room.context).unwrap().is_none());
    }

    #[test]
    fn another_architecture_and_missing_files_are_refused() {
        let other = room("image: a\narches: [arm64]\nsource:\n- files:\n  - {path: a, directory: true}\n");
        assert!(matches!(other.build(), Err(PackageError::Architecture { .. })));
        let nothing = room("image: a\nsource:\n- files:\n  - {path: a, joined: '*.crt'}\n");
        assert!(matches!(nothing.build(), Err(PackageError::NothingToJoin { pattern }) if pattern == "*.crt"));
        let missing = room("image: a\nsource:\n- files:\n  - {path: a, source: none}\n");
        assert!(matches!(missing.build(), Err(PackageError::Io { path, .. }) if path.ends_with("a/none")));
        assert!(missing.package().find(&missing.store, &missing.context).unwrap().is_none());
    }

    const FILES: &str = "image: a\nconfig: {binds: ['/a:/b'], capabilities: [all]}\n\
        process: {entrypoint: [/bin/x], cmd: ['1'], env: [A=1], workdir: /w}\n\
        source:\n- files:\n  - {path: /bin/x, source: build.yml, mode: \"4755\"}\n  - {path: /etc/t, contents: hello}\n\
        - files:\n  - {path: etc/t, contents: later}\n  - {path: /lnk, symlink: bin/x}\n  - {path: d, directory: true}\n\
        - files:\n  - {path: etc/u, contents: \"2\\n\"}\n  - {path: all, joined: \"/etc/?\"}\n";

    #[test]
    fn files_become_an_image_with_process_and_label() {
        let room = room(FILES);
        let image = room.build().unwrap();
        assert_eq!(image.config.entrypoint, ["/bin/x"]);
        assert_eq!((image.config.env[0].as_str(), image.config.working_dir.as_str()), ("A=1", "/w"));
        let label = &image.config.labels["org.mobyproject.config"];
        assert!(label.contains(r#""binds":["/a:/b"#), "{label}");
        let mut archive = Vec::new();
        let layer = room.store.open_layer(&image.layers[0]).unwrap();
        flate2::read::GzDecoder::new(layer).read_to_end(&mut archive).unwrap();
        let mut archive = tar::Archive::new(&archive[..]);
        let entry = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            let header = entry.header();
            assert_eq!((header.mtime().unwrap(), header.uid().unwrap()), (1_000_000, 0));
            let name = entry.path().unwrap().display().to_string();
            format!("{name} {:o} {}", header.mode().unwrap(), if text == FILES { "build.yml" } else { &text })
        };
        let entries: Vec<String> = archive.entries().unwrap().map(entry).collect();
        let expected = [
            "all 644 later\n2\n",
            "bin/ 755 ",
            "bin/x 4755 build.yml",
            "d/ 755 ",
            "etc/ 755 ",
            "etc/t 644 later",
            "etc/u 644 2\n",
            "lnk 777 ",
        ];
        assert_eq!(entries, expected);
    }

    #[test]
    fn the_same_package_gives_the_same_image_and_is_built_once() {
        let (one, two) = (room(FILES), room(FILES));
        let first = one.package().ensure(&one.store, &one.context, &Silent).unwrap();
        assert_eq!(first.manifest, two.build().unwrap().manifest);
        assert!(one.package().find(&one.store, &one.context).unwrap().is_some());
        fs::remove_file(one.store.blob_path(&first.layers[0].digest)).unwrap();
        assert!(one.package().find(&one.store, &one.context).unwrap().is_none(), "a damaged image is built again");
        assert_eq!(one.package().ensure(&one.store, &one.context, &Silent).unwrap(), first);
    }

    #[test]
    fn two_builds_at_once_both_get_the_image() {
        let room = room(FILES);
        let images: Vec<Image> = std::thread::scope(|scope| {
            let build = || room.package().ensure(&room.store, &room.context, &Silent).unwrap();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(build)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(images.iter().all(|image| *image == images[0]));
    }
}
