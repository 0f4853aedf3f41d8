//! The IPv6 half of a network's addresses. Pure.

use std::net::Ipv6Addr;

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

use crate::error::{Classify, ErrorKind};

/// The smallest network: its own address (the routers' anycast address), the gateway, the bundle.
pub const LONGEST_PREFIX6: u8 = 126;
/// The largest network.
pub const SHORTEST_PREFIX6: u8 = 48;

/// IPv6 addresses that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError6 {
    /// The subnet has bits set behind its prefix.
    #[error("subnet {subnet} has host bits set")]
    HostBits {
        /// As given.
        subnet: Ipv6Net,
    },
    /// The subnet is too small or too large.
    #[error(
        "subnet {subnet} must have a prefix between /{SHORTEST_PREFIX6} and /{LONGEST_PREFIX6}"
    )]
    PrefixLength {
        /// As given.
        subnet: Ipv6Net,
    },
    /// Neither unique local nor global unicast.
    #[error("subnet {subnet} is not within fc00::/7 (unique local) or 2000::/3 (global)")]
    Reserved {
        /// As given.
        subnet: Ipv6Net,
    },
    /// An address outside of its subnet.
    #[error("{role} {ip} is not in subnet {subnet}")]
    Outside {
        /// `gateway` or `IP`.
        role: &'static str,
        /// As given.
        ip: Ipv6Addr,
        /// The subnet.
        subnet: Ipv6Net,
    },
    /// An address that has another meaning in its subnet.
    #[error("{role} {ip} is the {meaning} of subnet {subnet}")]
    Special {
        /// `gateway` or `IP`.
        role: &'static str,
        /// As given.
        ip: Ipv6Addr,
        /// `routers' anycast address` or `gateway`.
        meaning: &'static str,
        /// The subnet.
        subnet: Ipv6Net,
    },
    /// An IPv6 gateway or address where there is no IPv6 range.
    #[error("{role} {ip} needs an IPv6 subnet")]
    NoSubnet {
        /// `gateway` or `IP`.
        role: &'static str,
        /// As given.
        ip: Ipv6Addr,
    },
}

impl Classify for AddressError6 {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::HostBits { subnet } => Some(format!("write {}", subnet.trunc())),
            Self::NoSubnet { .. } => {
                Some("give --subnet a second time, with an IPv6 range".to_owned())
            }
            _ => None,
        }
    }
}

/// A network's IPv6 addresses, checked against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAddresses6 {
    subnet: Ipv6Net,
    gateway: Ipv6Addr,
}

impl NetworkAddresses6 {
    /// Checks a subnet and the gateway in it, which is its first address unless given.
    ///
    /// # Errors
    /// [`AddressError6`] that names the wrong one.
    pub fn new(subnet: Ipv6Net, gateway: Option<Ipv6Addr>) -> Result<Self, AddressError6> {
        if subnet.trunc() != subnet {
            return Err(AddressError6::HostBits { subnet });
        }
        if !(SHORTEST_PREFIX6..=LONGEST_PREFIX6).contains(&subnet.prefix_len()) {
            return Err(AddressError6::PrefixLength { subnet });
        }
        let first = subnet.network().octets()[0];
        if first & 0xfe != 0xfc && first & 0xe0 != 0x20 {
            return Err(AddressError6::Reserved { subnet });
        }
        let gateway = gateway.unwrap_or_else(|| nth(subnet, 1));
        check_host("gateway", gateway, subnet)?;
        Ok(Self { subnet, gateway })
    }

    /// The address range.
    pub fn subnet(&self) -> Ipv6Net {
        self.subnet
    }

    /// The bridge's own address.
    pub fn gateway(&self) -> Ipv6Addr {
        self.gateway
    }

    /// Checks a bundle's address, which is the second of the range unless given.
    ///
    /// # Errors
    /// [`AddressError6`] that says why it cannot be.
    pub fn bundle_ip(&self, ip: Option<Ipv6Addr>) -> Result<Ipv6Addr, AddressError6> {
        let second = nth(self.subnet, 2);
        let default = if second == self.gateway { nth(self.subnet, 1) } else { second };
        let ip = ip.unwrap_or(default);
        check_host("IP", ip, self.subnet)?;
        if ip == self.gateway {
            let meaning = "gateway";
            return Err(AddressError6::Special { role: "IP", ip, meaning, subnet: self.subnet });
        }
        Ok(ip)
    }
}

fn nth(subnet: Ipv6Net, n: u128) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(subnet.network()) | n)
}

fn check_host(role: &'static str, ip: Ipv6Addr, subnet: Ipv6Net) -> Result<(), AddressError6> {
    if !subnet.contains(&ip) {
        return Err(AddressError6::Outside { role, ip, subnet });
    }
    if ip == subnet.network() {
        // RFC 4291, 2.6.1.
        let meaning = "routers' anycast address";
        return Err(AddressError6::Special { role, ip, meaning, subnet });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(s: &str) -> Ipv6Net {
        s.parse().unwrap()
    }

    fn ip(s: &str) -> Ipv6Addr {
        s.parse().unwrap()
    }

    #[test]
    fn gateway_and_bundle_have_defaults() {
        let a = NetworkAddresses6::new(net("fd00:1::/64"), None).unwrap();
        assert_eq!(a.gateway(), ip("fd00:1::1"));
        assert_eq!(a.bundle_ip(None), Ok(ip("fd00:1::2")));
        let b = NetworkAddresses6::new(net("fd00:1::/126"), Some(ip("fd00:1::2"))).unwrap();
        assert_eq!(b.bundle_ip(None), Ok(ip("fd00:1::1")));
    }

    #[test]
    fn impossible_addresses_are_refused() {
        for bad in [
            "fd00::1/64",
            "fd00::/127",
            "fd00::/32",
            "fe80::/64",
            "ff00::/64",
            "::/64",
            "64:ff9b::/96",
        ] {
            assert!(NetworkAddresses6::new(net(bad), None).is_err(), "{bad}");
        }
        let a = NetworkAddresses6::new(net("fd00:1::/64"), None).unwrap();
        for (bad, what) in
            [("fd00:2::2", "not in subnet"), ("fd00:1::", "anycast"), ("fd00:1::1", "gateway")]
        {
            let error = a.bundle_ip(Some(ip(bad))).unwrap_err().to_string();
            assert!(error.contains(what), "{bad}: {error}");
        }
    }
}
