//! A tap of the host's: its frames come with virtio-net's header, so neither side computes checksums or cuts segments.
#![expect(unsafe_code, reason = "ioctls of taps, which no crate at hand knows")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

use super::outgoing::Gone;
use super::packets::{Kind, Packets, Turned};
use super::watch::Watch;
use super::{Link, LinkError};
use crate::Millis;
use crate::port::{Abilities, GuestFrame, GuestPort};
use crate::stream::Framing;
use crate::wire::VIRTIO_HEADER_BYTES;

/// Longest name of a device, in bytes (Linux: `IFNAMSIZ`, less the zero at the end).
pub(super) const NAME_LIMIT_BYTES: usize = libc::IFNAMSIZ - 1;

/// Adds a device to a bridge (Linux: `linux/sockios.h`).
const SIOCBRADDIF: libc::Ioctl = 0x89a2;

/// A link to a tap.
#[derive(Debug)]
pub struct Tap {
    watch: Watch,
    packets: Packets,
    scratch: Vec<u8>,
    /// What the kernel takes.
    takes: Abilities,
    /// What it was told that the guest does by itself.
    told: Option<Abilities>,
    is_up: bool,
}

impl Tap {
    /// Opens the tap called `name`, which is there already.
    ///
    /// # Errors
    /// It is not there, somebody else's, or in use.
    pub fn open(name: &str) -> Result<Self, LinkError> {
        if !is_device(name)? {
            return Err(LinkError::NoTap { name: name.into() });
        }
        Self::attach(name).map(|(tap, _)| tap)
    }

    /// Opens a tap, or makes one; `%d` in its name becomes a number. Gives also the name.
    pub(super) fn attach(name: &str) -> Result<(Self, String), LinkError> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = open("/dev/net/tun", flags, Mode::empty()).map_err(|error| LinkError::NoTun(error.into()))?;
        let mut request = request(name)?;
        request.ifr_ifru.ifru_flags = flags_of(libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR);
        // SAFETY: `request` is what TUNSETIFF reads and writes, and lives until the call returns.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        if result < 0 {
            let source = io::Error::last_os_error();
            return Err(match Errno::from_io_error(&source) {
                Some(Errno::BUSY) => LinkError::TapTaken { name: name.into() },
                _ => LinkError::Tap { name: name.into(), source },
            });
        }
        let name = request.ifr_name.iter().take_while(|byte| **byte != 0).map(|byte| char::from(byte.to_ne_bytes()[0]));
        let name = name.collect();
        Ok((Self::of_device(fd)?, name))
    }

    /// Takes an open tap.
    pub(super) fn of_device(fd: OwnedFd) -> Result<Self, LinkError> {
        let header_bytes = libc::c_int::try_from(VIRTIO_HEADER_BYTES).unwrap_or(libc::c_int::MAX);
        // SAFETY: TUNSETVNETHDRSZ reads an int, which lives until the call returns.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const header_bytes) })?;
        let watch = Watch::new()?;
        watch.add(fd.as_fd(), 0)?;
        // From Linux 6.2 on.
        let takes_datagrams = set_offloads(fd.as_fd(), flags_for(Abilities::ALL)).is_ok();
        let packets = Packets::new(fd, Kind::Device, Framing::Virtio);
        let takes = Abilities { datagrams: takes_datagrams, ..Abilities::ALL };
        let mut tap = Self { watch, packets, scratch: Vec::new(), takes, told: None, is_up: true };
        tap.tell(Abilities::default());
        Ok(tap)
    }

    /// Tells the kernel what the guest does by itself.
    fn tell(&mut self, abilities: Abilities) {
        if self.told == Some(abilities) {
            return;
        }
        self.told = Some(abilities);
        let abilities = Abilities { datagrams: abilities.datagrams && self.takes.datagrams, ..abilities };
        // A kernel that refuses does all of it by itself, as before.
        let _ = set_offloads(self.packets.fd(), flags_for(abilities));
    }
}

