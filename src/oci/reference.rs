//! Image names as users write them, and Docker's normal form of them. Pure.
//!
//! The grammar is that of `github.com/distribution/reference`: `[domain/]path[:tag][@digest]`.
//! What has no domain is `docker.io`, what has no path there is under `library/`, what has
//! neither tag nor digest is `latest`.

use std::fmt;
use std::str::FromStr;

use super::digest::{Digest, DigestError};

/// The image that is built into carboy. It is not a repository's name and is left as it is.
pub const EMBEDDED: &str = "embedded:sidecars";

/// A repository's name, with its domain, may have this many bytes.
const NAME_MAX: usize = 255;

/// A tag may have this many bytes.
const TAG_MAX: usize = 128;

/// An image's name: what the user wrote, and the normal form under which equal names meet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    text: String,
    normal: String,
    digest: Option<Digest>,
}

/// Why a word is no image name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// Nothing was given, or a part is empty.
    #[error("image name {name:?} has an empty {part}")]
    Empty {
        /// The whole word.
        name: String,
        /// Which part.
        part: &'static str,
    },
    /// A part is too long.
    #[error("image name {name:?}: the {part} has {length} bytes, at most {max} are allowed")]
    TooLong {
        /// The whole word, shortened.
        name: String,
        /// Which part.
        part: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The most it may have.
        max: usize,
    },
    /// A character that is not allowed there.
    #[error("image name {name:?}: {character:?} is not allowed in the {part} ({allowed})")]
    Character {
        /// The whole word.
        name: String,
        /// Which part.
        part: &'static str,
        /// The character.
        character: char,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A part of the repository begins or ends with a separator, or has a wrong run of them.
    #[error(
        "image name {name:?}: {component:?} must begin and end with a letter or digit, with one \
         of \".\", \"_\", \"__\" or dashes between"
    )]
    Separator {
        /// The whole word.
        name: String,
        /// The part between two slashes.
        component: String,
    },
    /// What follows `@` is no digest.
    #[error("image name {name:?} has no valid digest after \"@\"")]
    Digest {
        /// The whole word.
        name: String,
        /// What is wrong with it.
        source: DigestError,
    },
}

impl Reference {
    /// Parses a name; a bare digest (`sha256:…`) is one too.
    ///
    /// # Errors
    /// [`ReferenceError`] with the offending part.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text == EMBEDDED {
            return Ok(Self { text: text.to_owned(), normal: text.to_owned(), digest: None });
        }
        if let Ok(digest) = text.parse::<Digest>() {
            let text = text.to_owned();
            return Ok(Self { normal: text.clone(), text, digest: Some(digest) });
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest: Digest = digest
                    .parse()
                    .map_err(|source| ReferenceError::Digest { name: short(text), source })?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (domain, rest) = split_domain(rest);
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        check_domain(text, domain)?;
        check_path(text, path)?;
        if let Some(tag) = tag {
            check_tag(text, tag)?;
        }
        let domain = match domain {
            None | Some("index.docker.io") => "docker.io",
            Some(domain) => domain,
        };
        let library = if domain == "docker.io" && !path.contains('/') { "library/" } else { "" };
        let mut normal = format!("{domain}/{library}{path}");
        if normal.len() > NAME_MAX {
            return Err(too_long(text, "repository", normal.len(), NAME_MAX));
        }
        match (tag, &digest) {
            (Some(tag), _) => normal.extend([":", tag]),
            (None, None) => normal.push_str(":latest"),
            (None, Some(_)) => {}
        }
        if let Some(digest) = &digest {
            normal.extend(["@", digest.as_str()]);
        }
        Ok(Self { text: text.to_owned(), normal, digest })
    }

    /// What the user wrote.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Docker's normal form, such as `docker.io/library/t:1`.
    pub fn normal(&self) -> &str {
        &self.normal
    }

    /// The content the name pins, if it does.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl From<&Digest> for Reference {
    fn from(digest: &Digest) -> Self {
        let text = digest.as_str().to_owned();
        Self { normal: text.clone(), text, digest: Some(digest.clone()) }
    }
}

/// The part before the first slash is a domain if it looks like one: Docker's rule.
fn split_domain(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.chars().any(char::is_uppercase) =>
        {
            (Some(first), rest)
        }
        _ => (None, text),
    }
}

fn check_domain(text: &str, domain: Option<&str>) -> Result<(), ReferenceError> {
    const ALLOWED: &str = "A-Z a-z 0-9 . - and a port";
    let Some(domain) = domain else { return Ok(()) };
    // An IPv6 address stands in brackets, so its colons are not taken for a port.
    let (host, port) = match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            let bad = address.chars().find(|c| !c.is_ascii_hexdigit() && *c != ':');
            refuse(text, "domain", bad, "an IPv6 address")?;
            (None, port.strip_prefix(':'))
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(domain), None),
        },
    };
    if let Some(host) = host {
        let bad = host.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '-'));
        refuse(text, "domain", bad, ALLOWED)?;
        if host.split('.').any(str::is_empty) {
            return Err(ReferenceError::Empty { name: short(text), part: "part of the domain" });
        }
    }
    if let Some(port) = port {
        refuse(text, "port", port.chars().find(|c| !c.is_ascii_digit()), "0-9")?;
        if port.is_empty() {
            return Err(ReferenceError::Empty { name: short(text), part: "port" });
        }
    }
    Ok(())
}

