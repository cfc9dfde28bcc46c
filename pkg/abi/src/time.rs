//! Durations as they are written in YAML and annotations.

use std::time::Duration;

/// `10s`, `500ms`, `2m`, `1h`; without a unit it is seconds. [`None`] for anything else: no fractions, no signs.
#[must_use]
pub fn parse_duration(word: &str) -> Option<Duration> {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match word.get(digits.len()..)? {
        "" | "s" => Some(Duration::from_secs(number)),
        "ms" => Some(Duration::from_millis(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(number.checked_mul(3600)?)),
        _ => None,
    }
}

/// The duration as [`parse_duration`] reads it; what is below a millisecond is cut off.
#[must_use]
pub fn write_duration(time: Duration) -> String {
    if time.subsec_millis() == 0 { format!("{}s", time.as_secs()) } else { format!("{}ms", time.as_millis()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_read_as_it_is_written() {
        for word in ["0s", "1s", "90s", "3600s", "1ms", "1500ms"] {
            assert_eq!(write_duration(parse_duration(word).unwrap()), word);
        }
        for word in ["", "s", "+1s", "-1s", "1 s", "1d", "1.5s", "18446744073709551616", "9999999999999999h"] {
            assert_eq!(parse_duration(word), None, "{word}");
        }
    }
}
