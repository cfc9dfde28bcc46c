//! The whole way from YAML to files, joined.

mod former;
mod software;
mod timing;

use std::error::Error;
use std::io::{self, BufWriter};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::assemble::{self, AssembleError, Ingredients, Roots, SourceFiles, VolumeLayouts};
use crate::bundle::{self, Bundle, BundleError, Manner};
use crate::cache::Cache;
use crate::cancel::{Cancel, Cancelled};
use crate::compat::Compat;
use crate::config::{
    self, Config, ConfigError, ImageReference, MetadataFormat, ReadConfig, ReadOptions, UnknownVariable,
};
use crate::format::boot::Signer;
use crate::format::root::RootOn;
use crate::format::{
    self, ErofsCompression, FileSink, Format, FormatError, Material, Options, Packing, Part, SquashfsOptions,
    StreamSink, Threads, Watch,
};
use crate::layer::{ArchiveFault, LayerError, LayerLimits, UnpackedLayers, Unpacking};
use crate::oci::{DamagedBlob, Layer, Platform, Reference, Store, StoreError};
use crate::output::{OutputError, Outputs, Stamp};
use crate::plan::{self, ImageUse, Plan, PlanError, Pull, PullOptions};
use crate::progress::{Progress, Silent};
use crate::tree::{DamagedSpool, Spool, Tree};

pub use crate::config::YamlSource;
use former::Former;
pub use former::FormerError;
use software::Listing;
pub use software::SbomError;
pub use timing::Phase;
use timing::Timer;

/// 2017-04-18T16:30:00Z: the time that LinuxKit gives to what a build generates.
pub const DEFAULT_SOURCE_DATE_S: i64 = 1_492_533_000;

/// Where a build puts its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// `FOLDER/NAME-kernel`, `FOLDER/NAME.tar` and so on. The folder is made if it is missing.
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What all names start with.
        name: String,
    },
    /// One format to one file of exactly this name.
    File(PathBuf),
    /// One format to standard output.
    Stdout,
}

/// Turns the folder of `@pkg:FOLDER` (already joined to its YAML's) into an image reference, building the package if it must.
pub type PackageResolver<'a> = dyn Fn(&Path) -> Result<String, Box<dyn Error + Send + Sync>> + Sync + 'a;

/// What to build, and where.
pub struct BuildRequest<'a> {
    /// Merged in this order. At least one.
    pub sources: Vec<YamlSource>,
    /// Where the outputs go.
    pub destination: Destination,
    /// What to write; for a stream or one file exactly one that [is a stream](Format::is_stream).
    pub formats: Vec<Format>,
    /// Go's name of the architecture: `amd64`, `arm64`.
    pub architecture: String,
    /// The content store's folder.
    pub store: PathBuf,
    /// What relative `source:` paths of `files:` are relative to.
    pub working_folder: PathBuf,
    /// What `~/` in them means, if that is known.
    pub home_folder: Option<PathBuf>,
    /// Time of everything that the build generates, in seconds since 1970: `SOURCE_DATE_EPOCH`, or [`DEFAULT_SOURCE_DATE_S`].
    pub source_date_s: i64,
    /// Stops the build; nothing is left behind.
    pub cancel: Cancel,
    /// When and how registries are asked. Its own cancel flag is not looked at.
    pub pull: PullOptions,
    /// For `@pkg:`; without it such an image is an error.
    pub packages: Option<&'a PackageResolver<'a>>,
    /// What the YAML takes from outside of its text; its own `packages` is not looked at.
    pub yaml: ReadOptions<'a>,
    /// Whose result is wanted.
    pub compat: Compat,
    /// Whether a packed kernel is unpacked.
    pub decompress_kernel: bool,
    /// The tar of a former build of this configuration.
    pub input_tar: Option<PathBuf>,
    /// Size of disk images, in bytes.
    pub disk_bytes: u64,
    /// What the root is on disk images that take one on a partition of its own; `None` for a root in RAM.
    pub disk_root: Option<RootOn>,
    /// Whether a root on a disk is checked by dm-verity.
    pub verity: bool,
    /// Who signs EFI programs, if they are to be signed.
    pub secure_boot: Option<Signer>,
    /// How EROFS images are compressed.
    pub erofs: ErofsCompression,
    /// How a squashfs is packed.
    pub squashfs: SquashfsOptions,
    /// The software bill of materials, if one is wanted.
    pub sbom: Option<SbomRequest>,
}

