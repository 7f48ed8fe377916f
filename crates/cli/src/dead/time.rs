//! Times, as people write and read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SECOND_MS: i64 = 1_000;
const DAY_SECONDS: i64 = 86_400;

/// Milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// An age (`90s`, `30m`, `12h`, `7d`) or a time in milliseconds since 1970, as milliseconds since 1970.
pub(super) fn since(text: &str) -> Result<i64, String> {
    at(text, now_ms()).ok_or_else(|| "it takes an age (90s, 30m, 12h, 7d), or milliseconds since 1970".to_owned())
}

/// How long something lasts: `500ms`, `90s`, `30m`, `12h`, `7d`.
pub(crate) fn age(text: &str) -> Result<Duration, String> {
    let parsed = match text.strip_suffix("ms") {
        Some(count) => count.parse().ok().map(Duration::from_millis),
        None => at(text, 0)
            .filter(|_| !text.ends_with(|last: char| last.is_ascii_digit()))
            .and_then(|ms| u64::try_from(ms.saturating_neg()).ok().map(Duration::from_millis)),
    };
    parsed.ok_or_else(|| "it takes a number with ms, s, m, h or d behind it".to_owned())
}

fn at(text: &str, now_ms: i64) -> Option<i64> {
    let unit_seconds = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => DAY_SECONDS,
        _ => return text.parse().ok().filter(|time| *time >= 0),
    };
    let count: i64 = text[..text.len() - 1].parse().ok().filter(|count| *count >= 0)?;
    Some(now_ms.saturating_sub(count.saturating_mul(unit_seconds * SECOND_MS)))
}

/// `2026-11-21 14:05:09`, in UTC.
pub(super) fn written(time_ms: i64) -> String {
    let seconds = time_ms.div_euclid(SECOND_MS);
    let (year, month, day) = date(seconds.div_euclid(DAY_SECONDS));
    let second = seconds.rem_euclid(DAY_SECONDS);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60)
}

/// Days since 1970 as a date of the Gregorian calendar. Years begin in March here, so that the day that some have more is their last.
fn date(days: i64) -> (i64, i64, i64) {
    // From the first of March of the year 0.
    let days = days.saturating_add(719_468);
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_times_are_understood() {
        let cases = [("90s", 10_000), ("1m", 40_000), ("0h", 100_000), ("1700000000000", 1_700_000_000_000)];
        assert_eq!(cases.map(|(text, _)| at(text, 100_000)), cases.map(|(_, time)| Some(time)));
        for wrong in ["", "d", "-1s", "1w", "-5", "1.5h", "5é"] {
            assert_eq!(at(wrong, 100_000), None, "{wrong}");
        }
    }

    #[test]
    fn times_are_written_in_the_calendar() {
        assert_eq!(written(0), "1970-01-01 00:00:00");
        assert_eq!(written(951_782_399_999), "2000-02-28 23:59:59");
        assert_eq!(written(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(written(1_700_000_000_000), "2023-11-14 22:13:20");
        assert_eq!(written(4_107_542_400_000), "2100-03-01 00:00:00");
    }
}
