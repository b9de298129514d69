//! Times as logs write them, in milliseconds since 1970 UTC, and back.

use crate::request::number;

const DAY_SECONDS: i64 = 86_400;
/// No log is from later: the end of the year 9999.
const MAX_MS: u64 = 253_402_300_799_999;
/// A number above this is milliseconds, below it seconds: as milliseconds it is 1973, as seconds the year 5138.
const MIN_MS_NUMBER: f64 = 1e11;

/// `10/Oct/2000:13:55:36 -0700`, as in the Common Log Format (26 bytes).
pub(crate) fn parse_common(text: &[u8]) -> Option<u64> {
    let (day, month, year) = (text.get(..2)?, text.get(3..6)?, text.get(7..11)?);
    let separators = [
        (2, b'/'),
        (6, b'/'),
        (11, b':'),
        (14, b':'),
        (17, b':'),
        (20, b' '),
    ];
    if text.len() != 26
        || separators
            .iter()
            .any(|(at, separator)| text[*at] != *separator)
    {
        return None;
    }
    let days = days(number(year)?, month_number(month)?, number(day)?)?;
    let clock = clock(&text[12..14], &text[15..17], &text[18..20])?;
    let offset = offset(text[21], &text[22..24], &text[24..26])?;
    from_seconds(days * DAY_SECONDS + clock - offset)
}

/// `2000-10-10T13:55:36+02:00`, as ISO 8601 and nginx's `$time_iso8601` have it: with `Z`, a fraction, or a space too.
pub(crate) fn parse_iso(text: &[u8]) -> Option<u64> {
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if text.len() < 20
        || !matches!(text[10], b'T' | b't' | b' ')
        || separators
            .iter()
            .any(|(at, separator)| text[*at] != *separator)
    {
        return None;
    }
    let days = days(
        number(&text[..4])?,
        number(&text[5..7])?,
        number(&text[8..10])?,
    )?;
    let clock = clock(&text[11..13], &text[14..16], &text[17..19])?;
    let (millis, zone) = fraction(&text[19..])?;
    let offset = match zone {
        b"Z" | b"z" => 0,
        [sign, h1, h2, b':', m1, m2] | [sign, h1, h2, m1, m2] => {
            offset(*sign, &[*h1, *h2], &[*m1, *m2])?
        }
        _ => return None,
    };
    Some(from_seconds(days * DAY_SECONDS + clock - offset)? + millis)
}

/// A number of seconds (`1700000000.123`, nginx's `$msec`) or of milliseconds.
pub(crate) fn from_number(number: f64) -> Option<u64> {
    let millis = if number >= MIN_MS_NUMBER {
        number
    } else {
        (number * 1_000.0).round()
    };
    let is_time = (0.0..=MAX_MS as f64).contains(&millis);
    is_time.then_some(millis as u64)
}

/// A number of milliseconds.
pub(crate) fn from_millis(digits: &[u8]) -> Option<u64> {
    number(digits).filter(|millis| *millis <= MAX_MS)
}

/// A time of any of these forms.
pub(crate) fn parse_any(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    parse_iso(bytes)
        .or_else(|| parse_common(bytes))
        .or_else(|| from_number(text.parse().ok().filter(|_| !bytes.is_empty())?))
}

/// A time for people and programs: `2000-10-10T20:55:36Z`; a fraction of a second is left out.
///
/// ```
/// assert_eq!(larder_logs::format_time(971_211_336_999), "2000-10-10T20:55:36Z");
/// ```
#[must_use]
pub fn format_time(at_ms: u64) -> String {
    let seconds = at_ms / 1_000;
    let (year, month, day) = civil(seconds / DAY_SECONDS.unsigned_abs());
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn from_seconds(seconds: i64) -> Option<u64> {
    let millis = u64::try_from(seconds).ok()?.checked_mul(1_000)?;
    Some(millis).filter(|millis| *millis <= MAX_MS)
}

/// Milliseconds of a fraction, if there is one, and what is behind it.
fn fraction(text: &[u8]) -> Option<(u64, &[u8])> {
    let Some(digits) = text.strip_prefix(b".") else {
        return Some((0, text));
    };
    let count = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let millis = (0..3).fold(0, |millis, place| {
        let digit = digits[..count].get(place).map_or(0, |digit| digit - b'0');
        millis * 10 + u64::from(digit)
    });
    (count > 0).then_some((millis, &digits[count..]))
}

fn clock(hour: &[u8], minute: &[u8], second: &[u8]) -> Option<i64> {
    let (hour, minute, second) = (number(hour)?, number(minute)?, number(second)?);
    // 60: a leap second.
    let is_clock = hour < 24 && minute < 60 && second <= 60;
    is_clock.then(|| i64::try_from(hour * 3_600 + minute * 60 + second).ok())?
}

/// How far a zone is ahead of UTC, in seconds.
fn offset(sign: u8, hours: &[u8], minutes: &[u8]) -> Option<i64> {
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let seconds = i64::try_from(hours * 3_600 + minutes * 60).ok();
    let seconds = seconds.filter(|_| hours < 24 && minutes < 60)?;
    match sign {
        b'+' => Some(seconds),
        b'-' => Some(-seconds),
        _ => None,
    }
}

fn month_number(name: &[u8]) -> Option<u64> {
    const NAMES: [&[u8; 3]; 12] = [
        b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov",
        b"Dec",
    ];
    let at = NAMES
        .iter()
        .position(|month| month.eq_ignore_ascii_case(name))?;
    Some(at as u64 + 1)
}

/// Days since 1970-01-01 in the Gregorian calendar (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days(year: u64, month: u64, day: u64) -> Option<i64> {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let longest = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u64::from(is_leap),
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=longest).contains(&day) || !(1_970..=9_999).contains(&year) {
        return None;
    }
    // Years begin in March, so that a leap day is their last.
    let year = year - u64::from(month <= 2);
    let (era, of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + day_of_year;
    Some(i64::try_from(era * 146_097 + day_of_era).ok()? - 719_468)
}

/// Year, month and day of a day since 1970-01-01: the inverse.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_honoured() {
        let expected = Some(971_211_336_000);
        assert_eq!(parse_common(b"10/Oct/2000:13:55:36 -0700"), expected);
        assert_eq!(parse_common(b"10/Oct/2000:20:55:36 +0000"), expected);
        assert_eq!(parse_iso(b"2000-10-11T02:25:36+05:30"), expected);
        assert_eq!(parse_iso(b"2000-10-10T20:55:36Z"), expected);
        assert_eq!(parse_iso(b"2000-10-10 20:55:36.25Z"), Some(971_211_336_250));
        assert_eq!(parse_any("971211336.250"), Some(971_211_336_250));
        assert_eq!(parse_any("971211336250"), Some(971_211_336_250));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "10/Oct/2000",
            "31/Feb/2000:13:55:36 +0000",
            "10/Okt/2000:13:55:36 +0000",
            "10/Oct/2000:24:55:36 +0000",
            "10/Oct/2000:13:55:36 00000",
            "2000-13-10T20:55:36Z",
            "2000-10-10T20:55:36",
            "2000-10-10T20:55:36.Z",
            "1969-12-31T23:59:59Z",
            "NaN",
            "inf",
            "-1",
            "1e300",
        ] {
            assert_eq!(parse_any(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_reads_as_it_is_written() {
        for day in 0..2_932_896_u64 {
            let text = format_time(day * 86_400_000);
            assert_eq!(parse_iso(text.as_bytes()), Some(day * 86_400_000), "{text}");
        }
    }
}
