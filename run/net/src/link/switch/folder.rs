//! The folder that a network is: for each member a file `NUMBER`, locked as long as the member lives, that tells its
//! name, and a socket `NUMBER.sock`. The number is the last part of its address.
//!
//! Files stay when members go, so that who comes back gets the address that it had; locks do not.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with};

use crate::dhcp::Lease;
use crate::link::address::Address;
use crate::ndp;
use crate::wire::Mac;

/// Most machines on one network: each has a connection to each.
pub(super) const MEMBERS_LIMIT: usize = 200;
/// The first address that is given: QEMU's.
const FIRST_NUMBER: u32 = 15;
/// The last: as many as there may be members.
const LAST_NUMBER: u32 = 214;
/// Longest name: a part of a DNS name (RFC 1035 section 2.3.4).
const NAME_LIMIT_BYTES: usize = 63;
/// Longest file of a member's.
const FILE_LIMIT_BYTES: u64 = 256;
/// Who joins takes a moment only.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a machine cannot join a network.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Something about its folder.
    #[error("cannot use the network's folder `{}`", folder.display())]
    Host {
        /// The folder.
        folder: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// Others could come in.
    #[error("the network's folder `{}` must be yours, and only yours: `chmod 700` it, or take another network's name", folder.display())]
    NotPrivate {
        /// The folder.
        folder: PathBuf,
    },
    /// Somebody joins and does not end it.
    #[error("another machine has been joining the network in `{}` for 5 seconds: is it stopped?", folder.display())]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
    /// No address is left.
    #[error("all addresses of the network are taken: it has room for {MEMBERS_LIMIT} machines, in its subnet")]
    Full,
    /// Two machines with one hardware address hear each other's frames.
    #[error("the hardware address {mac} is taken by `{by}`, on the same network: give another one with `mac=`")]
    MacTaken {
        /// The address.
        mac: Mac,
        /// Whose it is.
        by: String,
    },
    /// The address that was asked for is another one's.
    #[error("the address {address} is taken by `{by}`, on the same network")]
    AddressTaken {
        /// The address.
        address: Ipv4Addr,
        /// Whose it is.
        by: String,
    },
    /// The address is no guest's.
    #[error("{address} is no address that a machine can have on this network")]
    NoAddress {
        /// The address.
        address: Ipv4Addr,
    },
    /// All must agree on the subnet.
    #[error("the network has the subnet {theirs}, not {ours}: `{by}` is on it already")]
    OtherSubnet {
        /// The one that was asked for.
        ours: String,
        /// The one that is there.
        theirs: String,
        /// A member.
        by: String,
    },
}

/// Somebody on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Who {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) mac: Mac,
    pub(super) address: Ipv4Addr,
    subnet: String,
}

impl Who {
    /// The address that DHCPv6 gives: the number's digits behind the prefix.
    pub(super) fn v6(&self, prefix: Ipv6Addr) -> Ipv6Addr {
        let digits = u128::from_str_radix(&self.number.to_string(), 16).unwrap_or(0);
        Ipv6Addr::from_bits(prefix.to_bits() | digits)
    }

    /// Addresses that are surely its own: DHCPv6's, and those that are made of the hardware address (RFC 4291 appendix A).
    pub(super) fn has(&self, address: Ipv6Addr, prefix: Option<Ipv6Addr>) -> bool {
        let link_local = ndp::link_local(self.mac);
        let of_prefix = |prefix: Ipv6Addr| {
            let interface = link_local.to_bits() & u128::from(u64::MAX);
            address == self.v6(prefix) || address.to_bits() == prefix.to_bits() | interface
        };
        address == link_local || prefix.is_some_and(of_prefix)
    }

    fn line(&self) -> String {
        format!("{} {} {}\n", self.name, self.mac, self.subnet)
    }

    /// What a member's file says; `None` if it says nothing, or not all yet.
    fn read(number: u32, text: &str, lease: &Lease) -> Option<Self> {
        let mut words = text.strip_suffix('\n')?.split(' ');
        let (name, mac, subnet) = (words.next()?, words.next()?, words.next()?);
        let mac = mac.parse().ok()?;
        (label(name) == name).then(|| Self {
            number,
            name: name.into(),
            mac,
            address: address_of(number, lease),
            subnet: subnet.into(),
        })
    }
}

