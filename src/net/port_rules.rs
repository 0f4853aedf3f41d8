//! What the shared firewall tables hold about one port: the only addresses that may come from it.

use crate::net::elements;
use crate::net::error::Error;
use crate::net::ruleset::port_elements;
use crate::net::spec::PortRules;
use crate::presence::{Creation, Drift, Presence, Removal};

fn object(spec: &PortRules) -> String {
    format!("firewall entries of port {}", spec.veth)
}

/// Adds the port's elements if none is there.
///
/// # Errors
/// [`Error::Missing`] without the tables, else what the kernel said; nothing was added then.
pub fn create(spec: &PortRules) -> Result<Creation, Error> {
    elements::create(&object(spec), &port_elements(spec))
}

/// Compares the port's elements with the spec.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn observe(spec: &PortRules) -> Result<Presence, Error> {
    elements::observe(&object(spec), &port_elements(spec), &[])
}

/// Adds what is missing.
///
/// # Errors
/// What the kernel said.
pub fn repair(spec: &PortRules, drift: &[Drift]) -> Result<(), Error> {
    elements::repair(&object(spec), &port_elements(spec), &[], drift)
}

/// Deletes the port's elements.
///
/// # Errors
/// What the kernel said.
pub fn remove(spec: &PortRules) -> Result<Removal, Error> {
    elements::remove(&object(spec), &port_elements(spec))
}
