//! The ways to compress an image, by their names.

use std::fmt;
use std::str::FromStr;

use super::lz4::Effort;

/// How an image is compressed. Whatever it is, a file that does not get smaller is stored as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ErofsCompression {
    /// Not at all.
    #[default]
    None,
    /// LZ4 in clusters of 4 KiB, packed fast.
    Lz4,
    /// The same, packed well.
    Lz4hc {
        /// From 1 to 12; each looks at twice as many places as the one before.
        level: u8,
    },
}

/// No compression has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no compression of EROFS images is called `{name}`; there are `none`, `lz4`, `lz4hc` and `lz4hc:1` to `lz4hc:12`"
)]
pub struct UnknownErofsCompression {
    /// As the user wrote it.
    pub name: String,
}

impl ErofsCompression {
    /// What `mkfs.erofs -zlz4hc` takes too.
    const DEFAULT_LEVEL: u8 = 9;

    pub(super) fn effort(self) -> Option<Effort> {
        match self {
            Self::None => None,
            Self::Lz4 => Some(Effort::Fast),
            Self::Lz4hc { level } => Some(Effort::Best { places: 1 << (level - 1) }),
        }
    }
}

impl FromStr for ErofsCompression {
    type Err = UnknownErofsCompression;

    fn from_str(name: &str) -> Result<Self, UnknownErofsCompression> {
        match (name, name.strip_prefix("lz4hc:").map(str::parse)) {
            ("none", _) => Ok(Self::None),
            ("lz4", _) => Ok(Self::Lz4),
            ("lz4hc", _) => Ok(Self::Lz4hc { level: Self::DEFAULT_LEVEL }),
            (_, Some(Ok(level @ 1..=12))) => Ok(Self::Lz4hc { level }),
            _ => Err(UnknownErofsCompression { name: name.into() }),
        }
    }
}

impl fmt::Display for ErofsCompression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Lz4 => f.write_str("lz4"),
            Self::Lz4hc { level } => write!(f, "lz4hc:{level}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_compression_is_told_which_there_are() {
        for name in ["", "gzip", "lz4:1", "lz4hc:", "lz4hc:0", "lz4hc:13", "lz4hc:x", "LZ4", "none:1"] {
            let text = name.parse::<ErofsCompression>().unwrap_err().to_string();
            assert!(text.contains(&format!("`{name}`")) && text.contains("`lz4hc:12`"), "{text}");
        }
        for name in ["none", "lz4", "lz4hc:9", "lz4hc:12"] {
            assert_eq!(name.parse::<ErofsCompression>().unwrap().to_string(), name);
        }
    }
}
