//! From a name to the files that a build left under it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::names::with_suffix;
use super::roots::{self, RootFiles, RootForm};
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
    /// `-squashfs` and its like.
    pub root: Option<RootForm>,
}

/// What there is to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initial RAM disk, if there is one.
    pub initrd: Option<PathBuf>,
    /// The command line.
    pub cmdline: String,
    /// The root, where it is a disk of its own: the machine's first.
    pub root: Option<PathBuf>,
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
/// empty. A root on a disk is taken when it is asked for, when NAME is its file, or when there is no whole initrd.
pub fn find(asked: &Asked) -> Result<Found, Failure> {
    let of_file = asked.name.as_deref().filter(|_| asked.kernel.is_none()).and_then(roots::of_file);
    let (name, form) = match of_file {
        Some((name, form)) if asked.root.is_none_or(|root| root == form) => (Some(name), Some(form)),
        _ => (asked.name.clone(), asked.root),
    };
    let named = |suffix: &str| name.as_deref().map(|name| with_suffix(name, suffix));
    let whole = asked.initrd.clone().or_else(|| named("-initrd.img"));
    let root = name.as_deref().and_then(|name| root(name, form, whole.as_deref()));
    let kernel = asked.kernel.clone().or_else(|| named("-kernel"));
    let initrd = match &root {
        None => whole,
        Some(root) => asked.initrd.clone().or_else(|| Some(root.initrd.clone()).filter(|initrd| initrd.exists())),
    };
    let disk = root.as_ref().map(|root| root.disk.clone());
    let files: Vec<&PathBuf> = kernel.iter().chain(&initrd).chain(&disk).collect();
    let missing: Vec<PathBuf> = files.iter().filter(|path| !path.exists()).map(|path| (*path).clone()).collect();
    if !missing.is_empty() {
        return Err(Failure::new(ArtifactError::Missing(missing)).hints(way_to(asked, root.as_ref())));
    }
    files.into_iter().try_for_each(|path| readable(path))?;
    let own = root.as_ref().map(|root| root.cmdline.clone()).filter(|path| path.exists());
    let cmdline = match (&asked.cmdline, own.or_else(|| named("-cmdline"))) {
        (Some(given), _) => given.clone(),
        (None, Some(path)) => read_cmdline(&path)?,
        (None, None) => String::new(),
    };
    let cmdline = root.as_ref().map_or(cmdline.clone(), |root| root.form.with_root(&cmdline));
    // The command line parser insists on a name or a kernel.
    let kernel = kernel.ok_or(ArtifactError::Missing(vec![]))?;
    Ok(Found { kernel, initrd, cmdline, root: disk })
}

/// The root that a build called `name` has on a disk, if that is what to boot.
fn root(name: &Path, form: Option<RootForm>, whole_initrd: Option<&Path>) -> Option<RootFiles> {
    match form {
        Some(form) => Some(form.files(name)),
        None if whole_initrd.is_some_and(Path::exists) => None,
        None => RootForm::ALL.into_iter().map(|form| form.files(name)).find(|files| files.disk.is_file()),
    }
}

/// What the user most likely has to do, told from what is there instead.
fn way_to(asked: &Asked, root: Option<&RootFiles>) -> Option<String> {
    let name = asked.name.as_deref()?;
    let is_yaml = |path: &Path| path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml");
    if is_yaml(name) {
        let built = name.with_extension("");
        return Some(format!("`kiln build {}` first, then `kiln run {}`", name.display(), stem(&built)));
    }
    if name.is_file() {
        let text = format!(
            "`{}` is booted with the kernel beside it, as `-format kernel+squashfs` and its like leave it; nothing on it boots by itself",
            name.display()
        );
        return Some(text);
    }
    let format = root.map(|root| match root.form {
        RootForm::Squashfs => " -format kernel+squashfs",
        RootForm::Erofs => " -format kernel+erofs",
        RootForm::Iso => " -format kernel+iso",
    });
    let format = format.unwrap_or_default();
    let yaml = ["", "examples/"]
        .iter()
        .flat_map(|folder| ["yml", "yaml"].map(|ending| format!("{folder}{}.{ending}", stem(name))))
        .find(|path| Path::new(path).is_file());
    let yaml = yaml.unwrap_or_else(|| format!("{}.yml", name.display()));
    Some(format!("`kiln build{format} {yaml}` makes them; `kiln run --help` tells what is looked for"))
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
            let Found { kernel, initrd, cmdline, .. } = find(&asked).unwrap();
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

    #[test]
    fn a_root_that_is_asked_for_and_missing_is_named_with_its_format() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("vm-kernel"), "k").unwrap();
        fs::write(folder.path().join("vm-initrd.img"), "i").unwrap();
        let failure = find(&Asked { root: Some(RootForm::Erofs), ..named(folder.path()) }).unwrap_err();
        assert!(failure.error.to_string().contains("vm-erofs.img` is not there"), "{}", failure.error);
        assert!(failure.hints[0].contains("-format kernel+erofs"), "{:?}", failure.hints);
    }

    #[test]
    fn a_root_on_a_disk_is_found_where_there_is_no_whole_initrd() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let found = |asked: Asked| {
            let Found { initrd, cmdline, root, .. } = find(&asked).unwrap();
            (initrd.map(|path| stem(&path)), cmdline, root.map(|path| stem(&path)))
        };
        let squashfs = Some("vm-squashfs.img".to_owned());
        write("vm-kernel", "k");
        write("vm-cmdline", "quiet");
        write("vm-squashfs.img", "s");
        write("vm.iso", "s");
        let plain = "quiet root=/dev/vda rootfstype=squashfs ro";
        assert_eq!(found(named(folder.path())), (None, plain.into(), squashfs.clone()));
        let by_file = Asked { name: Some(folder.path().join("vm.iso")), ..Asked::default() };
        assert_eq!(found(by_file).2, Some("vm.iso".into()));
        write("vm-squashfs-cmdline", "quiet root=/dev/vda roothash=1");
        write("vm-squashfs-initrd.img", "i");
        let own =
            (Some("vm-squashfs-initrd.img".to_owned()), "quiet root=/dev/vda roothash=1".into(), squashfs.clone());
        assert_eq!(found(named(folder.path())), own);
        write("vm-initrd.img", "i");
        assert_eq!(found(named(folder.path())), (Some("vm-initrd.img".into()), "quiet".into(), None));
        assert_eq!(found(Asked { root: Some(RootForm::Squashfs), ..named(folder.path()) }), own);
        let given = Asked { root: Some(RootForm::Iso), cmdline: Some(String::new()), ..named(folder.path()) };
        assert_eq!(found(given).1, "root=/dev/vda rootfstype=iso9660 ro");
    }
}
