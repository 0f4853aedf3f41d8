//! When a bundle counts as ready: what `up --wait` waits for. Pure.

use std::time::Duration;

use crate::error::{Classify, ErrorKind};

/// How long a bundle may take to be ready unless the caller says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);
/// No wait is longer: a year is for ever, and cannot overflow any clock.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);
/// Bytes a pattern may have.
const PATTERN_MAX: usize = 4096;

/// Something that holds once a bundle is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The port takes TCP connections at the pinned address.
    Tcp(u16),
    /// The command, run in the bundle by `/bin/sh -c`, ends with exit code 0.
    Exec(String),
    /// Its health check has succeeded.
    Healthy,
    /// A line that the bundle has written since it was started last matches the pattern, anywhere
    /// in it (syntax of the crate `regex-lite`).
    Log(String),
}

/// What to wait for, and how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// All of them must hold; if there are none, the daemons that the image declares take
    /// connections.
    pub conditions: Vec<Condition>,
    /// Without conditions: its health check, if it has one, must have succeeded as well.
    pub healthy: bool,
    /// [`DEFAULT_TIMEOUT`] unless given.
    pub timeout: Option<Duration>,
}

/// A text that is no condition or no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadinessError {
    /// No condition that is known.
    #[error("{text:?} is no condition")]
    Condition {
        /// As given.
        text: String,
    },
    /// A pattern that cannot be one.
    #[error("{pattern:?} is no pattern: {reason}")]
    Pattern {
        /// As given.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No time.
    #[error("{text:?} is no time")]
    Time {
        /// As given.
        text: String,
    },
}

impl Classify for ReadinessError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Condition { .. } => "write tcp:PORT, exec:COMMAND or log:PATTERN".to_owned(),
            Self::Pattern { .. } => {
                "it is a regular expression; `\\` takes a character's meaning away".to_owned()
            }
            Self::Time { .. } => {
                "write 30s, 500ms, 2m or 1h30m; a bare number is seconds".to_owned()
            }
        })
    }
}

/// Reads `tcp:PORT`, `exec:COMMAND` or `log:PATTERN`.
///
/// # Errors
/// [`ReadinessError`].
pub fn parse(text: &str) -> Result<Condition, ReadinessError> {
    let wrong = || ReadinessError::Condition { text: text.to_owned() };
    match text.split_once(':') {
        Some(("tcp", port)) => match port.parse() {
            Ok(port) if port > 0 => Ok(Condition::Tcp(port)),
            _ => Err(wrong()),
        },
        Some(("exec", command)) if !command.trim().is_empty() && !command.contains('\0') => {
            Ok(Condition::Exec(command.to_owned()))
        }
        Some(("log", pattern)) if !pattern.is_empty() && pattern.len() <= PATTERN_MAX => {
            match regex_lite::Regex::new(pattern) {
                Ok(_) => Ok(Condition::Log(pattern.to_owned())),
                Err(e) => Err(ReadinessError::Pattern {
                    pattern: pattern.to_owned(),
                    reason: e.to_string(),
                }),
            }
        }
        _ => Err(wrong()),
    }
}

/// Reads a time as Docker and systemd write it: `1h30m`, `90s`, `1.5s`, `500ms`; a bare number is
/// seconds.
///
/// # Errors
/// [`ReadinessError::Time`].
pub fn parse_time(text: &str) -> Result<Duration, ReadinessError> {
    let wrong = || ReadinessError::Time { text: text.to_owned() };
    let mut total = 0.0;
    let mut rest = text;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        total += number
            * match unit {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                // Alone it is seconds; behind other units nobody knows.
                "" if digits == text.len() => 1.0,
                _ => return Err(wrong()),
            };
        rest = after;
    }
    Ok(Duration::try_from_secs_f64(total).map_or(LONGEST_TIMEOUT, |t| t.min(LONGEST_TIMEOUT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read() {
        assert_eq!(parse("tcp:80"), Ok(Condition::Tcp(80)));
        assert_eq!(parse("exec:test -e /a:b"), Ok(Condition::Exec("test -e /a:b".to_owned())));
        assert_eq!(parse("log:^ready: [0-9]+$"), Ok(Condition::Log("^ready: [0-9]+$".to_owned())));
        for bad in
            ["", "tcp", "tcp:", "tcp:0", "tcp:65536", "tcp:x", "exec:", "exec: ", "log:", "up:1"]
        {
            assert!(matches!(parse(bad), Err(ReadinessError::Condition { .. })), "{bad}");
        }
        let long = format!("log:{}", "x".repeat(PATTERN_MAX + 1));
        assert!(parse(&long).is_err());
        assert!(matches!(parse("log:("), Err(ReadinessError::Pattern { .. })));
    }

    #[test]
    fn times_are_read() {
        for (text, milliseconds) in [
            ("30", 30_000),
            ("0.5", 500),
            ("30s", 30_000),
            ("1.5s", 1_500),
            ("500ms", 500),
            ("1h30m", 5_400_000),
            ("2m0.25s", 120_250),
            ("0", 0),
        ] {
            assert_eq!(parse_time(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "s", "-1s", "1x", "1m30", "1 s", "1e3s", "..s", "inf", "NaN"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_time("999999999999999999999h"), Ok(LONGEST_TIMEOUT));
    }
}
