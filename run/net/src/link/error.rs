//! Why a link cannot be made.

use std::io;
use std::path::PathBuf;

/// Why a link cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody listens at the path.
    #[error("cannot connect to the network's socket `{}`: start the program that listens there first", path.display())]
    Connect {
        /// The path.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The socket that answers come to cannot be made.
    #[error("cannot make the socket `{}`, where the network's answers are to come", path.display())]
    Bind {
        /// The path.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// There is no such device.
    #[error(
        "there is no tap `{name}`: `ip tuntap add {name} mode tap user $(id -un)` and `ip link set {name} up`, as root, make one"
    )]
    NoTap {
        /// Its name.
        name: String,
    },
    /// It is a device, but no tap of this user's.
    #[error(
        "cannot use the tap `{name}`: `ip tuntap add NAME mode tap user $(id -un)`, as root, makes one that is yours"
    )]
    Tap {
        /// Its name.
        name: String,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// Another program has it open.
    #[error("the tap `{name}` is used by another program: give each machine one of its own")]
    TapTaken {
        /// Its name.
        name: String,
    },
    /// The host makes no taps.
    #[error("cannot open `/dev/net/tun`: `modprobe tun`, as root, brings it")]
    NoTun(#[source] io::Error),
    /// There is no such bridge.
    #[error(
        "there is no bridge `{name}`: `ip link add {name} type bridge` and `ip link set {name} up`, as root, make one"
    )]
    NoBridge {
        /// Its name.
        name: String,
    },
    /// Only root, or QEMU's helper, can put a tap there.
    #[error(
        "cannot put a tap on the bridge `{name}`: run as root, or install QEMU's bridge helper (Debian: `qemu-system-common`), make it setuid and put `allow {name}` into `/etc/qemu/bridge.conf`"
    )]
    Bridge {
        /// Its name.
        name: String,
        /// What the host or the helper said.
        #[source]
        source: io::Error,
    },
    /// The number is no descriptor that can be used.
    #[error(
        "cannot use descriptor {number}: it must be a connected socket or a tap that is open when the program starts, and not 0, 1 or 2"
    )]
    Inherited {
        /// The number.
        number: i32,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// Any other refusal of the host's.
    #[error("cannot wait for the network")]
    Host(#[from] io::Error),
}
