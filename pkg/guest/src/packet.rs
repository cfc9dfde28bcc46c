//! Packet sockets (`packet(7)`): packets of one link as they are on the wire, without the Ethernet header. What the kernel
//! itself would refuse to take or to send, as a machine without an address must.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{c_int, c_void, sock_filter, sock_fprog, sockaddr_ll, socklen_t};
use rustix::net::RecvFlags;

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;

/// What a socket hears. The kernel drops everything else before it costs anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hears {
    /// UDP over IPv4 to this port; fragments but the first are left out. Begins with the IPv4 header.
    Udp4(u16),
    /// ARP. Begins with the ARP header.
    Arp,
    /// ICMPv6 of this type that follows the IPv6 header at once. Begins with the IPv6 header.
    Icmp6(u8),
}

/// A socket on one link.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
    index: c_int,
    protocol: u16,
}

impl PacketSocket {
    /// Opens a socket on the link of this number. Needs CAP_NET_RAW.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(index: u32, hears: Hears) -> io::Result<Self> {
        let index = c_int::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
        let protocol = match hears {
            Hears::Udp4(_) => IPV4,
            Hears::Arp => ARP,
            Hears::Icmp6(_) => IPV6,
        };
        // Protocol 0 hears nothing: the filter is there before the first packet.
        let socket = open_socket()?;
        filter(&socket, &program(hears))?;
        let socket = Self { socket, index, protocol };
        bind(&socket.socket, &socket.address([0; 6]))?;
        Ok(socket)
    }

    /// Sends a packet to a hardware address.
    ///
    /// # Errors
    /// The kernel's: the link is down, or its queue is full.
    pub fn send(&self, packet: &[u8], to: [u8; 6]) -> io::Result<()> {
        send(&self.socket, packet, &self.address(to))
    }

    /// The next packet that is waiting, cut to the length of `buffer`.
    ///
    /// # Errors
    /// The kernel's: the link went down or away.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((len, _)) => Ok(buffer.get(..len)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn address(&self, mac: [u8; 6]) -> sockaddr_ll {
        let mut address = sockaddr_ll {
            sll_family: libc::AF_PACKET.try_into().unwrap_or_default(),
            sll_protocol: self.protocol.to_be(),
            sll_ifindex: self.index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 6,
            sll_addr: [0; 8],
        };
        address.sll_addr[..6].copy_from_slice(&mac);
        address
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

const ACCEPT: sock_filter = instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX);
const DROP: sock_filter = instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0);

const fn instruction(code: u32, yes: u8, no: u8, k: u32) -> sock_filter {
    // The codes of this language all fit into 16 bits.
    let code = code.to_le_bytes();
    sock_filter { code: u16::from_le_bytes([code[0], code[1]]), jt: yes, jf: no, k }
}

/// The program in the language of `linux/filter.h` that takes what is heard.
fn program(hears: Hears) -> Vec<sock_filter> {
    const BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    const HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    const HALF_BEHIND: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
    const HEADER_LEN: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const ANY_OF: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    const UDP: u32 = 17;
    const ICMP6: u32 = 58;
    match hears {
        Hears::Udp4(port) => vec![
            instruction(BYTE, 0, 0, 9),
            instruction(EQUAL, 0, 6, UDP),
            instruction(HALF, 0, 0, 6),
            instruction(ANY_OF, 4, 0, 0x1fff),
            instruction(HEADER_LEN, 0, 0, 0),
            instruction(HALF_BEHIND, 0, 0, 2),
            instruction(EQUAL, 0, 1, port.into()),
            ACCEPT,
            DROP,
        ],
        Hears::Arp => vec![ACCEPT],
        Hears::Icmp6(kind) => vec![
            instruction(BYTE, 0, 0, 6),
            instruction(EQUAL, 0, 3, ICMP6),
            instruction(BYTE, 0, 0, 40),
            instruction(EQUAL, 0, 1, kind.into()),
            ACCEPT,
            DROP,
        ],
    }
}

fn len_of<T>() -> socklen_t {
    socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

fn done(result: isize) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[expect(unsafe_code, reason = "no safe library opens packet sockets")]
fn open_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket(2) takes three numbers and touches no memory of ours.
    let descriptor = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    done(descriptor as isize)?;
    // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[expect(unsafe_code, reason = "no safe library attaches filters")]
fn filter(socket: &OwnedFd, program: &[sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let (value, len) = ((&raw const program).cast::<c_void>(), len_of::<sock_fprog>());
    // SAFETY: `value` points to a `sock_fprog` of `len` bytes, and that to as many instructions as it says; both live until the
    // call is over. The kernel copies them and writes to neither.
    done(unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, value, len) } as isize)
}

#[expect(unsafe_code, reason = "no safe library has the addresses of packet sockets")]
fn bind(socket: &OwnedFd, address: &sockaddr_ll) -> io::Result<()> {
    let address = std::ptr::from_ref(address).cast();
    // SAFETY: `address` points to a `sockaddr_ll` of the length that is told, which the kernel only reads.
    done(unsafe { libc::bind(socket.as_raw_fd(), address, len_of::<sockaddr_ll>()) } as isize)
}

#[expect(unsafe_code, reason = "no safe library has the addresses of packet sockets")]
fn send(socket: &OwnedFd, packet: &[u8], to: &sockaddr_ll) -> io::Result<()> {
    let (bytes, len) = (packet.as_ptr().cast(), packet.len());
    let to = std::ptr::from_ref(to).cast();
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `bytes` points to `len` bytes and `to` to a `sockaddr_ll` of the length that is told; the kernel only reads them.
    done(unsafe { libc::sendto(socket.as_raw_fd(), bytes, len, flags, to, len_of::<sockaddr_ll>()) })
}