fn check_path(text: &str, path: &str) -> Result<(), ReferenceError> {
    for component in path.split('/') {
        if component.is_empty() {
            return Err(ReferenceError::Empty { name: short(text), part: "repository" });
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let bad = component.chars().find(|&c| !allowed(c) && !matches!(c, '.' | '_' | '-'));
        refuse(text, "repository", bad, "a-z 0-9 . _ -")?;
        let mut runs = component.split(allowed).filter(|run| !run.is_empty());
        let good = runs.all(|run| matches!(run, "." | "_" | "__") || dashes(run));
        if !good || !component.starts_with(allowed) || !component.ends_with(allowed) {
            return Err(ReferenceError::Separator {
                name: short(text),
                component: component.to_owned(),
            });
        }
    }
    Ok(())
}

fn dashes(run: &str) -> bool {
    run.bytes().all(|b| b == b'-')
}

fn check_tag(text: &str, tag: &str) -> Result<(), ReferenceError> {
    if tag.is_empty() {
        return Err(ReferenceError::Empty { name: short(text), part: "tag" });
    }
    if tag.len() > TAG_MAX {
        return Err(too_long(text, "tag", tag.len(), TAG_MAX));
    }
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rest = tag.chars();
    let first = rest.next().filter(|&c| !word(c));
    refuse(text, "tag", first, "it begins with A-Z a-z 0-9 _")?;
    let bad = rest.find(|&c| !word(c) && !matches!(c, '.' | '-'));
    refuse(text, "tag", bad, "A-Z a-z 0-9 _ . -")
}

fn refuse(
    text: &str,
    part: &'static str,
    bad: Option<char>,
    allowed: &'static str,
) -> Result<(), ReferenceError> {
    match bad {
        None => Ok(()),
        Some(character) => {
            Err(ReferenceError::Character { name: short(text), part, character, allowed })
        }
    }
}

fn too_long(text: &str, part: &'static str, length: usize, max: usize) -> ReferenceError {
    ReferenceError::TooLong { name: short(text), part, length, max }
}

/// A name that is far too long must not fill the screen.
fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_form_is_dockers() {
        let hex = "a".repeat(64);
        let digest = format!("sha256:{hex}");
        let cases = [
            ("t:1", "docker.io/library/t:1".to_owned()),
            ("t", "docker.io/library/t:latest".to_owned()),
            ("me/t", "docker.io/me/t:latest".to_owned()),
            ("docker.io/t:1", "docker.io/library/t:1".to_owned()),
            ("index.docker.io/me/t:1", "docker.io/me/t:1".to_owned()),
            ("localhost/t", "localhost/t:latest".to_owned()),
            ("localhost:5000/a/b:V_1.2-x", "localhost:5000/a/b:V_1.2-x".to_owned()),
            ("ghcr.io/a__b/c-d--e.f", "ghcr.io/a__b/c-d--e.f:latest".to_owned()),
            ("[::1]:5000/t", "[::1]:5000/t:latest".to_owned()),
            (&format!("t@{digest}"), format!("docker.io/library/t@{digest}")),
            (&format!("t:1@{digest}"), format!("docker.io/library/t:1@{digest}")),
            (&digest, digest.clone()),
            (EMBEDDED, EMBEDDED.to_owned()),
        ];
        for (name, normal) in cases {
            let reference = Reference::parse(name).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(reference.normal(), normal, "{name}");
            assert_eq!(reference.as_str(), name);
        }
    }

    #[test]
    fn only_the_exact_embedded_name_is_reserved() {
        let other = Reference::parse("embedded:other").unwrap();
        assert_eq!(other.normal(), "docker.io/library/embedded:other");
    }

    #[test]
    fn bad_names_say_what_is_wrong() {
        let long = format!("t:{}", "x".repeat(129));
        let path = "x/".repeat(130) + "x";
        let cases = [
            ("", "empty repository"),
            ("t:", "empty tag"),
            (":1", "empty repository"),
            ("a//b", "empty repository"),
            ("T:1", "'T' is not allowed in the repository"),
            ("t:a b", "' ' is not allowed in the tag"),
            ("t:-a", "'-' is not allowed in the tag"),
            ("-t", "must begin and end"),
            ("t.", "must begin and end"),
            ("a..b", "must begin and end"),
            ("a___b", "must begin and end"),
            ("../t", "empty part of the domain"),
            ("./t", "empty part of the domain"),
            ("/etc/passwd", "empty repository"),
            ("host:port/t", "'p' is not allowed in the port"),
            ("t@sha256:12", "no valid digest"),
            (&long, "at most 128"),
            (&path, "at most 255"),
        ];
        for (name, want) in cases {
            let error = Reference::parse(name).expect_err(name).to_string();
            assert!(error.contains(want), "{name}: {error}");
        }
    }
}
