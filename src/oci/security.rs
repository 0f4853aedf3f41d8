//! What confines a container beyond its namespaces, and the words users loosen it with
//! (`--security-opt`). Pure.

use serde::{Deserialize, Serialize};

use super::capabilities::Granted;
use super::selinux::context::LabelOptions;
use super::ulimit::Ulimit;
use crate::error::{Classify, ErrorKind};

/// How a container is confined. The default is what a container gets for which nothing was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// Its capabilities.
    pub capabilities: Granted,
    /// No system-call filter.
    pub seccomp_unconfined: bool,
    /// The AppArmor profile; carboy's own, where it is loaded, unless given.
    pub apparmor: Option<String>,
    /// Resource limits over the default ones.
    pub ulimits: Vec<Ulimit>,
}

/// What `--security-opt` can say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityWords {
    /// `seccomp=unconfined`.
    pub seccomp_unconfined: bool,
    /// `apparmor=PROFILE`.
    pub apparmor: Option<String>,
    /// `label=…`.
    pub label: LabelOptions,
}

/// Why a word cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    /// Nothing that is known.
    #[error("security option {word:?} is not known")]
    Unknown {
        /// As given.
        word: String,
    },
    /// A label that could be none.
    #[error("security option {word:?} names no SELinux label")]
    Label {
        /// As given.
        word: String,
    },
    /// What is not to be had.
    #[error("no_new_privs is always on")]
    NewPrivileges,
}

impl Classify for SecurityError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unknown { .. } => {
                "there are no-new-privileges, seccomp=default, seccomp=unconfined, \
                 apparmor=PROFILE and label=…"
            }
            Self::Label { .. } => {
                "there are label=disable, and label=type:T, level:L, user:U, role:R and filetype:T"
            }
            Self::NewPrivileges => "--cap-add gives a capability to every user of the container",
        };
        Some(hint.to_owned())
    }
}

/// Reads all words; of contradicting ones the last counts.
///
/// # Errors
/// [`SecurityError`] that names the wrong one.
pub fn parse(words: &[String]) -> Result<SecurityWords, SecurityError> {
    let mut all = SecurityWords::default();
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("no-new-privileges", "" | "true") => {}
            ("no-new-privileges", "false") => return Err(SecurityError::NewPrivileges),
            ("seccomp", "unconfined") => all.seccomp_unconfined = true,
            ("seccomp", "default") => all.seccomp_unconfined = false,
            ("apparmor", profile) if is_profile(profile) => {
                all.apparmor = Some(profile.to_owned());
            }
            ("label", label) => {
                let word = || word.chars().take(60).collect();
                all.label.take(label).ok_or_else(|| SecurityError::Label { word: word() })?;
            }
            _ => return Err(SecurityError::Unknown { word: word.chars().take(60).collect() }),
        }
    }
    Ok(all)
}

/// A profile's name as the kernel lists it: one word, that could not be taken for another command
/// of its interface.
fn is_profile(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<SecurityWords, SecurityError> {
        parse(&words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn words_are_read() {
        assert_eq!(read(&["no-new-privileges", "no-new-privileges=true"]), read(&[]));
        assert!(read(&["seccomp=unconfined"]).unwrap().seccomp_unconfined);
        assert!(!read(&["seccomp=unconfined", "seccomp=default"]).unwrap().seccomp_unconfined);
        assert_eq!(read(&["apparmor=my-own"]).unwrap().apparmor.as_deref(), Some("my-own"));
        assert!(read(&["label=disable"]).unwrap().label.disable);
        assert!(read(&["label=type:spc_t", "label=level:s0:c1,c2"]).unwrap().label.asks());
    }

    #[test]
    fn what_is_not_sound_is_refused() {
        assert_eq!(read(&["no-new-privileges=false"]), Err(SecurityError::NewPrivileges));
        for word in [
            "",
            "seccomp",
            "seccomp=",
            "seccomp=/profile.json",
            "labels=disable",
            "apparmor=",
            "apparmor=a b",
            "apparmor=a\n",
            "seccomp:unconfined",
        ] {
            assert!(matches!(read(&[word]), Err(SecurityError::Unknown { .. })), "{word}");
        }
        for word in ["label", "label=", "label=off", "label=type:", "label=type:a b"] {
            assert!(matches!(read(&[word]), Err(SecurityError::Label { .. })), "{word}");
        }
    }
}
