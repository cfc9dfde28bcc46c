//! Checks the sockets between host and guest. Opens nothing.

use std::path::{Path, PathBuf};

use super::{Doubt, Fault};
use crate::config::{DEFAULT_CID, MAX_VSOCK_PORTS, Vsock, VsockPort};
use crate::vsock::to_guest_name;

/// Longest name of a socket (unix(7), `sun_path`).
pub(super) const NAME_BYTES: usize = 107;

/// What is wrong with them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VsockFault {
    /// A number that no guest can have.
    #[error("a guest's vsock number is {DEFAULT_CID} to {}, not {cid}: the first ones are the host's own", u32::MAX - 1)]
    Cid {
        /// Asked for.
        cid: u32,
    },
    /// A port that means something else.
    #[error("{port} is no vsock port: ports are 1 to {}", u32::MAX - 1)]
    Port {
        /// Asked for.
        port: u32,
    },
    /// One port with two sockets.
    #[error("vsock port {port} is given twice")]
    PortTwice {
        /// The port.
        port: u32,
    },
    /// One socket for two ports.
    #[error("the socket `{}` is given to two vsock ports", path.display())]
    PathTwice {
        /// The socket.
        path: PathBuf,
    },
    /// A path that names no file.
    #[error("`{}` is no path of a socket", path.display())]
    Path {
        /// Asked for.
        path: PathBuf,
    },
    /// Too many ports.
    #[error("at most {MAX_VSOCK_PORTS} vsock ports can have a socket, not {ports}")]
    TooMany {
        /// Asked for.
        ports: usize,
    },
}

/// Checks all of them.
pub(super) fn check(vsock: Option<&Vsock>, faults: &mut Vec<Fault>) {
    let Some(vsock) = vsock else { return };
    let mut add = |fault| faults.push(Fault::Vsock(fault));
    if !(DEFAULT_CID..u32::MAX).contains(&vsock.cid) {
        add(VsockFault::Cid { cid: vsock.cid });
    }
    let ports = vsock.to_guest.len() + vsock.to_host.len();
    if ports > MAX_VSOCK_PORTS {
        return add(VsockFault::TooMany { ports });
    }
    for way in [&vsock.to_guest, &vsock.to_host] {
        for (at, VsockPort { port, .. }) in way.iter().enumerate() {
            if *port == 0 || *port == u32::MAX {
                add(VsockFault::Port { port: *port });
            } else if way.iter().take(at).any(|earlier| earlier.port == *port) {
                add(VsockFault::PortTwice { port: *port });
            }
        }
    }
    let paths: Vec<&PathBuf> =
        vsock.to_guest.iter().chain(&vsock.to_host).filter_map(|port| port.path.as_ref()).collect();
    for (at, path) in paths.iter().enumerate() {
        if path.file_name().is_none() {
            add(VsockFault::Path { path: path.to_path_buf() });
        } else if paths.iter().take(at).any(|earlier| earlier == path) {
            add(VsockFault::PathTwice { path: path.to_path_buf() });
        }
    }
}

/// A socket in the state folder that cannot be named as the folder was.
pub(super) fn doubt(vsock: Option<&Vsock>, state_dir: &Path) -> Option<Doubt> {
    let port = vsock?.to_guest.iter().find(|port| port.path.is_none())?;
    let path = state_dir.join(to_guest_name(port.port));
    (path.as_os_str().len() > NAME_BYTES).then_some(Doubt::LongSocketName { path })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::VsockKind;

    fn faults(vsock: &Vsock) -> Vec<String> {
        let mut faults = Vec::new();
        check(Some(vsock), &mut faults);
        faults.iter().map(ToString::to_string).collect()
    }

    fn port(port: u32, path: Option<&str>) -> VsockPort {
        VsockPort { port, kind: VsockKind::Stream, path: path.map(Into::into) }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for cid in [0, 1, 2, u32::MAX] {
            assert_eq!(faults(&Vsock { cid, ..Vsock::default() }).len(), 1, "{cid}");
        }
        let to_guest =
            vec![port(0, None), port(u32::MAX, None), port(5, Some("a")), port(5, Some("..")), port(6, None)];
        let to_host = vec![port(5, Some("a"))];
        let expected = [
            "0 is no vsock port: ports are 1 to 4294967294",
            "4294967295 is no vsock port: ports are 1 to 4294967294",
            "vsock port 5 is given twice",
            "`..` is no path of a socket",
            "the socket `a` is given to two vsock ports",
        ];
        assert_eq!(faults(&Vsock { to_guest, to_host, ..Vsock::default() }), expected);
        let many = (1..=1025).map(|number| port(number, None)).collect();
        assert_eq!(
            faults(&Vsock { to_guest: many, ..Vsock::default() }),
            ["at most 1024 vsock ports can have a socket, not 1025"]
        );
    }

    #[test]
    fn a_socket_that_programs_cannot_name_is_told_of() {
        let doubt = |folder: usize, ports: &[VsockPort]| {
            let vsock = Vsock { to_guest: ports.to_vec(), ..Vsock::default() };
            doubt(Some(&vsock), Path::new(&"f".repeat(folder)))
        };
        let fits = NAME_BYTES - "/guest.00000946".len();
        assert_eq!(doubt(fits, &[port(2374, None)]), None);
        assert_eq!(doubt(fits + 1, &[]), None);
        assert_eq!(doubt(fits + 1, &[port(2374, Some("elsewhere"))]), None);
        let Some(Doubt::LongSocketName { path }) = doubt(fits + 1, &[port(2374, None)]) else { panic!("no doubt") };
        assert!(path.ends_with("guest.00000946"));
    }
}
