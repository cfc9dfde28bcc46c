//! Dates as ECMA-119 9.1.5 and 8.4.26.1 write them, in Greenwich's time.

const DAY_S: i64 = 86_400;

/// 1900-01-01 and 2156-01-01, in seconds since 1970: the year of a file is one byte.
const YEARS_S: (i64, i64) = (-2_208_988_800, 5_869_584_000);

/// No date, where one could be.
pub(super) const NO_LONG_DATE: [u8; 17] = *b"0000000000000000\0";

/// A moment, cut to what these dates can tell: 1900 to 2155.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Date {
    year: i64,
    month: i64,
    day: i64,
    second_of_day: i64,
}

impl Date {
    /// `seconds` since 1970.
    pub(super) fn of(seconds: i64) -> Self {
        let seconds = seconds.clamp(YEARS_S.0, YEARS_S.1 - 1);
        let (year, month, day) = kiln_abi::date(seconds.div_euclid(DAY_S));
        let (month, day) = (month.cast_signed(), day.cast_signed());
        Self { year, month, day, second_of_day: seconds.rem_euclid(DAY_S) }
    }

    /// Year since 1900, month, day, hour, minute, second, and how far from Greenwich.
    pub(super) fn short(self) -> [u8; 7] {
        let (hour, minute, second) = self.time();
        let fields = [self.year - 1900, self.month, self.day, hour, minute, second, 0];
        fields.map(|field| u8::try_from(field).unwrap_or(u8::MAX))
    }

    /// In digits, as volume descriptors want it, with `hundredths` of a second.
    pub(super) fn long(self, hundredths: u8) -> [u8; 17] {
        let (hour, minute, second) = self.time();
        let Self { year, month, day, .. } = self;
        let text = format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}{hundredths:02}\0");
        text.as_bytes().try_into().unwrap_or(NO_LONG_DATE)
    }

    fn time(self) -> (i64, i64, i64) {
        (self.second_of_day / 3_600, self.second_of_day / 60 % 60, self.second_of_day % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, short) in [
            (0, [70, 1, 1, 0, 0, 0, 0]),
            (1_492_533_000, [117, 4, 18, 16, 30, 0, 0]),
            (951_782_400, [100, 2, 29, 0, 0, 0, 0]),
            (951_868_799, [100, 2, 29, 23, 59, 59, 0]),
            (951_868_800, [100, 3, 1, 0, 0, 0, 0]),
            (-1, [69, 12, 31, 23, 59, 59, 0]),
            (4_107_542_399, [200, 2, 28, 23, 59, 59, 0]),
            (4_107_542_400, [200, 3, 1, 0, 0, 0, 0]),
            (i64::MIN, [0, 1, 1, 0, 0, 0, 0]),
            (i64::MAX, [255, 12, 31, 23, 59, 59, 0]),
        ] {
            assert_eq!(Date::of(seconds).short(), short, "{seconds}");
        }
        assert_eq!(&Date::of(1_492_533_000).long(7), b"2017041816300007\0");
    }
}
