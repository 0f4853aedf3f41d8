//! Resource limits of a process as users write them, in Docker's words: `NAME=SOFT[:HARD]`
//! (setrlimit(2)). Pure.

use serde::{Deserialize, Serialize};

use crate::error::{Classify, ErrorKind};

/// A resource limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// As setrlimit(2) has it, without the prefix and in small letters: `nofile`.
    pub name: String,
    /// What is in force; `u64::MAX` is no limit.
    pub soft: u64,
    /// How far a process may raise it.
    pub hard: u64,
}

/// What every container has: no core dumps, and as many files as the C library expects.
pub const DEFAULTS: [(&str, u64, u64); 2] = [("nofile", 1024, 4096), ("core", 0, 0)];

/// The fewest open files a container can be started with: the runtime has some open itself.
const FILES_MIN: u64 = 64;

/// The names there are.
const NAMES: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Why a text is no resource limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UlimitError {
    /// Not of the form.
    #[error("resource limit {text:?} is not of the form NAME=SOFT[:HARD]")]
    Form {
        /// The text.
        text: String,
    },
    /// A name nobody knows.
    #[error("{name:?} is no resource limit")]
    Name {
        /// The name.
        name: String,
    },
    /// A soft limit that could never be in force.
    #[error("resource limit {text:?} is greater than its hard limit")]
    Order {
        /// The text.
        text: String,
    },
    /// Too few open files.
    #[error("a container cannot be started with fewer than {FILES_MIN} open files")]
    Files,
    /// Two for one name.
    #[error("resource limit {name} is given twice")]
    Twice {
        /// The name.
        name: String,
    },
}

impl Classify for UlimitError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Form { .. } => Some("numbers, or -1 for no limit: nofile=1024:4096".into()),
            Self::Name { .. } => Some(format!("there are {}", NAMES.join(", "))),
            _ => None,
        }
    }
}

/// All limits that were asked for, by name, each once.
///
/// # Errors
/// [`UlimitError`] that names the wrong one.
pub fn parse_all(texts: &[String]) -> Result<Vec<Ulimit>, UlimitError> {
    let mut all = Vec::with_capacity(texts.len());
    for text in texts {
        let limit = parse(text)?;
        if all.iter().any(|known: &Ulimit| known.name == limit.name) {
            return Err(UlimitError::Twice { name: limit.name });
        }
        all.push(limit);
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

fn parse(text: &str) -> Result<Ulimit, UlimitError> {
    let form = || UlimitError::Form { text: text.chars().take(60).collect() };
    let (name, values) = text.split_once('=').ok_or_else(form)?;
    if !NAMES.contains(&name) {
        return Err(UlimitError::Name { name: name.chars().take(60).collect() });
    }
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (value(soft).ok_or_else(form)?, value(hard).ok_or_else(form)?);
    if soft > hard {
        return Err(UlimitError::Order { text: text.to_owned() });
    }
    if name == "nofile" && soft < FILES_MIN {
        return Err(UlimitError::Files);
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

fn value(text: &str) -> Option<u64> {
    match text {
        "-1" | "unlimited" => Some(u64::MAX),
        // A sign would parse, too.
        _ if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(texts: &[&str]) -> Result<Vec<Ulimit>, UlimitError> {
        parse_all(&texts.iter().map(|&t| t.to_owned()).collect::<Vec<_>>())
    }

    fn limit(name: &str, soft: u64, hard: u64) -> Ulimit {
        Ulimit { name: name.to_owned(), soft, hard }
    }

    #[test]
    fn limits_are_read_as_docker_reads_them() {
        assert_eq!(
            all(&["nofile=64:128", "core=-1", "as=unlimited:unlimited", "nproc=0"]).unwrap(),
            [
                limit("as", u64::MAX, u64::MAX),
                limit("core", u64::MAX, u64::MAX),
                limit("nofile", 64, 128),
                limit("nproc", 0, 0),
            ]
        );
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        for text in ["", "nofile", "nofile=", "nofile=1:", "nofile=a", "nofile=+1", "nofile=1:2:3"]
        {
            assert!(matches!(all(&[text]), Err(UlimitError::Form { .. })), "{text}");
        }
        for text in ["files=1", "NOFILE=1", "RLIMIT_NOFILE=1", "=1"] {
            assert!(matches!(all(&[text]), Err(UlimitError::Name { .. })), "{text}");
        }
        assert!(matches!(all(&["nofile=3:2"]), Err(UlimitError::Order { .. })));
        assert_eq!(all(&["nofile=63"]), Err(UlimitError::Files));
        assert!(matches!(all(&["core=1", "core=2"]), Err(UlimitError::Twice { .. })));
    }
}
