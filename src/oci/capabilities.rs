//! The capabilities of a container's processes (capabilities(7)). Pure.
//!
//! Docker's default set is the ceiling. A sidecar gets what a program needs that starts as root
//! and then drops to a user of its own; what opens the kernel or the network further is left out.

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

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

/// The capability sets of a process that runs as `uid`.
///
/// Root has [`KEPT`]; any other user has none, and cannot gain any, as the inheritable and ambient
/// sets are empty and no_new_privs is set. The bounding set is the same for all.
pub fn of(uid: u32) -> LinuxCapabilities {
    let kept: Capabilities = KEPT.iter().map(|(capability, _)| *capability).collect();
    let held = if uid == 0 { kept.clone() } else { Capabilities::new() };
    let mut sets = LinuxCapabilities::default();
    // Each of the five: the crate's defaults are not empty.
    sets.set_bounding(Some(kept))
        .set_effective(Some(held.clone()))
        .set_permitted(Some(held))
        .set_inheritable(Some(Capabilities::new()))
        .set_ambient(Some(Capabilities::new()));
    sets
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

    #[test]
    fn only_root_holds_any() {
        let kept: Capabilities = KEPT.iter().map(|(c, _)| *c).collect();
        let empty = Some(Capabilities::new());
        for (uid, held) in [(0, Some(kept.clone())), (1000, empty.clone())] {
            let sets = of(uid);
            assert_eq!(sets.bounding(), &Some(kept.clone()), "{uid}");
            assert_eq!(sets.effective(), &held, "{uid}");
            assert_eq!(sets.permitted(), &held, "{uid}");
            assert_eq!(sets.inheritable(), &empty, "{uid}");
            assert_eq!(sets.ambient(), &empty, "{uid}");
        }
    }
}
