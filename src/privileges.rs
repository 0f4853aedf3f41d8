//! Whether this process may do what a verb needs: asked before anything changes, so that what is
//! missing is named instead of some system call's EPERM.

use caps::{CapSet, Capability};

/// What networks, namespaces and containers need of the caller's effective capabilities.
const BUNDLE: [Capability; 9] = [
    Capability::CAP_NET_ADMIN,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_MKNOD,
    Capability::CAP_KILL,
];

/// What a network alone needs.
const NETWORK: [Capability; 1] = [Capability::CAP_NET_ADMIN];

/// The capabilities for networks, namespaces and containers that this process lacks.
pub(crate) fn missing_for_bundles() -> Vec<String> {
    missing(&BUNDLE)
}

/// The capabilities for networks that this process lacks.
pub(crate) fn missing_for_networks() -> Vec<String> {
    missing(&NETWORK)
}

fn missing(needed: &[Capability]) -> Vec<String> {
    // If they cannot be read none is known to be there.
    let held = caps::read(None, CapSet::Effective).unwrap_or_default();
    needed.iter().filter(|c| !held.contains(*c)).map(ToString::to_string).collect()
}