/// Where the software bill of materials goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SbomRequest {
    /// Its path in the root.
    pub path: String,
    /// The time that it names, in seconds since 1970.
    pub created_s: i64,
}

/// What a build left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The outputs, in the order they are named in the help. Empty for standard output.
    pub files: Vec<PathBuf>,
    /// Nothing had changed since these files were written, so they were left as they are.
    pub up_to_date: bool,
    /// Where the time went, one step after another.
    pub phases: Vec<Phase>,
}

/// Why there is no build. Its cause, if it has one, is the source.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The YAML is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The YAML cannot be written again.
    #[error("cannot write the configuration as YAML")]
    Yaml(#[source] serde_json::Error),
    /// A value for a variable that no file has.
    #[error(transparent)]
    Variable(#[from] UnknownVariable),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An image cannot be had.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A container cannot be made.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A layer cannot be unpacked.
    #[error("cannot unpack image `{image}`")]
    Layer {
        /// The first image that has it, as written.
        image: String,
        /// Which layer, and why.
        #[source]
        source: LayerError,
    },
    /// An unpacked layer cannot be read back.
    #[error("cannot read an unpacked layer")]
    Unpacked(#[source] io::Error),
    /// The tree cannot be put together.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// The software bill of materials has no place.
    #[error(transparent)]
    Sbom(#[from] SbomError),
    /// A file does not fit into the format.
    #[error("cannot make {format}")]
    Format {
        /// Which.
        format: Format,
        /// Why.
        #[source]
        source: FormatError,
    },
    /// Two formats have the same name for what is not the same.
    #[error("`{first}` and `{second}` both write `{file}`; build one of them with another `--name` or `--dir`")]
    SameFile {
        /// The one that was named first.
        first: Format,
        /// The other.
        second: Format,
        /// The file's name.
        file: String,
    },
    /// The tar of a former build is of no use.
    #[error(transparent)]
    Former(#[from] FormerError),
    /// An output cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
    /// No format that is one file was asked for.
    #[error("one output takes one format that is one file, such as `tar`")]
    NotOneFile,
    /// Somebody cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Builds. On an error nothing is left behind, and files of a former build are as they were. What turns out to be damaged
/// in the cache or in the store is made or fetched again, once each.
pub fn build(request: &BuildRequest<'_>, progress: &dyn Progress) -> Result<Built, BuildError> {
    check_destination(request)?;
    let mut cache = Cache::in_store(&request.store);
    let mut mended = [false; 2];
    loop {
        let error = match build_once(request, &cache, progress) {
            Ok(built) => {
                cache.trim();
                return Ok(built);
            }
            Err(error) => error,
        };
        match damage(&error) {
            Some(Damage::Cache) if !mended[0] => {
                progress.note("an unpacked layer in the cache is damaged; unpacking it again");
                // One that is read-only stays damaged.
                cache = Cache::none();
                mended[0] = true;
            }
            Some(Damage::Blob(blob)) if !mended[1] && request.pull.pull != Pull::Never => {
                progress.note(&format!(
                    "blob {} in `{}` is damaged; getting it anew",
                    blob.digest,
                    blob.path.display()
                ));
                mended[1] = true;
            }
            _ => return Err(error),
        }
    }
}

/// What can be mended: whoever found the damage removed it.
enum Damage<'a> {
    Cache,
    Blob(&'a DamagedBlob),
}

fn damage(error: &BuildError) -> Option<Damage<'_>> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let carried = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
        if carried.is_some_and(|carried| carried.is::<DamagedSpool>()) {
            return Some(Damage::Cache);
        }
        cause = error.source();
    }
    damaged_blob(error).map(Damage::Blob)
}

/// The blob that was damaged. The store has removed it by now, so that the next look finds that it is missing.
fn damaged_blob(error: &BuildError) -> Option<&DamagedBlob> {
    let BuildError::Layer { source: LayerError { fault: ArchiveFault::Read(error), .. }, .. } = error else {
        return None;
    };
    let error = error.get_ref()?;
    error.downcast_ref().or_else(|| match error.downcast_ref()? {
        StoreError::Damaged { source, .. } => Some(&**source),
        _ => None,
    })
}

fn build_once(request: &BuildRequest<'_>, cache: &Cache, progress: &dyn Progress) -> Result<Built, BuildError> {
    let timer = Timer::new(progress);
    let ReadConfig { config, last_volumes, .. } = read(request)?;
    let former = Former::read(request, &config)?;
    timer.lap("config");
    let store = Store::open(&request.store)?.like(request.compat);
    let plan = pin(request, &config, &store, &timer)?;
    let layouts = volumes::pin(request, &config, &store, &timer)?;
    timer.lap("pin");
    let manner = match request.compat {
        Compat::Right => Manner::default(),
        Compat::Linuxkit => {
            let alone = former.as_ref().map(|former| former.copied(&config, &plan)).unwrap_or_default();
            Manner { compat: request.compat, alone, first_volume: config.volumes.len() - last_volumes }
        }
    };
    let bundles = bundle::bundles(&config, &manner, |written| plan.image(written))?;
    let scratch = &scratch(request);
    let sources = read_sources(request, &config, scratch)?;

    let lists = software::stated(request, &plan, &store, &timer)?;

    let mut stamp = stamp(request, &config, &plan, &sources);
    lists.add_to(&mut stamp);
    for blob in layouts.values().flat_map(|layout| &layout.blobs) {
        stamp.add("blob", blob.digest.to_string().as_bytes());
    }
    let known = up_to_date(request, &stamp);
    timer.lap("check");
    if let Some(files) = known {
        return Ok(Built { files, up_to_date: true, phases: timer.into_phases() });
    }
    let layers = unpack(request, &plan, &store, (cache, scratch), &timer)?;
    timer.lap("unpack");
    if request.destination == Destination::Stdout {
        // What is written cannot be taken back.
        layers.check().map_err(BuildError::Unpacked)?;
    }
    let layouts = VolumeLayouts::read(layouts, &store, scratch, &request.cancel)?;
    let listing = lists.listing(request, &timer);
    let bundles = users::look_up(bundles, &config, &manner, &plan, &layers)?;
    let mut tree = assemble((request, scratch), &config, &plan, &bundles, &layers, (&sources, &layouts), &listing)?;
    if let Some(former) = former.filter(|_| request.compat.is_linuxkit()) {
        former.put_cmdline(&config, &plan, &mut tree)?;
    }
    listing.put(&mut tree, &plan)?;
    timer.lap("assemble");
    let packing = Packing { threads: Threads::of_machine(), cache };
    let options = options(request);
    let material = Material::new(&tree, &options, packing);
    check_bootable(request, &material, scratch, &timer)?;
    let files = write(request, &material, scratch, &timer)?;
    keep_stamp(request, &stamp, &files, progress);
    timer.lap("commit");
    Ok(Built { files, up_to_date: false, phases: timer.into_phases() })
}

fn check_destination(request: &BuildRequest<'_>) -> Result<(), BuildError> {
    match (&request.destination, &request.formats[..]) {
        (Destination::Folder { .. }, _) => Ok(()),
        (_, [format]) if format.is_stream() => Ok(()),
        _ => Err(BuildError::NotOneFile),
    }
}

/// The YAML that is built, with everything joined, included and filled in. Building this text gives the same result.
///
/// # Errors
/// [`BuildError::Config`], [`BuildError::Variable`].
pub fn resolved_yaml(request: &BuildRequest<'_>) -> Result<String, BuildError> {
    read(request)?.config.metadata(MetadataFormat::Yaml, str::to_owned).map_err(BuildError::Yaml)
}

/// The reference in full, as LinuxKit's templates give it.
fn full(reference: String) -> String {
    reference.parse::<Reference>().map_or(reference, |full| full.to_string())
}

fn read(request: &BuildRequest<'_>) -> Result<ReadConfig, BuildError> {
    let packages = |source: &YamlSource, written: &str| {
        if source.folder.is_none() && source.name.contains("://") {
            return Err("a YAML from a URL has no folder beside it; use the package's image".into());
        }
        let folder = source.folder.as_deref().unwrap_or(&request.working_folder).join(written);
        match request.packages {
            Some(resolve) => match resolve(&folder) {
                // LinuxKit leaves it as text.
                Err(_) if request.compat.is_linuxkit() => Ok(format!("@pkg:{written}")),
                resolved => resolved.map(full),
            },
            None => Err(Box::from("packages cannot be built here")),
        }
    };
    let options = ReadOptions { packages: Some(&packages), compat: request.compat, ..request.yaml.clone() };
    let read = config::read(&request.sources, &options)?;
    read.check_set(&options.set)?;
    Ok(read)
}

fn pin(
    request: &BuildRequest<'_>,
    config: &Config,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Plan, BuildError> {
    request.cancel.check()?;
    let image_use = |used: ImageReference<'_>| ImageUse {
        reference: used.reference.into(),
        place: format!("{}: {}", used.place, used.role),
    };
    let uses: Vec<_> = config
        .image_references()
        .into_iter()
        .filter(|used| !volumes::is_layout(config, used.role))
        .map(image_use)
        .collect();
    let options = PullOptions { cancel: request.cancel.clone(), ..request.pull.clone() };
    Ok(plan::pin(&uses, &Platform::linux(&request.architecture), store, &options, progress)?)
}

fn read_sources(request: &BuildRequest<'_>, config: &Config, scratch: &Path) -> Result<SourceFiles, AssembleError> {
    let roots = Roots { working_folder: &request.working_folder, home_folder: request.home_folder.as_deref() };
    SourceFiles::read(config, roots, scratch, &request.cancel)
}

/// Everything that the outputs depend on.
fn stamp(request: &BuildRequest<'_>, config: &Config, plan: &Plan, sources: &SourceFiles) -> Stamp {
    let mut stamp = Stamp::default();
    stamp.add("kiln", env!("CARGO_PKG_VERSION").as_bytes());
    stamp.add("destination", format!("{:?}", request.destination).as_bytes());
    stamp.add("working folder", request.working_folder.as_os_str().as_bytes());
    stamp.add("formats", format!("{:?}", request.formats).as_bytes());
    stamp.add("sbom", format!("{:?}", request.sbom).as_bytes());
    stamp.add("source date", &request.source_date_s.to_le_bytes());
    let manner = (request.decompress_kernel, &request.input_tar, options(request));
    stamp.add("manner", format!("{manner:?}").as_bytes());
    stamp.add("config", format!("{config:?}").as_bytes());
    for (written, image) in plan.images() {
        stamp.add("image", format!("{written} {} {}", image.reference, image.manifest).as_bytes());
    }
    for (index, digest) in sources.digests() {
        stamp.add("source", format!("{index} {digest}").as_bytes());
    }
    stamp
}

fn up_to_date(request: &BuildRequest<'_>, stamp: &Stamp) -> Option<Vec<PathBuf>> {
    match request.destination {
        Destination::Stdout => None,
        // It may be another one under the same name.
        _ if request.input_tar.is_some() => None,
        Destination::Folder { .. } | Destination::File(_) => stamp.outputs(&request.store),
    }
}

/// Where contents go while the build works: the store, or, if that is read-only, beside the outputs.
fn scratch(request: &BuildRequest<'_>) -> PathBuf {
    if Spool::create(&request.store).is_ok() {
        return request.store.clone();
    }
    let beside = match &request.destination {
        Destination::Folder { folder, .. } => Some(folder.as_path()),
        Destination::File(path) => path.parent(),
        Destination::Stdout => None,
    };
    let beside = request.working_folder.join(beside.unwrap_or(Path::new("")));
    beside.ancestors().find(|folder| folder.is_dir()).map_or(request.store.clone(), Into::into)
}

fn unpack(
    request: &BuildRequest<'_>,
    plan: &Plan,
    store: &Store,
    (cache, folder): (&Cache, &Path),
    progress: &dyn Progress,
) -> Result<UnpackedLayers, BuildError> {
    let mut layers: Vec<Layer> = plan.images().flat_map(|(_, image)| image.layers.clone()).collect();
    layers.sort_by_key(|layer| layer.digest);
    layers.dedup_by_key(|layer| layer.digest);
    let packed_bytes = layers.iter().map(|layer| layer.size_bytes).sum();
    let meter = progress.begin("unpack layers", Some(packed_bytes));
    let limits = LayerLimits::default();
    let unpacking = Unpacking { folder, cache, limits: &limits, cancel: &request.cancel, meter: meter.as_ref() };
    let open = |layer: &Layer| store.open_layer(layer).map_err(io::Error::other);
    UnpackedLayers::unpack(layers, open, &unpacking).map_err(|error| match error.fault {
        ArchiveFault::Cancelled(cancelled) => cancelled.into(),
        _ => {
            let mut images = plan.images();
            let image = images.find(|(_, image)| image.layers.iter().any(|layer| layer.digest == error.digest));
            BuildError::Layer { image: image.map(|(written, _)| written.to_owned()).unwrap_or_default(), source: error }
        }
    })
}

fn assemble(
    (request, folder): (&BuildRequest<'_>, &Path),
    config: &Config,
    plan: &Plan,
    bundles: &[Bundle],
    layers: &UnpackedLayers,
    (sources, layouts): (&SourceFiles, &VolumeLayouts),
    listing: &Listing<'_>,
) -> Result<Tree, AssembleError> {
    assemble::assemble(&Ingredients {
        config,
        plan,
        bundles,
        layers,
        layouts,
        sources,
        folder,
        limits: &LayerLimits::default(),
        source_date_s: request.source_date_s,
        on_unpacked: &|unpacked| listing.add(unpacked),
        compat: request.compat,
        decompress_kernel: request.decompress_kernel,
        cancel: &request.cancel,
    })
}

fn options(request: &BuildRequest<'_>) -> Options {
    Options {
        compat: request.compat,
        architecture: request.architecture.clone(),
        disk_bytes: request.disk_bytes,
        disk_root: request.disk_root,
        verity: request.verity,
        secure_boot: request.secure_boot.clone(),
        erofs: request.erofs,
        squashfs: request.squashfs.clone(),
    }
}

fn check_bootable(
    request: &BuildRequest<'_>,
    material: &Material<'_>,
    scratch: &Path,
    progress: &dyn Progress,
) -> Result<(), BuildError> {
    let watch = Watch { cancel: &request.cancel, meter: &Silent, folder: scratch };
    let checked = format::check(&request.formats, material, watch, &|line| progress.note(line));
    checked.map_err(|(format, error)| match error {
        FormatError::Cancelled(cancelled) => cancelled.into(),
        source => BuildError::Format { format, source },
    })
}

fn write(
    request: &BuildRequest<'_>,
    material: &Material<'_>,
    scratch: &Path,
    timer: &Timer<'_>,
) -> Result<Vec<PathBuf>, BuildError> {
    match &request.destination {
        Destination::Folder { folder, name } => {
            let mut outputs = Outputs::begin(folder)?;
            for (format, part, file) in all_parts(request, material, name)? {
                Writing { request, material, scratch, timer, format, part }.to_file(&file, &mut outputs)?;
            }
            request.cancel.check()?;
            Ok(outputs.commit()?)
        }
        Destination::File(path) => {
            let (format, part) = only_part(request, material.tree)?;
            let name = path.file_name().and_then(|name| name.to_str()).ok_or(BuildError::NotOneFile)?;
            let mut outputs = Outputs::begin(path.parent().unwrap_or(Path::new("")))?;
            Writing { request, material, scratch, timer, format, part }.to_file(name, &mut outputs)?;
            request.cancel.check()?;
            Ok(outputs.commit()?)
        }
        Destination::Stdout => {
            let (format, part) = only_part(request, material.tree)?;
            Writing { request, material, scratch, timer, format, part }.to_stdout()?;
            Ok(Vec::new())
        }
    }
}

/// The parts of all formats and their files. What several hold, such as the kernel, is written once; of two that would be
/// one file, the one that has another name for such cases gets it.
fn all_parts(
    request: &BuildRequest<'_>,
    material: &Material<'_>,
    name: &str,
) -> Result<Vec<(Format, Part, String)>, BuildError> {
    let parts = |format: &Format| format.parts(material.tree).into_iter().chain(format.root_parts(material));
    let wanted: Vec<(Format, Part)> =
        request.formats.iter().flat_map(|format| parts(format).map(|part| (*format, part))).collect();
    let mut all: Vec<(Format, Part, String)> = Vec::new();
    for &(format, part) in &wanted {
        let file = part.file_name(name);
        let clashes = wanted.iter().any(|(_, other)| *other != part && other.file_name(name) == file);
        let file = part.own_name(name).filter(|_| clashes).unwrap_or(file);
        match all.iter().find(|(_, _, known)| *known == file) {
            None => all.push((format, part, file)),
            Some((_, known, _)) if *known == part => {}
            Some(&(first, ..)) => return Err(BuildError::SameFile { first, second: format, file }),
        }
    }
    Ok(all)
}

fn only_part(request: &BuildRequest<'_>, tree: &Tree) -> Result<(Format, Part), BuildError> {
    let [format] = request.formats[..] else { return Err(BuildError::NotOneFile) };
    let [part] = format.parts(tree)[..] else { return Err(BuildError::NotOneFile) };
    Ok((format, part))
}

/// One part on its way out.
struct Writing<'a> {
    request: &'a BuildRequest<'a>,
    material: &'a Material<'a>,
    scratch: &'a Path,
    timer: &'a Timer<'a>,
    format: Format,
    part: Part,
}

impl Writing<'_> {
    fn to_file(&self, name: &str, outputs: &mut Outputs) -> Result<(), BuildError> {
        let needed_bytes = self.part.content_bytes(self.material.tree);
        let meter = self.timer.begin(&format!("write {name}"), Some(needed_bytes));
        let watch = Watch { cancel: &self.request.cancel, meter: meter.as_ref(), folder: self.scratch };
        let mut sink = FileSink::new(outputs.create(name, needed_bytes)?);
        self.part.write(self.material, &mut sink, watch).map_err(|error| match error {
            FormatError::Io(error) => outputs.failed(error).into(),
            other => self.failed(other),
        })?;
        let file = sink.finish().map_err(|error| outputs.failed(error))?;
        self.timer.lap(&format!("write {name}"));
        outputs.complete(&file)?;
        self.timer.lap(&format!("sync {name}"));
        Ok(())
    }

    fn to_stdout(&self) -> Result<(), BuildError> {
        let content_bytes = self.part.content_bytes(self.material.tree);
        let meter = self.timer.begin("write standard output", Some(content_bytes));
        let watch = Watch { cancel: &self.request.cancel, meter: meter.as_ref(), folder: self.scratch };
        let mut sink = StreamSink(BufWriter::with_capacity(256 << 10, io::stdout().lock()));
        self.part.write(self.material, &mut sink, watch).map_err(|error| match error {
            FormatError::Io(error) => BuildError::Stdout(error),
            other => self.failed(other),
        })?;
        self.timer.lap("write standard output");
        Ok(())
    }

    fn failed(&self, error: FormatError) -> BuildError {
        match error {
            FormatError::Cancelled(cancelled) => cancelled.into(),
            source => BuildError::Format { format: self.format, source },
        }
    }
}

fn keep_stamp(request: &BuildRequest<'_>, stamp: &Stamp, files: &[PathBuf], progress: &dyn Progress) {
    if files.is_empty() {
        return;
    }
    if let Err(error) = stamp.keep(&request.store, files) {
        progress.note(&format!("the next build will do everything again: no stamp could be written: {error}"));
    }
}

mod users;
mod volumes;

#[cfg(test)]
mod tests;
