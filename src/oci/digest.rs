//! Content digests as the OCI image specification writes them (`descriptor.md`, "Digests").
//! Only SHA-256: it is the one algorithm every registry and tool supports. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// A text that is no SHA-256 digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no sha256 digest (sha256: and 64 lower-case hexadecimal digits)")]
pub struct DigestError {
    /// The text, shortened.
    pub text: String,
}

const PREFIX: &str = "sha256:";

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self::from_hash(&sha2::Sha256::digest(bytes).into())
    }

    /// The digest whose 32 bytes a hasher gave.
    pub fn from_hash(hash: &[u8; 32]) -> Self {
        Self(format!("{PREFIX}{}", data_encoding::HEXLOWER.encode(hash)))
    }

    /// The 64 hexadecimal digits: safe as a file name.
    pub fn hex(&self) -> &str {
        &self.0[PREFIX.len()..]
    }

    /// How many digits are enough for people.
    pub const SHORT: usize = 12;

    /// The first [`Digest::SHORT`] digits, for people.
    pub fn short(&self) -> &str {
        &self.hex()[..Self::SHORT]
    }

    /// The whole text, `sha256:…`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hex = text.strip_prefix(PREFIX).unwrap_or_default();
        if hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self(text.to_owned()))
        } else {
            Err(DigestError { text: text.chars().take(100).collect() })
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_nothing_is_the_known_one() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), empty);
        assert_eq!(
            empty.parse::<Digest>().map(|d| d.short().to_owned()),
            Ok("e3b0c44298fc".into())
        );
    }

    #[test]
    fn digest_refuses_what_could_be_a_path() {
        let long = format!("sha256:{}", "A".repeat(64));
        for bad in ["", "sha256:", "sha512:00", "sha256:../../etc/passwd", &long] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
