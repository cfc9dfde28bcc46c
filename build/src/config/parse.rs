//! The ways in: text to tree to fields, which `check` makes a [`Config`] of.

use std::error::Error;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::check::ConfigFields;
use super::decode::shown;
use super::node::{self, Node};
use super::order;
use super::place::{Mark, Origin};
use super::variables::{self, Variables};
use super::{Config, ConfigError, ContainerOptions, Fault, LABEL, Place, Source};
use crate::compat::Compat;

/// Longest configuration that is read.
pub const MAX_TEXT_BYTES: usize = 16 << 20;
/// Longest label that is read: a registry's word, not the user's.
const MAX_LABEL_BYTES: usize = 1 << 20;
/// What a value begins with that stands for the image a package folder builds.
const PACKAGE: &str = "@pkg:";

/// The first character of a text.
const START: Mark = Mark { line: 1, column: 0, width: 1 };

/// Why a package folder has no image.
pub type PackageError = Box<dyn Error + Send + Sync>;

/// Reads one configuration. Each value `@pkg:DIR` becomes what `packages` answers for `DIR`.
///
/// # Errors
/// The first fault, with its place: see [`Fault`].
pub fn parse(
    source: Source<'_>,
    packages: &mut dyn FnMut(&str) -> Result<String, PackageError>,
) -> Result<Config, ConfigError> {
    let (document, _) = Document::read_with_variables(source, &|_| None, Compat::Right, packages)?;
    let fields: ConfigFields = document.decode()?;
    if let Some((_, place)) = document.includes(&fields).into_iter().next() {
        let text = "nothing can be included here".into();
        return Err(ConfigError { fault: Fault::Invalid { text }, place: Box::new(place) });
    }
    document.config(fields)
}

/// Reads an image's label `org.mobyproject.config`: JSON or YAML, the fields of a container without name and image.
///
/// # Errors
/// As of [`parse`]; the place names `image`.
pub fn parse_label(text: &str, image: &str) -> Result<ContainerOptions, ConfigError> {
    let name = format!("label {LABEL} of {image}");
    let source = Source { name: &name, text };
    let document = Document::read(source, MAX_LABEL_BYTES, &mut |folder| Ok(format!("{PACKAGE}{folder}")))?;
    let options: ContainerOptions = document.decode()?;
    let given =
        [("name", options.name.is_some()), ("image", options.image.is_some()), ("after", options.after.is_some())];
    for (field, given) in given {
        if given {
            let text = format!("field `{field}` cannot be set in a label");
            return Err(document.error(Fault::Invalid { text }, &[Step::Field(field)]));
        }
    }
    document.options(&options, &[])?;
    Ok(options)
}

/// Reads YAML of another kind, such as a package's `build.yml`, with the same faults and places. `@pkg:` means nothing
/// in it.
///
/// # Errors
/// The first fault, with its place: see [`Fault`].
pub fn decode<T: DeserializeOwned>(source: Source<'_>) -> Result<T, ConfigError> {
    Document::read(source, MAX_LABEL_BYTES, &mut |folder| Ok(format!("{PACKAGE}{folder}")))?.decode()
}

/// Joins several configurations: the kernel's fields override one by one, lists are appended.
///
/// # Errors
/// [`Fault::Duplicate`] for a service or volume name that two of them have; `after` that names no service or goes in a
/// circle.
pub fn merge(configs: impl IntoIterator<Item = Config>) -> Result<Config, ConfigError> {
    let mut all = Config::default();
    for config in configs {
        let Config { kernel, init, onboot, onshutdown, services, files, volumes } = config;
        all.kernel.override_with(kernel);
        all.init.extend(init);
        all.onboot.extend(onboot);
        all.onshutdown.extend(onshutdown);
        all.services.extend(services);
        all.files.extend(files);
        all.volumes.extend(volumes);
    }
    unique("service", all.services.iter().map(|service| (service.name.as_str(), &service.name_place)))?;
    unique("volume", all.volumes.iter().map(|volume| (volume.name.as_str(), &volume.name_place)))?;
    order::check(&all)?;
    Ok(all)
}

fn unique<'a>(what: &'static str, names: impl Iterator<Item = (&'a str, &'a Place)>) -> Result<(), ConfigError> {
    let mut seen = std::collections::BTreeMap::new();
    for (name, place) in names {
        if let Some(first) = seen.insert(name, place) {
            let fault = Fault::Duplicate { what, name: name.into(), first: Box::new(first.clone()) };
            return Err(ConfigError { fault, place: Box::new(place.clone()) });
        }
    }
    Ok(())
}

/// A step from a value to one of its parts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'a> {
    Field(&'a str),
    Index(usize),
}

/// The tree together with its source, to make places from.
pub(super) struct Document {
    pub root: Node,
    origin: Origin,
    compat: Compat,
}

