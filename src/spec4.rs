//! The IPv4 half of a network's addresses. Pure.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::error::{Classify, ErrorKind};

/// The smallest network: its own address, the gateway, the bundle and the broadcast address.
pub const LONGEST_PREFIX: u8 = 30;
/// The largest network.
pub const SHORTEST_PREFIX: u8 = 8;

/// Addresses that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The subnet has bits set behind its prefix.
    #[error("subnet {subnet} has host bits set")]
    HostBits {
        /// As given.
        subnet: Ipv4Net,
    },
    /// The subnet is too small or too large.
    #[error("subnet {subnet} must have a prefix between /{SHORTEST_PREFIX} and /{LONGEST_PREFIX}")]
    PrefixLength {
        /// As given.
        subnet: Ipv4Net,
    },
    /// Loopback, multicast and the like.
    #[error("subnet {subnet} lies in {range}, which is reserved for {purpose}")]
    Reserved {
        /// As given.
        subnet: Ipv4Net,
        /// The reserved range.
        range: Ipv4Net,
        /// What it is for.
        purpose: &'static str,
    },
    /// An address outside of its subnet.
    #[error("{role} {ip} is not in subnet {subnet}")]
    Outside {
        /// `gateway` or `IP`.
        role: &'static str,
        /// As given.
        ip: Ipv4Addr,
        /// The subnet.
        subnet: Ipv4Net,
    },
    /// An address that has another meaning in its subnet.
    #[error("{role} {ip} is the {meaning} of subnet {subnet}")]
    Special {
        /// `gateway` or `IP`.
        role: &'static str,
        /// As given.
        ip: Ipv4Addr,
        /// `network address`, `broadcast address` or `gateway`.
        meaning: &'static str,
        /// The subnet.
        subnet: Ipv4Net,
    },
}

impl Classify for AddressError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::HostBits { subnet } => Some(format!("write {}", subnet.trunc())),
            _ => None,
        }
    }
}

/// A network's addresses, checked against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAddresses {
    subnet: Ipv4Net,
    gateway: Ipv4Addr,
}

impl NetworkAddresses {
    /// Checks a subnet and the gateway in it, which is its first address unless given.
    ///
    /// # Errors
    /// [`AddressError`] that names the wrong one.
    pub fn new(subnet: Ipv4Net, gateway: Option<Ipv4Addr>) -> Result<Self, AddressError> {
        if subnet.trunc() != subnet {
            return Err(AddressError::HostBits { subnet });
        }
        if !(SHORTEST_PREFIX..=LONGEST_PREFIX).contains(&subnet.prefix_len()) {
            return Err(AddressError::PrefixLength { subnet });
        }
        for (range, purpose) in RESERVED {
            let range: Ipv4Net = range.parse().expect("a constant range is well-formed");
            if range.contains(&subnet) || subnet.contains(&range) {
                return Err(AddressError::Reserved { subnet, range, purpose });
            }
        }
        let gateway = gateway.unwrap_or_else(|| nth(subnet, 1));
        check_host("gateway", gateway, subnet)?;
        Ok(Self { subnet, gateway })
    }

    /// The address range.
    pub fn subnet(&self) -> Ipv4Net {
        self.subnet
    }

    /// The bridge's own address.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// Checks a guest's address, which is the third of the range unless given.
    ///
    /// # Errors
    /// [`AddressError`] that says why it cannot be.
    pub fn guest_ip(
        &self,
        bundle: Ipv4Addr,
        ip: Option<Ipv4Addr>,
    ) -> Result<Ipv4Addr, AddressError> {
        let mut places = [3, 2, 1].map(|n| nth(self.subnet, n)).into_iter();
        let free = places.find(|ip| *ip != self.gateway && *ip != bundle);
        let ip = ip.or(free).unwrap_or(bundle);
        check_host("guest IP", ip, self.subnet)?;
        let meaning = match ip {
            ip if ip == self.gateway => "gateway",
            ip if ip == bundle => "bundle's address",
            ip => return Ok(ip),
        };
        Err(AddressError::Special { role: "guest IP", ip, meaning, subnet: self.subnet })
    }

