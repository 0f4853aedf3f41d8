//! How large a bundle's log may become, in Docker's words (`--log-opt`). Pure.

use super::spec::LogLimits;
use crate::error::{Classify, ErrorKind};

/// A log file is no smaller. In bytes.
const MIN_SIZE: u64 = 1 << 10;

/// More files nobody wants, and rotating them takes its time.
const MAX_FILES: u32 = 1000;

/// An option that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogOptionError {
    /// Another name, or no value.
    #[error("{text:?} is no log option")]
    Unknown {
        /// As given.
        text: String,
    },
    /// A size that is none, or too small.
    #[error("log size {text:?} is no size of {MIN_SIZE} bytes (1k) or more")]
    Size {
        /// As given.
        text: String,
    },
    /// No number of files.
    #[error("log file count {text:?} is no number between 1 and {MAX_FILES}")]
    Files {
        /// As given.
        text: String,
    },
}

impl Classify for LogOptionError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unknown { .. } => "give max-size=SIZE or max-file=COUNT",
            Self::Size { .. } => "give bytes or a number with k, m or g: 512k, 10m",
            Self::Files { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// The bounds that options such as `max-size=10m` and `max-file=3` make; of two the last holds.
///
/// # Errors
/// [`LogOptionError`] names the wrong one.
pub fn parse(options: &[String]) -> Result<LogLimits, LogOptionError> {
    let mut limits = LogLimits::default();
    for option in options {
        match option.split_once('=') {
            Some(("max-size", value)) => limits.max_size = size(value)?,
            Some(("max-file", value)) => limits.max_files = files(value)?,
            _ => return Err(LogOptionError::Unknown { text: shortened(option) }),
        }
    }
    Ok(limits)
}

fn size(text: &str) -> Result<u64, LogOptionError> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: Option<u64> = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kb" | "kib" => Some(1 << 10),
        "m" | "mb" | "mib" => Some(1 << 20),
        "g" | "gb" | "gib" => Some(1 << 30),
        _ => None,
    };
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let number = if plain { digits.parse::<u64>().ok() } else { None };
    let bytes = unit.zip(number).and_then(|(unit, number)| number.checked_mul(unit));
    let bytes = bytes.filter(|bytes| *bytes >= MIN_SIZE);
    bytes.ok_or_else(|| LogOptionError::Size { text: shortened(text) })
}

fn files(text: &str) -> Result<u32, LogOptionError> {
    let plain = text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(count) if plain && (1..=MAX_FILES).contains(&count) => Ok(count),
        _ => Err(LogOptionError::Files { text: shortened(text) }),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(options: &[&str]) -> Result<LogLimits, LogOptionError> {
        parse(&options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn bounds_are_written_as_dockers() {
        let limits = |max_size, max_files| Ok(LogLimits { max_size, max_files });
        assert_eq!(parsed(&[]), limits(10 << 20, 3));
        assert_eq!(parsed(&["max-size=64k", "max-file=1"]), limits(64 << 10, 1));
        assert_eq!(parsed(&["max-size=1G"]), limits(1 << 30, 3));
        assert_eq!(parsed(&["max-size=2048", "max-size=4096b"]), limits(4096, 3));
    }

    #[test]
    fn what_is_no_bound_is_refused() {
        for bad in [
            "max-size",
            "max-size=",
            "max-size=-1",
            "max-size=1",
            "max-size=k",
            "max-size=1.5m",
            "max-size=1x",
            "max-size=99999999999999999999",
            "max-file=0",
            "max-file=+3",
            "max-file=9999",
            "mode=non-blocking",
            "",
        ] {
            assert!(parsed(&[bad]).is_err(), "{bad}");
        }
    }
}
