//! A descriptor that was open when the program started: a socket, whose kind tells how frames pass, or a tap.
#![expect(unsafe_code, reason = "a number on the command line becomes a descriptor")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, ioctl_fionbio};
use rustix::net::{SocketType, sockopt::socket_type};

use super::tap::{Tap, is_tap};
use super::{Link, LinkError, UnixGram, UnixStream};

/// Standard input, output and error are not for frames.
const FIRST_NUMBER: i32 = 3;

/// A link over descriptor `number`, which is closed here: the link has its own.
///
/// It is to be called once for a number, before the program opens anything of its own.
///
/// # Errors
/// It is not open, or neither a socket nor a tap.
pub fn inherited(number: i32) -> Result<Box<dyn Link>, LinkError> {
    let refused = |source| LinkError::Inherited { number, source };
    let fd = take(number).map_err(refused)?;
    match socket_type(&fd) {
        Ok(SocketType::STREAM) => Ok(Box::new(UnixStream::of_socket(fd)?)),
        Ok(_) => Ok(Box::new(UnixGram::of_socket(fd)?)),
        Err(Errno::NOTSOCK) => match is_tap(fd.as_fd()) {
            Ok(true) => Ok(Box::new(Tap::of_device(fd)?)),
            Ok(false) => Err(refused(io::Error::other("it is a tap without `vnet_hdr`, or no tap"))),
            Err(_) => Err(refused(io::Error::other("it is neither a socket nor a tap"))),
        },
        Err(error) => Err(refused(error.into())),
    }
}

fn take(number: i32) -> io::Result<OwnedFd> {
    if number < FIRST_NUMBER {
        return Err(Errno::BADF.into());
    }
    // SAFETY: the number is only asked about; one that is not open is told by an error.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    // What this program opened itself is closed when it starts another one; what it inherited is not.
    if fcntl_getfd(borrowed)?.contains(FdFlags::CLOEXEC) {
        return Err(Errno::BADF.into());
    }
    let own = fcntl_dupfd_cloexec(borrowed, FIRST_NUMBER)?;
    // SAFETY: the descriptor is open, and was inherited: nothing in this program owns it.
    drop(unsafe { OwnedFd::from_raw_fd(number) });
    ioctl_fionbio(&own, true)?;
    Ok(own)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, IntoRawFd};
    use std::os::unix::net::UnixStream as Pair;

    use rustix::io::fcntl_setfd;

    use super::*;

    #[test]
    fn what_was_not_inherited_is_not_taken() {
        let (near, _far) = Pair::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        for number in [-1, 0, 1, 2, 1 << 20, near.as_raw_fd(), file.as_raw_fd()] {
            let error = inherited(number).map(|_| ()).unwrap_err();
            assert!(error.to_string().starts_with(&format!("cannot use descriptor {number}: ")), "{error}");
        }
        fcntl_setfd(&file, FdFlags::empty()).unwrap();
        assert!(inherited(file.into_raw_fd()).is_err(), "a file is no link");
    }

    #[test]
    fn an_inherited_socket_is_a_link() {
        let (near, _far) = Pair::pair().unwrap();
        fcntl_setfd(&near, FdFlags::empty()).unwrap();
        assert!(inherited(near.into_raw_fd()).unwrap().is_up());
    }
}
