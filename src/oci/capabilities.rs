//! The capabilities of a container's processes (capabilities(7)). Pure.
//!
//! Docker's default set is the ceiling. A sidecar gets what a program needs that starts as root
//! and then drops to a user of its own; what opens the kernel or the network further is left out.

use std::collections::BTreeSet;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};
use serde::{Deserialize, Serialize};

use crate::error::{Classify, ErrorKind};

/// What a container's root has, and why.
pub const KEPT: &[(Capability, &str)] = &[
    (Capability::Chown, "entrypoints give their data directories to the user they drop to"),
    (Capability::DacOverride, "root in a container expects to write files of other users"),
    (Capability::Fowner, "chmod and utimes on files that were given away, as package tools do"),
    (Capability::Fsetid, "chmod keeps the setgid bit of shared directories"),
    (Capability::Kill, "a supervisor that runs as root signals daemons of other users"),
    (Capability::NetBindService, "ports below 1024"),
    (Capability::Setgid, "dropping to another group"),
    (Capability::Setpcap, "dropping capabilities from the bounding set"),
    (Capability::Setuid, "dropping to another user"),
];

/// What Docker grants besides, and why a container here does not get it. A program whose file asks
/// for one of these as an effective file capability (some builds of `ping`) cannot be executed: the
/// kernel answers EPERM.
pub const WITHHELD: &[(Capability, &str)] = &[
    (Capability::AuditWrite, "the host's audit log is none of a container's business"),
    (Capability::Mknod, "device nodes are made by the runtime, before the program starts"),
    (Capability::NetRaw, "raw sockets forge packets; ping needs none where it uses datagrams"),
    (Capability::Setfcap, "file capabilities have no effect with no_new_privs"),
    (Capability::SysChroot, "a container is confined already; chroot is a step of escapes"),
];

/// Stands for every capability, as with Docker.
const ALL: &str = "ALL";

/// Why capabilities cannot be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    /// No capability's name.
    #[error("{name:?} is no capability")]
    Unknown {
        /// As given.
        name: String,
    },
    /// What carboy itself does not have.
    #[error("carboy does not have {name} itself and cannot give it to a container")]
    NotHeld {
        /// The capability.
        name: String,
    },
}

impl Classify for CapabilityError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown { .. } => ErrorKind::Invalid,
            Self::NotHeld { .. } => ErrorKind::Permission,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unknown { .. } => {
                "give a name of capabilities(7), such as NET_RAW, or ALL".into()
            }
            Self::NotHeld { name } => format!("run carboy with {name}, or leave it out"),
        })
    }
}

/// What the processes of a container may have. Names are the kernel's (`CAP_CHOWN`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// What root inside holds; the bounding set of all.
    pub root: BTreeSet<String>,
    /// What was asked for by name: users other than root hold it as well. Without that it would be
    /// of no use to them, for no_new_privs keeps them from gaining it.
    pub everyone: BTreeSet<String>,
}

impl Default for Granted {
    fn default() -> Self {
        Self { root: KEPT.iter().map(|(c, _)| full_name(*c)).collect(), everyone: BTreeSet::new() }
    }
}

impl Granted {
    /// The default set changed by Docker's rules for `--cap-add` and `--cap-drop`: adding wins over
    /// dropping; of `ALL` added those that are dropped by name are left out; of `ALL` dropped those
    /// that are added by name remain. `held` is what carboy has itself.
    ///
    /// # Errors
    /// [`CapabilityError`] for an unknown name, and for one that is added and not held.
    pub fn new(
        add: &[String],
        drop: &[String],
        held: &BTreeSet<String>,
    ) -> Result<Self, CapabilityError> {
        let (add_all, added) = parse(add)?;
        let (drop_all, dropped) = parse(drop)?;
        if let Some(name) = added.iter().find(|name| !held.contains(*name)) {
            return Err(CapabilityError::NotHeld { name: name.clone() });
        }
        let without = |all: &BTreeSet<String>| all - &dropped;
        let (root, everyone) = if add_all {
            (without(held), without(held))
        } else if drop_all {
            (added.clone(), added)
        } else {
            (&without(&Self::default().root) | &added, added)
        };
        Ok(Self { root, everyone })
    }

    /// Whether root inside has this capability (`CAP_SYS_ADMIN`).
    pub fn allows(&self, name: &str) -> bool {
        self.root.contains(name)
    }

    /// The capability sets of a process that runs as `uid`.
    ///
    /// Root has all that are granted; any other user those that were asked for by name, as ambient
    /// ones, which execve(2) keeps. Else the inheritable and ambient sets are empty: nothing is
    /// gained. The bounding set is the same for all.
    pub fn sets(&self, uid: u32) -> LinuxCapabilities {
        let root = capabilities(&self.root);
        let everyone = capabilities(&self.everyone);
        let (held, kept) = if uid == 0 {
            (root.clone(), Capabilities::new())
        } else {
            (everyone.clone(), everyone)
        };
        let mut sets = LinuxCapabilities::default();
        // Each of the five: the crate's defaults are not empty.
        sets.set_bounding(Some(root))
            .set_effective(Some(held.clone()))
            .set_permitted(Some(held))
            .set_inheritable(Some(kept.clone()))
            .set_ambient(Some(kept));
        sets
    }
}

