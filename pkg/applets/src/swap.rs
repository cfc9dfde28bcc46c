//! `swap`: makes a swap file on a disk that is mounted below `/var`, and uses it, encrypted if that is asked for.

mod encrypted;

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use kiln_guest::mount::table::{self, Mounted};
use rustix::fs::{FallocateFlags, IFlags, StatVfs, fallocate, ioctl_getflags, ioctl_setflags, statvfs};

use crate::arguments::{Flags, Given, WrongUse, size};
use crate::disk::random;
use crate::{Failure, Voice};

/// What it takes.
pub const USAGE: &str =
    "-path FILE -size SIZE [-encrypt] [-condition part:FOLDER[:true]] [-condition partsize:FOLDER:SIZE[:true]]";

const FLAGS: Flags = Flags { valued: &["path", "size", "condition"], alone: &["debug", "encrypt"] };
/// All that can be written in a machine is here.
const BELOW: &str = "/var/";

/// Why there is no swap.
#[derive(Debug, thiserror::Error)]
enum SwapError {
    #[error("the condition `{0}` is not met")]
    Condition(String),
    #[error("`{}` is in memory: swap needs a disk", .0.display())]
    Memory(PathBuf),
    #[error("cannot look at `{}`", path.display())]
    Look {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot make the file `{}` of {bytes} bytes", path.display())]
    Make {
        path: PathBuf,
        bytes: u64,
        #[source]
        source: io::Error,
    },
    #[error("cannot encrypt `{}`; the kernel needs its modules loop, dm_crypt, xts and ecb for that", path.display())]
    Encrypt {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot swap to `{}`", path.display())]
    On {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What is asked for.
#[derive(Debug)]
struct Wish {
    path: PathBuf,
    bytes: u64,
    encrypt: bool,
    conditions: Vec<Condition>,
}

/// What must be so.
#[derive(Debug, PartialEq, Eq)]
struct Condition {
    text: String,
    folder: PathBuf,
    /// `None`: something is mounted there. Else: at least so large.
    bytes: Option<u64>,
    /// Whether it is a failure if it is not so.
    required: bool,
}

/// Runs the program. A condition that is not met and not required is no failure.
///
/// # Errors
/// A condition that is required, or the kernel's.
pub fn run(arguments: &[String], say: Voice<'_>) -> Result<(), Failure> {
    let wish = wish(&FLAGS.read(arguments)?)?;
    for condition in &wish.conditions {
        if is_met(condition).map_err(Failure::of)? {
            continue;
        }
        let error = SwapError::Condition(condition.text.clone());
        if condition.required {
            return Err(Failure::of(error));
        }
        say(&format!("no swap: {error}"));
        return Ok(());
    }
    begin(&wish).map_err(Failure::of)?;
    let how = if wish.encrypt { "encrypted swap" } else { "swap" };
    say(&format!("{} MiB of {how} in {}", wish.bytes >> 20, wish.path.display()));
    Ok(())
}

fn begin(wish: &Wish) -> Result<(), SwapError> {
    let path = &wish.path;
    let on = |node: &Path| kiln_guest::swap::on(node).map_err(|source| SwapError::On { path: path.clone(), source });
    let file = make(path, wish.bytes)?;
    let begun = if wish.encrypt {
        let failed = |source| SwapError::Encrypt { path: path.clone(), source };
        encrypted::device(&file, wish.bytes).map_err(failed).and_then(|(node, name)| {
            let device = File::options().read(true).write(true).open(&node);
            let begun = device.and_then(|device| mark(&device, wish.bytes)).map_err(failed).and_then(|()| on(&node));
            // The first error is the one to tell.
            begun.inspect_err(|_| drop(kiln_guest::device_mapper::remove(&name)))
        })
    } else {
        let marked = mark(&file, wish.bytes);
        let failed = |source| SwapError::Make { path: path.clone(), bytes: wish.bytes, source };
        marked.map_err(failed).and_then(|()| on(path))
    };
    // A file that is of no use takes room from others.
    begun.inspect_err(|_| drop(fs::remove_file(path)))
}

/// Says on the file or device itself that it is swap space.
fn mark(device: &File, bytes: u64) -> io::Result<()> {
    let mut uuid = random::<16>()?;
    // A random one (RFC 9562, 5.4).
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    kiln_guest::swap::make(device, bytes, uuid)
}

fn wish(given: &Given) -> Result<Wish, WrongUse> {
    if let Some(more) = given.words.first() {
        return Err(WrongUse::TooMuch(more.clone()));
    }
    let path = given.value("path").ok_or(WrongUse::Missing("`-path`"))?;
    if given.values("path").count() > 1 {
        return Err(WrongUse::TooMuch(format!("-path {path}")));
    }
    let inside =
        path.strip_prefix(BELOW).is_some_and(|rest| !rest.is_empty() && !rest.split('/').any(|part| part == ".."));
    if !inside {
        return Err(WrongUse::Bad { value: path.to_owned(), what: "file below /var" });
    }
    let bytes = size(given.value("size").ok_or(WrongUse::Missing("`-size`"))?)?;
    let conditions = given.values("condition").map(condition).collect::<Result<_, _>>()?;
    Ok(Wish { path: path.into(), bytes, encrypt: given.has("encrypt"), conditions })
}

fn condition(text: &str) -> Result<Condition, WrongUse> {
    let bad =
        || WrongUse::Bad { value: text.to_owned(), what: "condition: part:FOLDER[:true], partsize:FOLDER:SIZE[:true]" };
    let parts: Vec<&str> = text.split(':').collect();
    let (folder, bytes, required) = match parts.as_slice() {
        ["part", folder] => (folder, None, None),
        ["part", folder, required] => (folder, None, Some(required)),
        ["partsize", folder, least] => (folder, Some(size(least)?), None),
        ["partsize", folder, least, required] => (folder, Some(size(least)?), Some(required)),
        _ => return Err(bad()),
    };
    let required = match required.copied() {
        Some("true") => true,
        None | Some("" | "false") => false,
        Some(_) => return Err(bad()),
    };
    Ok(Condition { text: text.to_owned(), folder: folder.into(), bytes, required })
}

fn is_met(condition: &Condition) -> Result<bool, SwapError> {
    let look = |path: &Path, source: io::Error| SwapError::Look { path: path.to_owned(), source };
    match condition.bytes {
        None => {
            let mounts = table::read().map_err(|source| look(Path::new(table::PATH), source))?;
            Ok(is_mount_point(&mounts, &condition.folder))
        }
        Some(least) => match statvfs(&condition.folder) {
            Ok(StatVfs { f_blocks, f_frsize, .. }) => Ok(f_blocks.saturating_mul(f_frsize) >= least),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(errno) => Err(look(&condition.folder, errno.into())),
        },
    }
}

fn is_mount_point(mounts: &[Mounted], folder: &Path) -> bool {
    mounts.iter().any(|mounted| mounted.target == folder)
}

/// A new file that has all its blocks.
fn make(path: &Path, bytes: u64) -> Result<File, SwapError> {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    let failed = |source: io::Error| SwapError::Make { path: path.to_owned(), bytes, source };
    let folder = path.parent().unwrap_or(Path::new(BELOW));
    let kind =
        rustix::fs::statfs(folder).map_err(|errno| SwapError::Look { path: folder.into(), source: errno.into() })?;
    if u64::try_from(kind.f_type).is_ok_and(|kind| kind == TMPFS_MAGIC) {
        return Err(SwapError::Memory(folder.into()));
    }
    // One of an earlier start: nothing in it is of use.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file = {
        use std::os::unix::fs::OpenOptionsExt;
        File::options().read(true).write(true).create_new(true).mode(0o600).open(path).map_err(failed)?
    };
    match fill(&mut file, bytes) {
        Ok(()) => Ok(file),
        Err(error) => {
            // The disk may be full of it.
            let _ = fs::remove_file(path);
            Err(failed(error))
        }
    }
}

/// Gives the file its blocks: swap files have no holes.
fn fill(file: &mut File, bytes: u64) -> io::Result<()> {
    // btrfs writes to another place each time, unless it is told not to; others do not know this.
    if let Ok(flags) = ioctl_getflags(&*file) {
        let _ = ioctl_setflags(&*file, flags | IFlags::NOCOW);
    }
    match fallocate(&*file, FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP) => {}
        done => return Ok(done?),
    }
    let zeros = vec![0; 1 << 20];
    let mut left = bytes;
    file.seek(SeekFrom::Start(0))?;
    while left > 0 {
        let portion = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all(&zeros[..portion])?;
        left -= u64::try_from(portion).unwrap_or(left);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Wish, WrongUse> {
        wish(&FLAGS.read(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())?)
    }

    #[test]
    fn what_is_missing_or_leads_elsewhere_is_refused() {
        for words in [
            &["--size", "1G"][..],
            &["--path", "/var/swap"],
            &["--path", "/etc/swap", "--size", "1G"],
            &["--path", "/var/", "--size", "1G"],
            &["--path", "/var/../etc/swap", "--size", "1G"],
            &["--path", "/var/a", "--path", "/var/b", "--size", "1G"],
            &["--path", "/var/a", "--size", "1X"],
            &["--path", "/var/a", "--size", "1G", "--condition", "size:/var"],
            &["--path", "/var/a", "--size", "1G", "--condition", "part:/var:yes"],
        ] {
            assert!(read(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn conditions_are_read_as_linuxkit_writes_them() {
        let words = ["--path", "/var/mnt/swap", "--size", "2G", "--condition", "part:/var/mnt:true"];
        let wish = read(&[&words[..], &["--condition", "partsize:/var/mnt:100G", "--encrypt"]].concat()).unwrap();
        assert!(wish.encrypt && !read(&["--path", "/var/a", "--size", "1G"]).unwrap().encrypt);
        assert_eq!((wish.path, wish.bytes), ("/var/mnt/swap".into(), 2 << 30));
        let [part, partsize] = wish.conditions.as_slice() else { panic!("{:?}", wish.conditions) };
        assert_eq!((part.bytes, part.required), (None, true));
        assert_eq!((partsize.bytes, partsize.required), (Some(100 << 30), false));
    }

    #[test]
    fn a_folder_with_nothing_mounted_on_it_is_no_mount_point() {
        let mounts = table::parse(b"22 1 254:1 / /var/mnt rw shared:1 - ext4 /dev/vda1 rw\n");
        assert!(is_mount_point(&mounts, Path::new("/var/mnt/")));
        assert!(!is_mount_point(&mounts, Path::new("/var")) && !is_mount_point(&mounts, Path::new("/var/mnt/x")));
    }
}
