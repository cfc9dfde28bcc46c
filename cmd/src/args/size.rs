//! Sizes as people write them: a number with an optional unit, 1024-based.

use kiln_run::check::{MAX_MEMORY_MIB, MIN_MEMORY_MIB};

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no size; write a whole number with an optional unit: `512M`, `1G`, `2T`")]
pub struct SizeError {
    text: String,
}

/// Why a text is no size of a machine's memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// No size at all.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// Memory is given in whole MiB.
    #[error("`{0}` of memory is no whole number of MiB")]
    Odd(String),
    /// Too little or too much.
    #[error("a machine has {MIN_MEMORY_MIB} to {MAX_MEMORY_MIB} MiB of memory, not {mib}")]
    Range {
        /// What was asked for.
        mib: u64,
    },
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Guest memory in MiB; a bare number is MiB, as LinuxKit has it.
pub fn memory_mib(text: &str) -> Result<u64, MemoryError> {
    let bytes = bytes(text, MIB)?;
    let mib = bytes / MIB;
    match bytes % MIB {
        0 if (MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(&mib) => Ok(mib),
        0 => Err(MemoryError::Range { mib }),
        _ => Err(MemoryError::Odd(text.into())),
    }
}

/// Bytes of a balloon; a bare number is MiB.
pub fn balloon_bytes(text: &str) -> Result<u64, SizeError> {
    bytes(text, MIB)
}

/// Bytes of a disk; a bare number is GiB, as LinuxKit has it.
pub fn disk_bytes(text: &str) -> Result<u64, SizeError> {
    bytes(text, GIB)
}

fn bytes(text: &str, bare_unit: u64) -> Result<u64, SizeError> {
    let refuse = || SizeError { text: text.into() };
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at_checked(digits).ok_or_else(refuse)?;
    let unit_bytes = match unit.to_ascii_lowercase().trim_end_matches("ib") {
        "" if unit.is_empty() => bare_unit,
        "k" => 1 << 10,
        "m" | "mb" => MIB,
        "g" | "gb" => GIB,
        "t" | "tb" => 1 << 40,
        _ => return Err(refuse()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_bytes)).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "G", "-1", "1.5G", "1X", "ib", "1 G", "99999999999999999999", "99999999999T", "0x10"] {
            assert!(disk_bytes(text).is_err(), "{text}");
        }
        for text in ["512K", "16777217K", "0", "15", "481G", "1T", "2 GiB"] {
            assert!(memory_mib(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_bare_number_is_mib_of_memory_and_gib_of_disk() {
        assert_eq!(memory_mib("512"), Ok(512));
        assert_eq!(memory_mib("1G"), Ok(1024));
        assert_eq!(memory_mib("2GiB"), Ok(2048));
        assert_eq!(memory_mib("32768K"), Ok(32));
        assert_eq!(disk_bytes("1"), Ok(1 << 30));
        assert_eq!(disk_bytes("64M"), Ok(64 << 20));
        assert_eq!(disk_bytes("1GiB"), Ok(1 << 30));
        assert_eq!(disk_bytes("0"), Ok(0));
    }
}
