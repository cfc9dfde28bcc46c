//! The Cargo workspace that a package is in: where it is, and what the programs of one crate are made from.
//!
//! Read from `Cargo.toml` and `Cargo.lock`, so that a package's hash needs no cargo.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::PackageError;

/// Files of the root that decide how everything is compiled, besides the tables of its `Cargo.toml`.
const TOOLCHAIN_FILES: [&str; 3] = ["rust-toolchain.toml", "rust-toolchain", ".cargo/config.toml"];

/// A workspace.
#[derive(Debug)]
pub(super) struct Workspace {
    /// The folder of its `Cargo.toml`.
    pub root: PathBuf,
    manifest: Table,
}

/// What one crate's programs are made from.
#[derive(Debug, Default)]
pub(super) struct Ingredients {
    /// Folders of the crate and of the workspace's crates that it needs, sorted.
    pub folders: BTreeSet<PathBuf>,
    /// Everything else, as text: locked crates, features, profiles, toolchain.
    pub facts: String,
}

impl Workspace {
    /// The workspace whose root is `folder` or the nearest folder above it with one.
    ///
    /// Errors: [`PackageError::NoWorkspace`]; [`PackageError::Manifest`] for a damaged `Cargo.toml` on the way.
    pub fn above(folder: &Path) -> Result<Self, PackageError> {
        let start = fs::canonicalize(folder).map_err(|source| super::error::io_error("open", folder, source))?;
        for root in start.ancestors() {
            let path = root.join("Cargo.toml");
            if !path.is_file() {
                continue;
            }
            let manifest = read(&path)?;
            if manifest.contains_key("workspace") {
                return Ok(Self { root: root.to_owned(), manifest });
            }
        }
        Err(PackageError::NoWorkspace { folder: folder.to_owned() })
    }

    /// What the crate `name` is made from when it is built with `profile`.
    ///
    /// Errors: [`PackageError::NoCrate`] if the workspace has none of that name.
    pub fn ingredients(&self, name: &str, profile: &str) -> Result<Ingredients, PackageError> {
        let members = self.members()?;
        let lock = read(&self.root.join("Cargo.lock"))?;
        let locked: Vec<&Table> =
            lock.get("package").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_table).collect();
        if !members.contains_key(name) {
            return Err(PackageError::NoCrate { name: name.into(), root: self.root.clone() });
        }
        let mut facts = BTreeSet::from([format!("profile {profile}\n")]);
        let mut folders = BTreeSet::new();
        let mut todo = vec![name.to_owned()];
        let mut seen = BTreeSet::new();
        while let Some(wanted) = todo.pop() {
            if !seen.insert(wanted.clone()) {
                continue;
            }
            let mut words = wanted.split(' ');
            let (name, version) = (words.next().unwrap_or_default(), words.next());
            for entry in locked.iter().filter(|entry| is(entry, name, version)) {
                let needs = entry.get("dependencies").and_then(Value::as_array).into_iter().flatten();
                todo.extend(needs.filter_map(Value::as_str).map(String::from));
                if entry.contains_key("source") {
                    facts.insert(format!("crate {}\n", text(entry)));
                } else if let Some(folder) = members.get(name) {
                    folders.insert(folder.clone());
                }
                if let Some(features) = self.table("workspace").and_then(|table| table.get("dependencies")?.get(name)) {
                    facts.insert(format!("workspace {name} {features}\n"));
                }
            }
        }
        facts.extend(self.common_facts()?);
        Ok(Ingredients { folders, facts: facts.into_iter().collect() })
    }

    fn common_facts(&self) -> Result<Vec<String>, PackageError> {
        let mut facts = Vec::new();
        for key in ["profile", "patch"] {
            facts.extend(self.manifest.get(key).map(|table| format!("{key} {table}\n")));
        }
        facts.extend(
            self.table("workspace").and_then(|table| table.get("package")).map(|table| format!("package {table}\n")),
        );
        for name in TOOLCHAIN_FILES {
            let path = self.root.join(name);
            if path.is_file() {
                let content =
                    fs::read_to_string(&path).map_err(|source| super::error::io_error("read", &path, source))?;
                facts.push(format!("{name} {content}\n"));
            }
        }
        Ok(facts)
    }

    fn table(&self, key: &str) -> Option<&Table> {
        self.manifest.get(key).and_then(Value::as_table)
    }

    /// Folders of the member crates by the crates' names.
    fn members(&self) -> Result<BTreeMap<String, PathBuf>, PackageError> {
        let listed = self.table("workspace").and_then(|table| table.get("members")).and_then(Value::as_array);
        let mut members = BTreeMap::new();
        for pattern in listed.into_iter().flatten().filter_map(Value::as_str) {
            for folder in self.expand(pattern)? {
                let manifest = read(&folder.join("Cargo.toml"))?;
                let name = manifest.get("package").and_then(|package| package.get("name")).and_then(Value::as_str);
                members.extend(name.map(|name| (name.to_owned(), folder)));
            }
        }
        Ok(members)
    }

    /// A member's folder, or of `folder/*` all folders in it that have a `Cargo.toml`.
    fn expand(&self, pattern: &str) -> Result<Vec<PathBuf>, PackageError> {
        let Some(parent) = pattern.strip_suffix("/*") else { return Ok(vec![self.root.join(pattern)]) };
        let parent = self.root.join(parent);
        let failed = |source| super::error::io_error("list", &parent, source);
        let mut folders = Vec::new();
        for entry in fs::read_dir(&parent).map_err(failed)? {
            let folder = entry.map_err(failed)?.path();
            if folder.join("Cargo.toml").is_file() {
                folders.push(folder);
            }
        }
        Ok(folders)
    }
}

