//! Many datagrams in one call, and what became of them (udp(7), ip(7), ipv6(7)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Datagrams that are read or sent by one call.
pub(super) const BATCH: usize = 32;
/// Datagrams that are looked for first: getting ready for more costs more than most calls bring.
const FEW: usize = 4;
/// Room for each: more than any datagram.
const SLOT_BYTES: usize = 65_536;
/// What waits to be sent, at most.
const OUTBOX_BYTES: usize = 128 << 10;
/// Datagrams of one size that the kernel takes as one (`UDP_MAX_SEGMENTS` in Linux).
const RUN_LIMIT: usize = 64;
/// And their length together.
const RUN_BYTES: usize = 65_000;
/// Length of the longer kind of socket address.
const NAME_BYTES: usize = 28;

/// A socket's address as the kernel writes it.
type Name = [u8; NAME_BYTES];

/// Control messages; the kernel's header wants this alignment.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    buffer: Vec<u8>,
    read: Vec<(SocketAddr, usize, Option<NonZeroU16>)>,
    /// The last call brought as many as it could.
    has_more: bool,
}

/// What one call gave of one sender's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Received<'a> {
    pub(super) from: SocketAddr,
    pub(super) bytes: &'a [u8],
    /// Set if they are several datagrams of this length, of which the last may be shorter.
    pub(super) each_bytes: Option<NonZeroU16>,
}

impl Inbox {
    /// Reads what there is, up to [`BATCH`] datagrams. True if there may be more.
    ///
    /// # Errors
    /// The socket's; [`io::ErrorKind::WouldBlock`] if there is nothing.
    pub(super) fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let most = if self.has_more { BATCH } else { FEW };
        self.read.clear();
        if self.buffer.is_empty() {
            // Not filled: the host gives memory only to what is written to.
            self.buffer = vec![0; BATCH * SLOT_BYTES];
        }
        let mut names = vec![[0; NAME_BYTES]; most];
        let (slots, _) = self.buffer.as_chunks_mut::<SLOT_BYTES>();
        let mut vectors: Vec<libc::iovec> = slots.iter_mut().take(most).map(|slot| vector(slot)).collect();
        let mut controls = vec![Control([0; 64]); most];
        let mut headers = Vec::with_capacity(most);
        for ((vector, name), control) in vectors.iter_mut().zip(&mut names).zip(&mut controls) {
            let mut header = header(Some(name), vector);
            header.msg_hdr.msg_control = (&raw mut control.0).cast();
            header.msg_hdr.msg_controllen = size_of::<Control>();
            headers.push(header);
        }
        let read = receive_many(socket, &mut headers);
        let count = read.as_ref().map_or(0, |count| *count);
        self.has_more = count == most;
        read?;
        for ((header, name), control) in headers.iter().zip(&names).zip(&controls).take(count) {
            // What has no address is none of ours; its place is kept.
            let from = address(name).unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into());
            let control = control.0.get(..header.msg_hdr.msg_controllen).unwrap_or_default();
            self.read.push((from, usize::try_from(header.msg_len).unwrap_or(0), segment_bytes(control)));
        }
        Ok(self.has_more)
    }

    /// What was read: who sent it, and what.
    pub(super) fn received(&self) -> impl Iterator<Item = Received<'_>> {
        let slots = self.buffer.as_chunks::<SLOT_BYTES>().0.iter();
        let received = self.read.iter().zip(slots).map(|((from, len, each_bytes), slot)| {
            let bytes = slot.get(..*len).unwrap_or(slot);
            let each_bytes = each_bytes.filter(|each| usize::from(each.get()) < bytes.len());
            Received { from: *from, bytes, each_bytes }
        });
        received.filter(|received| !received.from.ip().is_unspecified())
    }
}

/// What is to be sent through one socket.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    datagrams: Vec<(SocketAddr, Range<usize>)>,
    /// What the sockets had no room for.
    pub(super) lost: u64,
    /// The kernel does not take several datagrams as one.
    has_no_runs: bool,
}

