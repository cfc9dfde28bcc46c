//! What packs the blocks: the known compressors, their levels, and what the image says about them.

use std::fmt;
use std::str::FromStr;

/// A compressor that Linux' squashfs can undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compressor {
    /// zlib's format. Every kernel that has squashfs can read it.
    Gzip,
    /// LZMA2 in the xz format.
    Xz,
    /// LZ4 blocks.
    Lz4,
    /// Zstandard.
    Zstd,
    /// Nothing is packed.
    None,
}

/// A compressor and how hard it tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Compression {
    compressor: Compressor,
    level: u32,
}

/// Why a text is no compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    /// No compressor has this name.
    #[error("no compressor is called `{name}`; there are {}", Compressor::names())]
    Unknown {
        /// As the user wrote it.
        name: String,
    },
    /// The level is none of this compressor's.
    #[error("`{level}` is no level of {compressor}; it has {} to {}", range.0, range.1)]
    Level {
        /// Whose.
        compressor: Compressor,
        /// As the user wrote it.
        level: String,
        /// The lowest and the highest there is.
        range: (u32, u32),
    },
    /// The compressor has no levels.
    #[error("{compressor} has no levels; write `{compressor}` alone")]
    NoLevels {
        /// Which.
        compressor: Compressor,
    },
}

impl Compressor {
    /// All of them, in the order of the help.
    pub const ALL: [Self; 5] = [Self::Gzip, Self::Zstd, Self::Xz, Self::Lz4, Self::None];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::None => "none",
        }
    }

    /// Its number in the superblock. What is not packed needs none, but something must be there that all kernels have.
    pub(super) fn number(self) -> u16 {
        match self {
            Self::Gzip | Self::None => 1,
            Self::Xz => 4,
            Self::Lz4 => 5,
            Self::Zstd => 6,
        }
    }

    /// The lowest level, the highest, and the one that is used when none is asked for.
    fn levels(self) -> Option<(u32, u32, u32)> {
        match self {
            Self::Gzip => Some((1, 9, 9)),
            Self::Xz => Some((0, 9, 6)),
            Self::Zstd => Some((1, 22, 15)),
            Self::Lz4 | Self::None => None,
        }
    }

    fn names() -> String {
        Self::ALL.map(|compressor| format!("`{compressor}`")).join(", ")
    }
}

impl fmt::Display for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Compression {
    /// A compressor at its usual level.
    pub fn usual(compressor: Compressor) -> Self {
        Self { compressor, level: compressor.levels().map_or(0, |(_, _, usual)| usual) }
    }

    /// Which compressor.
    pub fn compressor(self) -> Compressor {
        self.compressor
    }

    /// How hard it tries; 0 where there are no levels.
    pub fn level(self) -> u32 {
        self.level
    }

    /// What the image tells about it behind the superblock. LZ4 must tell; the others tell what is not what everybody
    /// expects. Linux reads LZ4's alone; `unsquashfs -s` shows them.
    pub(super) fn options(self) -> Option<Vec<u8>> {
        const LZ4_LEGACY: u32 = 1;
        const WINDOW_BITS: u16 = 15;
        const DEFAULT_STRATEGY: u16 = 1;
        let words = |words: [u32; 2]| words.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<_>>();
        match self.compressor {
            Compressor::Gzip if self.level != 9 => {
                let mut options = self.level.to_le_bytes().to_vec();
                options.extend(WINDOW_BITS.to_le_bytes());
                options.extend(DEFAULT_STRATEGY.to_le_bytes());
                Some(options)
            }
            Compressor::Zstd if self.level != 15 => Some(self.level.to_le_bytes().into()),
            Compressor::Lz4 => Some(words([LZ4_LEGACY, 0])),
            Compressor::Gzip | Compressor::Zstd | Compressor::Xz | Compressor::None => None,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.compressor.levels() {
            Some(_) => write!(f, "{}:{}", self.compressor, self.level),
            None => write!(f, "{}", self.compressor),
        }
    }
}

impl FromStr for Compression {
    type Err = CompressionError;

    fn from_str(text: &str) -> Result<Self, CompressionError> {
        let (name, level) = text.split_once(':').map_or((text, None), |(name, level)| (name, Some(level)));
        let known = Compressor::ALL.into_iter().find(|compressor| compressor.name() == name);
        let compressor = known.ok_or_else(|| CompressionError::Unknown { name: name.into() })?;
        let Some(level) = level else { return Ok(Self::usual(compressor)) };
        let (least, most, _) = compressor.levels().ok_or(CompressionError::NoLevels { compressor })?;
        let number = level.parse().ok().filter(|number| (least..=most).contains(number));
        let refuse = || CompressionError::Level { compressor, level: level.into(), range: (least, most) };
        Ok(Self { compressor, level: number.ok_or_else(refuse)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_compression_is_refused() {
        for (text, told) in [
            ("", "no compressor is called ``; there are `gzip`, `zstd`, `xz`, `lz4`, `none`"),
            ("bzip2", "no compressor is called `bzip2`; there are `gzip`, `zstd`, `xz`, `lz4`, `none`"),
            ("zstd:0", "`0` is no level of zstd; it has 1 to 22"),
            ("zstd:23", "`23` is no level of zstd; it has 1 to 22"),
            ("gzip:-1", "`-1` is no level of gzip; it has 1 to 9"),
            ("gzip:", "`` is no level of gzip; it has 1 to 9"),
            ("xz:10", "`10` is no level of xz; it has 0 to 9"),
            ("lz4:1", "lz4 has no levels; write `lz4` alone"),
            ("none:0", "none has no levels; write `none` alone"),
        ] {
            assert_eq!(text.parse::<Compression>().expect_err(text).to_string(), told);
        }
    }

    #[test]
    fn a_compression_reads_as_it_is_shown() {
        for text in ["gzip:1", "gzip:9", "zstd:22", "xz:0", "lz4", "none"] {
            assert_eq!(text.parse::<Compression>().unwrap().to_string(), text);
        }
        for compressor in Compressor::ALL {
            assert_eq!(compressor.name().parse(), Ok(Compression::usual(compressor)));
        }
    }
}
