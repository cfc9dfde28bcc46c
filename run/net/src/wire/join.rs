//! Several segments made into the long frame that a card would cut into them.

use super::offload::{TCP_CHECKSUM_OFFSET, put, put_ip_len};
use super::{
    Body, Checksum, ETHERNET_HEADER_BYTES, Frame, HEADERS_LIMIT_BYTES, Ip, Malformed, Offload, Segment, SegmentKind,
    Segments, TcpFlags, at, u16_at, u32_at,
};

/// Shorter frames are not joined: little would be saved. They are longer than their headers.
const LEAST_BYTES: usize = 512;
/// Longest frame: a packet (RFC 791) and Ethernet's header.
const LIMIT_BYTES: usize = ETHERNET_HEADER_BYTES + 65_535;

/// Most that Ethernet's, IP's (without options) and TCP's headers take, and a little more.
const SAME_BYTES: usize = 120;
const SAME_V4: [u8; SAME_BYTES] = same(20, [2, 3, 4, 5, 10, 11]);
const SAME_V6: [u8; SAME_BYTES] = same(40, [4, 5, 4, 5, 4, 5]);

/// The bits of the headers that are the same in each segment: all but IP's `different` bytes (its length, IPv4's
/// identification and checksum) and TCP's number, flags and checksum.
const fn same(ip_bytes: usize, different: [usize; 6]) -> [u8; SAME_BYTES] {
    let (mut same, tcp) = ([u8::MAX; SAME_BYTES], ETHERNET_HEADER_BYTES + ip_bytes);
    let mut number = 0;
    while number < different.len() {
        same[ETHERNET_HEADER_BYTES + different[number]] = 0;
        number += 1;
    }
    let (of_tcp, mut number) = ([4, 5, 6, 7, 13, 16, 17], 0);
    while number < of_tcp.len() {
        same[tcp + of_tcp[number]] = 0;
        number += 1;
    }
    same
}

/// Whether two headers are the same where `mask` has ones; all are of one length. Eight bytes at once, as this is done
/// for each segment.
fn is_same(one: &[u8], other: &[u8], mask: &[u8]) -> bool {
    let ((one, one_rest), (other, other_rest), (mask, mask_rest)) =
        (one.as_chunks::<8>(), other.as_chunks::<8>(), mask.as_chunks::<8>());
    let mut difference = 0;
    for ((one, other), mask) in one.iter().zip(other).zip(mask) {
        difference |= (u64::from_ne_bytes(*one) ^ u64::from_ne_bytes(*other)) & u64::from_ne_bytes(*mask);
    }
    for ((one, other), mask) in one_rest.iter().zip(other_rest).zip(mask_rest) {
        difference |= u64::from((one ^ other) & mask);
    }
    difference == 0
}

/// Segments of one connection, each the next of the one before, whose headers differ only where they must.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The start of the first frame.
    head: [u8; HEADERS_LIMIT_BYTES],
    ip: Ip,
    /// Where TCP's header begins, and where it ends.
    tcp: usize,
    header_bytes: usize,
    /// Payload of each but the last.
    segment_bytes: usize,
    payload_bytes: usize,
    /// The last one was short, or wants to be handed on.
    is_over: bool,
}

impl Joined {
    /// `frame` alone, if another may follow it.
    pub fn begin(frame: &[u8]) -> Option<Self> {
        let head = *frame.get(..LEAST_BYTES)?.first_chunk()?;
        let Body::Ip { ip, segment: Segment::Tcp(segment), payload } = Frame::read(frame, frame.len()).ok()?.body
        else {
            return None;
        };
        // IP's options and extension headers are left alone.
        let tcp = ETHERNET_HEADER_BYTES + if ip.source.is_ipv4() { 20 } else { 40 };
        let [words] = at(&head, tcp + 12).ok()?;
        let is_simple = tcp + usize::from(words >> 4) * 4 == payload.start && payload.end == frame.len();
        let bytes = payload.len();
        (is_simple && segment.flags == TcpFlags::ACK && bytes > 0).then_some(Self {
            head,
            ip,
            tcp,
            header_bytes: payload.start,
            segment_bytes: bytes,
            payload_bytes: bytes,
            is_over: false,
        })
    }

