//! Stamps as people and their tools read them: RFC 3339, in UTC, with milliseconds.

use boxpool::Timestamp;

const DAY: u64 = 86_400_000;

/// `2026-11-26T18:55:37.123Z`.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    let (days, rest) = (at.0 / DAY, at.0 % DAY);
    let (year, month, day) = date(days);
    let (hour, minute, second, milli) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1_000 % 60, rest % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// `2026-11-26T18:55Z`: to the minute, for what is known no more exactly.
#[must_use]
pub fn minute(at: Timestamp) -> String {
    let mut text = rfc3339(at);
    text.truncate(text.len() - ":37.123Z".len());
    text + "Z"
}

/// The date so many days after 1970-01-01. Years are counted from March here, so that the leap day comes last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from 0000-03-01
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let january_first = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(january_first <= 2), january_first, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leap_days_and_turns_of_the_year_are_where_they_belong() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_164_800_001, "2024-02-29T00:00:00.001Z"),
            (1_767_225_599_999, "2025-12-31T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(Timestamp(millis)), text);
        }
        assert_eq!(minute(Timestamp(1_709_164_859_999)), "2024-02-29T00:00Z");
    }
}