fn full_name(capability: Capability) -> String {
    format!("CAP_{capability}")
}

fn known(name: &str) -> Option<Capability> {
    name.strip_prefix("CAP_")?.parse().ok()
}

fn capabilities(names: &BTreeSet<String>) -> Capabilities {
    names.iter().filter_map(|name| known(name)).collect()
}

/// Whether `ALL` is among the names, and the others in full: the prefix and the case are free.
fn parse(names: &[String]) -> Result<(bool, BTreeSet<String>), CapabilityError> {
    let (mut all, mut named) = (false, BTreeSet::new());
    for given in names {
        let upper = given.to_ascii_uppercase();
        if upper == ALL {
            all = true;
            continue;
        }
        let name = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        if known(&name).is_none() {
            return Err(CapabilityError::Unknown { name: given.chars().take(60).collect() });
        }
        named.insert(name);
    }
    Ok((all, named))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_and_withheld_are_dockers_fourteen() {
        let mut all: Vec<String> =
            KEPT.iter().chain(WITHHELD).map(|(c, _)| format!("{c:?}")).collect();
        all.sort();
        let docker = [
            "AuditWrite",
            "Chown",
            "DacOverride",
            "Fowner",
            "Fsetid",
            "Kill",
            "Mknod",
            "NetBindService",
            "NetRaw",
            "Setfcap",
            "Setgid",
            "Setpcap",
            "Setuid",
            "SysChroot",
        ];
        assert_eq!(all, docker);
    }

    fn names(words: &[&str]) -> Vec<String> {
        words.iter().map(|&w| w.to_owned()).collect()
    }

    fn set(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|w| format!("CAP_{w}")).collect()
    }

    #[test]
    fn only_root_holds_any_that_nobody_asked_for() {
        let granted = Granted::default();
        let kept: Capabilities = KEPT.iter().map(|(c, _)| *c).collect();
        let empty = Some(Capabilities::new());
        for (uid, held) in [(0, Some(kept.clone())), (1000, empty.clone())] {
            let sets = granted.sets(uid);
            assert_eq!(sets.bounding(), &Some(kept.clone()), "{uid}");
            assert_eq!(sets.effective(), &held, "{uid}");
            assert_eq!(sets.permitted(), &held, "{uid}");
            assert_eq!(sets.inheritable(), &empty, "{uid}");
            assert_eq!(sets.ambient(), &empty, "{uid}");
        }
    }

    #[test]
    fn what_was_asked_for_is_everybodys() {
        let held = set(&["NET_ADMIN"]);
        let granted = Granted::new(&names(&["net_admin"]), &names(&["ALL"]), &held).unwrap();
        let admin: Capabilities = [Capability::NetAdmin].into_iter().collect();
        let sets = granted.sets(1000);
        for found in [sets.bounding(), sets.effective(), sets.permitted(), sets.ambient()] {
            assert_eq!(found, &Some(admin.clone()));
        }
        assert_eq!(granted.sets(0).ambient(), &Some(Capabilities::new()));
    }

    #[test]
    fn adding_and_dropping_follow_docker() {
        let held = set(&["CHOWN", "NET_RAW", "SYS_ADMIN", "KILL"]);
        let default = Granted::default().root;
        let root = |add: &[&str], drop: &[&str]| {
            Granted::new(&names(add), &names(drop), &held).map(|granted| granted.root)
        };
        assert_eq!(root(&[], &[]).unwrap(), default);
        assert_eq!(root(&["CAP_NET_RAW"], &[]).unwrap(), &default | &set(&["NET_RAW"]));
        assert_eq!(root(&[], &["chown"]).unwrap(), &default - &set(&["CHOWN"]));
        assert_eq!(root(&["chown"], &["CHOWN"]).unwrap(), default, "adding wins");
        assert_eq!(root(&[], &["all"]).unwrap(), set(&[]));
        assert_eq!(root(&["KILL"], &["ALL"]).unwrap(), set(&["KILL"]));
        assert_eq!(root(&["ALL"], &["SYS_ADMIN"]).unwrap(), &held - &set(&["SYS_ADMIN"]));
        assert_eq!(root(&["ALL"], &["ALL"]).unwrap(), held);
        let name = "CAP_BPF".to_owned();
        assert_eq!(root(&["BPF"], &[]), Err(CapabilityError::NotHeld { name }));
        for bad in ["", "CAP_", "CAP_CAP_CHOWN", "CHOWNS", "ALL "] {
            assert!(matches!(root(&[], &[bad]), Err(CapabilityError::Unknown { .. })), "{bad}");
        }
    }
}
