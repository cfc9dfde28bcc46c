//! What whoever gets a frame has still to do about it, as virtio-net's header says it (Virtual I/O Device 1.2, section
//! 5.1.6), and the doing of it.

use super::{Body, Checksum, EtherType, Frame, Malformed, Protocol, Segment, at};
use crate::wire::ETHERNET_HEADER_BYTES;

/// Length of virtio-net's header.
pub const VIRTIO_HEADER_BYTES: usize = 12;

const NEEDS_CHECKSUM: u8 = 1;
/// No sender makes smaller ones (Linux: `tcp_min_snd_mss`, less the headers), and each costs a frame.
const LEAST_SEGMENT_BYTES: u16 = 8;
/// Where the checksum is, from the start of TCP's header.
pub(super) const TCP_CHECKSUM_OFFSET: u16 = 16;
/// The same for UDP.
pub(super) const UDP_CHECKSUM_OFFSET: u16 = 6;

/// What is not done about a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    /// Where the part begins whose checksum is missing, from the start of the frame; the field holds the sum of the
    /// pseudo header. 0: nothing is missing.
    pub checksum_start: u16,
    /// Where the field is, from there.
    pub checksum_offset: u16,
    /// Set if the frame stands for several packets.
    pub segments: Option<Segments>,
}

/// The packets that a frame stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    /// What they are.
    pub kind: SegmentKind,
    /// About how long the headers are that each of them has. Only a hint.
    pub header_bytes: u16,
    /// Payload of each but the last.
    pub payload_bytes: u16,
}

/// What the packets of a long frame are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SegmentKind {
    /// TCP over IPv4.
    TcpV4 = 1,
    /// TCP over IPv6.
    TcpV6 = 4,
    /// UDP over either.
    Udp = 5,
}

impl Offload {
    /// Reads the header in front of a frame of `len_bytes`.
    ///
    /// # Errors
    /// It says what no frame of that length can be.
    pub fn read(header: &[u8; VIRTIO_HEADER_BYTES], len_bytes: usize) -> Result<Self, Malformed> {
        let [flags, kind, h0, h1, s0, s1, c0, c1, o0, o1, _, _] = *header;
        let word = |low, high| u16::from_le_bytes([low, high]);
        let mut offload = Self::default();
        if flags & NEEDS_CHECKSUM != 0 {
            offload.checksum_start = word(c0, c1);
            offload.checksum_offset = word(o0, o1);
            let field_end = usize::from(offload.checksum_start) + usize::from(offload.checksum_offset) + 2;
            if usize::from(offload.checksum_start) < ETHERNET_HEADER_BYTES || field_end > len_bytes {
                return Err(Malformed::Length);
            }
        }
        let kind = match kind {
            0 => return Ok(offload),
            1 => SegmentKind::TcpV4,
            4 => SegmentKind::TcpV6,
            5 => SegmentKind::Udp,
            _ => return Err(Malformed::Value),
        };
        let segments = Segments { kind, header_bytes: word(h0, h1), payload_bytes: word(s0, s1) };
        // Packets that are cut need new checksums.
        if offload.checksum_start == 0 || segments.payload_bytes < LEAST_SEGMENT_BYTES {
            return Err(Malformed::Value);
        }
        if usize::from(segments.header_bytes) > len_bytes {
            return Err(Malformed::Length);
        }
        offload.segments = Some(segments);
        Ok(offload)
    }

    /// The header in front of a frame that lies in `buffers` of the receiver's.
    pub fn bytes(&self, buffers: u16) -> [u8; VIRTIO_HEADER_BYTES] {
        let mut bytes = [0; VIRTIO_HEADER_BYTES];
        if self.checksum_start > 0 {
            bytes[0] = NEEDS_CHECKSUM;
            bytes[6..8].copy_from_slice(&self.checksum_start.to_le_bytes());
            bytes[8..10].copy_from_slice(&self.checksum_offset.to_le_bytes());
        }
        if let Some(segments) = self.segments {
            bytes[1] = segments.kind as u8;
            bytes[2..4].copy_from_slice(&segments.header_bytes.to_le_bytes());
            bytes[4..6].copy_from_slice(&segments.payload_bytes.to_le_bytes());
        }
        bytes[10..].copy_from_slice(&buffers.to_le_bytes());
        bytes
    }