    /// Checks a bundle's address, which is the first that is not the gateway's unless given.
    ///
    /// # Errors
    /// [`AddressError`] that says why it cannot be.
    pub fn bundle_ip(&self, ip: Option<Ipv4Addr>) -> Result<Ipv4Addr, AddressError> {
        let first = nth(self.subnet, 1);
        let free = if first == self.gateway { nth(self.subnet, 2) } else { first };
        let ip = ip.unwrap_or(if self.gateway == nth(self.subnet, 2) { first } else { free });
        check_host("IP", ip, self.subnet)?;
        if ip == self.gateway {
            let meaning = "gateway";
            return Err(AddressError::Special { role: "IP", ip, meaning, subnet: self.subnet });
        }
        Ok(ip)
    }
}

/// RFC 6890 ranges that no host can route a bottle through.
const RESERVED: [(&str, &str); 5] = [
    ("0.0.0.0/8", "\"this network\""),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local addresses"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "future use"),
];

fn nth(subnet: Ipv4Net, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()).saturating_add(n))
}

fn check_host(role: &'static str, ip: Ipv4Addr, subnet: Ipv4Net) -> Result<(), AddressError> {
    if !subnet.contains(&ip) {
        return Err(AddressError::Outside { role, ip, subnet });
    }
    let meaning = if ip == subnet.network() {
        "network address"
    } else if ip == subnet.broadcast() {
        "broadcast address"
    } else {
        return Ok(());
    };
    Err(AddressError::Special { role, ip, meaning, subnet })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(s: &str) -> Ipv4Net {
        s.parse().unwrap()
    }

    fn ip(s: &str) -> Ipv4Addr {
        s.parse().unwrap()
    }

    #[test]
    fn gateway_and_bundle_have_defaults() {
        let a = NetworkAddresses::new(net("192.168.7.0/24"), None).unwrap();
        assert_eq!(a.gateway(), ip("192.168.7.1"));
        assert_eq!(a.bundle_ip(None), Ok(ip("192.168.7.2")));
        let b = NetworkAddresses::new(net("10.0.0.0/30"), Some(ip("10.0.0.2"))).unwrap();
        assert_eq!(b.bundle_ip(None), Ok(ip("10.0.0.1")));
    }

    #[test]
    fn a_guest_takes_the_third_address_or_the_next_that_is_free() {
        let a = NetworkAddresses::new(net("192.168.7.0/24"), None).unwrap();
        assert_eq!(a.guest_ip(ip("192.168.7.2"), None), Ok(ip("192.168.7.3")));
        assert_eq!(a.guest_ip(ip("192.168.7.3"), None), Ok(ip("192.168.7.2")));
        assert_eq!(a.guest_ip(ip("192.168.7.2"), Some(ip("192.168.7.9"))), Ok(ip("192.168.7.9")));
        for (bad, what) in [
            ("192.168.7.1", "gateway"),
            ("192.168.7.2", "bundle"),
            ("192.168.8.3", "not in subnet"),
            ("192.168.7.255", "broadcast"),
        ] {
            let error = a.guest_ip(ip("192.168.7.2"), Some(ip(bad))).unwrap_err().to_string();
            assert!(error.contains(what), "{bad}: {error}");
        }
        let small = NetworkAddresses::new(net("10.0.0.0/30"), None).unwrap();
        assert!(small.guest_ip(ip("10.0.0.2"), None).is_err());
    }

    #[test]
    fn impossible_networks_are_refused() {
        for bad in [
            "192.168.7.5/24",
            "10.0.0.0/31",
            "10.0.0.0/7",
            "127.1.0.0/16",
            "169.254.7.0/24",
            "224.0.0.0/8",
            "255.255.255.0/24",
            "0.0.0.0/8",
        ] {
            assert!(NetworkAddresses::new(net(bad), None).is_err(), "{bad}");
        }
        let hint = NetworkAddresses::new(net("192.168.7.5/24"), None).unwrap_err().hint();
        assert_eq!(hint.as_deref(), Some("write 192.168.7.0/24"));
    }

    #[test]
    fn impossible_addresses_are_refused_with_their_meaning() {
        let a = NetworkAddresses::new(net("192.168.7.0/24"), None).unwrap();
        for (bad, what) in [
            ("192.168.8.2", "not in subnet"),
            ("192.168.7.0", "network address"),
            ("192.168.7.255", "broadcast address"),
            ("192.168.7.1", "gateway"),
        ] {
            let error = a.bundle_ip(Some(ip(bad))).unwrap_err().to_string();
            assert!(error.contains(what), "{bad}: {error}");
        }
        assert!(NetworkAddresses::new(net("192.168.7.0/24"), Some(ip("192.168.7.0"))).is_err());
    }
}
