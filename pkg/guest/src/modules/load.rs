//! Loading modules into the kernel.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::alias;
use super::dependency::{Dependencies, normal};
use crate::cmdline::Cmdline;

/// Flag of finit_module(2): the kernel unpacks the file itself (Linux 5.17, `CONFIG_MODULE_DECOMPRESS`).
const MODULE_INIT_COMPRESSED_FILE: i32 = 4;

/// A module that did not load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// depmod's files are missing.
    #[error("cannot read `{}`: the image has no modules for this kernel, or depmod was not run", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nothing is called like that.
    #[error("there is no module `{module}`")]
    Unknown {
        /// What was asked for.
        module: String,
    },
    /// The module's file is missing or the kernel does not want it.
    #[error("cannot load module `{module}`")]
    Module {
        /// Its name.
        module: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Loads modules of the running kernel.
#[derive(Debug)]
pub struct Loader {
    folder: PathBuf,
    loaded: HashSet<String>,
    blacklist: HashSet<String>,
    parameters: Vec<(String, String)>,
}

impl Loader {
    /// A loader for `/lib/modules/RELEASE`, with parameters and blacklist from the kernel's command line.
    #[must_use]
    pub fn new(release: &str, cmdline: &Cmdline) -> Self {
        Self {
            folder: Path::new("/lib/modules").join(release),
            loaded: HashSet::new(),
            blacklist: cmdline.list("modprobe.blacklist").map(normal).collect(),
            parameters: cmdline.module_parameters().map(|(module, text)| (normal(module), text.to_owned())).collect(),
        }
    }

    /// Adds a parameter, `NAME=VALUE`, for a module that is not loaded yet.
    pub fn parameter(&mut self, module: &str, text: &str) {
        self.parameters.push((normal(module), text.to_owned()));
    }

    /// Those of `names` that are neither a module, nor an alias of one, nor built into the kernel.
    ///
    /// # Errors
    /// [`LoadError::Index`] when depmod's files cannot be read.
    pub fn unknown(&self, names: &[&str]) -> Result<Vec<String>, LoadError> {
        let dep_file = self.read("modules.dep")?;
        let alias_file = self.read("modules.alias").unwrap_or_default();
        let builtin_file = self.read("modules.builtin").unwrap_or_default();
        let modules = Dependencies::parse(&dep_file, "");
        // The same format, less what stands behind the colon.
        let builtin_file = builtin_file.replace('\n', ":\n");
        let builtin = Dependencies::parse(&builtin_file, "");
        let is_known = |name: &str| {
            modules.knows(name) || builtin.knows(name) || !alias::matching(&alias_file, &[name]).is_empty()
        };
        Ok(names.iter().filter(|name| !is_known(name)).map(|name| (*name).to_owned()).collect())
    }

    fn read(&self, file: &str) -> Result<String, LoadError> {
        let path = self.folder.join(file);
        fs::read(&path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .map_err(|source| LoadError::Index { path, source })
    }

    /// Whether the image has modules at all.
    #[must_use]
    pub fn has_modules(&self) -> bool {
        self.folder.join("modules.dep").exists()
    }

    /// Loads what `names` stand for: modules, or aliases of modules (then those on the blacklist are left out).
    /// Returns how many modules were added, and what failed; names that mean nothing are passed over.
    ///
    /// # Errors
    /// [`LoadError::Index`] when depmod's files cannot be read.
    pub fn load(&mut self, names: &[&str]) -> Result<(usize, Vec<LoadError>), LoadError> {
        let dep_file = self.read("modules.dep")?;
        let softdep_file = self.read("modules.softdep").unwrap_or_default();
        let alias_file = self.read("modules.alias").unwrap_or_default();
        let dependencies = Dependencies::parse(&dep_file, &softdep_file);

        let (direct, other): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| dependencies.knows(name));
        let by_alias = alias::matching(&alias_file, &other);
        let by_alias = by_alias.into_iter().filter(|module| !self.blacklist.contains(&normal(module)));
        let wanted: Vec<&str> = direct.into_iter().chain(by_alias).collect();

        let mut added = 0;
        let mut failures = Vec::new();
        for (module, path) in wanted.iter().flat_map(|module| dependencies.order(module)) {
            if !self.loaded.insert(module.clone()) {
                continue;
            }
            match self.insert(&module, path) {
                Ok(true) => added += 1,
                Ok(false) => {}
                Err(source) => failures.push(LoadError::Module { module, source }),
            }
        }
        Ok((added, failures))
    }

    /// Loads one file; false if the kernel has the module already.
    fn insert(&self, module: &str, path: &str) -> io::Result<bool> {
        let file = File::open(self.folder.join(path))?;
        let parameters: Vec<&str> =
            self.parameters.iter().filter(|(name, _)| name == module).map(|(_, text)| text.as_str()).collect();
        let parameters = CString::new(parameters.join(" ")).unwrap_or_default();
        let flags = if path.ends_with(".ko") { 0 } else { MODULE_INIT_COMPRESSED_FILE };
        match rustix::system::finit_module(&file, &parameters, flags) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::EXIST) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}
