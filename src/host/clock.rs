//! Formats wall-clock time.

use std::time::{SystemTime, UNIX_EPOCH};

/// Formats `time` in UTC as RFC 3339, with as many decimals as needed, at most nine:
/// `2026-01-31T23:59:59.5Z`.
///
/// Times before 1970 are shown as the start of 1970.
pub fn rfc3339_nanos(time: SystemTime) -> String {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since_epoch.as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    let nanos = since_epoch.subsec_nanos();
    if nanos > 0 {
        let decimals = format!(".{nanos:09}");
        text.push_str(decimals.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Converts days since 1970-01-01 to year, month (from 1) and day (from 1).
///
/// Years are counted from March, so that a leap day is the last day of its year; 400 years have 146,097 days.
fn date(days_since_1970: u64) -> (u64, u64, u64) {
    // Days from 0000-03-01 to 1970-01-01.
    let days = days_since_1970 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    // Remove the leap days: one in 1,461 days, except in most centuries, but again in every fourth.
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, any five consecutive months have 153 days.
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let month = if months_since_march < 10 { months_since_march + 3 } else { months_since_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shown(seconds: u64, nanos: u32) -> String {
        rfc3339_nanos(UNIX_EPOCH + Duration::new(seconds, nanos))
    }

    #[test]
    fn a_moment_is_shown_in_utc() {
        assert_eq!(shown(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(shown(1_767_225_599, 0), "2025-12-31T23:59:59Z");
        assert_eq!(shown(951_782_400, 0), "2000-02-29T00:00:00Z");
        assert_eq!(shown(1_709_251_199, 0), "2024-02-29T23:59:59Z");
        assert_eq!(shown(4_107_542_400, 0), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn decimals_are_as_many_as_needed() {
        assert_eq!(shown(1, 500_000_000), "1970-01-01T00:00:01.5Z");
        assert_eq!(shown(1, 1), "1970-01-01T00:00:01.000000001Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut previous = date(0);
        for day in 1..60_000 {
            let next = date(day);
            assert!(next > previous, "{previous:?} {next:?}");
            assert!(next.2 == previous.2 + 1 || next.2 == 1);
            previous = next;
        }
    }

    #[test]
    fn a_time_before_1970_is_shown_as_its_first_moment() {
        assert_eq!(rfc3339_nanos(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00Z");
    }
}
