//! A pseudoterminal as the console: other programs open its path.

use std::{
    ffi::OsString,
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStringExt, fs::symlink},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, tcgetattr, tcsetattr},
};

/// Name of the link in the state folder that leads to the pseudoterminal.
pub const TTY_LINK: &str = "tty";

/// A pseudoterminal, and the link that leads to it. The link goes when this is dropped.
#[derive(Debug)]
pub(super) struct Pty {
    master: OwnedFd,
    /// Kept open, so that it is there between two programs that use it.
    _slave: OwnedFd,
    path: PathBuf,
    link: PathBuf,
}

impl Pty {
    /// Makes one. What is left at `link` of a run that was killed is replaced.
    pub fn open(link: &Path) -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let path = PathBuf::from(OsString::from_vec(ptsname(&master, Vec::new())?.into_bytes()));
        let slave = rustix::fs::open(&path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        // Who writes there types into the guest: nobody's but its user's.
        rustix::fs::fchmod(&slave, Mode::RUSR | Mode::WUSR)?;
        // What the guest prints is not echoed back to it.
        let mut modes = tcgetattr(&slave)?;
        modes.make_raw();
        tcsetattr(&slave, OptionalActions::Now, &modes)?;
        if fs::symlink_metadata(link).is_ok_and(|found| found.file_type().is_symlink()) {
            fs::remove_file(link)?;
        }
        symlink(&path, link)?;
        Ok(Self { master, _slave: slave, path, link: link.to_owned() })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Our end, once more.
    pub fn master(&self) -> io::Result<OwnedFd> {
        self.master.try_clone()
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // Another run may have replaced it after its folder was ours.
        if fs::read_link(&self.link).is_ok_and(|path| path == self.path) {
            // Whoever took it away before has done what is to be done.
            let _gone = fs::remove_file(&self.link);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_link_replaces_a_stale_one_but_no_file_and_goes_with_the_terminal() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join(TTY_LINK);
        fs::write(&link, "of the user's").unwrap();
        assert_eq!(Pty::open(&link).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        fs::remove_file(&link).unwrap();
        symlink("/nonexistent", &link).unwrap();
        let pty = Pty::open(&link).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), pty.path());
        drop(pty);
        assert!(fs::symlink_metadata(&link).is_err());
    }

    #[test]
    fn only_its_user_may_use_it() {
        let folder = tempfile::tempdir().unwrap();
        let pty = Pty::open(&folder.path().join(TTY_LINK)).unwrap();
        assert_eq!(fs::metadata(pty.path()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn bytes_go_both_ways_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let pty = Pty::open(&folder.path().join(TTY_LINK)).unwrap();
        let mut ours = fs::File::from(pty.master().unwrap());
        let mut theirs = fs::File::options().read(true).write(true).open(pty.path()).unwrap();
        ours.write_all(b"login:\n\x03").unwrap();
        let mut eight = [0; 8];
        theirs.read_exact(&mut eight).unwrap();
        assert_eq!(&eight, b"login:\n\x03");
        theirs.write_all(b"root\r\n").unwrap();
        let mut six = [0; 6];
        ours.read_exact(&mut six).unwrap();
        assert_eq!(&six, b"root\r\n");
    }
}
