//! `sysctl [FILE…]`: sets `NAME = VALUE` of every file in `/etc/sysctl.d`, in the order of their names (sysctl.d(5)). What
//! cannot be set is named, and the rest is set. `sysfs [FILE…]` is the same for `/etc/sysfs.d` and `/sys`, whose names have
//! slashes (sysfsutils' sysfs.conf(5)).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::{Failure, Voice};

/// Where settings come from, and where they go.
#[derive(Debug, Clone, Copy)]
struct Kind {
    folder: &'static str,
    top: &'static str,
    /// Whether dots are parts' own, wherever they stand.
    only_slashes: bool,
}

const SYSCTL: Kind = Kind { folder: "/etc/sysctl.d", top: "/proc/sys", only_slashes: false };
const SYSFS: Kind = Kind { folder: "/etc/sysfs.d", top: "/sys", only_slashes: true };
/// Longest name of a setting in parts; the kernel's have at most six.
const DEPTH_LIMIT: usize = 16;

/// A line that is not done.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("no `=` in `{0}`")]
    NoValue(String),
    #[error("`{0}` is no name of a setting")]
    Name(String),
    #[error("no setting is called `{0}`")]
    Nothing(String),
    #[error("cannot set {name} to {value}")]
    Set {
        name: String,
        value: String,
        #[source]
        source: io::Error,
    },
}

/// One line that sets something.
#[derive(Debug, PartialEq, Eq)]
struct Setting {
    /// Parts of the path below `/proc/sys`; with `*`, `?` in them they are patterns.
    parts: Vec<String>,
    /// As it is written, for messages.
    name: String,
    value: String,
    /// Not a word if it cannot be set.
    quiet: bool,
}

/// Runs the program. It succeeds whatever could be set, as LinuxKit's does.
///
/// # Errors
/// None.
pub fn run(arguments: &[String], say: Voice<'_>) -> Result<(), Failure> {
    all(arguments, SYSCTL, say);
    Ok(())
}

/// The same for the settings of devices and drivers.
///
/// # Errors
/// None.
pub fn run_for_sysfs(arguments: &[String], say: Voice<'_>) -> Result<(), Failure> {
    all(arguments, SYSFS, say);
    Ok(())
}

fn all(arguments: &[String], kind: Kind, say: Voice<'_>) {
    let files = match arguments {
        [] => files(Path::new(kind.folder)),
        some => some.iter().map(PathBuf::from).collect(),
    };
    for file in files {
        apply(&file, kind, Path::new(kind.top), say);
    }
}

/// The files of a folder in the order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    files
}

fn apply(file: &Path, kind: Kind, top: &Path, say: Voice<'_>) {
    let shown = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
    let text = match fs::read(file) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return say(&format!("{shown}: {error}")),
    };
    for (number, line) in text.lines().enumerate() {
        let done = match parse(line, kind) {
            Ok(None) => continue,
            Ok(Some(setting)) => set(&setting, top),
            Err(error) => vec![error],
        };
        for error in done {
            say(&format!("{shown}:{}: {}", number + 1, crate::chain(&error)));
        }
    }
}

/// `None` for an empty line or a comment.
fn parse(line: &str, kind: Kind) -> Result<Option<Setting>, LineError> {
    let line = line.trim();
    if line.is_empty() || line.starts_with(['#', ';']) {
        return Ok(None);
    }
    let (name, value) = line.split_once('=').ok_or_else(|| LineError::NoValue(line.to_owned()))?;
    let name = name.trim();
    let (name, quiet) = name.strip_prefix('-').map_or((name, false), |name| (name, true));
    let parts = parts(name, kind);
    let strange = |part: &String| part.is_empty() || part == "." || part == ".." || part.contains('\0');
    if parts.len() > DEPTH_LIMIT || parts.iter().any(strange) {
        return Err(LineError::Name(name.to_owned()));
    }
    Ok(Some(Setting { parts, name: name.to_owned(), value: value.trim().to_owned(), quiet }))
}

/// Which of `.` and `/` comes first stands between the parts; the other one is a part's own, as in `net.ipv4.conf.eth0/7.mtu`.
fn parts(name: &str, kind: Kind) -> Vec<String> {
    let separator = if kind.only_slashes { Some("/") } else { name.find(['.', '/']).and_then(|at| name.get(at..=at)) };
    match separator {
        Some("/") => name.trim_start_matches('/').split('/').map(str::to_owned).collect(),
        _ => name.split('.').map(|part| part.replace('/', ".")).collect(),
    }
}

/// Returns what could not be set.
fn set(setting: &Setting, proc: &Path) -> Vec<LineError> {
    let paths = matching(proc, &setting.parts);
    if setting.quiet {
        for path in paths {
            // It was told not to tell.
            let _ = write(&path, &setting.value);
        }
        return vec![];
    }
    if paths.is_empty() {
        return vec![LineError::Nothing(setting.name.clone())];
    }
    let failed = |(path, source): (PathBuf, io::Error)| {
        let name =
            path.strip_prefix(proc).map_or(setting.name.clone(), |path| path.to_string_lossy().replace('/', "."));
        LineError::Set { name, value: setting.value.clone(), source }
    };
    paths
        .into_iter()
        .filter_map(|path| write(&path, &setting.value).err().map(|error| (path, error)))
        .map(failed)
        .collect()
}