/// A datagram that did not go.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) target: SocketAddr,
    pub(super) payload: Vec<u8>,
    pub(super) error: io::Error,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    /// Whether a payload of so many bytes has to wait until what is there is sent.
    pub(super) fn is_full_for(&self, payload_bytes: usize) -> bool {
        !self.is_empty()
            && (self.bytes.len() + payload_bytes > OUTBOX_BYTES || self.datagrams.len() >= BATCH * RUN_LIMIT)
    }

    /// Gives back the memory of what was sent.
    pub(super) fn give_back(&mut self) {
        if self.is_empty() {
            (self.bytes, self.datagrams) = (Vec::new(), Vec::new());
        }
    }

    pub(super) fn push(&mut self, target: SocketAddr, payload: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(payload);
        self.datagrams.push((target, start..self.bytes.len()));
    }

    /// Sends all of it, and is empty. What the socket has no room for is lost, as any datagram may be.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>) -> Vec<Failure> {
        let mut failures = Vec::new();
        let datagrams = std::mem::take(&mut self.datagrams);
        let mut rest = &datagrams[..];
        let mut retries = 0;
        while !rest.is_empty() {
            let runs = self.runs(rest);
            match self.send_runs(socket, &runs) {
                Ok(sent) => {
                    let count = runs.iter().take(sent).map(|run| run.len()).sum::<usize>().max(1);
                    rest = rest.get(count..).unwrap_or_default();
                    retries = 0;
                }
                Err(error) => {
                    let is_run = runs.first().is_some_and(|run| run.len() > 1);
                    let code = error.raw_os_error();
                    match code {
                        Some(libc::EAGAIN | libc::ENOBUFS) => {
                            self.lost += rest.len() as u64;
                            break;
                        }
                        Some(libc::EINTR) => continue,
                        // That of an earlier datagram, told again when errors are read.
                        Some(libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH) if retries < 2 => {
                            retries += 1;
                            continue;
                        }
                        Some(libc::EINVAL | libc::EIO | libc::EMSGSIZE) if is_run => {
                            self.has_no_runs = true;
                            continue;
                        }
                        _ => {}
                    }
                    if let Some(((target, range), after)) = rest.split_first() {
                        let payload = self.bytes.get(range.clone()).unwrap_or_default().to_vec();
                        failures.push(Failure { target: *target, payload, error });
                        rest = after;
                    }
                    retries = 0;
                }
            }
        }
        self.bytes.clear();
        self.datagrams = datagrams;
        self.datagrams.clear();
        failures
    }

    /// Cuts what is to be sent into pieces that the kernel takes as one: the same target, the same length, but for the
    /// last.
    fn runs<'a>(&self, datagrams: &'a [(SocketAddr, Range<usize>)]) -> Vec<&'a [(SocketAddr, Range<usize>)]> {
        let mut runs = Vec::new();
        let mut rest = datagrams;
        while let Some((target, first)) = rest.first()
            && runs.len() < BATCH
        {
            let mut count = 1;
            let mut last = first;
            while let Some((other, range)) = rest.get(count)
                && !self.has_no_runs
                && count < RUN_LIMIT
                && other == target
                && !range.is_empty()
                && range.len() <= first.len()
                && last.len() == first.len()
                && range.end - first.start <= RUN_BYTES
            {
                last = range;
                count += 1;
            }
            let (run, after) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            runs.push(run);
            rest = after;
        }
        runs
    }

    fn send_runs(&mut self, socket: BorrowedFd<'_>, runs: &[&[(SocketAddr, Range<usize>)]]) -> io::Result<usize> {
        let mut names: Vec<(Name, usize)> = runs.iter().filter_map(|run| run.first()).map(|(to, _)| name(to)).collect();
        let mut controls = vec![Control([0; 64]); runs.len()];
        let mut vectors = Vec::with_capacity(runs.len());
        for run in runs {
            let range = run.first().zip(run.last()).map_or(0..0, |((_, first), (_, last))| first.start..last.end);
            vectors.push(vector(self.bytes.get_mut(range).unwrap_or_default()));
        }
        let mut headers = Vec::with_capacity(runs.len());
        for (((run, vector), (name, name_bytes)), control) in
            runs.iter().zip(&mut vectors).zip(&mut names).zip(&mut controls)
        {
            let mut header = header(Some(name), vector);
            header.msg_hdr.msg_namelen = libc::socklen_t::try_from(*name_bytes).unwrap_or(0);
            if run.len() > 1 {
                let len = u16::try_from(run.first().map_or(0, |(_, range)| range.len())).unwrap_or(u16::MAX);
                put_segment_bytes(control, len);
                header.msg_hdr.msg_control = (&raw mut control.0).cast();
                // Behind the header of 16 bytes two that count, filled up to 8.
                header.msg_hdr.msg_controllen = 24;
            }
            headers.push(header);
        }
        send_many(socket, &mut headers)
    }
}

