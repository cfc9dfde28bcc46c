//! What the user wants of a squashfs: `COMPRESSOR[:LEVEL][,block=SIZE]`.

use std::str::FromStr;

use super::compression::{Compression, CompressionError, Compressor};
use super::order::SquashfsOrder;

/// Smallest block that Linux reads.
const LEAST_BLOCK_BYTES: u32 = 4 << 10;

/// Largest block that Linux reads.
const MOST_BLOCK_BYTES: u32 = 1 << 20;

/// What the user wants of a squashfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SquashfsOptions {
    /// What packs its blocks.
    pub compression: Compression,
    /// Bytes of content in a block: a power of two from 4 KiB to 1 MiB.
    pub block_bytes: u32,
    /// Which contents stand first.
    pub order: SquashfsOrder,
}

/// Why a text tells no options.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SquashfsOptionError {
    /// Its first word.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// The block is none that Linux reads.
    #[error("`{0}` is no size of a block; a power of two from 4K to 1M is")]
    Block(String),
    /// A word that means nothing here.
    #[error("`{0}` is unknown here; write COMPRESSOR[:LEVEL][,block=SIZE]")]
    Word(String),
}

impl Default for SquashfsOptions {
    /// What every kernel with squashfs reads.
    fn default() -> Self {
        Self {
            compression: Compression::usual(Compressor::Gzip),
            block_bytes: 128 << 10,
            order: SquashfsOrder::default(),
        }
    }
}

impl FromStr for SquashfsOptions {
    type Err = SquashfsOptionError;

    fn from_str(text: &str) -> Result<Self, SquashfsOptionError> {
        let mut words = text.split(',');
        let compression = words.next().unwrap_or_default().parse()?;
        let mut options = Self { compression, ..Self::default() };
        for word in words {
            let size = word.strip_prefix("block=").ok_or_else(|| SquashfsOptionError::Word(word.into()))?;
            options.block_bytes = block_bytes(size).ok_or_else(|| SquashfsOptionError::Block(size.into()))?;
        }
        Ok(options)
    }
}

fn block_bytes(text: &str) -> Option<u32> {
    let (number, unit) = match text.strip_suffix(['K', 'k']) {
        Some(number) => (number, 1 << 10),
        None => text.strip_suffix(['M', 'm']).map_or((text, 1), |number| (number, 1 << 20)),
    };
    let bytes = number.parse::<u32>().ok()?.checked_mul(unit)?;
    let is_known = bytes.is_power_of_two() && (LEAST_BLOCK_BYTES..=MOST_BLOCK_BYTES).contains(&bytes);
    is_known.then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_no_options_is_refused() {
        for (text, told) in [
            ("", "no compressor is called ``; there are `gzip`, `zstd`, `xz`, `lz4`, `none`"),
            ("gzip,block=3K", "`3K` is no size of a block; a power of two from 4K to 1M is"),
            ("gzip,block=2048", "`2048` is no size of a block; a power of two from 4K to 1M is"),
            ("gzip,block=2M", "`2M` is no size of a block; a power of two from 4K to 1M is"),
            ("gzip,block=9999999M", "`9999999M` is no size of a block; a power of two from 4K to 1M is"),
            ("gzip,fast", "`fast` is unknown here; write COMPRESSOR[:LEVEL][,block=SIZE]"),
            ("gzip,", "`` is unknown here; write COMPRESSOR[:LEVEL][,block=SIZE]"),
        ] {
            assert_eq!(text.parse::<SquashfsOptions>().expect_err(text).to_string(), told);
        }
    }

    #[test]
    fn options_are_read_as_typed() {
        let options: SquashfsOptions = "zstd:19,block=1M".parse().unwrap();
        assert_eq!((options.compression.to_string(), options.block_bytes), ("zstd:19".into(), 1 << 20));
        assert_eq!("xz,block=4096".parse::<SquashfsOptions>().unwrap().block_bytes, 4096);
        assert_eq!("lz4".parse::<SquashfsOptions>().unwrap().block_bytes, 128 << 10);
    }
}