impl Document {
    fn read(
        source: Source<'_>,
        limit: usize,
        packages: &mut dyn FnMut(&str) -> Result<String, PackageError>,
    ) -> Result<Self, ConfigError> {
        if source.text.len() > limit {
            let origin = Origin::new(Source { name: source.name, text: "" });
            let fault = Fault::TooLong { bytes: source.text.len(), limit };
            return Err(ConfigError { fault, place: Box::new(origin.place(START, String::new())) });
        }
        let text = source.text.strip_prefix('\u{feff}').unwrap_or(source.text);
        let origin = Origin::new(Source { name: source.name, text });
        Self::of(origin, text, (&Variables::default(), Compat::Right), packages)
    }

    /// Reads a file with its variables; `given` gives the values that come from outside. The text is read once, and once
    /// more if it has variables or packages.
    pub fn read_with_variables(
        source: Source<'_>,
        given: &dyn Fn(&str) -> Option<String>,
        compat: Compat,
        packages: &mut dyn FnMut(&str) -> Result<String, PackageError>,
    ) -> Result<(Self, Variables), ConfigError> {
        let plain = Self::read(source, MAX_TEXT_BYTES, &mut |folder| Ok(format!("{PACKAGE}{folder}")))?;
        let wrong =
            |(fault, mark)| ConfigError { fault, place: Box::new(plain.origin.place(mark, variables::SECTION.into())) };
        let variables = Variables::of(&plain.root, given).map_err(wrong)?;
        if variables.is_empty() && !source.text.contains(PACKAGE) && !compat.is_linuxkit() {
            return Ok((plain, variables));
        }
        let text = source.text.strip_prefix('\u{feff}').unwrap_or(source.text);
        Ok((Self::of(plain.origin, text, (&variables, compat), packages)?, variables))
    }

    fn of(
        origin: Origin,
        text: &str,
        (variables, compat): (&Variables, Compat),
        packages: &mut dyn FnMut(&str) -> Result<String, PackageError>,
    ) -> Result<Self, ConfigError> {
        let mut replace = |value: &str| {
            let Some(folder) = value.strip_prefix(PACKAGE) else {
                // To LinuxKit it is a template of no kind that it knows.
                return Ok((compat.is_linuxkit() && value.starts_with('@')).then(String::new));
            };
            let answer = packages(folder).map(Some);
            answer.map_err(|source| Fault::Package { folder: shown(folder), source })
        };
        let root = node::read(text, variables, &mut replace)
            .map_err(|(fault, mark)| ConfigError { fault, place: Box::new(origin.place(mark, String::new())) })?;
        Ok(Self { root, origin, compat })
    }

    /// Whether values may have got lost.
    pub fn is_linuxkit(&self) -> bool {
        self.compat.is_linuxkit()
    }

    pub fn decode<'de, T: Deserialize<'de>>(&'de self) -> Result<T, ConfigError> {
        if matches!(self.root.value, node::Value::Null) {
            let place = Box::new(self.origin.place(START, String::new()));
            return Err(ConfigError { fault: Fault::Empty, place });
        }
        T::deserialize(&self.root).map_err(|error| {
            let place = self.origin.place(error.mark.unwrap_or(self.root.mark), error.field());
            let mut fault = error.fault;
            if let (Fault::WrongType { found, quote: true, .. }, Some(written)) = (&mut fault, place.text()) {
                // As it is written: `0644` and not its value.
                *found = format!("`{}`", shown(&written));
            }
            ConfigError { fault, place: Box::new(place) }
        })
    }

    /// The place of the value at `path`; of the last part that exists, if not all does.
    pub fn place(&self, path: &[Step<'_>]) -> Place {
        let mut node = &self.root;
        let mut field = String::new();
        for step in path {
            match step {
                Step::Field(name) if field.is_empty() => field.push_str(name),
                Step::Field(name) => field.extend([".", name]),
                Step::Index(index) => field.push_str(&format!("[{index}]")),
            }
            let part = match step {
                Step::Field(name) => node.get(name),
                Step::Index(index) => node.item(*index),
            };
            node = part.unwrap_or(node);
        }
        self.origin.place(node.mark, field)
    }

    /// The fault is that the key `field` of the mapping at `path` is there at all.
    pub fn error_at_key(&self, fault: Fault, path: &[Step<'_>], field: &str) -> ConfigError {
        let node = path.iter().fold(&self.root, |node, step| {
            let part = match step {
                Step::Field(name) => node.get(name),
                Step::Index(index) => node.item(*index),
            };
            part.unwrap_or(node)
        });
        let place = self.place(path);
        let key = node.entry(field).map(|(key, _)| self.origin.place(key.mark, place.field().into()));
        ConfigError { fault, place: Box::new(key.unwrap_or(place)) }
    }

    pub fn error(&self, fault: Fault, path: &[Step<'_>]) -> ConfigError {
        ConfigError { fault, place: Box::new(self.place(path)) }
    }
}
