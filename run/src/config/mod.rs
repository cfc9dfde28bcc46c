//! The description of a machine that every front of kiln is parsed into. Plain data: nothing is opened here.

mod disk;
mod firmware;
mod hang;
mod memory;
mod share;
mod told;
mod vsock;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use kiln_net::link::Greeting;
use kiln_net::policy::Policy;
use kiln_net::publish::Transport;
use kiln_net::wire::Mac;

pub use disk::{Disk, DiskCache, DiskFormat};
pub use firmware::{Firmware, Kernel};
pub use hang::{OnHang, end_of_run};
pub use memory::{Balloon, MemoryOptions, Pages};
pub use share::{IdRange, MAX_SHARES, Share, TAG_LIMIT_BYTES};
pub use told::Told;
pub use vsock::{DEFAULT_CID, HOST_CID, MAX_VSOCK_PORTS, Vsock, VsockKind, VsockPort};

/// One machine, as its user asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineConfig {
    /// Number of vCPUs.
    pub cpus: u32,
    /// Guest memory in MiB.
    pub memory_mib: u64,
    /// Where that memory comes from and goes to.
    pub memory: MemoryOptions,
    /// What it boots.
    pub boot: Boot,
    /// Disks in the order that the guest sees them: `/dev/vda`, `/dev/vdb`, …
    pub disks: Vec<Disk>,
    /// Network cards in the order that the guest sees them: `eth0`, `eth1`, …
    pub cards: Vec<Card>,
    /// Folders of the host's that the guest can mount.
    pub shares: Vec<Share>,
    /// The device for sockets between host and guest.
    pub vsock: Option<Vsock>,
    /// What the guest is told by tables.
    pub told: Told,
    /// What a reset asked for by the guest does.
    pub on_reset: OnReset,
    /// What a watchdog that ran out does.
    pub on_hang: OnHang,
    /// When an operating system must have started, after each start of the machine; it ends otherwise.
    pub boot_timeout: Option<Duration>,
    /// Folder for what the machine keeps between runs; made only when all checks have passed.
    pub state_dir: PathBuf,
}

/// What a machine boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// A Linux kernel, started directly.
    Linux {
        /// A bzImage or an uncompressed ELF `vmlinux`.
        kernel: PathBuf,
        /// Initial RAM disk, if any.
        initrd: Option<PathBuf>,
        /// Kernel command line.
        cmdline: String,
    },
    /// What firmware finds on the disks, in their order.
    Firmware(Firmware),
}

impl Boot {
    /// The kernel's command line, as far as it is known: empty when it is the firmware that finds one.
    #[must_use]
    pub fn cmdline(&self) -> &str {
        match self {
            Self::Linux { cmdline, .. } => cmdline,
            Self::Firmware(firmware) => firmware.kernel.as_ref().map_or("", |kernel| &kernel.cmdline),
        }
    }
}

/// One network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Its address; without one it gets an address that stays the same as long as the state folder does.
    pub mac: Option<Mac>,
    /// Largest packet in bytes, from [`MIN_MTU`] to [`MAX_MTU`].
    pub mtu: u16,
    /// What its cable ends in.
    pub end: CableEnd,
    /// Where its frames are written down, for Wireshark and tcpdump.
    pub capture: Option<PathBuf>,
}

/// Most ports of the host that lead to one card: each has a descriptor or two.
pub const MAX_PUBLISHED: usize = 1024;
/// Smallest MTU: what every IPv4 link must carry (RFC 791 section 3.2).
pub const MIN_MTU: u16 = 68;
/// Largest MTU: a multiple of 16 just below the largest packet there is, 65,535 bytes.
pub const MAX_MTU: u16 = 65_520;
/// Ethernet's own.
pub const DEFAULT_MTU: u16 = 1500;

/// What a card's cable ends in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CableEnd {
    /// The user-mode network in this process.
    User(Box<UserNetwork>),
    /// A stream socket of another program's, which carries each frame behind its length.
    UnixStream(PathBuf),
    /// A socket of datagrams of another program's, which carries a frame in each.
    UnixGram {
        /// The socket.
        path: PathBuf,
        /// What that program wants to hear first.
        greeting: Greeting,
    },
    /// A tap of the host's.
    Tap(String),
    /// A tap that is made on a bridge of the host's.
    Bridge(String),
    /// A descriptor that was open when this program started: a socket or a tap.
    Descriptor(i32),
}

/// A user-mode network, as asked for. What is not said is QEMU's: 10.0.2.0/24, gateway .2, name server .3, guest .15.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserNetwork {
    /// Its addresses.
    pub subnet: Option<Subnet>,
    /// The guest's address.
    pub address: Option<Ipv4Addr>,
    /// The folder of the network that it shares with other machines; without one it is alone on its network.
    pub shared: Option<PathBuf>,
    /// The guest's name, told by DHCP.
    pub host_name: Option<String>,
    /// Name servers to ask instead of the host's.
    pub servers: Vec<IpAddr>,
    /// Further names, and what they mean.
    pub names: Vec<(String, IpAddr)>,
    /// Whether the gateway's address leads to the host's own loopback.
    pub host_loopback: bool,
    /// Where the guest may go.
    pub policy: Policy,
    /// Ports of the host that lead to the guest.
    pub publish: Vec<Publish>,
}

impl UserNetwork {
    /// The addresses of a network of which nothing was said.
    pub const DEFAULT_SUBNET: Subnet = Subnet { address: Ipv4Addr::new(10, 0, 2, 0), prefix_bits: 24 };
}

/// A block of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    /// Any address of it.
    pub address: Ipv4Addr,
    /// How many leading bits all have in common.
    pub prefix_bits: u8,
}

impl Subnet {
    /// Address number `number` of it.
    #[must_use]
    pub fn host(self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() & self.mask() | number & !self.mask())
    }

    /// Whether an address is of it, and neither its first nor its last, which mean all.
    #[must_use]
    pub fn has_host(self, address: Ipv4Addr) -> bool {
        let own = address.to_bits() & !self.mask();
        (address.to_bits() ^ self.address.to_bits()) & self.mask() == 0 && own != 0 && own != !self.mask()
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32_u32.saturating_sub(self.prefix_bits.into())).unwrap_or(0)
    }
}

/// A port of the host that leads to one of the guest's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Where the host listens.
    pub host: HostPort,
    /// The guest's port.
    pub guest_port: u16,
    /// What it carries.
    pub transport: Transport,
    /// Whether connections begin with who made them (PROXY protocol 2).
    pub tells_caller: bool,
}

/// Where the host listens. Port 0 is one that the host chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPort {
    /// On the loopback, of IPv4 and of IPv6 if there is one.
    Loopback(u16),
    /// On this address alone.
    At(SocketAddr),
    /// At this path, with a Unix socket.
    Unix(PathBuf),
}

/// What a reset asked for by the guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnReset {
    /// The machine starts again.
    Reboot,
    /// The run ends.
    Stop,
}
