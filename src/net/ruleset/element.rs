//! What a bottle adds to the sets. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::names::IfName;
use crate::net::ruleset::{
    BRIDGES, DROPS, Family, GUARDED, GUARDED6, KeyPart, L2, L2_6, Reason, tables,
};
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

    /// The key in the words of nft(8): `cv-… . 02:b2:… . 10.0.0.2`.
    pub fn key_words(&self) -> String {
        let sets = tables().into_iter().filter(|t| t.family == self.family).flat_map(|t| t.sets);
        let parts = sets.filter(|set| set.name == self.set).flat_map(|set| set.key);
        let mut rest = self.key.as_slice();
        let mut words = Vec::new();
        for part in parts {
            let length = usize::try_from(part.number_and_length().1).unwrap_or(usize::MAX);
            let Some((bytes, others)) = rest.split_at_checked(length) else { break };
            words.push(part.words(bytes));
            rest = others;
        }
        words.join(" . ")
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

/// The bridge and the device it goes out through, in [`UPLINKS`](super::UPLINKS) or its like.
pub(super) fn uplink_element(set: &'static str, bridge: &IfName, device: &IfName) -> Element {
    let key = [ifname(bridge.as_str()), ifname(device.as_str())].concat();
    Element::new(Family::Inet, set, key)
}

/// The device in such an element's key.
pub fn uplink_of(key: &[u8]) -> Option<IfName> {
    ifname_of(key.get(16..)?)
}

/// The device's element in [`GUARDED`].
pub fn guarded_element(device: &IfName) -> Element {
    Element::new(Family::Inet, GUARDED, ifname(device.as_str()))
}

/// The device's element in [`GUARDED6`].
pub fn guarded6_element(device: &IfName) -> Element {
    Element::new(Family::Inet, GUARDED6, ifname(device.as_str()))
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
pub(super) fn ifname(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

impl KeyPart {
    fn words(self, bytes: &[u8]) -> String {
        let (first4, first16) = (bytes.first_chunk::<4>(), bytes.first_chunk::<16>());
        let text = match self {
            Self::Ifname => ifname_of(bytes).map(|name| name.to_string()),
            Self::EtherAddr => bytes.first_chunk().map(|mac| MacAddr(*mac).to_string()),
            Self::Ipv4Addr => first4.map(|ip| Ipv4Addr::from(*ip).to_string()),
            Self::Ipv6Addr => first16.map(|ip| Ipv6Addr::from(*ip).to_string()),
            Self::Mark => first4.map(|mark| u32::from_ne_bytes(*mark).to_string()),
            Self::Protocol => bytes.first().map(u8::to_string),
            Self::Port => bytes.first_chunk().map(|port| u16::from_be_bytes(*port).to_string()),
        };
        // A name that is none in carboy's eyes, for instance.
        text.unwrap_or_else(|| format!("{bytes:02x?}"))
    }
}

/// The interface name that a key is, or begins with.
pub fn ifname_of(key: &[u8]) -> Option<IfName> {
    let name = key.get(..16).unwrap_or(key);
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    IfName::new(std::str::from_utf8(&name[..end]).ok()?).ok()
}
