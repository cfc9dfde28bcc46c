//! The folders of a share, watched for what the host changes in them (inotify(7)).

use std::collections::{BTreeSet, HashMap};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::fs::{FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::WATCHES_LIMIT;
use super::nodes::{FileId, identity, open_at, stat};
use super::own::OwnChanges;
use super::session::OpenPath;

/// Bytes of events that are read at once.
const EVENTS_BYTES: usize = 16 << 10;
/// What the host's changes are: who only has a file open changes nothing yet.
const CHANGES: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO);
/// Most paths that are told of one by one; of more at once, only that something changed.
const PATHS_LIMIT: usize = 1_024;

/// Paths that changed, from the share's folder, which is the empty one.
pub(super) type Paths = BTreeSet<Vec<u8>>;

#[derive(Debug)]
struct Folder {
    path: Vec<u8>,
    file: FileId,
}

/// All folders of a share.
#[derive(Debug)]
pub(super) struct Tree {
    inotify: OwnedFd,
    root: Arc<OwnedFd>,
    folders: HashMap<i32, Folder>,
}

impl Tree {
    /// Watches a folder and all those below it.
    ///
    /// # Errors
    /// The host's: [`Errno::NOSPC`] if this user may not watch so many, or there are more than [`WATCHES_LIMIT`];
    /// [`Errno::MFILE`] if he watches for too many programs.
    pub(super) fn watch(root: Arc<OwnedFd>) -> Result<Self, Errno> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut tree = Self { inotify, root, folders: HashMap::new() };
        tree.add(Vec::new(), &mut Paths::new())?;
        Ok(tree)
    }

    /// Ready when something changed.
    pub(super) fn events(&self) -> &OwnedFd {
        &self.inotify
    }

    /// Opens a folder by its path, which no link leads elsewhere.
    fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let name = if path.is_empty() { b"." } else { path };
        let name = std::ffi::CString::new(name).map_err(|_| Errno::INVAL)?;
        open_at(&self.root, &name, flags | OFlags::DIRECTORY, Mode::empty())
    }

    /// Watches a folder and those below; what is in them counts as changed. One that is gone by now is left out.
    fn add(&mut self, first: Vec<u8>, changed: &mut Paths) -> Result<(), Errno> {
        let mut left = vec![first];
        while let Some(path) = left.pop() {
            let Ok(fd) = self.open(&path, OFlags::RDONLY) else { continue };
            if self.folders.len() >= WATCHES_LIMIT {
                return Err(Errno::NOSPC);
            }
            let watch =
                inotify::add_watch(&self.inotify, OpenPath::of(fd.as_fd()).text(), CHANGES | WatchFlags::ONLYDIR);
            let watch = match watch {
                Err(error @ (Errno::NOSPC | Errno::NOMEM)) => return Err(error),
                Err(_) => continue,
                Ok(watch) => watch,
            };
            let Ok(stat) = stat(&fd) else { continue };
            let mut buffer = vec![MaybeUninit::uninit(); EVENTS_BYTES];
            let mut names = RawDir::new(&fd, &mut buffer);
            while let Some(Ok(name)) = names.next() {
                let below = below(&path, name.file_name());
                match (name.file_type(), name.file_name().to_bytes()) {
                    (_, b"." | b"..") => {}
                    (FileType::Directory | FileType::Unknown, _) => left.push(below),
                    _ => insert(changed, below),
                }
            }
            self.folders.insert(watch, Folder { path, file: identity(&stat).0 });
        }
        Ok(())
    }

    /// Forgets a folder that was moved away, and those below it.
    fn remove(&mut self, path: &[u8]) {
        let is_there = |folder: &Folder| {
            folder.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        let gone: Vec<i32> =
            self.folders.iter().filter(|(_, folder)| is_there(folder)).map(|(watch, _)| *watch).collect();
        for watch in gone {
            self.folders.remove(&watch);
            // Fails for one that was removed by the host.
            let _gone = inotify::remove_watch(&self.inotify, watch);
        }
    }

    /// Adds the paths of what changed since the last call, unless the guest itself did it.
    ///
    /// # Errors
    /// The host's: it cannot watch any longer.
    pub(super) fn read(&mut self, own: &OwnChanges, changed: &mut Paths) -> Result<(), Errno> {
        let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
        let mut found = Vec::new();
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => found.push((event.wd(), event.events(), event.file_name().map(CStr::to_owned))),
                Err(Errno::WOULDBLOCK) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        for (watch, events, name) in found {
            if events.contains(ReadFlags::QUEUE_OVERFLOW) {
                // Nobody knows what else: from now on all folders that there are.
                insert(changed, Vec::new());
                self.add_or_go_without(Vec::new(), &mut Paths::new());
                continue;
            }
            if events.contains(ReadFlags::IGNORED) {
                self.folders.remove(&watch);
                continue;
            }
            let (Some(folder), Some(name)) = (self.folders.get(&watch), name) else { continue };
            let (path, folder, is_own) = (below(&folder.path, &name), folder.path.clone(), own.has(folder.file, &name));
            if events.contains(ReadFlags::ISDIR) {
                if events.intersects(ReadFlags::MOVED_FROM) {
                    self.remove(&path);
                }
                if events.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                    let mut inside = Paths::new();
                    self.add_or_go_without(path.clone(), &mut inside);
                    if !is_own {
                        inside.into_iter().for_each(|path| insert(changed, path));
                    }
                }
            }
            let is_gone = events.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM);
            if !is_own {
                insert(changed, if is_gone { folder } else { path });
            }
        }
        Ok(())
    }

    /// A new folder for which there is no watch left is not watched: the others are.
    fn add_or_go_without(&mut self, path: Vec<u8>, changed: &mut Paths) {
        let _no_more = self.add(path, changed);
    }
}