    /// Takes `frame` as the next one; false if it is something else.
    pub fn add(&mut self, frame: &[u8]) -> bool {
        let payload_bytes = frame.len().saturating_sub(self.header_bytes);
        let fits = payload_bytes > 0
            && payload_bytes <= self.segment_bytes
            && self.len_bytes() + payload_bytes <= LIMIT_BYTES
            && !self.is_over;
        let flags = if fits { self.flags_of_next(frame).unwrap_or_default() } else { TcpFlags::default() };
        let is_pushed = flags == TcpFlags::ACK | TcpFlags::PSH;
        if flags != TcpFlags::ACK && !is_pushed {
            return false;
        }
        if is_pushed && let Some(place) = self.head.get_mut(self.tcp + 13) {
            *place = flags.0;
        }
        self.is_over = is_pushed || payload_bytes < self.segment_bytes;
        self.payload_bytes += payload_bytes;
        true
    }

    /// The flags of a frame with the same headers and the next number.
    fn flags_of_next(&self, frame: &[u8]) -> Result<TcpFlags, Malformed> {
        const IP: usize = ETHERNET_HEADER_BYTES;
        let tcp = self.tcp;
        let (same, len_field, uncounted_bytes) = match self.ip.source.is_ipv4() {
            true => (&SAME_V4, IP + 2, IP),
            false => (&SAME_V6, IP + 4, tcp),
        };
        let of = |bytes| <[u8]>::get(bytes, ..self.header_bytes).ok_or(Malformed::Short);
        let is_same = is_same(of(&self.head)?, of(frame)?, of(same)?);
        let len = usize::from(u16_at(frame, len_field)?);
        let seq = u32_at(&self.head, tcp + 4)?.wrapping_add(u32::try_from(self.payload_bytes).unwrap_or(0));
        if !is_same || len != frame.len() - uncounted_bytes || u32_at(frame, tcp + 4)? != seq {
            return Err(Malformed::Value);
        }
        if self.ip.source.is_ipv4() {
            let mut sum = Checksum::default();
            sum.add(frame.get(IP..tcp).ok_or(Malformed::Short)?);
            if sum.finish() != 0 {
                return Err(Malformed::Checksum);
            }
        }
        at(frame, tcp + 13).map(|[flags]| TcpFlags(flags))
    }

    /// Length of all headers.
    pub fn header_bytes(&self) -> usize {
        self.header_bytes
    }

    /// Length of the whole.
    pub fn len_bytes(&self) -> usize {
        self.header_bytes + self.payload_bytes
    }

