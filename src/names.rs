//! Every name carboy derives, in one place: from a prefix and a slug to the network, the
//! container and the interface names. Pure: no files, no netlink.
//!
//! The hashed interface names exist because the kernel allows 15 bytes for an interface
//! (`IFNAMSIZ` in `linux/if.h`), while the readable names are attached as altnames (up to 127
//! bytes, `ALTIFNAMSIZ`).

use std::fmt;
use std::str::FromStr;

use data_encoding::{Encoding, Specification};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The prefix used unless `--prefix`, `CARBOY_PREFIX` or the configuration says otherwise.
pub const DEFAULT_PREFIX: &str = "claude-bottle";

/// A slug may have this many bytes: it becomes the bundle's host name (`HOST_NAME_MAX`).
pub const SLUG_MAX: usize = 64;

/// Network and container names may have this many bytes: they become altnames (`ALTIFNAMSIZ`).
pub const NAME_MAX: usize = 127;

/// Interface names may have this many bytes (`IFNAMSIZ` less the closing NUL).
pub const IFNAME_MAX: usize = 15;

/// Why a word cannot be a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The word is empty.
    #[error("{what} is empty")]
    Empty {
        /// What the word was meant to be.
        what: &'static str,
    },
    /// The word is longer than the kernel or the contract allows.
    #[error("{what} {name:?} has {length} bytes, at most {max} are allowed")]
    TooLong {
        /// What the word was meant to be.
        what: &'static str,
        /// The word.
        name: String,
        /// Its length in bytes.
        length: usize,
        /// The most it may have.
        max: usize,
    },
    /// A character that is not allowed where it stands.
    #[error("{what} {name:?} has {character:?} at position {position}; allowed are {allowed}")]
    Character {
        /// What the word was meant to be.
        what: &'static str,
        /// The word.
        name: String,
        /// The offending character.
        character: char,
        /// Where it stands, counted in characters from 1.
        position: usize,
        /// What would be allowed there.
        allowed: &'static str,
    },
}

