//! Whether this process may do what a verb needs: asked before anything changes, so that what is
//! missing is named instead of some system call's EPERM.

use std::collections::BTreeSet;

use caps::{CapSet, Capability};

/// What networks, namespaces and containers need of the caller's effective capabilities.
const BUNDLE: [Capability; 13] = [
    Capability::CAP_NET_ADMIN,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_MKNOD,
    Capability::CAP_KILL,
    // Images hold set-user-id files of any owner, and a bundle may be given these.
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_SETFCAP,
    Capability::CAP_NET_BIND_SERVICE,
];

/// What a command in a running container needs besides.
const EXEC: [Capability; 2] = [Capability::CAP_SYS_PTRACE, Capability::CAP_SYS_CHROOT];

/// What a network alone needs.
const NETWORK: [Capability; 1] = [Capability::CAP_NET_ADMIN];

/// The capabilities for networks, namespaces and containers that this process lacks.
pub(crate) fn missing_for_bundles() -> Vec<String> {
    missing(&BUNDLE)
}

/// The capabilities for a command in a running container that this process lacks.
pub(crate) fn missing_for_commands() -> Vec<String> {
    let mut all = missing(&BUNDLE);
    all.extend(missing(&EXEC));
    all
}

/// Whether this process is in a user namespace: what is held there does not hold for the host's
/// devices and control groups.
pub(crate) fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = map.split_ascii_whitespace().collect::<Vec<_>>();
    !map.is_empty() && whole != ["0", "0", "4294967295"]
}

/// The capabilities for networks that this process lacks.
pub(crate) fn missing_for_networks() -> Vec<String> {
    missing(&NETWORK)
}

/// The capabilities that this process has (`CAP_CHOWN`), and could pass on.
pub(crate) fn held() -> BTreeSet<String> {
    // If they cannot be read none is known to be there.
    let held = caps::read(None, CapSet::Effective).unwrap_or_default();
    held.iter().map(ToString::to_string).collect()
}

fn missing(needed: &[Capability]) -> Vec<String> {
    // If they cannot be read none is known to be there.
    let held = caps::read(None, CapSet::Effective).unwrap_or_default();
    needed.iter().filter(|c| !held.contains(*c)).map(ToString::to_string).collect()
}
