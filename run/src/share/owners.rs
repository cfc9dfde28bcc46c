//! Who files belong to: users and groups of the guest's, and those of the host's.
//!
//! A process that may give files away (root) does so. Any other owns all that its guest makes; whom the guest gave it to
//! is written down beside the file, as the extended attribute [`KEPT`], and so are the bits that would make the file
//! run as its owner: on the host, they would lend this user's rights to everybody.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Statx, XattrFlags, getxattr, lgetxattr, removexattr, setxattr};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use super::session::OpenPath;
use crate::config::IdRange;

/// The attribute's name. The guest does not see it.
pub(super) const KEPT: &CStr = c"user.kiln.owner";
/// Whom the guest sees where the host's number means somebody else there.
const NOBODY: u32 = 65_534;
/// Set-user-ID and set-group-ID.
const RUNS_AS: u16 = 0o6000;

/// Numbers of the guest's and what they are on the host; what no range has is the same number there.
#[derive(Debug, Clone)]
struct Ids(Vec<IdRange>);

impl Ids {
    fn to_guest(&self, host: u32) -> u32 {
        for range in &self.0 {
            if let Some(guest) = shifted(host, range.host, range.guest, range.count) {
                return guest;
            }
        }
        if self.0.iter().any(|range| shifted(host, range.guest, 0, range.count).is_some()) { NOBODY } else { host }
    }

    fn to_host(&self, guest: u32) -> Option<u32> {
        for range in &self.0 {
            if let Some(host) = shifted(guest, range.guest, range.host, range.count) {
                return Some(host);
            }
        }
        let is_taken = self.0.iter().any(|range| shifted(guest, range.host, 0, range.count).is_some());
        (!is_taken).then_some(guest)
    }
}

/// `id` of the range that starts at `from`, in the one that starts at `to`.
fn shifted(id: u32, from: u32, to: u32, count: u32) -> Option<u32> {
    id.checked_sub(from).filter(|offset| *offset < count).and_then(|offset| to.checked_add(offset))
}

/// A file's owner and mode as the guest sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mode: u16,
}

/// What is written down beside a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    uid: u32,
    gid: u32,
    runs_as: u16,
}

impl Kept {
    fn read(text: &[u8]) -> Option<Self> {
        let mut words = str::from_utf8(text).ok()?.split(':');
        let (uid, gid) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let runs_as = u16::from_str_radix(words.next()?, 8).ok()? & RUNS_AS;
        words.next().is_none().then_some(Self { uid, gid, runs_as })
    }

    fn text(self) -> String {
        format!("{}:{}:{:o}", self.uid, self.gid, self.runs_as)
    }
}

/// How owners of the guest's are those of the host's.
#[derive(Debug, Clone)]
pub(super) struct Owners {
    users: Ids,
    groups: Ids,
    /// Owners are written down: this process can give nothing away.
    pub(super) keeps: bool,
}

impl Owners {
    /// Without ranges, root's guest has the host's numbers, and any other user is root in the guest.
    pub(super) fn new(users: &[IdRange], groups: &[IdRange]) -> Self {
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        Self::of(user, group, users, groups)
    }

    fn of(user: u32, group: u32, users: &[IdRange], groups: &[IdRange]) -> Self {
        let ids = |own: u32, ranges: &[IdRange]| {
            let is_default = ranges.is_empty() && user != 0;
            Ids(if is_default { vec![IdRange { guest: 0, host: own, count: 1 }] } else { ranges.to_vec() })
        };
        Self { users: ids(user, users), groups: ids(group, groups), keeps: user != 0 }
    }

    /// As the guest sees what is open.
    pub(super) fn shown(&self, stat: &Statx, fd: BorrowedFd<'_>) -> Owner {
        let kept = |text: &mut [u8]| getxattr(OpenPath::of(fd).text(), KEPT, text).ok();
        self.with_kept(stat, kept)
    }

    /// As the guest sees what has `name` in a folder, which is not followed.
    pub(super) fn shown_in(&self, stat: &Statx, folder: &OwnedFd, name: &CStr) -> Owner {
        let folder = OpenPath::of(folder.as_fd());
        let path = || [folder.text().as_bytes(), b"/", name.to_bytes()].concat();
        let kept = |text: &mut [u8]| lgetxattr(path(), KEPT, text).ok();
        self.with_kept(stat, kept)
    }

    /// As the host says, with ids of the guest's.
    pub(super) fn plain(&self, stat: &Statx) -> Owner {
        let (uid, gid) = (self.users.to_guest(stat.stx_uid), self.groups.to_guest(stat.stx_gid));
        Owner { uid, gid, mode: stat.stx_mode }
    }