    /// Whether nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.checksum_start == 0 && self.segments.is_none()
    }

    /// Does what is left to do about `frame`, and gives `take` each frame that comes of it.
    ///
    /// # Errors
    /// The frame is not what this says of it.
    pub fn finish(&self, frame: &[u8], mut take: impl FnMut(&[u8])) -> Result<(), Malformed> {
        match self.segments {
            Some(segments) => self.cut(&segments, frame, take),
            None if self.checksum_start == 0 => {
                take(frame);
                Ok(())
            }
            None => {
                let mut whole = frame.to_vec();
                let start = usize::from(self.checksum_start);
                let mut sum = Checksum::default();
                sum.add(frame.get(start..).ok_or(Malformed::Length)?);
                put_checksum(&mut whole, start + usize::from(self.checksum_offset), sum, self.checksum_offset)?;
                take(&whole);
                Ok(())
            }
        }
    }

    fn cut(&self, segments: &Segments, frame: &[u8], mut take: impl FnMut(&[u8])) -> Result<(), Malformed> {
        let read = Frame::read(frame, frame.len())?;
        let Body::Ip { ip, segment, payload } = read.body else { return Err(Malformed::Value) };
        let checksum_offset = match (&segment, segments.kind, ip.source.is_ipv4()) {
            (Segment::Tcp(_), SegmentKind::TcpV4, true) | (Segment::Tcp(_), SegmentKind::TcpV6, false) => {
                TCP_CHECKSUM_OFFSET
            }
            (Segment::Udp(_), SegmentKind::Udp, _) => UDP_CHECKSUM_OFFSET,
            _ => return Err(Malformed::Value),
        };
        let start = usize::from(self.checksum_start);
        if self.checksum_offset != checksum_offset || start >= payload.start {
            return Err(Malformed::Value);
        }
        let headers = frame.get(..payload.start).ok_or(Malformed::Length)?;
        let content = frame.get(payload).ok_or(Malformed::Length)?;
        let count = content.len().div_ceil(segments.payload_bytes.into()).max(1);
        let mut whole = Vec::with_capacity(headers.len() + usize::from(segments.payload_bytes));
        let mut sent_bytes: u32 = 0;
        for (index, piece) in pieces(content, segments.payload_bytes).enumerate() {
            whole.clear();
            whole.extend_from_slice(headers);
            whole.extend_from_slice(piece);
            let (frame_bytes, len_bytes) = (whole.len(), whole.len() - start);
            put_ip_len(&mut whole, frame_bytes, index)?;
            if ip.protocol == Protocol::TCP {
                put_tcp(&mut whole, start, sent_bytes, (index == 0, index + 1 == count))?;
            } else {
                let len = u16::try_from(len_bytes).map_err(|_| Malformed::Length)?;
                put(&mut whole, start + 4, &len.to_be_bytes())?;
            }
            let field = start + usize::from(checksum_offset);
            put(&mut whole, field, &[0; 2])?;
            let mut sum = Checksum::of_pseudo_header(ip.source, ip.destination, ip.protocol.0, len_bytes);
            sum.add(whole.get(start..).unwrap_or_default());
            put_checksum(&mut whole, field, sum, checksum_offset)?;
            take(&whole);
            sent_bytes = sent_bytes.wrapping_add(u32::try_from(piece.len()).map_err(|_| Malformed::Length)?);
        }
        Ok(())
    }
}

/// At least one, which may be empty.
fn pieces(content: &[u8], len_bytes: u16) -> impl Iterator<Item = &[u8]> {
    let empty = content.is_empty().then_some(content);
    empty.into_iter().chain(content.chunks(len_bytes.max(1).into()))
}

