//! What the shared firewall tables hold about one port: the only addresses that may come from it.

use std::net::Ipv4Addr;

use crate::names::IfName;
use crate::net::error::Error;
use crate::net::ruleset::{Family, L2, ifname_of, port_elements};
use crate::net::spec::PortRules;
use crate::net::{elements, nft};
use crate::presence::{Creation, Drift, Presence, Removal};

fn object(spec: &PortRules) -> String {
    format!("firewall entries of port {}", spec.veth)
}

/// The address that a port is pinned to, as the firewall has it: for a port of which nothing but
/// the name is known any more.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn pinned_address(veth: &IfName) -> Result<Option<Ipv4Addr>, Error> {
    let elements = match nft::elements(Family::Bridge, L2) {
        Err(Error::Missing { .. }) => return Ok(None),
        other => other?,
    };
    Ok(elements.iter().find(|e| ifname_of(&e.key).as_ref() == Some(veth)).and_then(|e| {
        let address: [u8; 4] = e.key.last_chunk().copied()?;
        Some(Ipv4Addr::from(address))
    }))
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