    fn with_kept(&self, stat: &Statx, read: impl FnOnce(&mut [u8]) -> Option<usize>) -> Owner {
        let plain = self.plain(stat);
        if !self.keeps || !has_attributes(stat) {
            return plain;
        }
        let mut text = [0; 64];
        let kept = read(&mut text).and_then(|len| Kept::read(text.get(..len)?));
        match kept {
            Some(kept) => Owner { uid: kept.uid, gid: kept.gid, mode: plain.mode | kept.runs_as },
            None => plain,
        }
    }

    /// On the host: who gets a file that is to belong to this user and group, for a process that can give it away.
    ///
    /// # Errors
    /// [`Errno::PERM`] if the host has no such number, [`Errno::INVAL`] for the one that is nobody's (chown(2)).
    pub(super) fn on_host(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(Option<u32>, Option<u32>), Errno> {
        let on_host = |ids: &Ids, id: Option<u32>| match id.map(|id| ids.to_host(id)) {
            None => Ok(None),
            Some(None) => Err(Errno::PERM),
            Some(Some(u32::MAX)) => Err(Errno::INVAL),
            Some(host) => Ok(host),
        };
        Ok((on_host(&self.users, uid)?, on_host(&self.groups, gid)?))
    }

    /// Writes down what the guest wants to see of what is open (in `mode`, the bits that run it as its owner), or forgets it
    /// where the host shows the same by itself.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn keep(&self, stat: &Statx, fd: BorrowedFd<'_>, wanted: Owner) -> Result<(), Errno> {
        if !has_attributes(stat) {
            // Links and special files have no attributes; whom they belong to decides little.
            return Ok(());
        }
        let runs_as = if is_folder(stat) { 0 } else { wanted.mode & RUNS_AS };
        let (plain, path) = (self.plain(stat), OpenPath::of(fd));
        if (wanted.uid, wanted.gid, runs_as) == (plain.uid, plain.gid, 0) {
            return match removexattr(path.text(), KEPT) {
                Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
                done => done,
            };
        }
        let kept = Kept { uid: wanted.uid, gid: wanted.gid, runs_as };
        setxattr(path.text(), KEPT, kept.text().as_bytes(), XattrFlags::empty()).map_err(|error| match error {
            Errno::OPNOTSUPP => Errno::PERM,
            other => other,
        })
    }

    /// The mode that a file gets on the host.
    pub(super) fn host_mode(&self, stat: &Statx, mode: u16) -> u16 {
        if self.keeps && !is_folder(stat) { mode & 0o7777 & !RUNS_AS } else { mode & 0o7777 }
    }
}

fn is_folder(stat: &Statx) -> bool {
    FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory
}

/// The kernel keeps attributes of users for files and folders alone (xattr(7)).
fn has_attributes(stat: &Statx) -> bool {
    matches!(FileType::from_raw_mode(stat.stx_mode.into()), FileType::Directory | FileType::RegularFile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_beside_a_file_and_is_no_owner_counts_nothing() {
        for text in ["", "1", "1:2", "1:2:9", "1:2:0:", "-1:2:0", "4294967296:0:0", "a:b:c", "1:2:0\0"] {
            assert_eq!(Kept::read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Kept::read(b"1:2:7777"), Some(Kept { uid: 1, gid: 2, runs_as: 0o6000 }));
        let kept = Kept { uid: 33, gid: 44, runs_as: 0o4000 };
        assert_eq!(Kept::read(kept.text().as_bytes()), Some(kept));
    }

    #[test]
    fn no_number_of_the_guest_means_two_of_the_host() {
        let own = Owners::of(1000, 100, &[], &[]);
        assert_eq!([1000, 0, 7, 65_534].map(|id| own.users.to_guest(id)), [0, NOBODY, 7, 65_534]);
        assert_eq!([0, 7, 1000].map(|id| own.users.to_host(id)), [Some(1000), Some(7), None]);
        assert_eq!((own.groups.to_guest(100), own.groups.to_guest(1000)), (0, 1000));
        let ranges = [IdRange { guest: 0, host: 100_000, count: 65_536 }];
        let shifted = Owners::of(0, 0, &ranges, &[]);
        assert_eq!(
            [100_000, 165_535, 165_536, 0, 70_000].map(|id| shifted.users.to_guest(id)),
            [0, 65_535, 165_536, NOBODY, 70_000]
        );
        assert_eq!(shifted.users.to_host(100_001), None);
        assert_eq!(shifted.groups.to_host(5), Some(5));
        assert_eq!(shifted.on_host(None, Some(7)), Ok((None, Some(7))));
        assert_eq!(shifted.on_host(Some(100_001), None), Err(Errno::PERM));
        assert_eq!(shifted.on_host(Some(u32::MAX), None), Err(Errno::INVAL), "no user has this number");
        assert_eq!(shifted.on_host(None, Some(u32::MAX)), Err(Errno::INVAL));
    }
}