    /// The start of the whole, and what is not done about it.
    ///
    /// # Errors
    /// None: its headers were read before.
    pub fn head(&self) -> Result<([u8; HEADERS_LIMIT_BYTES], Offload), Malformed> {
        let mut head = self.head;
        put_ip_len(&mut head, self.len_bytes(), 0)?;
        let tcp_bytes = self.len_bytes() - self.tcp;
        let sum = Checksum::of_pseudo_header(self.ip.source, self.ip.destination, self.ip.protocol.0, tcp_bytes);
        put(&mut head, self.tcp + usize::from(TCP_CHECKSUM_OFFSET), &sum.partial().to_be_bytes())?;
        let word = |value: usize| u16::try_from(value).map_err(|_| Malformed::Length);
        let kind = if self.ip.source.is_ipv4() { SegmentKind::TcpV4 } else { SegmentKind::TcpV6 };
        let segments =
            Segments { kind, header_bytes: word(self.header_bytes)?, payload_bytes: word(self.segment_bytes)? };
        let offload =
            Offload { checksum_start: word(self.tcp)?, checksum_offset: TCP_CHECKSUM_OFFSET, segments: Some(segments) };
        Ok((head, offload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Headers, Mac, Macs, Protocol, Seq, Tcp, TcpOptions, Timestamps};

    /// Frames of one long one, cut where `segment_bytes` says.
    fn cut(source: &str, destination: &str, payload: &[u8], segment_bytes: u16) -> Vec<Vec<u8>> {
        let macs = Macs { source: Mac([2, 0, 0, 0, 0, 1]), destination: Mac([2, 0, 0, 0, 0, 2]) };
        let ip = Ip::new(source.parse().unwrap(), destination.parse().unwrap(), Protocol::TCP);
        let tcp = Tcp {
            source_port: 1,
            destination_port: 2,
            seq: Seq(u32::MAX - 1000),
            ack: Seq(5),
            flags: TcpFlags::ACK | TcpFlags::PSH,
            window: 100,
            options: TcpOptions { timestamps: Some(Timestamps { value: 3, echo: 4 }), ..TcpOptions::default() },
        };
        let mut headers = Headers::tcp(macs, &ip, &tcp, payload.len());
        headers.set_segment_bytes(segment_bytes);
        let mut frames = Vec::new();
        let frame = [headers.bytes(), payload].concat();
        headers.offload().finish(&frame, |frame| frames.push(frame.to_vec())).unwrap();
        frames
    }

    const ENDS: [(&str, &str); 2] = [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")];

    #[test]
    fn only_the_next_segment_of_the_same_connection_is_added() {
        for (source, destination) in ENDS {
            let frames = cut(source, destination, &[7; 5_000], 1_000);
            let first = Joined::begin(&frames[0]).unwrap();
            assert!(first.clone().add(&frames[1]) && !first.clone().add(&frames[0]) && !first.clone().add(&frames[2]));
            let header_bytes = frames[0].len() - 1_000;
            for place in 0..header_bytes {
                // TCP's checksum is looked at by nobody here; PSH may be set.
                let is_free = [first.tcp + 16, first.tcp + 17].contains(&place);
                let mut changed = frames[1].clone();
                changed[place] ^= 1;
                assert_eq!(first.clone().add(&changed), is_free, "{source} {place}");
            }
            assert!(!first.clone().add(&frames[1][..header_bytes]), "no payload");
            let mut padded = frames[1].clone();
            padded.push(0);
            assert!(!first.clone().add(&padded) && Joined::begin(&[&frames[0][..], &[0]].concat()).is_none());
            assert!(Joined::begin(frames.last().unwrap()).is_none(), "it wants to be handed on");
        }
    }

    #[test]
    fn what_was_cut_is_the_same_when_it_is_joined_and_cut_again() {
        for (source, destination) in ENDS {
            for len in [1_500, 2_000, 40_000] {
                let payload: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
                let frames = cut(source, destination, &payload, 1_000);
                let mut joined = Joined::begin(&frames[0]).unwrap();
                assert!(frames[1..].iter().all(|frame| joined.add(frame)));
                assert!(!joined.add(&frames[0]), "it is over");
                let (head, offload) = joined.head().unwrap();
                let whole = [&head[..joined.header_bytes()], &payload].concat();
                assert_eq!(whole.len(), joined.len_bytes());
                let mut again = Vec::new();
                offload.finish(&whole, |frame| again.push(frame.to_vec())).unwrap();
                assert!(again == frames, "{source} {len}");
            }
        }
    }

    #[test]
    fn no_more_is_joined_than_a_packet_can_hold() {
        for (source, destination) in ENDS {
            let frames = cut(source, destination, &[7; 65_000], 1_000);
            let mut joined = Joined::begin(&frames[0]).unwrap();
            let mut longer = frames[1].clone();
            while joined.add(&longer) {
                let next = u32_at(&longer, joined.tcp + 4).unwrap().wrapping_add(1_000);
                longer[joined.tcp + 4..joined.tcp + 8].copy_from_slice(&next.to_be_bytes());
            }
            assert!(joined.len_bytes() <= LIMIT_BYTES && joined.len_bytes() > LIMIT_BYTES - 1_100);
            assert!(joined.head().is_ok());
        }
    }
}
