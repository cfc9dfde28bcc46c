//! Build arguments: what `build.yml`, files and the command line give, and what every Dockerfile can ask for.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::parse::Arguments;
use crate::package::error::io_error;
use crate::package::git::Repository;
use crate::package::{Package, PackageError, PackageOptions, pattern};

/// In front of a value that is made here.
const MADE: &str = "@lkt:";
/// Stands in a name for the image of each package.
const IMAGE_STEM: &str = "%";
/// Longest file of build arguments, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Folders that one `@lkt:pkgs:` may match.
const PACKAGES_MAX: usize = 1024;

/// One `NAME=VALUE`, and the folder that paths in it are relative to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildArgument {
    /// As it is written.
    pub text: String,
    /// The folder of the file that it is in.
    pub folder: PathBuf,
}

impl BuildArgument {
    /// The arguments of a file: one a line; empty lines and comments are passed over.
    ///
    /// Errors: a file that cannot be read, or is longer than a mebibyte.
    pub fn of_file(path: &Path) -> Result<Vec<Self>, PackageError> {
        let failed = |source| io_error("read", path, source);
        let mut text = String::new();
        fs::File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
            .map_err(failed)?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 1 MiB")));
        }
        let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Ok(lines.map(|line| Self { text: line.to_owned(), folder: folder.clone() }).collect())
    }
}

/// All arguments for `package`: its own, then `given`; of one name the last. Then those of the package itself, where
/// nobody gave them: `SOURCE`, `REVISION`, `GOPKGVERSION`, `PKG_HASH`, `PKG_IMAGE`.
pub(super) fn all(package: &Package, given: &[BuildArgument]) -> Result<Arguments, PackageError> {
    let mut arguments = Arguments::new();
    let own = package.recipe.build_args.iter().flatten();
    let own = own.map(|text| BuildArgument { text: text.clone(), folder: package.folder.clone() });
    for argument in own.chain(given.iter().cloned()) {
        for (name, value) in pairs(&argument, &package.folder)? {
            arguments.insert(name, value);
        }
    }
    for (name, value) in facts(package)? {
        if !value.is_empty() {
            arguments.entry(name.to_owned()).or_insert(value);
        }
    }
    Ok(arguments)
}

fn facts(package: &Package) -> Result<Vec<(&'static str, String)>, PackageError> {
    let mut facts = vec![
        ("SOURCE", package.recipe.gitrepo.clone()),
        ("PKG_HASH", package.identity.hash.clone()),
        ("PKG_IMAGE", format!("{}/{}", package.recipe.org(), package.recipe.image)),
    ];
    if let Some(repository) = Repository::around(&package.folder)? {
        if !package.is_dirty() {
            facts.push(("REVISION", repository.head()?));
        }
        facts.push(("GOPKGVERSION", repository.go_version()?));
    }
    Ok(facts)
}

/// The one argument that is written, or all that it is made into.
fn pairs(argument: &BuildArgument, of: &Path) -> Result<Vec<(String, String)>, PackageError> {
    let refuse =
        |fault: String| PackageError::BuildArgument { argument: argument.text.clone(), folder: of.to_owned(), fault };
    let (name, value) = argument.text.split_once('=').ok_or_else(|| refuse("it should be NAME=VALUE".into()))?;
    let (name, value) = (name.trim(), value.trim());
    if name.is_empty() {
        return Err(refuse("it has no name".into()));
    }
    let Some(made) = value.strip_prefix(MADE) else { return Ok(vec![(name.to_owned(), value.to_owned())]) };
    if let Some(folder) = made.strip_prefix("pkg:") {
        let package = load(&argument.folder.join(folder))?;
        return Ok(vec![(name.to_owned(), package.reference().to_owned())]);
    }
    let Some(glob) = made.strip_prefix("pkgs:") else {
        return Err(refuse(format!("`{MADE}` goes with `pkg:FOLDER` or `pkgs:PATTERN`")));
    };
    if !name.contains(IMAGE_STEM) {
        return Err(refuse(format!("its name needs a `{IMAGE_STEM}`, which stands for each package's image")));
    }
    let folders = matches(&argument.folder, glob)?;
    if folders.is_empty() {
        return Err(refuse("no folder fits the pattern".into()));
    }
    if folders.len() > PACKAGES_MAX {
        return Err(refuse(format!("more than {PACKAGES_MAX} folders fit the pattern")));
    }
    let pair = |folder: &PathBuf| {
        let package = load(folder)?;
        let image = format!("{}/{}", package.recipe.org(), package.recipe.image);
        let image = image.replace(['/', '-'], "_").to_uppercase();
        Ok((name.replace(IMAGE_STEM, &image), package.reference().to_owned()))
    };
    folders.iter().map(pair).collect()
}