fn is(entry: &Table, name: &str, version: Option<&str>) -> bool {
    let field = |key: &str| entry.get(key).and_then(Value::as_str);
    field("name") == Some(name) && version.is_none_or(|version| field("version") == Some(version))
}

fn text(entry: &Table) -> String {
    let field = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
    format!("{} {} {}", field("name"), field("version"), field("checksum"))
}

fn read(path: &Path) -> Result<Table, PackageError> {
    let text = fs::read_to_string(path).map_err(|source| super::error::io_error("read", path, source))?;
    text.parse().map_err(|source| PackageError::Manifest { path: path.to_owned(), source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "Cargo.toml",
            "[workspace]\nmembers = [\"a\", \"more/*\"]\n[workspace.dependencies]\nx = \"1\"\ny = \"1\"\n",
        );
        write("a/Cargo.toml", "[package]\nname = \"a\"\n");
        write("a/build.yml", "image: a\n");
        write("more/b/Cargo.toml", "[package]\nname = \"b\"\n");
        write("more/c/Cargo.toml", "[package]\nname = \"c\"\n");
        write(
            "Cargo.lock",
            "[[package]]\nname = \"a\"\nversion = \"0\"\ndependencies = [\"b\", \"x 1.0.0\"]\n\
             [[package]]\nname = \"b\"\nversion = \"0\"\n[[package]]\nname = \"c\"\nversion = \"0\"\ndependencies = [\"y\"]\n\
             [[package]]\nname = \"x\"\nversion = \"1.0.0\"\nsource = \"r\"\nchecksum = \"cx\"\n\
             [[package]]\nname = \"x\"\nversion = \"2.0.0\"\nsource = \"r\"\nchecksum = \"cx2\"\n\
             [[package]]\nname = \"y\"\nversion = \"1.0.0\"\nsource = \"r\"\nchecksum = \"cy\"\n",
        );
        root
    }

    #[test]
    fn a_folder_outside_of_any_workspace_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Workspace::above(folder.path()), Err(PackageError::NoWorkspace { .. })));
    }

    #[test]
    fn a_crate_is_made_from_what_it_needs_and_nothing_else() {
        let root = workspace();
        let workspace = Workspace::above(&root.path().join("a")).unwrap();
        assert!(matches!(workspace.ingredients("z", "release"), Err(PackageError::NoCrate { .. })));
        let found = workspace.ingredients("a", "release").unwrap();
        let folders: Vec<_> = found.folders.iter().map(|f| f.strip_prefix(&workspace.root).unwrap()).collect();
        assert_eq!(folders, [Path::new("a"), Path::new("more/b")]);
        assert!(
            found.facts.contains("crate x 1.0.0 cx\n") && found.facts.contains("profile release"),
            "{}",
            found.facts
        );
        assert!(!found.facts.contains("cx2") && !found.facts.contains("cy"), "{}", found.facts);
    }

    #[test]
    fn the_toolchain_and_the_profile_are_ingredients() {
        let root = workspace();
        let facts = |profile: &str| Workspace::above(root.path()).unwrap().ingredients("a", profile).unwrap().facts;
        let before = facts("release");
        assert_ne!(before, facts("dev"));
        fs::write(root.path().join("rust-toolchain.toml"), "[toolchain]\n").unwrap();
        assert_ne!(before, facts("release"));
    }
}
