//! Files of environment variables, by Docker's rules (`--env-file`). Pure.
//!
//! A line is `NAME=VALUE`, taken as it is: no quotes, no escapes, no `export`. A bare `NAME` takes
//! the value of carboy's own environment. Lines that are empty or begin with `#` are passed over,
//! as are a byte order mark and white space before a name. No error shows a value.

use crate::error::{Classify, ErrorKind};

/// A file of more bytes is refused.
pub const FILE_MAX: usize = 1 << 20;

/// Why a line is no variable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} {problem}")]
pub struct EnvFileError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl Classify for EnvFileError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        Some("a line is NAME=VALUE, or NAME to take the value from carboy's environment".into())
    }
}

/// The entries in the file's order, as `-e` takes them.
///
/// # Errors
/// [`EnvFileError`] with the number of the first bad line.
pub fn parse(content: &[u8]) -> Result<Vec<String>, EnvFileError> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut entries = Vec::new();
    for (i, line) in content.split(|&b| b == b'\n').enumerate() {
        let error = |problem| EnvFileError { line: i + 1, problem };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = std::str::from_utf8(line).map_err(|_| error("is not UTF-8"))?.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.contains('\0') {
            return Err(error("has a NUL byte in it"));
        }
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        if name.is_empty() {
            return Err(error("has no name before the ="));
        }
        if name.contains(char::is_whitespace) {
            return Err(error("has white space in the name"));
        }
        entries.push(line.to_owned());
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_as_they_are() {
        let text = b"\xef\xbb\xbfA=1\r\n# comment\n\n   # indented\n  B=\"quoted\" # no comment\n\
                     C=\nBARE\nD=a=b \n\tE='x'\nF=\xc3\xbc";
        assert_eq!(
            parse(text).unwrap(),
            ["A=1", "B=\"quoted\" # no comment", "C=", "BARE", "D=a=b ", "E='x'", "F=\u{fc}"]
        );
        assert_eq!(parse(b"").unwrap(), [""; 0]);
    }

    #[test]
    fn a_bad_line_is_told_by_number_without_its_content() {
        for (text, line) in [
            (&b"A=1\n=s3cret"[..], 2),
            (b"A B=s3cret", 1),
            (b"export A=s3cret", 1),
            (b"#\n\nA =s3cret", 3),
            (b"A=1\nB=s3cret\0", 2),
            (b"A=s3cret\xff", 1),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.line, line);
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
    }
}
