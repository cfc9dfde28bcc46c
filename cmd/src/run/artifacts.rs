//! From a name to the files that a build left under it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use kiln_run::config::Boot;

use crate::failure::Failure;

/// Longest command line that is read. x86's kernel takes 2048 bytes, others some more.
const CMDLINE_BYTES: u64 = 64 * 1024;

/// What the user said about what to boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Prefix of the files.
    pub name: Option<PathBuf>,
    /// `-kernel`.
    pub kernel: Option<PathBuf>,
    /// `-initrd`.
    pub initrd: Option<PathBuf>,
    /// `-cmdline`.
    pub cmdline: Option<String>,
}

/// Why there is nothing to boot.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Files are not there.
    #[error("nothing to boot: {}", missing_files(.0))]
    Missing(Vec<PathBuf>),
    /// A file is there and cannot be read.
    #[error("cannot read `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A folder stands where a file should.
    #[error("`{}` is a folder, not a file to boot", .0.display())]
    Folder(PathBuf),
    /// The command line cannot be one.
    #[error("`{}` holds no kernel command line: it is longer than {CMDLINE_BYTES} bytes or no text", .0.display())]
    NoCmdline(PathBuf),
}

fn missing_files(files: &[PathBuf]) -> String {
    let names: Vec<_> = files.iter().map(|path| format!("`{}`", path.display())).collect();
    format!("{} {} not there", names.join(" and "), if files.len() == 1 { "is" } else { "are" })
}

/// Finds and opens, once, everything that is to be booted. A `NAME-cmdline` may be missing: a build leaves none that is
/// empty.
pub fn find(asked: &Asked) -> Result<Boot, Failure> {
    let named = |suffix: &str| asked.name.as_deref().map(|name| with_suffix(name, suffix));
    let kernel = asked.kernel.clone().or_else(|| named("-kernel"));
    let initrd = asked.initrd.clone().or_else(|| named("-initrd.img"));
    let files: Vec<&PathBuf> = kernel.iter().chain(&initrd).collect();
    let missing: Vec<PathBuf> = files.iter().filter(|path| !path.exists()).map(|path| (*path).clone()).collect();
    if !missing.is_empty() {
        return Err(Failure::new(ArtifactError::Missing(missing)).hints(way_to(asked)));
    }
    files.into_iter().try_for_each(|path| readable(path))?;
    let cmdline = match (&asked.cmdline, named("-cmdline")) {
        (Some(given), _) => given.clone(),
        (None, Some(path)) => read_cmdline(&path)?,
        (None, None) => String::new(),
    };
    // The command line parser insists on a name or a kernel.
    let kernel = kernel.ok_or(ArtifactError::Missing(vec![]))?;
    Ok(Boot::Linux { kernel, initrd, cmdline })
}

/// `demo/minimal` and `-kernel` make `demo/minimal-kernel`.
pub fn with_suffix(name: &Path, suffix: &str) -> PathBuf {
    let mut path = name.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// What the user most likely has to do, told from what is there instead.
fn way_to(asked: &Asked) -> Option<String> {
    let name = asked.name.as_deref()?;
    let is_yaml = |path: &Path| path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml");
    if is_yaml(name) {
        let built = name.with_extension("");
        return Some(format!("`kiln build {}` first, then `kiln run {}`", name.display(), stem(&built)));
    }
    if name.is_file() {
        return Some(format!("`{}` itself is a file; disk images and ISOs cannot be booted yet", name.display()));
    }
    let yaml = ["", "examples/"]
        .iter()
        .flat_map(|folder| ["yml", "yaml"].map(|ending| format!("{folder}{}.{ending}", stem(name))))
        .find(|path| Path::new(path).is_file());
    let yaml = yaml.unwrap_or_else(|| format!("{}.yml", name.display()));
    Some(format!("`kiln build {yaml}` makes them; `kiln run --help` tells what is looked for"))
}

fn stem(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn readable(path: &Path) -> Result<(), ArtifactError> {
    let unreadable = |source| ArtifactError::Unreadable { path: path.into(), source };
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_dir() { Err(ArtifactError::Folder(path.into())) } else { Ok(()) }
}

fn read_cmdline(path: &Path) -> Result<String, ArtifactError> {
    let unreadable = |source| ArtifactError::Unreadable { path: path.into(), source };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        opened => opened.map_err(unreadable)?,
    };
    let mut bytes = Vec::new();
    file.take(CMDLINE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let too_long = bytes.len() as u64 > CMDLINE_BYTES;
    let text = String::from_utf8(bytes).ok().filter(|text| !too_long && !text.contains('\0'));
    Ok(text.ok_or_else(|| ArtifactError::NoCmdline(path.into()))?.trim_end_matches(['\n', '\r']).to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn named(folder: &Path) -> Asked {
        Asked { name: Some(folder.join("vm")), ..Asked::default() }
    }

    #[test]
    fn all_missing_files_are_named_at_once_with_the_command_that_makes_them() {
        let folder = tempfile::tempdir().unwrap();
        let failure = find(&named(folder.path())).unwrap_err();
        let text = failure.error.to_string();
        assert!(text.contains("vm-kernel` and `") && text.contains("vm-initrd.img` are not there"), "{text}");
        assert!(failure.hints.first().is_some_and(|hint| hint.contains("kiln build")), "{:?}", failure.hints);
        assert_eq!(failure.status, 1);
    }

    #[test]
    fn a_folder_and_a_command_line_that_is_no_text_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("vm-kernel")).unwrap();
        fs::write(folder.path().join("vm-initrd.img"), "i").unwrap();
        assert!(find(&named(folder.path())).unwrap_err().error.to_string().contains("is a folder"));
        fs::remove_dir(folder.path().join("vm-kernel")).unwrap();
        fs::write(folder.path().join("vm-kernel"), "k").unwrap();
        fs::write(folder.path().join("vm-cmdline"), b"\xff").unwrap();
        assert!(find(&named(folder.path())).unwrap_err().error.to_string().contains("vm-cmdline"));
    }

    #[test]
    fn flags_win_over_what_the_name_stands_for() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["vm-kernel", "vm-initrd.img", "other"] {
            fs::write(folder.path().join(file), "x").unwrap();
        }
        let found = |asked: Asked| {
            let Boot::Linux { kernel, initrd, cmdline } = find(&asked).unwrap();
            let file = |path: PathBuf| stem(&path);
            (file(kernel), initrd.map(file), cmdline)
        };
        assert_eq!(found(named(folder.path())), ("vm-kernel".into(), Some("vm-initrd.img".into()), String::new()));
        fs::write(folder.path().join("vm-cmdline"), "console=ttyS0\n").unwrap();
        let other = Some(folder.path().join("other"));
        let asked = Asked { kernel: other.clone(), ..named(folder.path()) };
        assert_eq!(found(asked), ("other".into(), Some("vm-initrd.img".into()), "console=ttyS0".into()));
        let asked = Asked { kernel: other, cmdline: Some("quiet".into()), ..Asked::default() };
        assert_eq!(found(asked), ("other".into(), None, "quiet".into()));
    }
}
