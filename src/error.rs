//! The kinds of failure the contract knows. Every module has its own typed error; each can say
//! which kind it is and what the user can do. Only the command line folds them together.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The contract's error codes; the exit code follows from the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// Anything that has no kind of its own.
    Failed,
    /// A word of the command line is wrong.
    Usage,
    /// A value cannot be, whatever the host's state.
    Invalid,
    /// What the verb needs is not there.
    NotFound,
    /// Something of carboy's is in the way.
    Conflict,
    /// An address range is taken by the host or by another bottle.
    Overlap,
    /// Something of somebody else's is in the way.
    Foreign,
    /// It is still used.
    InUse,
    /// A capability is missing.
    Permission,
    /// The kernel or the host lacks something.
    Unsupported,
    /// It was not ready in time.
    Timeout,
}

impl ErrorKind {
    /// The `error.code` of the JSON form.
    pub fn code(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Invalid => "invalid",
            Self::NotFound => "not-found",
            Self::Conflict => "conflict",
            Self::Overlap => "overlap",
            Self::Foreign => "foreign",
            Self::InUse => "in-use",
            Self::Permission => "permission",
            Self::Unsupported => "unsupported",
            Self::Timeout => "timeout",
        }
    }

    /// The process' exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage | Self::Invalid => 2,
            Self::NotFound => 3,
            Self::Conflict | Self::Overlap | Self::Foreign => 4,
            Self::InUse => 5,
            Self::Permission => 6,
            Self::Unsupported => 7,
            Self::Timeout => 8,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// What every error of the library can say about itself besides its text.
pub trait Classify: std::error::Error + Send + Sync + 'static {
    /// Which of the contract's kinds it is.
    fn kind(&self) -> ErrorKind;

    /// What the user can do about it, as a sentence; `None` where the text already says it.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// An error with its causes, the outermost first, in one line. A cause that the text before holds
/// already is left out: some libraries repeat theirs.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Layer>>);

    #[test]
    fn causes_follow_and_are_not_repeated() {
        let inner = Layer("no space", None);
        let middle = Layer("write: no space", Some(Box::new(inner)));
        let outer = Layer("save", Some(Box::new(middle)));
        assert_eq!(with_causes(&outer), "save: write: no space");
    }
}
