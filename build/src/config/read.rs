//! Several texts to one configuration: variables, included files, and everything joined.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Component, Path, PathBuf};

use super::decode::shown;
use super::parse::{Document, MAX_TEXT_BYTES};
use super::{Config, ConfigError, Fault, PackageError, Source, merge};
use crate::compat::Compat;

/// Longest chain of files that include each other.
const MAX_INCLUDE_DEPTH: usize = 16;
/// Most files of one configuration.
const MAX_FILES: usize = 256;
/// Most text of all files of one configuration.
const MAX_ALL_BYTES: usize = 4 * MAX_TEXT_BYTES;

/// One YAML text, and what it is called in messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlSource {
    /// As the user named it: a path, a URL, or `-`.
    pub name: String,
    /// All of it.
    pub text: String,
    /// What `@pkg:` folders and included files are relative to; `None` for standard input and URLs.
    pub folder: Option<PathBuf>,
}

/// Reads the file that the source includes by this name.
pub type IncludeReader<'a> = dyn Fn(&YamlSource, &str) -> Result<YamlSource, Box<dyn Error + Send + Sync>> + 'a;
/// The image reference of the package folder that the source names after `@pkg:`.
pub type PackageReader<'a> = dyn Fn(&YamlSource, &str) -> Result<String, PackageError> + 'a;

/// The value of an environment variable.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// What a configuration takes from outside of its text. Without one of them, what needs it is an error.
#[derive(Default, Clone)]
pub struct ReadOptions<'a> {
    /// For `@pkg:`.
    pub packages: Option<&'a PackageReader<'a>>,
    /// For `include:`.
    pub include: Option<&'a IncludeReader<'a>>,
    /// Values of variables that a file declares; they win over all others.
    pub set: BTreeMap<String, String>,
    /// Environment variables.
    pub environment: Option<&'a Environment<'a>>,
    /// Whose reading of odd values is wanted.
    pub compat: Compat,
}

/// A configuration, and what came up while it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadConfig {
    /// All files joined.
    pub config: Config,
    /// Names of all variables that any of the files declares.
    pub variables: BTreeSet<String>,
    /// How many volumes, from the end on, are of the last file.
    pub last_volumes: usize,
}

/// Reads and joins `sources` with all that they include. What a file includes comes before the file itself.
///
/// # Errors
/// The first fault, with its place: see [`Fault`].
pub fn read(sources: &[YamlSource], options: &ReadOptions<'_>) -> Result<ReadConfig, ConfigError> {
    let mut reader = Reader { options, files: 0, bytes: 0, configs: Vec::new(), variables: BTreeSet::new() };
    for source in sources {
        reader.read(source, &mut Vec::new(), &BTreeMap::new())?;
    }
    let last_volumes = reader.configs.last().map_or(0, |config| config.volumes.len());
    Ok(ReadConfig { config: merge(reader.configs)?, variables: reader.variables, last_volumes })
}

struct Reader<'a> {
    options: &'a ReadOptions<'a>,
    files: usize,
    bytes: usize,
    configs: Vec<Config>,
    variables: BTreeSet<String>,
}

impl Reader<'_> {
    /// Reads `source`. `above` are the files that lead to it, `inherited` the values of their variables.
    fn read(
        &mut self,
        source: &YamlSource,
        above: &mut Vec<String>,
        inherited: &BTreeMap<String, String>,
    ) -> Result<(), ConfigError> {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(source.text.len());
        let options = self.options;
        let mut packages = |folder: &str| match options.packages {
            Some(packages) => packages(source, folder),
            None => Err("packages cannot be built here".into()),
        };
        let text = Source { name: &source.name, text: &source.text };
        let values = |name: &str| {
            let environment = || options.environment.and_then(|environment| environment(name));
            options.set.get(name).cloned().or_else(environment).or_else(|| inherited.get(name).cloned())
        };
        let (document, variables) = Document::read_with_variables(text, &values, options.compat, &mut packages)?;
        let fields = document.decode()?;
        let includes = document.includes(&fields);
        let config = document.config(fields)?;
        self.variables.extend(variables.names().map(str::to_owned));
        above.push(identity(&source.name));
        for (name, place) in includes {
            let refuse = |text: String| ConfigError { fault: Fault::Invalid { text }, place: Box::new(place.clone()) };
            if above.len() >= MAX_INCLUDE_DEPTH {
                return Err(refuse(format!("files include each other deeper than {MAX_INCLUDE_DEPTH} levels")));
            }
            if self.files >= MAX_FILES || self.bytes > MAX_ALL_BYTES {
                return Err(refuse(format!("more than {MAX_FILES} files, or more than {MAX_ALL_BYTES} bytes of them")));
            }
            let reader = self.options.include.ok_or_else(|| refuse("nothing can be included here".into()))?;
            let included = reader(source, &name).map_err(|cause| ConfigError {
                fault: Fault::Include { file: shown(&name), source: cause },
                place: Box::new(place.clone()),
            })?;
            if let Some(start) = above.iter().position(|file| *file == identity(&included.name)) {
                let around = above[start..].iter().chain([&above[start]]).map(|file| shown(file)).collect::<Vec<_>>();
                return Err(refuse(format!("files include each other: {}", around.join(" includes "))));
            }
            self.read(&included, above, variables.values())?;
        }
        above.pop();
        self.configs.push(config);
        Ok(())
    }
}

/// `name` without `.` and `..`, so that two ways to write one path are one file.
fn identity(name: &str) -> String {
    if name.contains("://") {
        return name.into();
    }
    let mut path = PathBuf::new();
    for part in Path::new(name).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(path.components().next_back(), Some(Component::Normal(_))) => {
                path.pop();
            }
            part => path.push(part),
        }
    }
    path.to_string_lossy().into_owned()
}

/// A variable given from outside that no file declares.
#[derive(Debug, thiserror::Error)]
#[error("no file has `{name}` under `variables`{}", known(.declared))]
pub struct UnknownVariable {
    /// Its name.
    pub name: String,
    /// Names that are declared.
    pub declared: Vec<String>,
}

fn known(declared: &[String]) -> String {
    if declared.is_empty() { String::new() } else { format!("; there are {}", declared.join(", ")) }
}

impl ReadConfig {
    /// Whether each variable of `set` is declared somewhere: a value that changes nothing is a mistake.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check_set(&self, set: &BTreeMap<String, String>) -> Result<(), UnknownVariable> {
        let unknown = set.keys().find(|name| !self.variables.contains(*name));
        let declared = || self.variables.iter().take(20).cloned().collect();
        unknown.map_or(Ok(()), |name| Err(UnknownVariable { name: name.clone(), declared: declared() }))
    }
}

#[cfg(test)]
mod tests;
