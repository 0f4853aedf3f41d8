//! What the shared firewall tables hold about one port: the only addresses that may come from it,
//! and what was dropped of it.
//!
//! An entry too many would let it send as somebody else: the sets are listed, too.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::names::IfName;
use crate::net::elements;
use crate::net::error::Error;
use crate::net::nft_read::Reader;
use crate::net::ruleset::{
    Element, Entries, Family, L2, L2_6, SRC4, SRC6, ifname_of, port_entries, port_leftovers,
};
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

/// The address of so many bytes that a key ends with.
fn address_of(element: &Element, length: usize) -> Option<&[u8]> {
    element.key.get(element.key.len().checked_sub(length)?..)
}

/// What is there of the port's and must not be.
fn leftovers(spec: &PortRules, wanted: &Entries) -> Result<Entries, Error> {
    let reader = Reader::open()?;
    let mut found = port_leftovers(spec);
    for (l2, source, length) in [(L2, SRC4, 4), (L2_6, SRC6, 16)] {
        let ports = reader.elements(Family::Bridge, l2)?;
        let is_own = |e: &Element| ifname_of(&e.key).as_ref() == Some(&spec.veth);
        let is_wanted = |e: &Element| wanted.elements.iter().any(|w| w.is_place_of(e));
        let sources = elements::beside(&reader, Family::Inet, &[source], &spec.bridge, wanted)?;
        // A bridge may have other ports, whose addresses their own entries tell.
        let of_others: Vec<_> =
            ports.iter().filter(|e| !is_own(e)).map(|e| address_of(e, length)).collect();
        let unknown = sources.into_iter().filter(|e| !of_others.contains(&address_of(e, length)));
        found.elements.extend(unknown);
        found.elements.extend(ports.into_iter().filter(|e| is_own(e) && !is_wanted(e)));
    }
    Ok(found)
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
    let wanted = port_entries(spec);
    elements::observe(&object(spec), &wanted, &leftovers(spec, &wanted)?)
}

/// Adds and deletes what differs.
///
/// # Errors
/// What the kernel said.
pub fn repair(spec: &PortRules, drift: &[Drift]) -> Result<(), Error> {
    let wanted = port_entries(spec);
    elements::repair(&object(spec), &wanted, &leftovers(spec, &wanted)?, drift)
}

/// Deletes the port's entries, those too that the spec does not have.
///
/// # Errors
/// What the kernel said.
pub fn remove(spec: &PortRules) -> Result<Removal, Error> {
    let wanted = port_entries(spec);
    let leftovers = leftovers(spec, &wanted)?;
    elements::remove(&object(spec), &wanted.and(leftovers))
}
