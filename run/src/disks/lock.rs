//! Locks on disks, in the bytes that QEMU locks its images with (QEMU's `block/file-posix.c`): a read lock on byte 100+n says
//! that somebody does thing n to the file, one on byte 200+n that nobody else may. They are of an open file, not of a
//! process, and so go away with it, however that ends.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::host::holder::{self, Holder};

const DOES: i64 = 100;
const FORBIDS: i64 = 200;

/// What may be done to a file.
const READS: i64 = 0;
const WRITES: i64 = 1;
const RESIZES: i64 = 3;

/// How a disk's file is to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It is read, and nobody writes to it.
    Read,
    /// It is written, by nobody else.
    Write,
}

/// Why a file cannot be used so.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Somebody else uses it.
    InUse {
        /// Who, as far as can be seen.
        holder: Option<Holder>,
        /// Whether he writes to it.
        writes: bool,
    },
    /// The system would not say.
    Failed(io::Error),
}

/// Locks an open file until it is closed.
pub(super) fn take(file: &File, wanted: Use) -> Result<(), Refusal> {
    let does: &[i64] = if wanted == Use::Write { &[READS, WRITES, RESIZES] } else { &[READS] };
    let forbids = [WRITES, RESIZES];
    let bytes = does.iter().map(|thing| DOES + thing).chain(forbids.map(|thing| FORBIDS + thing));
    for byte in bytes {
        let lock = range(byte, libc::F_RDLCK);
        match fcntl(file.as_raw_fd(), FcntlArg::F_OFD_SETLK(&lock)) {
            Ok(_) => {}
            // Somebody is about to look whether the byte is locked.
            Err(Errno::EAGAIN | Errno::EACCES) => return Err(in_use(file, byte)),
            // A file system without locks.
            Err(Errno::ENOLCK | Errno::EOPNOTSUPP | Errno::ENOSYS) => return Ok(()),
            Err(error) => return Err(Refusal::Failed(error.into())),
        }
    }
    // Two who come at once may both be refused; none gets in beside the other.
    let against = does.iter().map(|thing| FORBIDS + thing).chain(forbids.map(|thing| DOES + thing));
    for byte in against {
        let mut lock = range(byte, libc::F_WRLCK);
        fcntl(file.as_raw_fd(), FcntlArg::F_OFD_GETLK(&mut lock)).map_err(|error| Refusal::Failed(error.into()))?;
        if i32::from(lock.l_type) != libc::F_UNLCK {
            return Err(in_use(file, byte));
        }
    }
    Ok(())
}

fn range(byte: i64, kind: i32) -> libc::flock {
    let short = |number: i32| libc::c_short::try_from(number).unwrap_or(0);
    libc::flock { l_type: short(kind), l_whence: short(libc::SEEK_SET), l_start: byte, l_len: 1, l_pid: 0 }
}

fn in_use(file: &File, byte: i64) -> Refusal {
    // Our own are not to be found. Closing the file would give them back too.
    let _already_gone =
        fcntl(file.as_raw_fd(), FcntlArg::F_OFD_SETLK(&libc::flock { l_len: 0, ..range(0, libc::F_UNLCK) }));
    let writer = holder::of_lock(file, DOES + WRITES);
    let writes = byte == DOES + WRITES || writer.is_some();
    Refusal::InUse { holder: writer.or_else(|| holder::of_lock(file, byte)), writes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_may_write_or_many_may_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let (writer, reader) = (open(), File::open(&path).unwrap());
        take(&writer, Use::Write).unwrap();
        for (file, wanted) in [(open(), Use::Write), (open(), Use::Read), (reader, Use::Read)] {
            let Err(Refusal::InUse { holder: Some(holder), writes: true }) = take(&file, wanted) else {
                panic!("{wanted:?} is allowed, or nobody has it")
            };
            assert_eq!(holder.pid, std::process::id());
        }
        drop(writer);
        let readers = [open(), open()];
        readers.iter().for_each(|file| take(file, Use::Read).unwrap());
        assert!(matches!(take(&open(), Use::Write), Err(Refusal::InUse { holder: Some(_), writes: false })));
        drop(readers);
        // A child that another test has just forked may have the files open for a moment.
        while take(&open(), Use::Write).is_err() {
            std::thread::yield_now();
        }
    }
}
