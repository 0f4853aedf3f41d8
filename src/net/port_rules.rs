//! What the shared firewall tables hold about one port: the only addresses that may come from it,
//! and what was dropped of it.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::names::IfName;
use crate::net::elements;
use crate::net::error::Error;
use crate::net::nft_read::Reader;
use crate::net::ruleset::{Family, L2, L2_6, ifname_of, port_entries, port_leftovers};
use crate::net::spec::PortRules;
use crate::presence::{Creation, Drift, Presence, Removal};

fn object(spec: &PortRules) -> String {
    format!("firewall entries of port {}", spec.veth)
}

/// The addresses that a port is pinned to, as the firewall has them: for a port of which nothing but
/// the name is known any more.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn pinned_addresses(veth: &IfName) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), Error> {
    let reader = Reader::open()?;
    let key_of = |set| -> Result<Option<Vec<u8>>, Error> {
        let elements = reader.elements(Family::Bridge, set)?;
        let own = elements.into_iter().find(|e| ifname_of(&e.key).as_ref() == Some(veth));
        Ok(own.map(|e| e.key))
    };
    let ip = key_of(L2)?.and_then(|key| key.last_chunk::<4>().copied());
    let ip6 = key_of(L2_6)?.and_then(|key| key.last_chunk::<16>().copied());
    Ok((ip.map(Ipv4Addr::from), ip6.map(Ipv6Addr::from)))
}

/// Adds the port's entries if none is there.
///
/// # Errors
/// [`Error::Missing`] without the tables, else what the kernel said; nothing was added then.
pub fn create(spec: &PortRules) -> Result<Creation, Error> {
    elements::create(&object(spec), &port_entries(spec))
}

/// Compares the port's entries with the spec.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn observe(spec: &PortRules) -> Result<Presence, Error> {
    elements::observe(&object(spec), &port_entries(spec), &port_leftovers(spec))
}

/// Adds and deletes what differs.
///
/// # Errors
/// What the kernel said.
pub fn repair(spec: &PortRules, drift: &[Drift]) -> Result<(), Error> {
    elements::repair(&object(spec), &port_entries(spec), &port_leftovers(spec), drift)
}

/// Deletes the port's entries, those too that the spec does not have.
///
/// # Errors
/// What the kernel said.
pub fn remove(spec: &PortRules) -> Result<Removal, Error> {
    elements::remove(&object(spec), &port_entries(spec).and(port_leftovers(spec)))
}
