//! What the shared firewall tables hold about one bridge: the mark that a bottle uses them, and
//! whether it has a way out.

use std::net::Ipv6Addr;

use crate::net::elements;
use crate::net::error::Error;
use crate::net::ruleset::{Element, bridge_elements, internal_element};
use crate::net::spec::BridgeRules;
use crate::presence::{Creation, Drift, Presence, Removal};

fn object(spec: &BridgeRules) -> String {
    format!("firewall entries of bridge {}", spec.bridge)
}

fn unwanted(spec: &BridgeRules) -> Vec<Element> {
    if spec.internal { Vec::new() } else { vec![internal_element(&spec.bridge)] }
}

/// Adds the bridge's elements if none is there.
///
/// # Errors
/// [`Error::Missing`] without the tables, else what the kernel said; nothing was added then.
pub fn create(spec: &BridgeRules) -> Result<Creation, Error> {
    elements::create(&object(spec), &bridge_elements(spec))
}

/// Compares the bridge's elements with the spec.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn observe(spec: &BridgeRules) -> Result<Presence, Error> {
    elements::observe(&object(spec), &bridge_elements(spec), &unwanted(spec))
}

/// Adds and deletes what differs.
///
/// # Errors
/// What the kernel said.
pub fn repair(spec: &BridgeRules, drift: &[Drift]) -> Result<(), Error> {
    elements::repair(&object(spec), &bridge_elements(spec), &unwanted(spec), drift)
}

/// Deletes the bridge's elements.
///
/// # Errors
/// What the kernel said.
pub fn remove(spec: &BridgeRules) -> Result<Removal, Error> {
    // Whatever the spec says now: without a record it is made up.
    let gateway6 = Some(Ipv6Addr::UNSPECIFIED);
    let all = BridgeRules { internal: true, gateway6, ..spec.clone() };
    elements::remove(&object(spec), &bridge_elements(&all))
}
