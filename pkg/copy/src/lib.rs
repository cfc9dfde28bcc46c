//! Files and folders as a tar stream, on both sides of `kiln cp`. What comes from the other side is not trusted: nothing
//! is written outside the folder that it is unpacked into, nor under another name than the one that was asked for.

mod bounded;

use std::fs::{self, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Builder, EntryType, Header, HeaderMode};

use self::bounded::Bounded;

/// Deepest tree that is packed.
const DEPTH_LIMIT: usize = 128;
/// Most folders in a stream that is unpacked: what is known of each is held in memory.
const MAX_FOLDERS: usize = 1 << 17;

/// Why something could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// What is to be packed.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Too many folders in each other.
    #[error("`{}` is more than {DEPTH_LIMIT} folders deep", .0.display())]
    Depth(PathBuf),
    /// Too many folders.
    #[error("there are more than {MAX_FOLDERS} folders")]
    Folders,
    /// The stream has gone.
    #[error("the other side has ended")]
    Stream(#[source] io::Error),
    /// Nothing that a tar stream is.
    #[error("what the other side sends is no archive")]
    NoArchive(#[source] io::Error),
    /// A name that leads elsewhere.
    #[error("the other side sends `{}`, which was not asked for", .0.display())]
    Name(PathBuf),
    /// What it cannot be.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Writes the file, link or folder at `path`, called `name` there. Returns what was left out: sockets, and whatever else
/// cannot be copied.
///
/// # Errors
/// [`CopyError`] names what cannot be read.
pub fn pack(path: &Path, name: &str, out: impl Write) -> Result<Vec<PathBuf>, CopyError> {
    let mut packed = Builder::new(out);
    packed.mode(HeaderMode::Complete);
    packed.follow_symlinks(false);
    let mut left_out = vec![];
    add(&mut packed, path, Path::new(name), &mut left_out, 0)?;
    packed.into_inner().and_then(|mut out| out.flush()).map_err(CopyError::Stream)?;
    Ok(left_out)
}

fn add(
    packed: &mut Builder<impl Write>,
    path: &Path,
    name: &Path,
    left_out: &mut Vec<PathBuf>,
    depth: usize,
) -> Result<(), CopyError> {
    let failed = |source| CopyError::Read { path: path.to_owned(), source };
    if depth > DEPTH_LIMIT {
        return Err(CopyError::Depth(path.to_owned()));
    }
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    let kind = metadata.file_type();
    if kind.is_file() {
        return add_file(packed, path, name, &metadata);
    }
    if kind.is_symlink() {
        let target = fs::read_link(path).map_err(failed)?;
        let mut header = header(&metadata, EntryType::Symlink);
        return packed.append_link(&mut header, name, target).map_err(failed);
    }
    if !kind.is_dir() {
        debug_assert!(kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device());
        left_out.push(path.to_owned());
        return Ok(());
    }
    packed.append_data(&mut header(&metadata, EntryType::Directory), name, io::empty()).map_err(CopyError::Stream)?;
    let entries: io::Result<Vec<_>> = fs::read_dir(path).map_err(failed)?.collect();
    let mut entries = entries.map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    entries.iter().try_for_each(|entry| add(packed, &entry.path(), &name.join(entry.file_name()), left_out, depth + 1))
}

/// A file that grows or shrinks meanwhile has the length that it had first.
fn add_file(packed: &mut Builder<impl Write>, path: &Path, name: &Path, metadata: &Metadata) -> Result<(), CopyError> {
    let file = fs::File::open(path).map_err(|source| CopyError::Read { path: path.to_owned(), source })?;
    let mut header = header(metadata, EntryType::Regular);
    header.set_size(metadata.len());
    let contents = file.chain(io::repeat(0)).take(metadata.len());
    packed.append_data(&mut header, name, contents).map_err(CopyError::Stream)
}

fn header(metadata: &Metadata, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata(metadata);
    header.set_entry_type(kind);
    header.set_size(0);
    header
}

/// Unpacks a stream of [`pack`] into `folder`, which is there. Everything in it must be `name` or below that; links may
/// lead anywhere, but nothing is written through them. Owners are the caller's, modes and times those of the stream;
/// set-user-id bits are not taken over.
///
/// # Errors
/// [`CopyError`]; what was unpacked before stays.
pub fn unpack(folder: &Path, name: Option<&str>, from: impl Read) -> Result<(), CopyError> {
    let mut archive = Archive::new(Bounded::new(from));
    // Folders that may not be written to become so when all is in them.
    let mut folders = vec![];
    for entry in archive.entries().map_err(CopyError::NoArchive)? {
        let mut entry = entry.map_err(CopyError::NoArchive)?;
        let path = entry.path().map_err(CopyError::NoArchive)?.into_owned();
        let top = match path.components().next() {
            Some(Component::Normal(top)) => top.to_str().map(str::to_owned),
            _ => None,
        };
        let leaves = path.components().any(|part| !matches!(part, Component::Normal(_)));
        if leaves || name.is_some_and(|name| top.as_deref() != Some(name)) {
            return Err(CopyError::Name(path));
        }
        if entry.header().entry_type() == EntryType::Directory {
            if folders.len() >= MAX_FOLDERS {
                return Err(CopyError::Folders);
            }
            folders.push(entry);
            continue;
        }
        write(&mut entry, folder, &path)?;
    }
    folders.sort_by_cached_key(|entry| {
        std::cmp::Reverse(entry.path().map(std::borrow::Cow::into_owned).unwrap_or_default())
    });
    for mut entry in folders {
        let path = entry.path().map_err(CopyError::NoArchive)?.into_owned();
        write(&mut entry, folder, &path)?;
    }
    Ok(())
}

fn write(entry: &mut tar::Entry<'_, impl Read>, folder: &Path, path: &Path) -> Result<(), CopyError> {
    let kind = entry.header().entry_type();
    let known = [EntryType::Regular, EntryType::Symlink, EntryType::Directory, EntryType::Link, EntryType::Continuous];
    if !known.contains(&kind) {
        return Err(CopyError::Name(path.to_owned()));
    }
    match entry.unpack_in(folder) {
        Ok(true) => Ok(()),
        Ok(false) => Err(CopyError::Name(path.to_owned())),
        Err(source) => Err(CopyError::Write { path: folder.join(path), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut packed = Builder::new(vec![]);
        for (path, kind, contents) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            // The safe setters refuse what a hostile guest writes.
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            if is_link {
                header.as_gnu_mut().unwrap().linkname[..contents.len()].copy_from_slice(contents.as_bytes());
            }
            let contents = if is_link { "" } else { contents };
            header.set_size(contents.len() as u64);
            header.set_cksum();
            packed.append(&header, contents.as_bytes()).unwrap();
        }
        packed.into_inner().unwrap()
    }

    #[test]
    fn nothing_is_written_outside_or_under_another_name() {
        let outside = tempfile::tempdir().unwrap();
        let to = outside.path().join("to");
        fs::create_dir(&to).unwrap();
        let absolute = outside.path().join("absolute").to_str().unwrap().to_owned();
        let up = outside.path().to_str().unwrap().to_owned();
        let file = EntryType::Regular;
        let cases = [
            vec![("../x", file, "x")],
            vec![("top/../../x", file, "x")],
            vec![(absolute.as_str(), file, "x")],
            vec![("other", file, "x")],
            vec![("top", EntryType::Symlink, up.as_str()), ("top/x", file, "x")],
            vec![("top", EntryType::Symlink, ".."), ("top/x", file, "x")],
            vec![("top", EntryType::Symlink, ".."), ("top/x", EntryType::Directory, "")],
            vec![("top", EntryType::Link, "/etc/passwd")],
            vec![("top", EntryType::Link, "../x")],
            vec![("top", EntryType::Block, "")],
            vec![("top", EntryType::Fifo, "")],
        ];
        for case in cases {
            unpack(&to, Some("top"), &archive(&case)[..]).expect_err(&format!("{case:?}"));
            let left: Vec<_> = fs::read_dir(outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(left, ["to"], "{case:?}");
            assert!(!to.join("other").exists());
            let _was_none = fs::remove_file(to.join("top"));
        }
    }

    #[test]
    fn what_is_no_archive_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        unpack(folder.path(), Some("top"), &[b'x'; 2000][..]).unwrap_err();
        assert!(matches!(pack(&folder.path().join("none"), "x", vec![]), Err(CopyError::Read { .. })));
    }

    #[test]
    fn a_tree_comes_out_as_it_went_in() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("deep/er")).unwrap();
        fs::create_dir(&to).unwrap();
        let long = "n".repeat(200);
        for (name, mode) in [("script", 0o755), ("deep/er/secret", 0o600), ("suid", 0o4755), (long.as_str(), 0o444)] {
            fs::write(from.join(name), name.repeat(1000)).unwrap();
            fs::set_permissions(from.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink("/nonexistent/target", from.join("link")).unwrap();
        let _socket = UnixListener::bind(from.join("socket")).unwrap();
        fs::set_permissions(from.join("deep"), fs::Permissions::from_mode(0o555)).unwrap();
        let mut stream = vec![];
        assert_eq!(pack(&from, "copy", &mut stream).unwrap(), [from.join("socket")]);
        unpack(&to, Some("copy"), &stream[..]).unwrap();
        for (name, mode) in [("script", 0o755), ("deep/er/secret", 0o600), ("suid", 0o755), (long.as_str(), 0o444)] {
            let copy = to.join("copy").join(name);
            assert_eq!(fs::read_to_string(&copy).unwrap(), name.repeat(1000));
            assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o7777, mode, "{name}");
        }
        assert_eq!(fs::metadata(to.join("copy/deep")).unwrap().permissions().mode() & 0o7777, 0o555);
        assert_eq!(fs::read_link(to.join("copy/link")).unwrap(), Path::new("/nonexistent/target"));
        // Once more over what is there.
        fs::set_permissions(to.join("copy/deep"), fs::Permissions::from_mode(0o755)).unwrap();
        unpack(&to, Some("copy"), &stream[..]).unwrap();
    }
}
