//! What the decoded fields mean, and what one field alone cannot tell: required fields, names, exclusive fields, places.

use std::collections::BTreeMap;

use kiln_abi::{ANNOTATION_AFTER, ANNOTATION_READY, ServicePolicy};
use schemars::JsonSchema;
use serde::{Deserialize, de::IgnoredAny};

use super::decode::shown;
use super::file::{FileContent, FileEntry, MetadataFormat, Volume, VolumeFormat};
use super::parse::{Document, Step};
use super::schema::spellings;
use super::{After, Config, ConfigError, Container, ContainerOptions, Fault, FileMode, Id, InitImage, Kernel, Place};

/// Longest name of a container: its directory `000-NAME` must fit a file name of 255 bytes.
const MAX_NAME_BYTES: usize = 200;

/// The whole file, as serde reads it.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(transform = spellings::<Self>)]
pub(super) struct ConfigFields {
    /// Kernel, its modules and command line.
    kernel: KernelFields,
    /// Images that are unpacked into `/`, in this order.
    init: Vec<String>,
    /// Containers that run one after another at boot; each ends before the next begins.
    onboot: Vec<ContainerOptions>,
    /// Containers that run one after another at shutdown.
    onshutdown: Vec<ContainerOptions>,
    /// Containers that run side by side until shutdown; names are unique.
    services: Vec<ContainerOptions>,
    /// Files that are written into the root, after everything else.
    files: Vec<FileFields>,
    /// Directories that containers share; names are unique.
    volumes: Vec<VolumeFields>,
    /// Content trust of former days; read over.
    #[serde(rename = "trust")]
    #[schemars(with = "Option<serde_json::Value>")]
    _trust: Option<IgnoredAny>,
    /// Files that come before this one: paths relative to it, or URLs.
    include: Vec<String>,
    /// Names that `${NAME}` may stand for in this file's values, with their defaults.
    #[serde(rename = "variables")]
    #[schemars(with = "BTreeMap<String, Option<Plain>>")]
    _variables: Option<BTreeMap<String, Option<String>>>,
}

/// A default as it may be written; it is text all the same.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum Plain {
    Text(String),
    Number(f64),
    Truth(bool),
}

#[derive(Deserialize, Default, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Kernel", transform = spellings::<Self>)]
struct KernelFields {
    /// Image that holds the kernel; without it there is none.
    image: Option<String>,
    /// Words for the kernel.
    cmdline: Option<String>,
    /// The kernel's file in the image; `kernel` if not given.
    binary: Option<String>,
    /// Archive in the image with the modules, unpacked into `/`; `kernel.tar` if not given, `none`: no archive.
    tar: Option<String>,
    /// CPU microcode archive in the image; none if not given.
    ucode: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "File", transform = spellings::<Self>)]
struct FileFields {
    /// Path below the root.
    path: String,
    /// An empty directory.
    #[serde(default)]
    directory: bool,
    /// Target of a symbolic link.
    symlink: Option<String>,
    /// The text.
    contents: Option<String>,
    /// A file of this computer; relative to the current directory; `~/` is your home.
    source: Option<String>,
    /// This configuration, as `yaml` or `json`.
    #[schemars(extend("enum" = ["yaml", "json", "", null]))]
    metadata: Option<String>,
    /// Whether a missing `source` is passed over.
    #[serde(default)]
    optional: bool,
    /// Permission bits: octal digits in quotes; "0600" if not given, "0700" for directories.
    mode: Option<FileMode>,
    /// Owner: a number, or the name of a container for its number.
    uid: Option<Id>,
    /// Group: a number, or the name of a container for its number.
    gid: Option<Id>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Volume", transform = spellings::<Self>)]
struct VolumeFields {
    /// Name: letters a to z, digits, `_` and `-`; unique.
    #[schemars(extend("pattern" = "^[a-z0-9_-]+$"))]
    name: String,
    /// Content; without it the volume is empty.
    image: Option<String>,
    /// Whether containers may only read it.
    #[serde(default)]
    readonly: bool,
    /// `filesystem`: the unpacked image; `oci`: an OCI image layout of it.
    #[schemars(extend("enum" = ["filesystem", "oci", "", null]))]
    format: Option<String>,
    /// Platforms of an `oci` volume, such as `linux/arm64`; all if not given.
    #[serde(default)]
    platforms: Vec<String>,
}

impl Document {
    pub fn config(&self, fields: ConfigFields) -> Result<Config, ConfigError> {
        let ConfigFields { kernel, init, onboot, onshutdown, services, files, volumes, .. } = fields;
        let config = Config {
            kernel: self.kernel(kernel)?,
            init: self.init(init)?,
            onboot: self.containers("onboot", onboot)?,
            onshutdown: self.containers("onshutdown", onshutdown)?,
            services: self.containers("services", services)?,
            files: self.each("files", files, Self::file)?,
            volumes: self.each("volumes", volumes, Self::volume)?,
        };
        self.unique("service", "services", config.services.iter().map(|service| service.name.as_str()))?;
        self.unique("volume", "volumes", config.volumes.iter().map(|volume| volume.name.as_str()))?;
        Ok(config)
    }