/// A machine's own place, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    folder: PathBuf,
    lease: Lease,
    who: Who,
    listener: OwnedFd,
    /// Locked as long as it is open.
    _file: File,
    /// Nobody else joins meanwhile.
    joining: Option<File>,
    others: Vec<Who>,
}

impl Seat {
    /// Takes a place. Until [`open_to_others`](Self::open_to_others) nobody else does.
    pub(super) fn take(
        folder: &Path,
        (name, mac): (&str, Mac),
        wanted: Option<Ipv4Addr>,
        lease: &Lease,
    ) -> Result<Self, JoinError> {
        let host = |source| JoinError::Host { folder: folder.to_owned(), source };
        make_private(folder)?;
        let joining = lock_all(folder)?;
        let subnet = subnet_text(lease);
        let (live, left): (Vec<_>, Vec<_>) =
            look(folder, lease).map_err(host)?.into_iter().partition(|(_, live)| *live);
        for (who, _) in &left {
            remove_socket(folder, who.number).map_err(host)?;
        }
        let live: Vec<Who> = live.into_iter().map(|(who, _)| who).collect();
        let left: Vec<Who> = left.into_iter().map(|(who, _)| who).collect();
        if let Some(other) = live.iter().find(|other| other.subnet != subnet) {
            let (theirs, by) = (other.subnet.clone(), other.name.clone());
            return Err(JoinError::OtherSubnet { ours: subnet, theirs, by });
        }
        if let Some(other) = live.iter().find(|other| other.mac == mac) {
            return Err(JoinError::MacTaken { mac, by: other.name.clone() });
        }
        let name = free_name(&label(name), &live);
        let number = choose(wanted, &name, (&live, &left), lease)?;
        let who = Who { number, name, mac, address: address_of(number, lease), subnet };
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join(number.to_string()))
            .map_err(host)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| host(error.into()))?;
        file.set_len(0).and_then(|()| io::Write::write_all(&mut &file, who.line().as_bytes())).map_err(host)?;
        remove_socket(folder, number).map_err(host)?;
        let listener = listen_at(&socket_path(folder, number)).map_err(host)?;
        Ok(Self {
            folder: folder.to_owned(),
            lease: lease.clone(),
            who,
            listener,
            _file: file,
            joining: Some(joining),
            others: live,
        })
    }

    pub(super) fn who(&self) -> &Who {
        &self.who
    }

    pub(super) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Those who were there before.
    pub(super) fn take_others(&mut self) -> Vec<Who> {
        std::mem::take(&mut self.others)
    }

    /// From here on others may join.
    pub(super) fn open_to_others(&mut self) {
        self.joining = None;
    }

    /// Who has this number now.
    pub(super) fn member(&self, number: u32) -> Option<Who> {
        let mut text = String::new();
        File::open(self.folder.join(number.to_string()))
            .and_then(|file| file.take(FILE_LIMIT_BYTES).read_to_string(&mut text))
            .ok()?;
        Who::read(number, &text, &self.lease)
    }

    /// A connection to another one, without waiting.
    pub(super) fn dial(&self, number: u32) -> io::Result<OwnedFd> {
        let socket = packet_socket()?;
        connect(&socket, &Address::of(&socket_path(&self.folder, number))?.unix)?;
        Ok(socket)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // What stays is removed by the next who joins.
        let _ = remove_socket(&self.folder, self.who.number);
    }
}

fn packet_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    let socket = packet_socket()?;
    bind(&socket, &Address::of(path)?.unix)?;
    listen(&socket, i32::try_from(MEMBERS_LIMIT).unwrap_or(i32::MAX))?;
    Ok(socket)
}

fn socket_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number}.sock"))
}

fn remove_socket(folder: &Path, number: u32) -> io::Result<()> {
    match fs::remove_file(socket_path(folder, number)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the folder, or sees that it is this user's alone.
fn make_private(folder: &Path) -> Result<(), JoinError> {
    let host = |source| JoinError::Host { folder: folder.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(host)?;
    let metadata = fs::symlink_metadata(folder).map_err(host)?;
    let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
    if !metadata.is_dir() || !is_own || metadata.permissions().mode() & 0o077 != 0 {
        return Err(JoinError::NotPrivate { folder: folder.to_owned() });
    }
    Ok(())
}

/// Nobody else joins as long as the file is open.
fn lock_all(folder: &Path) -> Result<File, JoinError> {
    const PAUSE: Duration = Duration::from_millis(5);
    let host = |source| JoinError::Host { folder: folder.to_owned(), source };
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(false).open(folder.join("lock")).map_err(host)?;
    let mut waited = Duration::ZERO;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::AGAIN) if waited < PATIENCE => {}
            Err(rustix::io::Errno::AGAIN) => return Err(JoinError::Busy { folder: folder.to_owned() }),
            Err(error) => return Err(host(error.into())),
        }
        std::thread::sleep(PAUSE);
        waited += PAUSE;
    }
}