/// How long the datagrams are that the kernel gives as one (`UDP_GRO`, udp(7)), if that is what the first control message
/// tells.
fn segment_bytes(control: &[u8]) -> Option<NonZeroU16> {
    let word = |at: usize| control.get(at..)?.first_chunk::<4>().map(|word| i32::from_ne_bytes(*word));
    let is_told = word(8)? == libc::SOL_UDP && word(12)? == libc::UDP_GRO;
    NonZeroU16::new(u16::try_from(word(16)?).ok().filter(|_| is_told)?)
}

/// Lets the kernel give datagrams that came one behind the other as one. One that cannot gives each on its own.
pub(super) fn take_runs(socket: BorrowedFd<'_>) {
    let _ = set_on(socket, libc::SOL_UDP, libc::UDP_GRO);
}

/// The control message that tells how long the pieces of a payload are.
fn put_segment_bytes(control: &mut Control, segment_bytes: u16) {
    let Control(bytes) = control;
    bytes[..8].copy_from_slice(&18_usize.to_ne_bytes());
    bytes[8..12].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
    bytes[12..16].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
    bytes[16..18].copy_from_slice(&segment_bytes.to_ne_bytes());
}

const _: () = assert!(size_of::<usize>() == 8, "control messages are laid out for 64 bits");

/// Why a datagram did not arrive.
#[derive(Debug)]
pub(super) struct Returned {
    /// Whom it was for.
    pub(super) target: SocketAddr,
    /// The start of what it said.
    pub(super) payload: Vec<u8>,
    /// Why.
    pub(super) error: io::Error,
    /// What the link on the way carries, if it was too large for it.
    pub(super) mtu: Option<u32>,
}

/// Lets the kernel keep what it hears of datagrams that did not arrive.
pub(super) fn keep_errors(socket: BorrowedFd<'_>, is_v4: bool) -> io::Result<()> {
    let (level, option) = if is_v4 { (libc::SOL_IP, libc::IP_RECVERR) } else { (libc::SOL_IPV6, libc::IPV6_RECVERR) };
    set_on(socket, level, option)
}

/// The next datagram that did not arrive.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] if there is none.
pub(super) fn returned(socket: BorrowedFd<'_>) -> io::Result<Returned> {
    /// As much as an ICMP message quotes.
    const QUOTED_BYTES: usize = 512;
    let mut payload = vec![0; QUOTED_BYTES];
    let mut name = [0; NAME_BYTES];
    let mut control = Control([0; 64]);
    let mut vector = vector(&mut payload);
    let mut header = header(Some(&mut name), &mut vector).msg_hdr;
    header.msg_control = (&raw mut control.0).cast();
    header.msg_controllen = size_of::<Control>();
    let len = receive_error(socket, &mut header)?;
    let control_bytes = header.msg_controllen;
    payload.truncate(len);
    let target = address(&name).ok_or(io::ErrorKind::InvalidData)?;
    let (error, mtu) = reason(control.0.get(..control_bytes).unwrap_or_default());
    Ok(Returned { target, payload, error, mtu })
}

/// The `sock_extended_err` (ip(7)) of the first control message.
fn reason(control: &[u8]) -> (io::Error, Option<u32>) {
    let word =
        |at: usize| control.get(at..).and_then(|rest| rest.first_chunk::<4>()).map(|word| u32::from_ne_bytes(*word));
    let code = word(16).and_then(|code| i32::try_from(code).ok()).unwrap_or(libc::EHOSTUNREACH);
    let mtu = word(24).filter(|mtu| code == libc::EMSGSIZE && *mtu > 0);
    (io::Error::from_raw_os_error(code), mtu)
}