/// Checks `[A-Za-z0-9][A-Za-z0-9_.-]*` and a length.
fn check(what: &'static str, name: &str, max: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { what });
    }
    for (i, c) in name.chars().enumerate() {
        let first = i == 0;
        if c.is_ascii_alphanumeric() || (!first && matches!(c, '_' | '.' | '-')) {
            continue;
        }
        return Err(NameError::Character {
            what,
            name: name.to_owned(),
            character: c,
            position: i + 1,
            allowed: if first { "A-Z a-z 0-9" } else { "A-Z a-z 0-9 _ . -" },
        });
    }
    if name.len() > max {
        return Err(NameError::TooLong { what, name: name.to_owned(), length: name.len(), max });
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Parses the name.
            ///
            /// # Errors
            /// [`NameError`] if it is empty, too long or has a character that is not allowed.
            pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
                let name = name.into();
                check($what, &name, $max)?;
                Ok(Self(name))
            }

            /// The name as a string.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(s: &str) -> Result<Self, NameError> {
                Self::new(s)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(s: String) -> Result<Self, NameError> {
                Self::new(s)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

name_type!(
    /// What a user calls a bottle: `[A-Za-z0-9][A-Za-z0-9_.-]*`, at most 64 bytes.
    Slug,
    "slug",
    SLUG_MAX
);
name_type!(
    /// The first part of all names of one installation, `claude-bottle` by default.
    Prefix,
    "prefix",
    // The longest derived name is PREFIX-sidecars-SLUG.
    NAME_MAX - SLUG_MAX - "-sidecars-".len()
);
name_type!(
    /// A bundle network's name, `PREFIX-bundle-SLUG`; also the altname of its bridge.
    NetworkName,
    "network name",
    NAME_MAX
);
name_type!(
    /// A bundle container's name, `PREFIX-sidecars-SLUG`; also the name of its network namespace
    /// and the altname of the host's end of its veth pair.
    ContainerName,
    "container name",
    NAME_MAX
);
name_type!(
    /// The name of a bottle's guest side, `PREFIX-guest-SLUG`; also the name of its network namespace
    /// and the altname of the host's end of its veth pair.
    GuestName,
    "guest name",
    NAME_MAX
);
name_type!(
    /// A container's or a guest's name where it stands for a network namespace and its link.
    EndName,
    "name of a network's end",
    NAME_MAX
);
name_type!(
    /// A kernel interface name of at most 15 bytes.
    IfName,
    "interface name",
    IFNAME_MAX
);

impl Default for Prefix {
    fn default() -> Self {
        Self(DEFAULT_PREFIX.to_owned())
    }
}

impl Prefix {
    /// The name of the bottle's network.
    pub fn network(&self, slug: &Slug) -> NetworkName {
        NetworkName(format!("{self}-bundle-{slug}"))
    }

    /// The name of the bottle's container.
    pub fn container(&self, slug: &Slug) -> ContainerName {
        ContainerName(format!("{self}-sidecars-{slug}"))
    }

    /// The name of the bottle's guest side.
    pub fn guest(&self, slug: &Slug) -> GuestName {
        GuestName(format!("{self}-guest-{slug}"))
    }

    /// The bottle whose network has this name; `None` if it is no bottle's of this prefix.
    pub fn slug_of_network(&self, name: &NetworkName) -> Option<Slug> {
        let prefix = format!("{self}-bundle-");
        name.as_str().strip_prefix(&prefix).and_then(|slug| Slug::new(slug).ok())
    }
}

impl From<ContainerName> for EndName {
    fn from(name: ContainerName) -> Self {
        Self(name.0)
    }
}

impl From<GuestName> for EndName {
    fn from(name: GuestName) -> Self {
        Self(name.0)
    }
}

/// What every bridge's name begins with; the firewall matches it.
pub const BRIDGE_IFNAME_PREFIX: &str = "cb-";

/// What the name of every veth pair's host end begins with; the firewall matches it.
pub const VETH_IFNAME_PREFIX: &str = "cv-";

/// What the name of the host end of every guest's veth pair begins with; the firewall matches it.
pub const GUEST_IFNAME_PREFIX: &str = "cg-";

impl NetworkName {
    /// The bridge's interface name: `cb-` and 12 base32 characters of a hash of the name.
    pub fn bridge(&self) -> IfName {
        hashed(BRIDGE_IFNAME_PREFIX, &self.0)
    }
}

impl ContainerName {
    /// The veth pair's host end: `cv-` and 12 base32 characters of a hash of the name.
    pub fn veth(&self) -> IfName {
        hashed(VETH_IFNAME_PREFIX, &self.0)
    }
}

impl GuestName {
    /// The veth pair's host end: `cg-` and 12 base32 characters of a hash of the name.
    pub fn veth(&self) -> IfName {
        hashed(GUEST_IFNAME_PREFIX, &self.0)
    }
}

/// 12 base32 characters carry 60 bits: two of a million names collide with odds of one to two million.
fn hashed(prefix: &str, name: &str) -> IfName {
    let digest = Sha256::digest(name.as_bytes());
    let mut encoded = lowercase_base32().encode(&digest);
    encoded.truncate(IFNAME_MAX - prefix.len());
    IfName(format!("{prefix}{encoded}"))
}

/// RFC 4648 base32 in lower case, without padding: an interface name may hold any of it.
fn lowercase_base32() -> Encoding {
    let mut spec = Specification::new();
    spec.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    spec.encoding().expect("32 distinct symbols make a valid encoding")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slug_accepts_the_contract_grammar() {
        for good in ["a", "demo", "A.b_c-9", "0", &"x".repeat(64)] {
            assert!(Slug::new(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn slug_error_names_the_offending_character() {
        let cases = [
            ("-a", '-', 1),
            (".a", '.', 1),
            ("a b", ' ', 2),
            ("a/b", '/', 2),
            ("../x", '.', 1),
            ("aé", 'é', 2),
            ("a\0", '\0', 2),
        ];
        for (slug, c, at) in cases {
            match Slug::new(slug) {
                Err(NameError::Character { character, position, .. }) => {
                    assert_eq!((character, position), (c, at), "{slug}");
                }
                other => panic!("{slug}: {other:?}"),
            }
        }
        assert_eq!(Slug::new(""), Err(NameError::Empty { what: "slug" }));
        assert!(matches!(Slug::new("x".repeat(65)), Err(NameError::TooLong { length: 65, .. })));
    }

    #[test]
    fn derived_names_follow_the_contract() {
        let slug = Slug::new("demo").unwrap();
        let prefix = Prefix::default();
        assert_eq!(prefix.network(&slug).as_str(), "claude-bottle-bundle-demo");
        assert_eq!(prefix.container(&slug).as_str(), "claude-bottle-sidecars-demo");
        assert_eq!(prefix.guest(&slug).as_str(), "claude-bottle-guest-demo");
        assert!(prefix.guest(&slug).veth().as_str().starts_with("cg-"));
        let bridge = prefix.network(&slug).bridge();
        assert!(bridge.as_str().starts_with("cb-"), "{bridge}");
        assert_eq!(bridge.as_str().len(), IFNAME_MAX);
        assert_ne!(bridge.as_str()[3..], prefix.container(&slug).veth().as_str()[3..]);
    }

    #[test]
    fn interface_names_never_change() {
        // Callers and running bottles depend on these: a change would orphan live links.
        let slug = Slug::new("demo").unwrap();
        assert_eq!(Prefix::default().network(&slug).bridge().as_str(), BRIDGE_OF_DEMO);
        assert_eq!(Prefix::default().container(&slug).veth().as_str(), VETH_OF_DEMO);
    }

    // printf %s claude-bottle-bundle-demo | sha256sum, as base32, the first 12
    const BRIDGE_OF_DEMO: &str = "cb-ar77ztdncpq4";
    const VETH_OF_DEMO: &str = "cv-2u5kqgy4eb2q";

    #[test]
    fn longest_names_still_fit_an_altname() {
        let slug = Slug::new("s".repeat(SLUG_MAX)).unwrap();
        let prefix = Prefix::new("p".repeat(NAME_MAX - SLUG_MAX - 10)).unwrap();
        assert!(NetworkName::new(prefix.network(&slug).as_str()).is_ok());
        assert!(ContainerName::new(prefix.container(&slug).as_str()).is_ok());
    }
}