/// Those whose files are there, and whether they live. Only who holds the lock on all may look: looking takes locks.
fn look(folder: &Path, lease: &Lease) -> io::Result<Vec<(Who, bool)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let mut file = File::open(entry.path())?;
        let mut text = String::new();
        // Not text: not ours, and nobody's.
        let _ = (&mut file).take(FILE_LIMIT_BYTES).read_to_string(&mut text);
        let is_live = flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::AGAIN);
        if let Some(who) = Who::read(number, &text, lease) {
            found.push((who, is_live));
        }
    }
    found.sort_by_key(|(who, _)| who.number);
    Ok(found)
}

/// The number of a new member.
fn choose(
    wanted: Option<Ipv4Addr>,
    name: &str,
    (live, left): (&[Who], &[Who]),
    lease: &Lease,
) -> Result<u32, JoinError> {
    let can_be = |number: u32| {
        let address = address_of(number, lease);
        number_of(address, lease) == Some(number) && address != lease.gateway && address != lease.dns
    };
    if live.len() >= MEMBERS_LIMIT {
        return Err(JoinError::Full);
    }
    if let Some(address) = wanted {
        let number = number_of(address, lease).filter(|number| can_be(*number));
        let number = number.ok_or(JoinError::NoAddress { address })?;
        return match live.iter().find(|other| other.number == number) {
            Some(other) => Err(JoinError::AddressTaken { address, by: other.name.clone() }),
            None => Ok(number),
        };
    }
    if let Some(before) = left.iter().find(|who| who.name == name && can_be(who.number)) {
        return Ok(before.number);
    }
    let numbers = || (FIRST_NUMBER..=LAST_NUMBER).filter(|number| can_be(*number));
    let is_known = |list: &[Who], number: u32| list.iter().any(|who| who.number == number);
    let never_used = numbers().find(|number| !is_known(live, *number) && !is_known(left, *number));
    never_used.or_else(|| numbers().find(|number| !is_known(live, *number))).ok_or(JoinError::Full)
}

fn mask(lease: &Lease) -> u32 {
    u32::MAX.checked_shl(32_u32.saturating_sub(lease.prefix_bits.into())).unwrap_or(0)
}

fn address_of(number: u32, lease: &Lease) -> Ipv4Addr {
    Ipv4Addr::from_bits(lease.gateway.to_bits() & mask(lease) | number & !mask(lease))
}

/// The last part of an address that a machine can have.
fn number_of(address: Ipv4Addr, lease: &Lease) -> Option<u32> {
    let number = address.to_bits() & !mask(lease);
    let is_inside = address.to_bits() & mask(lease) == lease.gateway.to_bits() & mask(lease);
    (is_inside && number != 0 && number != !mask(lease)).then_some(number)
}

fn subnet_text(lease: &Lease) -> String {
    format!("{}/{}", address_of(0, lease), lease.prefix_bits)
}

/// A part of a DNS name that is like `name`.
fn label(name: &str) -> String {
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    let label: String = name.chars().map(letter).take(NAME_LIMIT_BYTES).collect();
    match label.trim_matches('-') {
        "" => "machine".into(),
        label => label.into(),
    }
}

/// `name`, or with a number behind it that nobody has.
fn free_name(name: &str, live: &[Who]) -> String {
    let is_free =
        |name: &String| live.iter().all(|who| who.name != *name) && !["gateway", "host"].contains(&name.as_str());
    let numbered = |number: usize| {
        let end = format!("-{number}");
        let start = name.get(..NAME_LIMIT_BYTES - end.len()).unwrap_or(name);
        format!("{start}{end}")
    };
    let names = std::iter::once(name.to_owned()).chain((2..).map(numbered));
    names.take(MEMBERS_LIMIT + 4).find(is_free).unwrap_or_else(|| name.to_owned())
}
