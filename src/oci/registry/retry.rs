//! How long to wait before the next attempt. Pure.

use std::time::Duration;

/// Attempts in a row that bring nothing.
pub(super) const ATTEMPTS: u32 = 5;

/// Nobody waits longer for one attempt, whatever the registry asks for.
const MAX: Duration = Duration::from_secs(60);

/// The wait before attempt number `attempt`, the first repetition being 1: doubled each time, or
/// what the registry asks for (`Retry-After`).
pub(super) fn wait(first: Duration, attempt: u32, asked: Option<Duration>) -> Duration {
    let doubled = first.saturating_mul(1 << attempt.saturating_sub(1).min(16));
    asked.unwrap_or(doubled).min(MAX)
}

/// Reads `Retry-After` where it is in seconds; a date is taken for none (RFC 9110, 10.2.3).
pub(super) fn after(header: &str) -> Option<Duration> {
    header.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_bounded() {
        let ms = Duration::from_millis;
        for (attempt, asked, want) in [
            (1, None, ms(500)),
            (2, None, ms(1000)),
            (4, None, ms(4000)),
            (40, None, MAX),
            (1, Some(ms(7000)), ms(7000)),
            (1, Some(ms(0)), ms(0)),
            (1, Some(Duration::from_secs(86400)), MAX),
        ] {
            assert_eq!(wait(ms(500), attempt, asked), want, "{attempt} {asked:?}");
        }
    }

    #[test]
    fn dates_are_no_seconds() {
        assert_eq!(after(" 3 "), Some(Duration::from_secs(3)));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), None);
        assert_eq!(after("-1"), None);
    }
}