pub(super) fn put(frame: &mut [u8], place: usize, bytes: &[u8]) -> Result<(), Malformed> {
    frame.get_mut(place..place + bytes.len()).ok_or(Malformed::Length)?.copy_from_slice(bytes);
    Ok(())
}

fn put_checksum(frame: &mut [u8], field: usize, sum: Checksum, offset: u16) -> Result<(), Malformed> {
    let checksum = match sum.finish() {
        // Zero means that there is none, for UDP; for TCP both mean the same.
        0 if offset == UDP_CHECKSUM_OFFSET => 0xffff,
        other => other,
    };
    put(frame, field, &checksum.to_be_bytes())
}

/// The length in the IP header of one of several frames, of which `headers` are the start; IPv4's identification counts
/// them.
pub(super) fn put_ip_len(headers: &mut [u8], len_bytes: usize, index: usize) -> Result<(), Malformed> {
    const IP: usize = ETHERNET_HEADER_BYTES;
    let is_v4 = at::<2>(headers, 12)? == EtherType::IPV4.0.to_be_bytes();
    let content = len_bytes.checked_sub(IP).and_then(|len| u16::try_from(len).ok()).ok_or(Malformed::Length)?;
    if !is_v4 {
        let payload = content.checked_sub(40).ok_or(Malformed::Length)?;
        return put(headers, IP + 4, &payload.to_be_bytes());
    }
    put(headers, IP + 2, &content.to_be_bytes())?;
    let id = u16::from_be_bytes(at(headers, IP + 4)?).wrapping_add(u16::try_from(index).unwrap_or(0));
    put(headers, IP + 4, &id.to_be_bytes())?;
    put(headers, IP + 10, &[0; 2])?;
    let header_bytes = usize::from(at::<1>(headers, IP)?[0] & 0xf) * 4;
    let mut sum = Checksum::default();
    sum.add(headers.get(IP..IP + header_bytes).ok_or(Malformed::Length)?);
    put(headers, IP + 10, &sum.finish().to_be_bytes())
}

