//! What the shared firewall tables hold about a guest's port: the one bundle it may reach, that
//! bundle's open ports, and what was dropped of it.
//!
//! As a bundle's entries these are read by listing the guests' sets, too: an entry too many would
//! open a port, and only a list shows it.

use crate::net::elements;
use crate::net::error::Error;
use crate::net::nft_read::Reader;
use crate::net::ruleset::{Entries, Family, GUEST_SETS, guest_entries, guest_leftover_chains};
use crate::net::spec::GuestRules;
use crate::presence::{Creation, Drift, Presence, Removal};

fn object(spec: &GuestRules) -> String {
    format!("firewall entries of guest port {}", spec.veth)
}

/// What is there of the guest's and must not be.
fn leftovers(spec: &GuestRules, wanted: &Entries) -> Result<Entries, Error> {
    let mut found = guest_leftover_chains(spec);
    let reader = Reader::open()?;
    let beside = elements::beside(&reader, Family::Bridge, &GUEST_SETS, &spec.veth, wanted)?;
    found.elements.extend(beside);
    Ok(found)
}

/// Adds the guest's entries if none is there.
///
/// # Errors
/// [`Error::Missing`] without the tables, else what the kernel said; nothing was added then.
pub fn create(spec: &GuestRules) -> Result<Creation, Error> {
    elements::create(&object(spec), &guest_entries(spec))
}

/// Compares the guest's entries with the spec.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn observe(spec: &GuestRules) -> Result<Presence, Error> {
    let wanted = guest_entries(spec);
    elements::observe(&object(spec), &wanted, &leftovers(spec, &wanted)?)
}

/// Adds and deletes what differs, in one transaction.
///
/// # Errors
/// What the kernel said.
pub fn repair(spec: &GuestRules, drift: &[Drift]) -> Result<(), Error> {
    let wanted = guest_entries(spec);
    elements::repair(&object(spec), &wanted, &leftovers(spec, &wanted)?, drift)
}

/// Deletes all that is the guest's, those entries too that the spec does not have.
///
/// # Errors
/// What the kernel said.
pub fn remove(spec: &GuestRules) -> Result<Removal, Error> {
    let wanted = guest_entries(spec);
    let leftovers = leftovers(spec, &wanted)?;
    elements::remove(&object(spec), &wanted.and(leftovers))
}
