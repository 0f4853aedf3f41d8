//! Secrets: contents that a container finds in files below [`DIRECTORY`], and that are kept
//! nowhere else but in memory. Pure.
//!
//! A record holds a secret's name and a fingerprint. The content goes from the caller through a
//! pipe to the monitor, which puts it on a file system in memory. A container whose record alone
//! is known can therefore not be started anew: whoever does gives the secrets again.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::digest::Digest;
use crate::error::{Classify, ErrorKind};

/// Where secrets are inside, as with Docker and podman.
pub const DIRECTORY: &str = "/run/secrets";

/// The most bytes of one, as podman.
pub const SIZE_MAX: usize = 512_000;

/// The longest name.
const NAME_MAX: usize = 64;

/// A secret's content. It shows itself to nobody, is never written with its record, and two are
/// equal whatever they hold: the fingerprint is what is compared.
#[derive(Clone, Default)]
pub struct SecretContent(Option<Vec<u8>>);

impl SecretContent {
    /// The content, unless it is known from a record alone.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        self.0.as_deref()
    }
}

impl std::fmt::Debug for SecretContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<redacted>")
    }
}

impl PartialEq for SecretContent {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for SecretContent {}

/// A secret of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// The file's name inside.
    pub name: String,
    /// Another content has another one, and nobody without the salt can tell which.
    fingerprint: Digest,
    #[serde(skip)]
    pub(crate) content: SecretContent,
}

impl Secret {
    /// A secret with its content. `salt` is the same as long as fingerprints are compared, and not
    /// to be guessed.
    ///
    /// # Errors
    /// [`SecretError::Size`].
    pub fn new(name: String, content: Vec<u8>, salt: &[u8]) -> Result<Self, SecretError> {
        if content.len() > SIZE_MAX {
            return Err(SecretError::Size { name, size: content.len() });
        }
        let mut hash = Sha256::new();
        for part in [salt, name.as_bytes(), &content] {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        let fingerprint = Digest::from_hash(&hash.finalize().into());
        Ok(Self { name, fingerprint, content: SecretContent(Some(content)) })
    }

    /// Takes the content that came another way than the record.
    pub(crate) fn fill(&mut self, content: Vec<u8>) {
        self.content = SecretContent(Some(content));
    }
}

/// Where a secret's content comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file of the host.
    File(PathBuf),
    /// A variable of carboy's own environment.
    Variable(String),
}

/// A secret as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretArg {
    /// The file's name inside.
    pub name: String,
    /// Where it comes from.
    pub source: SecretSource,
}

/// Why there is no such secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not of the form. What was given may hold the secret itself and is not repeated.
    #[error("secret {position} is not of the form NAME=FILE or NAME=env:VARIABLE")]
    Form {
        /// Which one, counted from 1.
        position: usize,
    },
    /// A name that is no file name, or an odd one.
    #[error("secret {position} has a name that is none")]
    Name {
        /// Which one, counted from 1.
        position: usize,
    },
    /// Two of one name.
    #[error("secret {name} is given twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// A variable that is not set.
    #[error("secret {name}: the variable {variable} is not set")]
    Unset {
        /// The secret.
        name: String,
        /// The variable.
        variable: String,
    },
    /// Too much.
    #[error("secret {name} has {size} bytes, at most {SIZE_MAX} are possible")]
    Size {
        /// The secret.
        name: String,
        /// In bytes.
        size: usize,
    },
}

impl Classify for SecretError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unset { .. } => ErrorKind::NotFound,
            _ => ErrorKind::Invalid,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Name { .. } => Some(format!(
                "letters, digits, '.', '_' and '-', at most {NAME_MAX}, the first no '.'"
            )),
            _ => None,
        }
    }
}

/// Parses all of `NAME=FILE` and `NAME=env:VARIABLE`.
///
/// # Errors
/// [`SecretError`].
pub fn parse_all(texts: &[String]) -> Result<Vec<SecretArg>, SecretError> {
    let mut all: Vec<SecretArg> = Vec::with_capacity(texts.len());
    for (i, text) in texts.iter().enumerate() {
        let position = i + 1;
        let form = SecretError::Form { position };
        let Some((name, source)) = text.split_once('=') else { return Err(form) };
        let source = match source.strip_prefix("env:") {
            _ if source.is_empty() || source.contains('\0') => return Err(form),
            Some("") => return Err(form),
            Some(variable) => SecretSource::Variable(variable.to_owned()),
            None => SecretSource::File(PathBuf::from(source)),
        };
        if !is_name(name) {
            return Err(SecretError::Name { position });
        }
        if all.iter().any(|known| known.name == name) {
            return Err(SecretError::Twice { name: name.to_owned() });
        }
        all.push(SecretArg { name: name.to_owned(), source });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

fn is_name(name: &str) -> bool {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=NAME_MAX).contains(&name.len()) && !name.starts_with('.') && name.chars().all(usual)
}

/// Whether something that is mounted at `destination` would hide secrets, or be hidden.
pub fn is_in_the_way(destination: &Path) -> bool {
    destination.starts_with(DIRECTORY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str]) -> Result<Vec<SecretArg>, SecretError> {
        parse_all(&texts.iter().map(|&t| t.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn both_sources_are_read() {
        let got = parse(&["token=env:TOKEN", "key.pem=/etc/a=b:c"]).unwrap();
        let arg = |name: &str, source| SecretArg { name: name.to_owned(), source };
        assert_eq!(
            got,
            [
                arg("key.pem", SecretSource::File("/etc/a=b:c".into())),
                arg("token", SecretSource::Variable("TOKEN".into())),
            ]
        );
    }

    #[test]
    fn what_is_none_is_refused_and_not_repeated() {
        for text in ["s3cret", "a=", "a=env:", "=x", ".a=x", "..=x", "a/b=x", "a b=x"] {
            let error = parse(&["ok=/x", text]).unwrap_err();
            assert!(error.to_string().starts_with("secret 2"), "{text}: {error}");
            assert!(!error.to_string().contains("s3cret"));
        }
        assert!(matches!(parse(&["a=/x", "a=env:Y"]), Err(SecretError::Twice { .. })));
        let large = Secret::new("a".into(), vec![0; SIZE_MAX + 1], b"");
        assert!(matches!(large, Err(SecretError::Size { .. })));
    }

    #[test]
    fn a_record_holds_no_content_and_tells_another_one_apart() {
        let secret = |content: &str| Secret::new("a".into(), content.into(), b"salt").unwrap();
        let json = serde_json::to_string(&secret("s3cret")).unwrap();
        assert!(!json.contains("s3cret") && !json.contains("content"), "{json}");
        assert!(!format!("{:?}", secret("s3cret")).contains("s3cret"));
        let read: Secret = serde_json::from_str(&json).unwrap();
        assert_eq!(read, secret("s3cret"));
        assert_eq!(read.content.bytes(), None);
        assert_ne!(read, secret("s3cres"));
        assert_ne!(read, Secret::new("a".into(), b"s3cret".to_vec(), b"other").unwrap());
    }
}
