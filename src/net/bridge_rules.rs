//! What the shared firewall tables hold about one bridge: the mark that a bottle uses them, its way
//! out, the host's ports that are open to it, and what of it was dropped.
//!
//! Most keys follow from the bridge's name, and are asked for one by one. Where another part could
//! be anything, an entry too many would open a way, and only a list of the set shows it.

use crate::net::elements;
use crate::net::error::Error;
use crate::net::nft_read::Reader;
use crate::net::ruleset::{
    BRIDGE_SETS, Entries, Family, bridge_entries, bridge_leftovers, is_of_guest,
};
use crate::net::spec::BridgeRules;
use crate::presence::{Creation, Drift, Presence, Removal};

fn object(spec: &BridgeRules) -> String {
    format!("firewall entries of bridge {}", spec.bridge)
}

/// What is there of the bridge's and must not be.
fn leftovers(spec: &BridgeRules, wanted: &Entries) -> Result<Entries, Error> {
    let mut found = bridge_leftovers(spec);
    let reader = Reader::open()?;
    let beside = elements::beside(&reader, Family::Inet, &BRIDGE_SETS, &spec.bridge, wanted)?;
    found.elements.extend(beside.into_iter().filter(|e| !is_of_guest(e)));
    Ok(found)
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
    let wanted = bridge_entries(spec);
    elements::observe(&object(spec), &wanted, &leftovers(spec, &wanted)?)
}

/// Adds and deletes what differs.
///
/// # Errors
/// What the kernel said.
pub fn repair(spec: &BridgeRules, drift: &[Drift]) -> Result<(), Error> {
    let wanted = bridge_entries(spec);
    elements::repair(&object(spec), &wanted, &leftovers(spec, &wanted)?, drift)
}

/// Deletes the bridge's entries, those too that the spec does not have.
///
/// # Errors
/// What the kernel said.
pub fn remove(spec: &BridgeRules) -> Result<Removal, Error> {
    let wanted = bridge_entries(spec);
    let leftovers = leftovers(spec, &wanted)?;
    elements::remove(&object(spec), &wanted.and(leftovers))
}
