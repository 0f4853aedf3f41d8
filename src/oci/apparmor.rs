//! AppArmor profiles: what the host has, and which one a container gets.
//!
//! libcontainer puts the profile on (`/proc/self/attr/apparmor/exec`); this module only says which.

use std::fs;
use std::path::Path;

/// The profile a container gets where nothing else is asked for and an administrator has loaded it.
pub const DEFAULT_PROFILE: &str = "carboy-default";

/// The kernel's name for no profile.
const UNCONFINED: &str = "unconfined";

const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";

/// Whether the kernel enforces AppArmor profiles.
pub fn is_enabled() -> bool {
    fs::read_to_string(ENABLED).is_ok_and(|text| text.starts_with('Y'))
}

/// Whether a profile is loaded. `unconfined` is always there. `None` if the host's list cannot be
/// read.
pub fn is_loaded(profile: &str) -> Option<bool> {
    if profile == UNCONFINED {
        return Some(true);
    }
    fs::read_to_string(Path::new(PROFILES)).ok().map(|list| lists(&list, profile))
}

/// The profile of a container that asked for `wanted`.
pub(crate) fn effective(wanted: Option<&str>) -> Option<String> {
    let default = || is_enabled() && is_loaded(DEFAULT_PROFILE) == Some(true);
    match wanted {
        // The runtime takes any profile, this one included, for a wish that needs AppArmor.
        Some(UNCONFINED) if !is_enabled() => None,
        Some(profile) => Some(profile.to_owned()),
        None => default().then(|| DEFAULT_PROFILE.to_owned()),
    }
}

/// A line is `NAME (MODE)`; names may hold spaces.
fn lists(list: &str, profile: &str) -> bool {
    list.lines().filter_map(|line| line.rsplit_once(" (")).any(|(name, _)| name == profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_found_by_their_whole_name() {
        let list = "/usr/sbin/ntpd (enforce)\ndocker-default (enforce)\na b (complain)\n";
        for name in ["docker-default", "/usr/sbin/ntpd", "a b"] {
            assert!(lists(list, name), "{name}");
        }
        for name in ["docker", "docker-default (enforce)", "b", ""] {
            assert!(!lists(list, name), "{name}");
        }
        assert_eq!(is_loaded(UNCONFINED), Some(true));
    }
}