fn insert(changed: &mut Paths, path: Vec<u8>) {
    changed.insert(path);
    if changed.len() > PATHS_LIMIT {
        *changed = Paths::from([Vec::new()]);
    }
}

fn below(folder: &[u8], name: &CStr) -> Vec<u8> {
    if folder.is_empty() { name.to_bytes().to_vec() } else { [folder, b"/", name.to_bytes()].concat() }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::fs::{CWD, openat};

    use super::*;

    fn tree(folder: &Path) -> Tree {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Tree::watch(Arc::new(openat(CWD, folder, flags, Mode::empty()).unwrap())).unwrap()
    }

    fn changes(tree: &mut Tree, own: &OwnChanges) -> Vec<String> {
        let mut changed = Paths::new();
        poll(&mut [PollFd::new(tree.events(), PollFlags::IN)], None).unwrap();
        tree.read(own, &mut changed).unwrap();
        changed.into_iter().map(|path| String::from_utf8(path).unwrap()).collect()
    }

    #[test]
    fn changes_are_told_of_wherever_they_are_and_no_link_is_followed() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (at, own) = (|name: &str| folder.path().join(name), OwnChanges::default());
        fs::create_dir_all(at("a/b")).unwrap();
        symlink(outside.path(), at("out")).unwrap();
        let mut tree = tree(folder.path());
        fs::write(outside.path().join("f"), "").unwrap();
        fs::write(at("a/b/f"), "").unwrap();
        assert_eq!(changes(&mut tree, &own), ["a/b/f"]);
        fs::remove_file(at("a/b/f")).unwrap();
        assert_eq!(changes(&mut tree, &own), ["a/b"]);
        fs::create_dir_all(at("new/deep")).unwrap();
        fs::write(at("new/deep/f"), "").unwrap();
        assert_eq!(changes(&mut tree, &own), ["new", "new/deep/f"]);
        fs::write(at("new/deep/g"), "").unwrap();
        assert_eq!(changes(&mut tree, &own), ["new/deep/g"]);
        fs::rename(at("new"), at("a/moved")).unwrap();
        assert_eq!(changes(&mut tree, &own), ["", "a/moved", "a/moved/deep/f", "a/moved/deep/g"]);
        fs::write(at("a/moved/deep/f"), "").unwrap();
        assert_eq!(changes(&mut tree, &own), ["a/moved/deep/f"]);
        fs::rename(at("a/moved"), outside.path().join("away")).unwrap();
        assert_eq!(changes(&mut tree, &own), ["a"]);
        fs::write(outside.path().join("away/f"), "").unwrap();
        fs::write(at("last"), "").unwrap();
        assert_eq!(changes(&mut tree, &own), ["last"]);
    }

    #[test]
    fn what_the_guest_did_is_not_told_of_and_too_much_is_told_of_at_once() {
        let (folder, own) = (tempfile::tempdir().unwrap(), OwnChanges::default());
        let mut tree = tree(folder.path());
        let id = identity(&stat(&tree.root).unwrap()).0;
        own.note(id, &CString::new("own").unwrap());
        fs::write(folder.path().join("own"), "").unwrap();
        fs::write(folder.path().join("other"), "").unwrap();
        assert_eq!(changes(&mut tree, &own), ["other"]);
        (0..=PATHS_LIMIT).for_each(|number| fs::write(folder.path().join(number.to_string()), "").unwrap());
        assert!(changes(&mut tree, &own).contains(&String::new()));
    }
}
