//! The keys by which a user leaves a command on a terminal to itself, as Docker's
//! `--detach-keys`. Pure.

use crate::error::{Classify, ErrorKind};

/// Docker's: control and P, then control and Q.
pub const DEFAULT: &str = "ctrl-p,ctrl-q";

/// A word that names no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key:?} is no key to detach with")]
pub struct DetachKeyError {
    /// The word.
    pub key: String,
}

impl Classify for DetachKeyError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Usage
    }

    fn hint(&self) -> Option<String> {
        Some("give characters or ctrl-X (X: a letter or one of @[\\]^_), with commas".to_owned())
    }
}

/// The bytes that a terminal sends for a list of keys such as `ctrl-p,ctrl-q`; none for an empty
/// text.
///
/// # Errors
/// [`DetachKeyError`] names the key.
pub fn parse(text: &str) -> Result<Vec<u8>, DetachKeyError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let wrong = |key: &str| DetachKeyError { key: key.chars().take(40).collect() };
    text.split(',').map(|key| byte(key).ok_or_else(|| wrong(key))).collect()
}

fn byte(key: &str) -> Option<u8> {
    if let Some(with) = key.strip_prefix("ctrl-") {
        return match with.as_bytes() {
            [c @ b'a'..=b'z'] => Some(c - b'a' + 1),
            [c @ b'@'..=b'_'] if !c.is_ascii_uppercase() => Some(c - b'@'),
            _ => None,
        };
    }
    match key.as_bytes() {
        [c] if c.is_ascii_graphic() || *c == b' ' => Some(*c),
        _ => None,
    }
}

/// Watches what is typed for the keys.
#[derive(Debug)]
pub struct DetachMatcher {
    keys: Vec<u8>,
    /// How many of them have been typed, and are held back.
    seen: usize,
}

impl DetachMatcher {
    /// A matcher of these bytes; of none it never matches.
    pub fn new(keys: Vec<u8>) -> Self {
        Self { keys, seen: 0 }
    }

    /// Takes what was typed and appends what is to be passed on to `out`; true once the keys are
    /// complete. What may be their beginning is held back until it is not.
    pub fn feed(&mut self, typed: &[u8], out: &mut Vec<u8>) -> bool {
        if self.keys.is_empty() {
            out.extend_from_slice(typed);
            return false;
        }
        for byte in typed {
            while self.keys[self.seen] != *byte {
                if self.seen == 0 {
                    out.push(*byte);
                    break;
                }
                // The longest end of what is held back that may still be a beginning.
                let shorter = self.longest_border();
                out.extend_from_slice(&self.keys[..self.seen - shorter]);
                self.seen = shorter;
            }
            if self.keys[self.seen] == *byte {
                self.seen += 1;
            }
            if self.seen == self.keys.len() {
                self.seen = 0;
                return true;
            }
        }
        false
    }

    /// How many of the keys that were seen last are also the first ones; fewer than were seen.
    fn longest_border(&self) -> usize {
        let seen = &self.keys[..self.seen];
        (0..self.seen).rev().find(|n| seen.ends_with(&seen[..*n])).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_dockers() {
        let cases: [(&str, &[u8]); 5] = [
            (DEFAULT, &[16, 17]),
            ("", &[]),
            ("a,ctrl-@,Q", &[b'a', 0, b'Q']),
            ("ctrl-[,ctrl-_", &[27, 31]),
            ("ctrl-z", &[26]),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse(text).as_deref(), Ok(bytes), "{text}");
        }
        for bad in ["ctrl-", "ctrl-P", "ctrl-pp", "ab", ",", "ctrl-1", "é"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    fn fed(keys: &[u8], chunks: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut matcher = DetachMatcher::new(keys.to_vec());
        let mut out = Vec::new();
        let done = chunks.iter().any(|chunk| matcher.feed(chunk, &mut out));
        (out, done)
    }

    #[test]
    fn everything_but_the_keys_passes() {
        let check = |keys: &[u8], chunks: &[&[u8]], out: &[u8], done: bool| {
            assert_eq!(fed(keys, chunks), (out.to_vec(), done), "{keys:?} {chunks:?}");
        };
        check(b"pq", &[b"hello"], b"hello", false);
        check(b"pq", &[b"apq"], b"a", true);
        check(b"pq", &[b"p", b"q"], b"", true);
        check(b"pq", &[b"p", b"x"], b"px", false);
        check(b"pq", &[b"pp", b"q"], b"p", true);
        check(b"aab", &[b"aaab"], b"a", true);
        check(b"abac", &[b"ababac!"], b"ab", true);
        check(b"", &[b"pq\x10\x11"], b"pq\x10\x11", false);
    }
}