/// What a guest of these abilities does by itself, as the kernel says it.
fn flags_for(abilities: Abilities) -> libc::c_uint {
    let mut flags = 0;
    if abilities.checksum {
        flags |= libc::TUN_F_CSUM;
        if abilities.segmentation {
            flags |= libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
        }
        if abilities.datagrams {
            flags |= libc::TUN_F_USO4 | libc::TUN_F_USO6;
        }
    }
    flags
}

fn set_offloads(device: BorrowedFd<'_>, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its flags as a number.
    check(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) })
}

/// Whether `fd` is a tap that puts virtio-net's header in front of frames.
pub(super) fn is_tap(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut request = request("")?;
    // SAFETY: `request` is what TUNGETIFF writes, and lives until the call returns.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    // SAFETY: TUNGETIFF sets the flags; any bits are a valid number.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    let wanted = flags_of(libc::IFF_TAP | libc::IFF_VNET_HDR);
    Ok(flags & wanted == wanted)
}

/// Adds the device `member` to the bridge `bridge`, and switches it on.
pub(super) fn add_to_bridge(bridge: &str, member: &str) -> io::Result<()> {
    let socket = control_socket()?;
    let index = netdevice::name_to_index(&socket, member)?;
    let mut adding = request(bridge)?;
    adding.ifr_ifru.ifru_ifindex = libc::c_int::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `adding` is what SIOCBRADDIF reads, and lives until the call returns.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCBRADDIF, &raw const adding) })?;
    let mut switching = request(member)?;
    switching.ifr_ifru.ifru_flags = flags_of(libc::IFF_UP);
    // SAFETY: the same for SIOCSIFFLAGS.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const switching) })
}

/// Whether a device of that name is there.
pub(super) fn is_device(name: &str) -> io::Result<bool> {
    if name.is_empty() || name.len() > NAME_LIMIT_BYTES || name.contains(['/', '%', '\0', ' ']) {
        return Ok(false);
    }
    let socket = control_socket()?;
    match netdevice::name_to_index(&socket, name) {
        Ok(_) => Ok(true),
        Err(Errno::NODEV) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Any socket: devices are asked for through it.
fn control_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

fn request(name: &str) -> io::Result<libc::ifreq> {
    if name.len() > NAME_LIMIT_BYTES || name.contains('\0') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: zeros are a valid request without a name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    Ok(request)
}

fn flags_of(flags: libc::c_int) -> libc::c_short {
    libc::c_short::try_from(flags).unwrap_or(0)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl Link for Tap {
    fn fd(&self) -> BorrowedFd<'_> {
        self.watch.fd()
    }

    fn takes(&self) -> Abilities {
        self.takes
    }

    fn from_guest(&mut self, frame: &dyn GuestFrame, _: &mut dyn GuestPort, now: Millis) {
        if !self.is_up || self.packets.send(frame, now).is_err() {
            self.is_up = false;
            self.packets.lose();
        }
    }

    fn turn(&mut self, port: &mut dyn GuestPort, now: Millis) -> io::Result<bool> {
        self.tell(port.abilities());
        for happened in self.watch.happened()? {
            if happened.is_readable {
                self.packets.set_readable();
            }
        }
        if !self.is_up {
            return Ok(false);
        }
        match self.packets.turn(&mut self.scratch, |_, _| true, port, now) {
            Ok(turned) => Ok(turned == Turned::More),
            Err(Gone) => {
                // The device was removed.
                self.is_up = false;
                Ok(false)
            }
        }
    }

    fn deadline(&self) -> Option<Millis> {
        self.packets.deadline()
    }

    fn is_full(&self) -> bool {
        self.packets.is_full()
    }

    fn is_up(&self) -> bool {
        self.is_up
    }

    fn lost(&self) -> u64 {
        self.packets.lost()
    }
}
