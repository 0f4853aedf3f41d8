//! What a bottle adds to the sets. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::names::IfName;
use crate::net::ruleset::{BRIDGES, DROPS, Family, GUARDED, L2, L2_6, Reason};
use crate::net::spec::MacAddr;

/// An element of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The table's family.
    pub family: Family,
    /// The set.
    pub set: &'static str,
    /// The key's bytes.
    pub key: Vec<u8>,
    /// What the map has for it; `None` in a set that is no map.
    pub way: Option<Way>,
}

/// What a map has for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The packet passes.
    Accept,
    /// This chain decides.
    Jump(String),
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
        }
    }
}

impl Element {
    pub(super) fn new(family: Family, set: &'static str, key: Vec<u8>) -> Self {
        Self { family, set, key, way: None }
    }

    pub(super) fn leading(self, way: Way) -> Self {
        Self { way: Some(way), ..self }
    }

    /// Whether both stand in the same place, whatever the map has for it.
    pub fn is_place_of(&self, other: &Self) -> bool {
        (self.family, self.set, &self.key) == (other.family, other.set, &other.key)
    }
}

/// The mark of a bottle's bridge in [`BRIDGES`].
pub fn bridge_element(bridge: &IfName) -> Element {
    Element::new(Family::Inet, BRIDGES, ifname(bridge.as_str()))
}

/// The device's element in [`GUARDED`].
pub fn guarded_element(device: &IfName) -> Element {
    Element::new(Family::Inet, GUARDED, ifname(device.as_str()))
}

/// Where the drops of a bridge (`inet`) or a port (`bridge`) are counted.
pub fn drop_element(family: Family, interface: &IfName, reason: Reason) -> Element {
    let mark = reason.mark().to_ne_bytes();
    let key = [&ifname(interface.as_str())[..], &mark].concat();
    Element::new(family, DROPS, key)
}

pub(super) fn named(set: &'static str, family: Family, interface: &IfName) -> Element {
    Element::new(family, set, ifname(interface.as_str()))
}

/// `iifname . ip saddr`, of either family.
pub(super) fn source(set: &'static str, bridge: &IfName, ip: &[u8]) -> Element {
    let key = [&ifname(bridge.as_str())[..], ip].concat();
    Element::new(Family::Inet, set, key)
}

pub(super) fn l2(veth: &IfName, mac: MacAddr, ip: Ipv4Addr) -> Element {
    Element::new(Family::Bridge, L2, l2_key(veth, mac, &ip.octets()))
}

pub(super) fn l2_6(veth: &IfName, mac: MacAddr, ip: Ipv6Addr) -> Element {
    Element::new(Family::Bridge, L2_6, l2_key(veth, mac, &ip.octets()))
}

fn l2_key(veth: &IfName, mac: MacAddr, ip: &[u8]) -> Vec<u8> {
    [&ifname(veth.as_str())[..], &mac.octets(), &[0, 0], ip].concat()
}

/// A name as the kernel compares it: 16 bytes, the rest zero.
fn ifname(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// The interface name that a key is, or begins with.
pub fn ifname_of(key: &[u8]) -> Option<IfName> {
    let name = key.get(..16).unwrap_or(key);
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    IfName::new(std::str::from_utf8(&name[..end]).ok()?).ok()
}