fn address(name: &Name) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes([name[0], name[1]]));
    let port = u16::from_be_bytes([name[2], name[3]]);
    let address: IpAddr = match family {
        libc::AF_INET => Ipv4Addr::from(*name.get(4..)?.first_chunk::<4>()?).into(),
        libc::AF_INET6 => Ipv6Addr::from(*name.get(8..)?.first_chunk::<16>()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

/// A socket's address as the kernel reads it, and its length.
fn name(address: &SocketAddr) -> (Name, usize) {
    let mut name = [0; NAME_BYTES];
    name[2..4].copy_from_slice(&address.port().to_be_bytes());
    let (family, len) = match address.ip() {
        IpAddr::V4(address) => {
            name[4..8].copy_from_slice(&address.octets());
            (libc::AF_INET, 16)
        }
        IpAddr::V6(address) => {
            name[8..24].copy_from_slice(&address.octets());
            (libc::AF_INET6, NAME_BYTES)
        }
    };
    name[..2].copy_from_slice(&u16::try_from(family).unwrap_or(0).to_ne_bytes());
    (name, len)
}

fn vector(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

/// A message of one piece. It points at both, so it is to be used before they go.
#[expect(unsafe_code, reason = "libc gives no other way to make one")]
fn header(name: Option<&mut Name>, vector: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: all fields are numbers or pointers, for which zero is a value.
    let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
    if let Some(name) = name {
        header.msg_hdr.msg_name = name.as_mut_ptr().cast();
        header.msg_hdr.msg_namelen = libc::socklen_t::try_from(NAME_BYTES).unwrap_or(0);
    }
    header.msg_hdr.msg_iov = vector;
    header.msg_hdr.msg_iovlen = 1;
    header
}

#[expect(unsafe_code, reason = "no crate here knows recvmmsg")]
fn receive_many(socket: BorrowedFd<'_>, headers: &mut [libc::mmsghdr]) -> io::Result<usize> {
    let count = libc::c_uint::try_from(headers.len()).unwrap_or(0);
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: `count` headers are there, and what each points at lives in the caller, that borrows all of it for longer
    // than this call, with the lengths that it tells.
    let result =
        unsafe { libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, flags, std::ptr::null_mut()) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

#[expect(unsafe_code, reason = "no crate here knows sendmmsg")]
fn send_many(socket: BorrowedFd<'_>, headers: &mut [libc::mmsghdr]) -> io::Result<usize> {
    let count = libc::c_uint::try_from(headers.len()).unwrap_or(0);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: as for `receive_many`; the kernel only reads what the headers point at.
    let result = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, flags) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

#[expect(unsafe_code, reason = "no crate here reads the control messages of errors")]
fn receive_error(socket: BorrowedFd<'_>, header: &mut libc::msghdr) -> io::Result<usize> {
    // SAFETY: what the header points at lives in the caller for longer than this call, with the lengths that it tells.
    let result = unsafe { libc::recvmsg(socket.as_raw_fd(), header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

#[expect(unsafe_code, reason = "no crate here knows these options")]
fn set_on(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let len = libc::socklen_t::try_from(size_of_val(&on)).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the option's value is an int that lives until the call returns, and `len` is its size.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    fn pair(local: &str) -> (UdpSocket, UdpSocket) {
        (UdpSocket::bind(local).unwrap(), UdpSocket::bind(local).unwrap())
    }

    #[test]
    fn many_datagrams_of_many_lengths_arrive_as_they_were() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            for has_no_runs in [false, true] {
                let (from, to) = pair(local);
                let target = to.local_addr().unwrap();
                let mut outbox = Outbox { has_no_runs, ..Outbox::default() };
                // Runs, a shorter one at the end of a run, empty ones, long ones.
                let lens = [700, 700, 700, 300, 700, 0, 0, 5, 5, 5, 6, 9_000, 9_000, 65_507, 1];
                for (number, len) in lens.into_iter().enumerate() {
                    outbox.push(target, &vec![u8::try_from(number).unwrap(); len]);
                }
                assert!(outbox.send(from.as_fd()).is_empty() && outbox.is_empty());
                let mut inbox = Inbox::default();
                let mut got = Vec::new();
                while got.len() < lens.len() {
                    to.set_nonblocking(true).unwrap();
                    match inbox.fill(to.as_fd()) {
                        Ok(_) => {
                            got.extend(inbox.received().map(|Received { from, bytes, .. }| (from, bytes.to_vec())))
                        }
                        Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                    }
                }
                for (number, (who, bytes)) in got.iter().enumerate() {
                    assert_eq!(*who, from.local_addr().unwrap());
                    assert_eq!(*bytes, vec![u8::try_from(number).unwrap(); lens[number]], "{number}");
                }
            }
        }
    }

    #[test]
    fn datagrams_of_one_length_come_together_and_the_others_as_they_are() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let (from, to) = pair(local);
            take_runs(to.as_fd());
            let mut outbox = Outbox::default();
            let lens = [900, 900, 900, 900, 20, 5, 0, 700];
            for (number, len) in lens.into_iter().enumerate() {
                outbox.push(to.local_addr().unwrap(), &vec![u8::try_from(number).unwrap(); len]);
            }
            assert!(outbox.send(from.as_fd()).is_empty());
            let (mut inbox, mut pieces, mut calls) = (Inbox::default(), Vec::new(), 0);
            to.set_nonblocking(true).unwrap();
            while pieces.len() < lens.len() {
                let Ok(_) = inbox.fill(to.as_fd()) else { continue };
                for Received { from: who, bytes, each_bytes } in inbox.received() {
                    assert_eq!(who, from.local_addr().unwrap());
                    calls += 1;
                    match each_bytes {
                        None => pieces.push(bytes.to_vec()),
                        Some(each) => pieces.extend(bytes.chunks(usize::from(each.get())).map(<[u8]>::to_vec)),
                    }
                }
            }
            for (number, piece) in pieces.iter().enumerate() {
                assert_eq!(*piece, vec![u8::try_from(number).unwrap(); lens[number]], "{number}");
            }
            assert!(calls < lens.len(), "Linux has this since 5.0");
        }
    }

    #[test]
    fn a_datagram_that_is_too_long_fails_alone() {
        let (from, to) = pair("127.0.0.1:0");
        let target = to.local_addr().unwrap();
        let mut outbox = Outbox::default();
        outbox.push(target, b"before");
        outbox.push(target, &[0; 65_508]);
        outbox.push(target, b"behind");
        let failures = outbox.send(from.as_fd());
        let [Failure { error, payload, .. }] = &failures[..] else { panic!("{failures:?}") };
        assert_eq!((error.raw_os_error(), payload.len()), (Some(libc::EMSGSIZE), 65_508));
        let mut buffer = [0; 9];
        for word in [b"before", b"behind"] {
            let len = to.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..len], word[..]);
        }
    }

    #[test]
    fn what_nobody_takes_comes_back() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let (from, to) = pair(local);
            let target = to.local_addr().unwrap();
            drop(to);
            keep_errors(from.as_fd(), target.is_ipv4()).unwrap();
            let mut outbox = Outbox::default();
            outbox.push(target, b"hello");
            assert!(outbox.send(from.as_fd()).is_empty());
            let back = loop {
                match returned(from.as_fd()) {
                    Ok(back) => break back,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
            };
            assert_eq!((back.target, &back.payload[..], back.mtu), (target, &b"hello"[..], None));
            assert_eq!(back.error.kind(), io::ErrorKind::ConnectionRefused);
        }
    }

    #[test]
    fn the_size_that_a_link_carries_is_told_only_with_its_error() {
        let mut control = [0; 48];
        for (code, mtu, told) in [(libc::EMSGSIZE, 1_280_u32, Some(1_280)), (libc::ECONNREFUSED, 1_280, None)] {
            control[16..20].copy_from_slice(&code.to_ne_bytes());
            control[24..28].copy_from_slice(&mtu.to_ne_bytes());
            assert_eq!(reason(&control).1, told);
        }
        assert_eq!(reason(&[]).0.raw_os_error(), Some(libc::EHOSTUNREACH));
    }
}
