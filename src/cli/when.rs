//! Points in time as users write them, in Docker's words (`--since`, `--until`). Pure.

use jiff::{SignedDuration, Timestamp};

/// The point in time that a text means: RFC 3339 (UTC where it names no offset), a date, seconds
/// since 1970 with or without a fraction, or a duration such as `10m` or `1h30m` before `now`.
///
/// # Errors
/// A sentence that names the text.
pub(super) fn parse(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let wrong = || {
        let text: String = text.chars().take(40).collect();
        format!("{text:?} is no time: give 2026-01-31T12:00:00Z, seconds since 1970, or 10m")
    };
    // As it is, without an offset, and without a time of day.
    for end in ["", "Z", "T00:00:00Z"] {
        if let Ok(time) = format!("{text}{end}").parse() {
            return Ok(time);
        }
    }
    if let Some(nanoseconds) = decimal(text, 1_000_000_000) {
        return Timestamp::from_nanosecond(nanoseconds).map_err(|_| wrong());
    }
    let ago = duration(text).ok_or_else(wrong)?;
    now.checked_sub(ago).map_err(|_| wrong())
}

/// As Go writes them: numbers with units, the one after the other.
fn duration(text: &str) -> Option<SignedDuration> {
    if text.is_empty() {
        return None;
    }
    let (mut rest, mut total) = (text, 0_i128);
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, tail) = rest.split_at(unit_at);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let unit: i128 = match &tail[..end] {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total = total.checked_add(decimal(number, unit)?)?;
        rest = &tail[end..];
    }
    let seconds = i64::try_from(total / 1_000_000_000).ok()?;
    let nanoseconds = i32::try_from(total % 1_000_000_000).ok()?;
    Some(SignedDuration::new(seconds, nanoseconds))
}

/// `digits[.digits]` times `unit`.
fn decimal(text: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty()
        || whole.len() > 18
        || fraction.len() > 18
        || !digits(whole)
        || !digits(fraction)
    {
        return None;
    }
    let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let number: i128 = format!("{whole}{fraction}").parse().ok()?;
    number.checked_mul(unit).map(|n| n / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-31T12:00:00Z";

    fn parsed(text: &str) -> Result<String, String> {
        parse(text, NOW.parse().unwrap()).map(|time| time.to_string())
    }

    #[test]
    fn every_way_to_write_a_time() {
        let cases = [
            (NOW, NOW),
            ("2026-01-31T14:00:00+02:00", NOW),
            ("2026-01-31T12:00:00", NOW),
            ("2026-01-31T11:59:59.5", "2026-01-31T11:59:59.5Z"),
            ("2026-01-31", "2026-01-31T00:00:00Z"),
            ("1769860800", NOW),
            ("1769860800.25", "2026-01-31T12:00:00.25Z"),
            ("10m", "2026-01-31T11:50:00Z"),
            ("1h30m", "2026-01-31T10:30:00Z"),
            ("1.5s", "2026-01-31T11:59:58.5Z"),
            ("0s", NOW),
        ];
        for (text, time) in cases {
            assert_eq!(parsed(text).as_deref(), Ok(time), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_named() {
        for bad in [
            "",
            "m",
            "10x",
            "yesterday",
            "-5m",
            "1..5s",
            "2026-13-01",
            "10m5",
            "99999999999999999999h",
        ] {
            let error = parsed(bad).unwrap_err();
            assert!(error.contains("is no time"), "{bad}: {error}");
        }
    }
}
