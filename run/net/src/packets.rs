//! Packets to the guest that are made here, not read from a socket: whole, or in fragments where the link is too small
//! (RFC 791 section 3.2, RFC 8200 section 4.5).

use std::net::SocketAddr;
use std::num::NonZeroU16;

use crate::port::GuestPort;
use crate::wire::{Checksum, ETHERNET_HEADER_BYTES, Fragment, Headers, Ip, Macs, Protocol};

/// Numbers of fragmented packets that one [`ToGuest`] may use up.
pub const IDS_A_TURN: u32 = 256;

/// Datagrams that go in one frame, at most (Linux: `UDP_MAX_SEGMENTS`, in kernels before 6.9).
const RUN_LIMIT: usize = 64;
/// And their length together: one packet's, less the headers of IPv6 and UDP.
const RUN_LIMIT_BYTES: usize = 65_535 - 48;

/// The way to the guest, and what it is like.
pub struct ToGuest<'a> {
    /// Where frames go.
    pub port: &'a mut dyn GuestPort,
    /// Link addresses of the frames.
    pub macs: Macs,
    /// Largest packet that the link carries, in bytes.
    pub mtu: u16,
    /// The number of the next packet that goes in fragments.
    pub id: u32,
}

impl ToGuest<'_> {
    /// A UDP datagram. Lost, if there is no room, as any datagram may be.
    pub fn datagram(&mut self, (from, to): (SocketAddr, SocketAddr), payload: &[u8]) {
        let ip = Ip::new(from.ip(), to.ip(), Protocol::UDP);
        let mut headers = Headers::udp(self.macs, &ip, from.port(), to.port(), payload.len());
        if headers.bytes().len() + payload.len() <= usize::from(self.mtu) + ETHERNET_HEADER_BYTES {
            let _ = self.port.send(headers, payload);
            return;
        }
        // No offload knows fragments: the checksum is made over the whole.
        let start = usize::from(headers.offload().checksum_start);
        headers.complete_checksum(payload);
        let content = [headers.bytes().get(start..).unwrap_or_default(), payload].concat();
        self.packet(ip, &content);
    }

    /// Datagrams of `each_bytes` from one end to the other, of which the last may be shorter: in one frame, if the guest
    /// takes such and has room.
    pub fn datagrams(&mut self, (from, to): (SocketAddr, SocketAddr), payload: &[u8], each_bytes: NonZeroU16) {
        let each = usize::from(each_bytes.get());
        let ip = Ip::new(from.ip(), to.ip(), Protocol::UDP);
        let abilities = self.port.abilities();
        for run in payload.chunks(each * (RUN_LIMIT_BYTES / each).clamp(1, RUN_LIMIT)) {
            let mut headers = Headers::udp(self.macs, &ip, from.port(), to.port(), run.len());
            let header_bytes = headers.bytes().len();
            let fits_link = header_bytes + each <= usize::from(self.mtu) + ETHERNET_HEADER_BYTES;
            headers.set_segment_bytes(each_bytes.get());
            let is_run = run.len() > each && fits_link && abilities.cover(&headers.offload());
            if is_run && self.port.room(header_bytes) >= run.len() {
                let _ = self.port.send(headers, run);
            } else {
                run.chunks(each).for_each(|piece| self.datagram((from, to), piece));
            }
        }
    }

    /// An ICMP message, whose checksum is made here.
    pub fn message(&mut self, ip: Ip, mut message: Vec<u8>) {
        let mut sum = match ip.protocol {
            Protocol::ICMPV6 => Checksum::of_pseudo_header(ip.source, ip.destination, ip.protocol.0, message.len()),
            _ => Checksum::default(),
        };
        if let Some(place) = message.get_mut(2..4) {
            place.fill(0);
        }
        sum.add(&message);
        if let Some(place) = message.get_mut(2..4) {
            place.copy_from_slice(&sum.finish().to_be_bytes());
        }
        self.packet(ip, &message);
    }

    /// An IP packet with `content` in it, which brings its own checksum.
    pub fn packet(&mut self, ip: Ip, content: &[u8]) {
        let whole = Headers::ip(self.macs, &ip, content.len());
        if whole.bytes().len() + content.len() <= usize::from(self.mtu) + ETHERNET_HEADER_BYTES {
            let _ = self.port.send(whole, content);
            return;
        }
        let id = self.id;
        self.id = self.id.wrapping_add(1);
        let part = |offset_bytes, has_more| Ip { fragment: Some(Fragment { id, offset_bytes, has_more }), ..ip };
        let header_bytes = Headers::ip(self.macs, &part(0, true), 0).bytes().len() - ETHERNET_HEADER_BYTES;
        // All but the last are multiples of eight.
        let piece_bytes = usize::from(self.mtu).saturating_sub(header_bytes) & !7;
        if piece_bytes == 0 {
            return;
        }
        for (number, piece) in content.chunks(piece_bytes).enumerate() {
            let offset_bytes = number * piece_bytes;
            let Ok(offset) = u16::try_from(offset_bytes) else { return };
            let ip = part(offset, offset_bytes + piece.len() < content.len());
            if !self.port.send(Headers::ip(self.macs, &ip, piece.len()), piece) {
                // The rest would be of no use.
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::testing::Got;
    use crate::memory::MemoryPort;
    use crate::port::Abilities;
    use crate::wire::{Body, Frame, Mac, Segment};

    const MACS: Macs = Macs { source: Mac([2, 0, 0, 0, 0, 1]), destination: Mac([2, 0, 0, 0, 0, 2]) };

    #[test]
    fn datagrams_of_one_length_go_in_one_frame_to_those_who_take_it() {
        let payload: Vec<u8> = (0..70 * 1_000 + 7).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let all = Abilities::ALL;
        for (abilities, each, frames) in [
            (all, 1_000, 2),
            // Longer ones than the link carries go in fragments, each on its own.
            (all, 2_000, 71),
            (Abilities { datagrams: false, ..all }, 1_000, 71),
            (Abilities { checksum: false, ..all }, 1_000, 71),
        ] {
            for (from, to) in [("192.0.2.1:9", "10.0.2.15:7"), ("[2001:db8::1]:9", "[fd00::15]:7")] {
                let mut got = Got { abilities, ..Got::new() };
                let mut guest = ToGuest { port: &mut got, macs: MACS, mtu: 1_500, id: 7 };
                guest.datagrams((from.parse().unwrap(), to.parse().unwrap()), &payload, NonZeroU16::new(each).unwrap());
                assert_eq!(got.frames.len(), frames, "{each}");
                let mut content = Vec::new();
                for (frame, offload) in got.frames.iter().filter(|_| each == 1_000) {
                    let mut one = |frame: &[u8]| {
                        let Body::Ip { segment, payload, .. } = Frame::read(frame, frame.len()).unwrap().body else {
                            panic!("no packet")
                        };
                        assert!(matches!(segment, Segment::Udp(udp) if udp.destination_port == 7));
                        assert!(payload.len() == 1_000 || payload.len() == 7);
                        content.extend_from_slice(&frame[payload]);
                    };
                    assert!(abilities.cover(offload) || offload.segments.is_none());
                    offload.finish(frame, &mut one).unwrap();
                }
                assert!(each != 1_000 || content == payload);
            }
        }
    }

    #[test]
    fn what_is_too_long_for_the_link_goes_in_fragments() {
        for (from, to) in [("192.0.2.1:9", "10.0.2.15:7"), ("[2001:db8::1]:9", "[fd00::15]:7")] {
            for len in [0, 1, 1452, 1453, 1472, 1473, 9_000, 65_507] {
                let payload: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
                let mut port = MemoryPort::new(1_000);
                let mut guest = ToGuest { port: &mut port, macs: MACS, mtu: 1_500, id: 7 };
                guest.datagram((from.parse().unwrap(), to.parse().unwrap()), &payload);
                let mut content = Vec::new();
                let frames = port.take_frames();
                let is_whole = frames.len() == 1;
                for frame in &frames {
                    assert!(frame.len() <= 1_514, "{len}");
                    let Body::Ip { ip, payload, .. } = Frame::read(frame, frame.len()).unwrap().body else { panic!() };
                    assert_eq!(ip.fragment.is_none(), is_whole);
                    if let Some(fragment) = ip.fragment {
                        assert_eq!((fragment.id, usize::from(fragment.offset_bytes)), (7, content.len()));
                        assert_eq!(fragment.has_more, content.len() + payload.len() < len + 8);
                    }
                    content.extend_from_slice(&frame[payload]);
                }
                assert!(content.ends_with(&payload) && content.len() == len + if is_whole { 0 } else { 8 });
            }
        }
    }
}
