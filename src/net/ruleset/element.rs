//! What a bottle adds to the sets. Pure.

use std::net::Ipv4Addr;

use crate::names::IfName;
use crate::net::ruleset::{BRIDGES, BRIDGES6, Family, GUARDED, GUARDED6, INTERNAL, L2, SRC4};
use crate::net::spec::{BridgeRules, MacAddr, PortRules};

/// An element of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The table's family.
    pub family: Family,
    /// The set.
    pub set: &'static str,
    /// The key's bytes.
    pub key: Vec<u8>,
}

/// The mark of a bottle's bridge in [`BRIDGES`].
pub fn bridge_element(bridge: &IfName) -> Element {
    Element { family: Family::Inet, set: BRIDGES, key: ifname(bridge.as_str()) }
}

/// The bridge's element in [`INTERNAL`].
pub fn internal_element(bridge: &IfName) -> Element {
    Element { family: Family::Inet, set: INTERNAL, key: ifname(bridge.as_str()) }
}

/// The device's element in [`GUARDED`].
pub fn guarded_element(device: &IfName) -> Element {
    Element { family: Family::Inet, set: GUARDED, key: ifname(device.as_str()) }
}

/// The device's element in [`GUARDED6`].
pub fn guarded6_element(device: &IfName) -> Element {
    Element { family: Family::Inet, set: GUARDED6, key: ifname(device.as_str()) }
}

/// The mark of a bridge with IPv6 in [`BRIDGES6`].
fn bridge6_element(bridge: &IfName) -> Element {
    Element { family: Family::Inet, set: BRIDGES6, key: ifname(bridge.as_str()) }
}

/// What a bridge has.
pub fn bridge_elements(rules: &BridgeRules) -> Vec<Element> {
    let mut elements = vec![bridge_element(&rules.bridge)];
    if rules.internal {
        elements.push(internal_element(&rules.bridge));
    }
    if rules.gateway6.is_some() {
        elements.push(bridge6_element(&rules.bridge));
    }
    elements
}

/// What a port has.
pub fn port_elements(rules: &PortRules) -> Vec<Element> {
    let source = [ifname(rules.bridge.as_str()), rules.ip.octets().to_vec()].concat();
    let key = l2_key(&rules.veth, rules.mac, rules.ip);
    vec![
        Element { family: Family::Inet, set: SRC4, key: source },
        Element { family: Family::Bridge, set: L2, key },
    ]
}

fn l2_key(veth: &IfName, mac: MacAddr, ip: Ipv4Addr) -> Vec<u8> {
    [&ifname(veth.as_str())[..], &mac.octets(), &[0, 0], &ip.octets()].concat()
}

/// A name as the kernel compares it: 16 bytes, the rest zero.
fn ifname(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// The interface name that a key is, or begins with.
pub fn ifname_of(key: &[u8]) -> Option<IfName> {
    let end = key.iter().position(|b| *b == 0).unwrap_or(key.len());
    IfName::new(std::str::from_utf8(&key[..end]).ok()?).ok()
}
