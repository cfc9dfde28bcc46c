//! Durations as they are written in YAML and annotations, and times as logs and lists have them.

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

const DAY_SECONDS: u64 = 86_400;
/// The last second of the year 9999: four digits are all there are.
const LAST_SECOND: u64 = 253_402_300_799;

/// Seconds since 1970 as a date and time in UTC, `2017-04-18T16:30:00`: RFC 3339 without its fraction and zone. What is later than
/// the year 9999 becomes its end.
#[must_use]
pub fn date_and_time(seconds: u64) -> String {
    let seconds = seconds.min(LAST_SECOND);
    let (year, month, day) = date((seconds / DAY_SECONDS).cast_signed());
    let second = seconds % DAY_SECONDS;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01.
#[must_use]
pub fn date(days: i64) -> (i64, u64, u64) {
    const DAYS_PER_400_YEARS: i64 = 146_097;
    const DAYS_FROM_YEAR_0_TO_1970: i64 = 719_468;
    // Years are counted from 1 March of the year 0, so that a leap day is the last of its year.
    let days = days.saturating_add(DAYS_FROM_YEAR_0_TO_1970);
    let (era, day) = (days.div_euclid(DAYS_PER_400_YEARS), days.rem_euclid(DAYS_PER_400_YEARS).unsigned_abs());
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let months_since_march = (5 * day + 2) / 153;
    let day = day - (153 * months_since_march + 2) / 5 + 1;
    let month = if months_since_march < 10 { months_since_march + 3 } else { months_since_march - 9 };
    (era * 400 + year.cast_signed() + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, expected) in [
            (-719_528, (0, 1, 1)),
            (-25_567, (1900, 1, 1)),
            (-1, (1969, 12, 31)),
            (0, (1970, 1, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_778, (2026, 11, 21)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
        // As far as numbers go, and no further.
        assert!(date(i64::MIN).0 < 0 && date(i64::MAX).0 > 9999);
    }

    #[test]
    fn times_are_right_over_leap_days_and_centuries_and_to_the_end() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_492_533_000, "2017-04-18T16:30:00"),
            (1_709_251_199, "2024-02-29T23:59:59"),
            (1_709_251_200, "2024-03-01T00:00:00"),
            (4_107_542_399, "2100-02-28T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (u64::MAX, "9999-12-31T23:59:59"),
        ] {
            assert_eq!(date_and_time(seconds), text);
        }
    }

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