fn load(folder: &Path) -> Result<Package, PackageError> {
    Package::load_with(folder, &PackageOptions::default())
}

/// Folders that fit `glob`, sorted; hidden ones do not.
fn matches(start: &Path, glob: &str) -> Result<Vec<PathBuf>, PackageError> {
    let mut found = BTreeSet::from([if glob.starts_with('/') { PathBuf::from("/") } else { start.to_owned() }]);
    for part in glob.split('/').filter(|part| !part.is_empty() && *part != ".") {
        let mut next = BTreeSet::new();
        for folder in found {
            if !part.contains(['*', '?']) {
                next.insert(folder.join(part));
                continue;
            }
            let failed = |source| io_error("list", &folder, source);
            for entry in fs::read_dir(&folder).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name();
                let bytes = name.as_encoded_bytes();
                if !bytes.starts_with(b".") && pattern::fits(part.as_bytes(), bytes) {
                    next.insert(folder.join(name));
                }
            }
        }
        found = next.into_iter().filter(|path| path.is_dir()).collect();
    }
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room() -> tempfile::TempDir {
        let room = tempfile::tempdir().unwrap();
        for (name, org) in [("a", "acme"), ("b-c", "x/y"), (".hidden", "h")] {
            let folder = room.path().join("pkg").join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("build.yml"), format!("image: i-{}\norg: {org}\n", name.trim_matches('.'))).unwrap();
        }
        fs::write(room.path().join("pkg/file"), "").unwrap();
        room
    }

    fn with(room: &Path, own: &str, given: &[&str]) -> Result<Arguments, PackageError> {
        let folder = room.join("pkg/a");
        fs::write(folder.join("build.yml"), format!("image: i-a\norg: acme\ngitrepo: g\n{own}")).unwrap();
        let given = given.iter().map(|text| BuildArgument { text: (*text).into(), folder: room.to_owned() });
        all(&load(&folder)?, &given.collect::<Vec<_>>())
    }

    #[test]
    fn what_is_no_argument_is_refused_by_name() {
        let room = room();
        for (argument, expected) in [
            ("A", "NAME=VALUE"),
            ("=b", "no name"),
            ("A=@lkt:thing:x", "`pkg:FOLDER`"),
            ("A=@lkt:pkgs:pkg/*", "needs a `%`"),
            ("%=@lkt:pkgs:none*", "no folder fits"),
            ("A=@lkt:pkg:none", "has no `build.yml`"),
        ] {
            let error = with(room.path(), "", &[argument]).unwrap_err().to_string();
            assert!(error.contains(expected), "{argument}: {error}");
        }
        let long = room.path().join("long");
        fs::File::create(&long).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(matches!(BuildArgument::of_file(&long), Err(PackageError::Io { .. })));
    }

    #[test]
    fn later_ones_win_and_facts_fill_in() {
        let room = room();
        let found = with(room.path(), "buildArgs: [A=1, B=1, SOURCE=s]\n", &["B=2", "C= 3 "]).unwrap();
        let found: Vec<_> = found.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(found, ["A=1", "B=2", "C=3", "PKG_IMAGE=acme/i-a", "SOURCE=s"]);
    }

    #[test]
    fn other_packages_are_named_by_their_references() {
        let room = room();
        let found = with(room.path(), "buildArgs: ['ONE=@lkt:pkg:../b-c']\n", &["%_IMAGE=@lkt:pkgs:./pkg/*"]).unwrap();
        assert_eq!(found["ONE"], "x/y/i-b-c:latest");
        assert_eq!((&*found["ACME_I_A_IMAGE"], &*found["X_Y_I_B_C_IMAGE"]), ("acme/i-a:latest", "x/y/i-b-c:latest"));
        assert!(!found.contains_key("H_I_HIDDEN_IMAGE"));
    }

    #[test]
    fn a_file_has_one_argument_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("args");
        fs::write(&path, "# note\nA=1\n\n  B=2  \n").unwrap();
        let found = BuildArgument::of_file(&path).unwrap();
        assert_eq!(found.iter().map(|argument| argument.text.as_str()).collect::<Vec<_>>(), ["A=1", "B=2"]);
        assert_eq!(found[0].folder, folder.path());
    }
}