    /// What the file includes, and where it says so.
    pub fn includes(&self, fields: &ConfigFields) -> Vec<(String, Place)> {
        let at = |index| self.place(&[Step::Field("include"), Step::Index(index)]);
        fields.include.iter().enumerate().map(|(index, name)| (name.clone(), at(index))).collect()
    }

    fn each<T, U>(
        &self,
        section: &str,
        entries: Vec<T>,
        make: fn(&Self, T, [Step<'_>; 2]) -> Result<U, ConfigError>,
    ) -> Result<Vec<U>, ConfigError> {
        let numbered = entries.into_iter().enumerate();
        numbered.map(|(index, entry)| make(self, entry, [Step::Field(section), Step::Index(index)])).collect()
    }

    fn unique<'a>(
        &self,
        what: &'static str,
        section: &str,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<(), ConfigError> {
        let mut seen = BTreeMap::new();
        for (index, name) in names.enumerate() {
            let path = |index| [Step::Field(section), Step::Index(index), Step::Field("name")];
            if let Some(first) = seen.insert(name, index) {
                let first = Box::new(self.place(&path(first)));
                return Err(self.error(Fault::Duplicate { what, name: name.into(), first }, &path(index)));
            }
        }
        Ok(())
    }

    fn kernel(&self, fields: KernelFields) -> Result<Kernel, ConfigError> {
        let KernelFields { image, cmdline, binary, tar, ucode } = fields;
        let section = Step::Field("kernel");
        let image = image.filter(|reference| !reference.is_empty());
        if let Some(reference) = &image {
            self.reference(reference, &[section, Step::Field("image")])?;
        }
        let given = self.root.get("kernel").is_some();
        let place = match &image {
            Some(_) => Some(self.place(&[section, Step::Field("image")])),
            None => given.then(|| self.place(&[section])),
        };
        if cmdline.as_deref().is_some_and(|words| words.contains('\0')) {
            let text = "the command line holds a zero byte".into();
            return Err(self.error(Fault::Invalid { text }, &[section, Step::Field("cmdline")]));
        }
        Ok(Kernel { image, cmdline, binary, tar, ucode, place })
    }

    fn init(&self, images: Vec<String>) -> Result<Vec<InitImage>, ConfigError> {
        let check = |(index, image): (usize, String)| {
            let path = [Step::Field("init"), Step::Index(index)];
            self.reference(&image, &path)?;
            Ok(InitImage { image, place: self.place(&path) })
        };
        images.into_iter().enumerate().map(check).collect()
    }

    fn containers(&self, section: &str, entries: Vec<ContainerOptions>) -> Result<Vec<Container>, ConfigError> {
        self.each(section, entries, Self::container)
    }

    fn container(&self, mut options: ContainerOptions, path: [Step<'_>; 2]) -> Result<Container, ConfigError> {
        let missing = |field: &str| self.error(Fault::MissingField { field: field.into() }, &path);
        let name = options.name.take().ok_or_else(|| missing("name"))?;
        let image = options.image.take().ok_or_else(|| missing("image"))?;
        let [section, index] = path;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '+');
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            || !name.chars().all(plain)
            || name.len() > MAX_NAME_BYTES
        {
            let text = format!(
                "`{}` cannot be a container's name; use up to {MAX_NAME_BYTES} letters, digits, `_`, `.`, `-` and `+`, \
                 beginning with a letter, digit or `_`",
                shown(&name)
            );
            return Err(self.error(Fault::Invalid { text }, &[section, index, Step::Field("name")]));
        }
        let image_path = [section, index, Step::Field("image")];
        self.reference(&image, &image_path)?;
        self.options(&options, &path)?;
        if !matches!(section, Step::Field("services")) {
            self.runs_once(&options, &path)?;
        }
        let after = self.after(options.after.take().unwrap_or_default(), &path)?;
        let name_place = self.place(&[section, index, Step::Field("name")]);
        Ok(Container { name, image, after, options, place: self.place(&image_path), name_place })
    }

    /// What runs to its end, in the order of its section, has no use for what services have.
    fn runs_once(&self, options: &ContainerOptions, path: &[Step<'_>; 2]) -> Result<(), ConfigError> {
        let given = [
            ("after", options.after.is_some()),
            ("ready", options.ready.is_some()),
            ("restart", options.restart.is_some()),
            ("stopSignal", options.stop_signal.is_some()),
            ("stopTimeout", options.stop_timeout.is_some()),
        ];
        let Some((field, _)) = given.into_iter().find(|(_, given)| *given) else { return Ok(()) };
        let [section, index] = *path;
        let name = if let Step::Field(name) = section { name } else { "" };
        let text = format!(
            "`{field}` is for services only; the containers of `{name}` run once, one after another in the order of the list"
        );
        Err(self.error_at_key(Fault::Invalid { text }, &[section, index], field))
    }

    fn after(&self, names: Vec<String>, [section, index]: &[Step<'_>; 2]) -> Result<Vec<After>, ConfigError> {
        let at = |number| self.place(&[*section, *index, Step::Field("after"), Step::Index(number)]);
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut after = Vec::new();
        for (number, name) in names.into_iter().enumerate() {
            if let Some(first) = seen.insert(name.clone(), number) {
                let fault = Fault::Duplicate { what: "service", name: shown(&name), first: Box::new(at(first)) };
                return Err(ConfigError { fault, place: Box::new(at(number)) });
            }
            after.push(After { name, place: at(number) });
        }
        Ok(after)
    }

    /// What the types of the fields leave open.
    pub fn options(&self, options: &ContainerOptions, path: &[Step<'_>]) -> Result<(), ConfigError> {
        let invalid = |text: String, field| {
            let path = [path, &[Step::Field(field)]].concat();
            Err(self.error(Fault::Invalid { text }, &path))
        };
        if let Some(score) = options.oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
            return invalid(format!("{score} is out of range; use -1000 to 1000"), "oomScoreAdj");
        }
        if let Some(cwd) = options.cwd.as_deref().filter(|cwd| !cwd.is_empty() && !cwd.starts_with('/')) {
            return invalid(format!("`{}` is no absolute path", shown(cwd)), "cwd");
        }
        let numbers = [
            ("uid", options.uid.is_some()),
            ("gid", options.gid.is_some()),
            ("additionalGids", options.additional_gids.is_some()),
        ];
        if let (Some(_), Some((field, _))) = (&options.user, numbers.iter().find(|(_, given)| *given)) {
            return invalid(format!("`user` and `{field}` exclude each other"), field);
        }
        self.annotations(options, path)?;
        for (index, variable) in options.env.iter().flatten().enumerate() {
            if variable.find('=').is_none_or(|name_bytes| name_bytes == 0) {
                let text = format!("`{}` is no variable; write NAME=VALUE", shown(variable));
                let path = [path, &[Step::Field("env"), Step::Index(index)]].concat();
                return Err(self.error(Fault::Invalid { text }, &path));
            }
        }
        Ok(())
    }

    /// Annotations that stand for fields are read by the guest; what it could not read is found here.
    fn annotations(&self, options: &ContainerOptions, path: &[Step<'_>]) -> Result<(), ConfigError> {
        let Some(annotations) = &options.annotations else { return Ok(()) };
        let at = |text: String, key: &str| {
            let path = [path, &[Step::Field("annotations"), Step::Field(key)]].concat();
            Err(self.error(Fault::Invalid { text }, &path))
        };
        for (key, field) in [(ANNOTATION_AFTER, "after"), (ANNOTATION_READY, "ready")] {
            if annotations.contains_key(key) {
                return at(format!("`{key}` is written by the field `{field}`; use that"), key);
            }
        }
        let own = annotations.iter().filter(|(key, _)| key.starts_with("org.kiln."));
        for (key, value) in own {
            let alone = BTreeMap::from([(key.clone(), value.clone())]);
            if let Err(error) = ServicePolicy::from_annotations(&alone) {
                return at(shown(&error.to_string()), key);
            }
        }
        Ok(())
    }

    /// Only what can be no reference at all; its grammar is the registry client's.
    fn reference(&self, reference: &str, path: &[Step<'_>]) -> Result<(), ConfigError> {
        // Also what nobody expanded: `$` and braces are in no reference.
        let fit = |c: char| c.is_ascii_graphic() && !matches!(c, '$' | '{' | '}');
        let is_lost = reference.is_empty() && self.is_linuxkit();
        if !is_lost && (reference.is_empty() || !reference.chars().all(fit)) {
            let hint = if reference.contains("${") { "; a variable must be named under `variables`" } else { "" };
            let text = format!("`{}` is no image reference; write NAME[:TAG][@DIGEST]{hint}", shown(reference));
            return Err(self.error(Fault::Invalid { text }, path));
        }
        Ok(())
    }

    fn file(&self, fields: FileFields, path: [Step<'_>; 2]) -> Result<FileEntry, ConfigError> {
        let FileFields { path: name, directory, symlink, contents, source, metadata, optional, mode, uid, gid } =
            fields;
        let [section, index] = path;
        let invalid =
            |text: String, field: &str| self.error(Fault::Invalid { text }, &[section, index, Step::Field(field)]);
        let metadata = match metadata.as_deref() {
            None | Some("") => None,
            Some("yaml") => Some(MetadataFormat::Yaml),
            Some("json") => Some(MetadataFormat::Json),
            Some(other) => {
                return Err(invalid(format!("`{}` is no metadata format; use yaml or json", shown(other)), "metadata"));
            }
        };
        let some = |field: Option<String>| field.filter(|text| !text.is_empty());
        let mut given = [
            directory.then_some(("directory", FileContent::Directory)),
            some(symlink).map(|target| ("symlink", FileContent::Symlink(target))),
            contents.map(|text| ("contents", FileContent::Contents(text))),
            some(source).map(|host| ("source", FileContent::Source(host))),
            metadata.map(|format| ("metadata", FileContent::Metadata(format))),
        ]
        .into_iter()
        .flatten();
        let Some((first, content)) = given.next() else {
            let text = "the file has no content; give one of contents, source, symlink, directory or metadata".into();
            return Err(self.error(Fault::Invalid { text }, &path));
        };
        if let Some((second, _)) = given.next() {
            return Err(invalid(format!("`{first}` and `{second}` exclude each other"), second));
        }
        let inside = root_path(&name).ok_or_else(|| {
            invalid(format!("`{}` is no path in the root; write it without `..`", shown(&name)), "path")
        })?;
        Ok(FileEntry { path: inside, content, written_mode: mode, uid, gid, optional, place: self.place(&path) })
    }

    fn volume(&self, fields: VolumeFields, path: [Step<'_>; 2]) -> Result<Volume, ConfigError> {
        let VolumeFields { name, image, readonly, format, platforms } = fields;
        let [section, index] = path;
        let plain = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-');
        if name.is_empty() || !name.chars().all(plain) || name.len() > MAX_NAME_BYTES {
            let name = shown(&name);
            let text = format!("`{name}` cannot be a volume's name; use letters a to z, digits, `_` and `-`");
            return Err(self.error(Fault::Invalid { text }, &[section, index, Step::Field("name")]));
        }
        let format = match format.as_deref() {
            None | Some("" | "filesystem") => VolumeFormat::Filesystem,
            Some("oci") => VolumeFormat::Oci,
            Some(other) => {
                let text = format!("`{}` is no volume format; use filesystem or oci", shown(other));
                return Err(self.error(Fault::Invalid { text }, &[section, index, Step::Field("format")]));
            }
        };
        let image = image.filter(|reference| !reference.is_empty());
        let image_path = [section, index, Step::Field("image")];
        let place = match &image {
            Some(reference) => {
                self.reference(reference, &image_path)?;
                self.place(&image_path)
            }
            None => self.place(&path),
        };
        let name_place = self.place(&[section, index, Step::Field("name")]);
        Ok(Volume { name, image, readonly, format, platforms, place, name_place })
    }
}

/// `path` relative to the root, without empty and `.` parts. [`None`] if it has a `..` or zero byte, or names the root.
fn root_path(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let fit = !parts.is_empty() && !parts.contains(&"..") && !path.contains('\0');
    fit.then(|| parts.join("/"))
}