/// Into a setting that is there.
fn write(path: &Path, value: &str) -> io::Result<()> {
    File::options().write(true).truncate(true).open(path)?.write_all(value.as_bytes())
}

/// Paths that fit; a name without a pattern is a path, whether it is there or not.
fn matching(proc: &Path, parts: &[String]) -> Vec<PathBuf> {
    let mut found = vec![proc.to_owned()];
    for part in parts {
        if !part.contains(['*', '?']) {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        }
        let inside = |folder: &PathBuf| {
            let mut names: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().collect();
            names.retain(|entry| fits(part.as_bytes(), entry.file_name().as_encoded_bytes()));
            names.into_iter().map(|entry| entry.path())
        };
        found = found.iter().flat_map(inside).collect();
        found.sort();
    }
    if parts.iter().any(|part| part.contains(['*', '?'])) {
        found.retain(|path| path.is_file());
    }
    found
}

fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|from| fits(rest, &name[from..])),
        ([b'?', rest @ ..], [_, name @ ..]) => fits(rest, name),
        ([wanted, rest @ ..], [byte, name @ ..]) => wanted == byte && fits(rest, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for path in ["kernel", "net/ipv4/conf/all", "net/ipv4/conf/eth0.7", "net/ipv4/conf/lo"] {
            fs::create_dir_all(folder.path().join("sys").join(path)).unwrap();
        }
        for path in ["kernel/domainname", "net/ipv4/conf/all/mtu", "net/ipv4/conf/eth0.7/mtu", "net/ipv4/conf/lo/mtu"] {
            fs::write(folder.path().join("sys").join(path), "old").unwrap();
        }
        folder
    }

    /// Applies lines and gives what was said.
    fn said(folder: &tempfile::TempDir, lines: &str) -> Vec<String> {
        said_by(SYSCTL, folder, lines)
    }

    fn said_by(kind: Kind, folder: &tempfile::TempDir, lines: &str) -> Vec<String> {
        let file = folder.path().join("10-mine.conf");
        fs::write(&file, lines).unwrap();
        let mut said = vec![];
        apply(&file, kind, &folder.path().join("sys"), &mut |text| said.push(text.to_owned()));
        said
    }

    #[test]
    fn what_cannot_be_set_is_named_by_file_and_line_and_the_rest_is_set() {
        let folder = tree();
        let lines = "# a comment\n\nwords\nkernel.. = 1\nnet.nothing.here = 1\n../../etc/passwd = x\n\
                     -kernel.nothing.here = 1\nnet.*.nothing = 1\nkernel.domainname = new name\n";
        let said = said(&folder, lines);
        assert_eq!(said[0], "10-mine.conf:3: no `=` in `words`");
        assert_eq!(said[1], "10-mine.conf:4: `kernel..` is no name of a setting");
        assert!(said[2].starts_with("10-mine.conf:5: cannot set net.nothing.here to 1: No such file"), "{said:?}");
        assert_eq!(said[3], "10-mine.conf:6: `../../etc/passwd` is no name of a setting");
        assert_eq!(said[4], "10-mine.conf:8: no setting is called `net.*.nothing`");
        assert_eq!(said.len(), 5);
        assert_eq!(fs::read_to_string(folder.path().join("sys/kernel/domainname")).unwrap(), "new name");
    }

    #[test]
    fn names_have_dots_or_slashes_and_patterns() {
        let folder = tree();
        let mtu =
            |card: &str| fs::read_to_string(folder.path().join("sys/net/ipv4/conf").join(card).join("mtu")).unwrap();
        assert_eq!(said(&folder, "net.ipv4.conf.*.mtu=1\n"), Vec::<String>::new());
        assert_eq!((mtu("all"), mtu("eth0.7"), mtu("lo")), ("1".into(), "1".into(), "1".into()));
        assert_eq!(said(&folder, "net.ipv4.conf.eth0/7.mtu = 2\nnet/ipv4/conf/lo/mtu = 3\n"), Vec::<String>::new());
        assert_eq!((mtu("all"), mtu("eth0.7"), mtu("lo")), ("1".into(), "2".into(), "3".into()));
        assert_eq!(said(&folder, "net.ipv4.conf.?o.mtu = 4 ; 5\n"), Vec::<String>::new());
        assert_eq!((mtu("eth0.7"), mtu("lo")), ("2".into(), "4 ; 5".into()));
    }

    #[test]
    fn names_of_devices_keep_their_dots() {
        let folder = tree();
        let said = said_by(SYSFS, &folder, "net/ipv4/conf/eth0.7/mtu = 9\nnet.ipv4 = 1\n../x = 1\n");
        assert_eq!(fs::read_to_string(folder.path().join("sys/net/ipv4/conf/eth0.7/mtu")).unwrap(), "9");
        assert!(said.len() == 2 && said[0].contains("cannot set net.ipv4 to 1"), "{said:?}");
    }

    #[test]
    fn files_are_taken_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["20-b.conf", "00-default.conf", "10-a.conf"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        fs::create_dir(folder.path().join("05-folder")).unwrap();
        let names: Vec<String> =
            files(folder.path()).iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
        assert_eq!(names, ["00-default.conf", "10-a.conf", "20-b.conf"]);
    }
}
