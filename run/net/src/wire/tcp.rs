//! TCP (RFC 9293) with window scaling and timestamps (RFC 7323) and selective acknowledgements (RFC 2018).

use std::ops::BitOr;

use super::{Malformed, Seq, at, u16_at, u32_at};

pub(super) const TCP_HEADER_BYTES: usize = 20;

/// Most selective acknowledgements in one header.
const SACK_LIMIT: usize = 4;

const OPTION_END: u8 = 0;
const OPTION_NOTHING: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_WINDOW_SCALE: u8 = 3;
const OPTION_SACK_PERMITTED: u8 = 4;
const OPTION_SACK: u8 = 5;
const OPTION_TIMESTAMPS: u8 = 8;

/// The control bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Sequence numbers begin here.
    pub const SYN: Self = Self(0x02);
    /// The connection is gone.
    pub const RST: Self = Self(0x04);
    /// Hand on what there is.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement counts.
    pub const ACK: Self = Self(0x10);

    /// Whether all bits of `other` are set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for TcpFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The timestamps option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamps {
    /// The sender's clock.
    pub value: u32,
    /// The receiver's clock, as the sender saw it last.
    pub echo: u32,
}

/// What was received behind a gap: pieces of sequence numbers, the newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SackBlocks {
    blocks: [(Seq, Seq); SACK_LIMIT],
    len: usize,
}

impl SackBlocks {
    /// Adds a piece behind the others, if there is room.
    pub fn push(&mut self, start: Seq, end: Seq) {
        if let Some(place) = self.blocks.get_mut(self.len) {
            *place = (start, end);
            self.len += 1;
        }
    }

    /// The pieces.
    pub fn iter(&self) -> impl Iterator<Item = (Seq, Seq)> {
        self.blocks.iter().take(self.len).copied()
    }

    /// The first `count` of them: what fits into a header.
    pub(super) fn first(&self, count: usize) -> Self {
        Self { len: self.len.min(count), ..*self }
    }

    pub(super) fn count(&self) -> usize {
        self.len
    }
}

/// The options that are used. Others are skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpOptions {
    /// Largest segment that the sender takes, in bytes.
    pub mss: Option<u16>,
    /// By how many bits the sender's windows are shifted, at most fourteen.
    pub window_scale: Option<u8>,
    /// Whether the sender understands selective acknowledgements.
    pub sack_permitted: bool,
    /// Selective acknowledgements.
    pub sack: SackBlocks,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
}

/// The header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// Where it comes from.
    pub source_port: u16,
    /// Where it goes.
    pub destination_port: u16,
    /// Number of the first byte of the payload, or of SYN.
    pub seq: Seq,
    /// The next number that the sender waits for; counts with [`TcpFlags::ACK`].
    pub ack: Seq,
    /// Control bits.
    pub flags: TcpFlags,
    /// The window as it stands there, not yet shifted.
    pub window: u16,
    /// The options.
    pub options: TcpOptions,
}

impl Tcp {
    /// Reads it; gives also its length with options.
    pub fn read(bytes: &[u8]) -> Result<(Self, usize), Malformed> {
        let [words, flags] = at(bytes, 12)?;
        let header_bytes = usize::from(words >> 4) * 4;
        if header_bytes < TCP_HEADER_BYTES {
            return Err(Malformed::Value);
        }
        let options = bytes.get(TCP_HEADER_BYTES..header_bytes).ok_or(Malformed::Short)?;
        let header = Self {
            source_port: u16_at(bytes, 0)?,
            destination_port: u16_at(bytes, 2)?,
            seq: Seq(u32_at(bytes, 4)?),
            ack: Seq(u32_at(bytes, 8)?),
            flags: TcpFlags(flags),
            window: u16_at(bytes, 14)?,
            options: read_options(options)?,
        };
        Ok((header, header_bytes))
    }
}

fn read_options(mut bytes: &[u8]) -> Result<TcpOptions, Malformed> {
    /// RFC 7323 section 2.3.
    const LARGEST_SCALE: u8 = 14;
    let mut options = TcpOptions::default();
    while let Some((&kind, rest)) = bytes.split_first() {
        match kind {
            OPTION_END => break,
            OPTION_NOTHING => {
                bytes = rest;
                continue;
            }
            _ => {}
        }
        let len = usize::from(*rest.first().ok_or(Malformed::Short)?);
        let content = bytes.get(2..len).ok_or(Malformed::Length)?;
        match (kind, content.len()) {
            (OPTION_MSS, 2) => options.mss = Some(u16_at(content, 0)?),
            (OPTION_WINDOW_SCALE, 1) => options.window_scale = content.first().map(|scale| (*scale).min(LARGEST_SCALE)),
            (OPTION_SACK_PERMITTED, 0) => options.sack_permitted = true,
            (OPTION_SACK, _) => {
                for block in content.as_chunks::<8>().0 {
                    options.sack.push(Seq(u32_at(block, 0)?), Seq(u32_at(block, 4)?));
                }
            }
            (OPTION_TIMESTAMPS, 8) => {
                options.timestamps = Some(Timestamps { value: u32_at(content, 0)?, echo: u32_at(content, 4)? });
            }
            _ => {}
        }
        bytes = bytes.get(len..).unwrap_or_default();
    }
    Ok(options)
}

/// Most bytes of options: the header's length has four bits, of words of four bytes.
const OPTIONS_LIMIT_BYTES: usize = 40;

impl TcpOptions {
    /// The bytes on the wire, a multiple of four; as many selective acknowledgements as there is room for.
    pub(super) fn write(&self, to: &mut [u8; OPTIONS_LIMIT_BYTES]) -> usize {
        let mut writer = Writer { to, len: 0 };
        if let Some(mss) = self.mss {
            let [a, b] = mss.to_be_bytes();
            writer.put(&[OPTION_MSS, 4, a, b]);
        }
        if let Some(scale) = self.window_scale {
            writer.put(&[OPTION_NOTHING, OPTION_WINDOW_SCALE, 3, scale]);
        }
        if self.sack_permitted {
            writer.put(&[OPTION_NOTHING, OPTION_NOTHING, OPTION_SACK_PERMITTED, 2]);
        }
        if let Some(Timestamps { value, echo }) = self.timestamps {
            writer.put(&[OPTION_NOTHING, OPTION_NOTHING, OPTION_TIMESTAMPS, 10]);
            writer.put(&value.to_be_bytes());
            writer.put(&echo.to_be_bytes());
        }
        let sack = self.sack.first((OPTIONS_LIMIT_BYTES - writer.len).saturating_sub(4) / 8);
        if sack.count() > 0 {
            let len = u8::try_from(2 + 8 * sack.count()).unwrap_or(u8::MAX);
            writer.put(&[OPTION_NOTHING, OPTION_NOTHING, OPTION_SACK, len]);
            for (start, end) in sack.iter() {
                writer.put(&start.0.to_be_bytes());
                writer.put(&end.0.to_be_bytes());
            }
        }
        writer.len
    }
}

struct Writer<'a> {
    to: &'a mut [u8; OPTIONS_LIMIT_BYTES],
    len: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        if let Some(place) = self.to.get_mut(self.len..self.len + bytes.len()) {
            place.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }
}

pub(super) fn write_options(options: &TcpOptions) -> ([u8; OPTIONS_LIMIT_BYTES], usize) {
    let mut bytes = [0; OPTIONS_LIMIT_BYTES];
    let len = options.write(&mut bytes);
    (bytes, len)
}
