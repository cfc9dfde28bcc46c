//! Extended attributes: those of users. The others mean something to the host, or let it run a file as somebody.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
use rustix::io::Errno;

use super::abi::{Body, Fields, Header};
use super::owners::KEPT;
use super::session::{Done, OpenPath, Session};

/// What the names of users' attributes begin with.
const USERS: &[u8] = b"user.";
/// Longest value, and longest list of names (Linux: `XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const LIMIT_BYTES: usize = 64 << 10;

fn is_users(name: &[u8]) -> bool {
    name.starts_with(USERS) && name != KEPT.to_bytes()
}

/// The name of an attribute that the guest may have.
fn name<'a>(fields: &mut Fields<'a>) -> Result<&'a CStr, Errno> {
    let name = fields.text().ok_or(Errno::INVAL)?;
    if is_users(name.to_bytes()) { Ok(name) } else { Err(Errno::OPNOTSUPP) }
}

/// The answer to who wants at most `size` bytes, or to know how many there are.
fn sized(bytes: Vec<u8>, size: u32) -> Result<Done, Errno> {
    let mut body = Body::default();
    if size == 0 {
        body.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX)).u32(0);
    } else if bytes.len() > size as usize {
        return Err(Errno::RANGE);
    } else {
        body.0 = bytes;
    }
    Ok(Done::Body(body))
}

impl Session {
    fn open_node(&self, header: &Header) -> Result<Arc<OwnedFd>, Errno> {
        self.nodes.open(&self.nodes.get(header.node)?)
    }

    pub(super) fn set_xattr(&self, header: &Header, mut fields: Fields<'_>) -> Result<Done, Errno> {
        let (size, flags) = (fields.u32().ok_or(Errno::INVAL)?, fields.u32().ok_or(Errno::INVAL)?);
        let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        let name = name(&mut fields)?;
        let value = usize::try_from(size).ok().and_then(|size| fields.bytes(size)).ok_or(Errno::TOOBIG)?;
        let fd = self.open_node(header)?;
        setxattr(OpenPath::of(fd.as_fd()).text(), name, value, flags)?;
        Done::empty()
    }

    pub(super) fn get_xattr(&self, header: &Header, mut fields: Fields<'_>) -> Result<Done, Errno> {
        let size = fields.u32().ok_or(Errno::INVAL)?;
        fields.skip(4).ok_or(Errno::INVAL)?;
        let name = name(&mut fields)?;
        let fd = self.open_node(header)?;
        let mut value = vec![0; LIMIT_BYTES];
        let len = getxattr(OpenPath::of(fd.as_fd()).text(), name, &mut value[..])?;
        value.truncate(len);
        sized(value, size)
    }

    pub(super) fn list_xattr(&self, header: &Header, mut fields: Fields<'_>) -> Result<Done, Errno> {
        let size = fields.u32().ok_or(Errno::INVAL)?;
        let fd = self.open_node(header)?;
        let mut names = vec![0; LIMIT_BYTES];
        let len = listxattr(OpenPath::of(fd.as_fd()).text(), &mut names[..])?;
        let names = names.get(..len).unwrap_or_default().split_inclusive(|byte| *byte == 0);
        sized(names.filter(|name| is_users(name.strip_suffix(&[0]).unwrap_or(name))).flatten().copied().collect(), size)
    }

    pub(super) fn remove_xattr(&self, header: &Header, mut fields: Fields<'_>) -> Result<Done, Errno> {
        let name = name(&mut fields)?;
        let fd = self.open_node(header)?;
        removexattr(OpenPath::of(fd.as_fd()).text(), name)?;
        Done::empty()
    }
}
