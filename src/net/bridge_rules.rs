//! What the shared firewall tables hold about one bridge: the mark that a bottle uses them, its way
//! out, the host's ports that are open to it, and what of it was dropped.

use crate::net::elements;
use crate::net::error::Error;
use crate::net::ruleset::{bridge_entries, bridge_leftovers};
use crate::net::spec::BridgeRules;
use crate::presence::{Creation, Drift, Presence, Removal};

fn object(spec: &BridgeRules) -> String {
    format!("firewall entries of bridge {}", spec.bridge)
}

/// Adds the bridge's entries if none is there.
///
/// # Errors
/// [`Error::Missing`] without the tables, else what the kernel said; nothing was added then.
pub fn create(spec: &BridgeRules) -> Result<Creation, Error> {
    elements::create(&object(spec), &bridge_entries(spec))
}

/// Compares the bridge's entries with the spec.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn observe(spec: &BridgeRules) -> Result<Presence, Error> {
    elements::observe(&object(spec), &bridge_entries(spec), &bridge_leftovers(spec))
}

/// Adds and deletes what differs.
///
/// # Errors
/// What the kernel said.
pub fn repair(spec: &BridgeRules, drift: &[Drift]) -> Result<(), Error> {
    elements::repair(&object(spec), &bridge_entries(spec), &bridge_leftovers(spec), drift)
}

/// Deletes the bridge's entries, those too that the spec does not have.
///
/// # Errors
/// What the kernel said.
pub fn remove(spec: &BridgeRules) -> Result<Removal, Error> {
    let all = bridge_entries(spec).and(bridge_leftovers(spec));
    elements::remove(&object(spec), &all)
}
