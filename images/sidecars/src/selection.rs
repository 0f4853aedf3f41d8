//! Which daemons run, from the comma-separated list in the environment. Pure.

use std::ffi::OsStr;
use std::fmt;

use crate::daemons::Daemon;

/// The environment variable with the list. Unset means all, empty means none.
pub(crate) const VARIABLE: &str = "CLAUDE_BOTTLE_SIDECAR_DAEMONS";

/// A name that no daemon has.
#[derive(Debug, PartialEq)]
pub(crate) struct UnknownDaemon {
    name: String,
    known: Vec<&'static str>,
}

impl fmt::Display for UnknownDaemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown daemon {:?}; known: {} ({VARIABLE})", self.name, self.known.join(", "))
    }
}

/// The daemon called `name`.
pub(crate) fn find(name: &str, all: &'static [Daemon]) -> Result<&'static Daemon, UnknownDaemon> {
    all.iter().find(|daemon| daemon.name == name).ok_or_else(|| UnknownDaemon {
        name: name.to_owned(),
        known: all.iter().map(|daemon| daemon.name).collect(),
    })
}

/// The daemons of a list, in its order, each once. Blanks around a name and empty items do not count.
pub(crate) fn parse(
    list: Option<&OsStr>,
    all: &'static [Daemon],
) -> Result<Vec<&'static Daemon>, UnknownDaemon> {
    let Some(list) = list else { return Ok(all.iter().collect()) };
    let mut selected: Vec<&'static Daemon> = Vec::new();
    for name in list.to_string_lossy().split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let daemon = find(name, all)?;
        if !selected.iter().any(|other| other.name == daemon.name) {
            selected.push(daemon);
        }
    }
    Ok(selected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemons::ALL;

    #[test]
    fn lists() {
        let all: Vec<&str> = ALL.iter().map(|daemon| daemon.name).collect();
        for (list, want) in [
            (None, all.as_slice()),
            (Some(""), &[]),
            (Some(" , "), &[]),
            (Some("echo"), &["echo"]),
            (Some("echo,health"), &["echo", "health"]),
            (Some(" health , echo,health,"), &["health", "echo"]),
        ] {
            let selected = parse(list.map(OsStr::new), ALL).expect("known names");
            let names: Vec<&str> = selected.iter().map(|daemon| daemon.name).collect();
            assert_eq!(names, want, "{list:?}");
        }
    }

    #[test]
    fn an_unknown_name_is_named_with_the_known_ones() {
        let error = parse(Some(OsStr::new("echo,ecko")), ALL).err().expect("unknown");
        let text = error.to_string();
        assert!(text.contains("\"ecko\""), "{text}");
        assert!(ALL.iter().all(|daemon| text.contains(daemon.name)), "{text}");
    }
}
