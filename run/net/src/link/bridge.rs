//! A tap on a bridge of the host's: made here by root, or by QEMU's helper, which has the right to.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair,
};

use super::tap::{Tap, add_to_bridge, is_device};
use super::{Link, LinkError};

/// Where distributions put QEMU's helper.
const HELPERS: [&str; 3] =
    ["/usr/lib/qemu/qemu-bridge-helper", "/usr/libexec/qemu-bridge-helper", "/usr/local/libexec/qemu-bridge-helper"];
/// What the kernel calls a tap that is made here.
const TAP_NAME: &str = "kiln%d";

/// A link to a tap on the bridge called `name`. The tap goes with the link.
///
/// # Errors
/// There is no such bridge, or nobody may put a tap there.
pub fn bridge(name: &str) -> Result<Box<dyn Link>, LinkError> {
    if !is_device(name)? {
        return Err(LinkError::NoBridge { name: name.into() });
    }
    let refused = |source| LinkError::Bridge { name: name.into(), source };
    match own(name) {
        Ok(tap) => Ok(Box::new(tap)),
        // A device, but no bridge.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => {
            Err(LinkError::NoBridge { name: name.into() })
        }
        Err(error) => match helped(name) {
            Ok(Some(fd)) => Ok(Box::new(Tap::of_device(fd)?)),
            Ok(None) => Err(refused(error)),
            Err(error) => Err(refused(error)),
        },
    }
}

fn own(bridge: &str) -> io::Result<Tap> {
    let (tap, name) = Tap::attach(TAP_NAME).map_err(|error| match error {
        LinkError::Tap { source, .. } | LinkError::NoTun(source) => source,
        other => io::Error::other(other),
    })?;
    add_to_bridge(bridge, &name)?;
    Ok(tap)
}

/// A tap from QEMU's helper, if that is installed: it sends the descriptor over a socket.
fn helped(bridge: &str) -> io::Result<Option<OwnedFd>> {
    let Some(helper) = HELPERS.iter().find(|path| Path::new(path).exists()) else { return Ok(None) };
    let (near, far) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let mut command = Command::new(helper);
    // The socket is its standard input.
    command.args(["--use-vnet", "--fd=0"]).arg(format!("--br={bridge}"));
    let output = command.stdin(Stdio::from(far)).stdout(Stdio::null()).stderr(Stdio::piped()).output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(text.lines().next().unwrap_or("the helper says nothing").to_owned()));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(&near, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT)?;
    let sent = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let fd = sent.ok_or_else(|| io::Error::other("the helper sent no tap"))?;
    rustix::io::ioctl_fionbio(&fd, true)?;
    Ok(Some(fd))
}
