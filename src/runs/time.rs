//! Times as run folders name them: UTC, by the Gregorian calendar, to the second.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Utc {
    year: i64,
    month: u32,
    day: u32,
    second_of_day: u32,
}

impl Utc {
    /// The moment `time`; one before 1970 counts as the beginning of 1970.
    pub(super) fn of(time: SystemTime) -> Self {
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (days, second_of_day) = (seconds / 86_400, seconds % 86_400);
        // Counted from the 1st of March of year 0, so that a leap day ends a year, in eras of 400 years.
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        Self {
            year: (era * 400 + year_of_era + u64::from(month <= 2)) as i64,
            month: month as u32,
            day: (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32,
            second_of_day: second_of_day as u32,
        }
    }

    /// `20261124-130501`, which sorts by time.
    pub(super) fn compact(self) -> String {
        let (date, (hour, minute, second)) = ((self.year, self.month, self.day), self.clock());
        format!(
            "{:04}{:02}{:02}-{hour:02}{minute:02}{second:02}",
            date.0, date.1, date.2
        )
    }

    /// `2026-11-24T13:05:01Z`, as RFC 3339 has it.
    pub(super) fn rfc3339(self) -> String {
        let (date, (hour, minute, second)) = ((self.year, self.month, self.day), self.clock());
        format!(
            "{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z",
            date.0, date.1, date.2
        )
    }

    fn clock(self) -> (u32, u32, u32) {
        let second = self.second_of_day;
        (second / 3_600, second / 60 % 60, second % 60)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn text(seconds: u64) -> String {
        Utc::of(UNIX_EPOCH + Duration::from_secs(seconds)).rfc3339()
    }

    #[test]
    fn moments_are_those_of_the_calendar() {
        // As `date -u -d @SECONDS` says.
        assert_eq!(text(0), "1970-01-01T00:00:00Z");
        assert_eq!(text(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(text(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(text(951_868_800), "2000-03-01T00:00:00Z");
        assert_eq!(text(1_234_567_890), "2009-02-13T23:31:30Z");
        assert_eq!(text(1_795_525_501), "2026-11-24T13:05:01Z");
        assert_eq!(text(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(text(253_402_300_799), "9999-12-31T23:59:59Z");
        let moment = Utc::of(UNIX_EPOCH + Duration::from_secs(1_795_525_501));
        assert_eq!(moment.compact(), "20261124-130501");
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        // A calendar of its own: lengths of months, counted on.
        let (mut year, mut month, mut day) = (1970_u64, 1, 1);
        for days in 0..146_097 {
            let expected = format!("{year:04}-{month:02}-{day:02}T00:00:00Z");
            assert_eq!(text(days * 86_400), expected);
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > length {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }
}