pub(super) fn put_tcp(
    frame: &mut [u8],
    tcp: usize,
    sent_bytes: u32,
    (is_first, is_last): (bool, bool),
) -> Result<(), Malformed> {
    const FIN_AND_PUSH: u8 = 0x09;
    const CONGESTION_WINDOW_REDUCED: u8 = 0x80;
    let seq = u32::from_be_bytes(at(frame, tcp + 4)?).wrapping_add(sent_bytes);
    put(frame, tcp + 4, &seq.to_be_bytes())?;
    let [mut flags] = at(frame, tcp + 13)?;
    if !is_last {
        flags &= !FIN_AND_PUSH;
    }
    if !is_first {
        flags &= !CONGESTION_WINDOW_REDUCED;
    }
    put(frame, tcp + 13, &[flags])
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::wire::{Headers, Ip, Mac, Macs, Seq, Tcp, TcpFlags, TcpOptions};

    const MACS: Macs = Macs { source: Mac([2, 0, 0, 0, 0, 1]), destination: Mac([2, 0, 0, 0, 0, 2]) };

    fn long_frame(source: &str, destination: &str, payload: &[u8], segment_bytes: u16) -> (Vec<u8>, Offload) {
        let ip = Ip::new(source.parse::<IpAddr>().unwrap(), destination.parse().unwrap(), Protocol::TCP);
        let tcp = Tcp {
            source_port: 1,
            destination_port: 2,
            seq: Seq(u32::MAX - 1000),
            ack: Seq(5),
            flags: TcpFlags(0x99),
            window: 100,
            options: TcpOptions::default(),
        };
        let mut headers = Headers::tcp(MACS, &ip, &tcp, payload.len());
        headers.set_segment_bytes(segment_bytes);
        ([headers.bytes(), payload].concat(), headers.offload())
    }

    fn is_whole(frame: &[u8], start: usize) -> bool {
        let Body::Ip { ip, .. } = Frame::read(frame, frame.len()).unwrap().body else { return false };
        let mut sum = Checksum::of_pseudo_header(ip.source, ip.destination, ip.protocol.0, frame.len() - start);
        sum.add(&frame[start..]);
        sum.finish() == 0
    }

    #[test]
    fn a_header_that_says_what_cannot_be_is_refused() {
        let good = [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 1, 0];
        assert!(Offload::read(&good, 4000).is_ok());
        for (place, value) in [(1, 2), (1, 0x81), (0, 0), (6, 13), (7, 0xff), (9, 0xff), (4, 7), (3, 0xff)] {
            let mut bad = good;
            bad[place] = value;
            if place == 4 {
                bad[5] = 0;
            }
            assert!(Offload::read(&bad, 4000).is_err(), "{place} {value}");
        }
        assert!(Offload::read(&good, 51).is_err(), "the field is behind the end");
    }

    #[test]
    fn a_header_comes_back_as_it_was() {
        let (frame, offload) = long_frame("10.0.0.1", "10.0.0.2", &[7; 5000], 1460);
        assert_eq!(Offload::read(&offload.bytes(3), frame.len()), Ok(offload));
        assert_eq!(Offload::read(&Offload::default().bytes(1), 60), Ok(Offload::default()));
    }

    #[test]
    fn a_long_frame_becomes_packets_that_are_right() {
        for (source, destination, start) in [("10.0.0.1", "10.0.0.2", 34), ("fd00::1", "fd00::2", 54)] {
            let payload: Vec<u8> = (0..4000_u32).map(|n| n.to_be_bytes()[3]).collect();
            let (frame, offload) = long_frame(source, destination, &payload, 1460);
            let mut frames = Vec::new();
            offload.finish(&frame, |frame| frames.push(frame.to_vec())).unwrap();
            assert_eq!(frames.len(), 3);
            let mut joined = Vec::new();
            for (index, frame) in frames.iter().enumerate() {
                assert!(is_whole(frame, start), "{source} {index}");
                let Body::Ip { segment: Segment::Tcp(tcp), payload, .. } =
                    Frame::read(frame, frame.len()).unwrap().body
                else {
                    panic!("no segment")
                };
                let sent_bytes = u32::try_from(joined.len()).unwrap();
                assert_eq!(tcp.seq, Seq((u32::MAX - 1000).wrapping_add(sent_bytes)));
                assert_eq!(tcp.flags.0, [0x90, 0x10, 0x19][index]);
                joined.extend_from_slice(&frame[payload]);
            }
            assert_eq!(joined, payload);
        }
    }

    #[test]
    fn a_checksum_is_completed() {
        let (frame, mut offload) = long_frame("10.0.0.1", "10.0.0.2", b"odd", 1460);
        offload.segments = None;
        let mut frames = Vec::new();
        offload.finish(&frame, |frame| frames.push(frame.to_vec())).unwrap();
        assert!(frames.len() == 1 && is_whole(&frames[0], 34) && !is_whole(&frame, 34));
    }

    #[test]
    fn a_frame_that_is_not_what_its_header_says_is_not_cut() {
        let (frame, offload) = long_frame("10.0.0.1", "10.0.0.2", &[7; 5000], 1460);
        let segments = offload.segments.unwrap();
        for bad in [
            Offload { segments: Some(Segments { kind: SegmentKind::TcpV6, ..segments }), ..offload },
            Offload { segments: Some(Segments { kind: SegmentKind::Udp, ..segments }), ..offload },
            Offload { checksum_start: 60, ..offload },
            Offload { checksum_offset: 6, ..offload },
        ] {
            assert!(bad.finish(&frame, |_| panic!("{bad:?}")).is_err());
        }
        for cut in 0..54 {
            assert!(offload.finish(&frame[..cut], |_| panic!("{cut}")).is_err());
        }
    }
}
