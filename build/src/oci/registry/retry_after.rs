//! `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// How long to wait from `now` on; a date that has passed is no time. `None`: it cannot be read.
pub(super) fn wait(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(date(text)?.duration_since(now).unwrap_or(Duration::ZERO)),
    }
}

/// `Wed, 21 Oct 2015 07:28:00 GMT`, the one form that may still be sent.
fn date(text: &str) -> Option<SystemTime> {
    let mut words = text.split_once(", ")?.1.split(' ');
    let day: u64 = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let year: u64 = words.next()?.parse().ok().filter(|year| (1970..=9999).contains(year))?;
    let mut time = words.next()?.split(':').map(|number| number.parse::<u64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    if words.next()? != "GMT" || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Years that begin in March end with the leap day.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some(UNIX_EPOCH + Duration::from_secs(days * 86_400 + hour * 3600 + minute * 60 + second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_seconds_nor_a_date_is_nothing() {
        for text in
            ["", "soon", "-1", "1.5", "Wed, 21 Oct 2015", "Wed, 0 Oct 2015 07:28:00 GMT", "x, 1 Jan 1 1:1:1 GMT"]
        {
            assert_eq!(wait(text, UNIX_EPOCH), None, "{text}");
        }
    }

    #[test]
    fn seconds_and_dates_are_read() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(wait("120", UNIX_EPOCH), Some(Duration::from_secs(120)));
        let text = "Wed, 21 Oct 2015 07:28:00 GMT";
        assert_eq!(wait(text, at(1_445_412_470)), Some(Duration::from_secs(10)));
        assert_eq!(wait(text, at(1_445_412_490)), Some(Duration::ZERO));
        assert_eq!(wait("Thu, 29 Feb 2024 00:00:00 GMT", at(1_709_164_799)), Some(Duration::from_secs(1)));
        assert_eq!(wait("Thu, 01 Jan 1970 00:00:01 GMT", UNIX_EPOCH), Some(Duration::from_secs(1)));
    }
}
