//! What of the host is in the way of a subnet, and where the default routes lead. Reads only.
//!
//! Two strictly filtered dumps, of addresses and of unicast routes, whatever the size of the
//! subnet: a query per address is faster for a handful of addresses only, and cannot see the
//! addresses of devices that are down. Links are never dumped.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;

use crate::names::IfName;
use crate::net::address;
use crate::net::error::Error;
use crate::net::facts::{self, RouteFact};
use crate::net::link;
use crate::net::netlink::{self, Route};

const FEATURE: &str = "route netlink";

/// What has (part of) a subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The interface.
    pub device: String,
    /// What is in the way.
    pub by: TakenBy,
}

/// What is in the way of a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakenBy {
    /// An address of the host; its interface may be down.
    Address(IpNet),
    /// A route to somewhere else.
    Route(IpNet),
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.by {
            TakenBy::Address(address) => write!(f, "address {address} of {}", self.device),
            TakenBy::Route(route) => write!(f, "route {route} through {}", self.device),
        }
    }
}

/// The addresses and routes of one family that the host has, but for those of one bridge.
#[derive(Debug)]
pub struct Occupied {
    own: Option<u32>,
    addresses: Vec<(u32, IpNet)>,
    routes: Vec<RouteFact>,
}

impl Occupied {
    /// Reads what the host has. Nothing of the bridge `own_bridge` counts.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn read(own_bridge: &IfName, ipv6: bool) -> Result<Self, Error> {
        let family = if ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        netlink::run("the host's addresses and routes", FEATURE, async |route| {
            let requests = vec![
                link::get_by_name(own_bridge.as_str()),
                address::dump_addresses(0, family),
                address::dump_routes(None, family),
            ];
            let mut answers = route.send(requests).await?.into_iter();
            let mut next = || answers.next().unwrap_or(Ok(Vec::new()));
            let (own, addresses, routes) = (next(), next(), next());
            let own = facts::link(route, "look up the bridge beside", own)?
                .filter(|l| l.name == own_bridge.as_str())
                .map(|l| l.index);
            let addresses = addresses.map_err(|r| route.refused("list", r))?;
            let routes = routes.map_err(|r| route.refused("list", r))?;
            let (addresses, routes) = (facts::addresses(&addresses), facts::routes(&routes));
            Ok(Self { own, addresses, routes })
        })
    }

    /// Whether nothing overlaps the subnet, in either direction. A default route, also one split in
    /// two, does not.
    pub fn is_free(&self, subnet: IpNet) -> bool {
        self.first_overlap(subnet).is_none()
    }

    /// What overlaps the subnet, by name.
    ///
    /// # Errors
    /// If the kernel cannot be asked for the interface's name.
    pub fn find(&self, subnet: IpNet) -> Result<Option<Taken>, Error> {
        let Some((index, by)) = self.first_overlap(subnet) else { return Ok(None) };
        netlink::run(&format!("what is in the way of {subnet}"), FEATURE, async |route| {
            Ok(Some(Taken { device: name(route, index).await?, by }))
        })
    }

    /// The interface's index, if the route has one, and what is in the way.
    fn first_overlap(&self, subnet: IpNet) -> Option<(Option<u32>, TakenBy)> {
        let overlaps = |other: &IpNet| other.contains(&subnet) || subnet.contains(&other.network());
        let address = self
            .addresses
            .iter()
            .find(|(index, address)| Some(*index) != self.own && overlaps(address))
            .map(|(index, address)| (Some(*index), TakenBy::Address(*address)));
        address.or_else(|| {
            self.routes
                .iter()
                .filter(|r| self.own.is_none() || r.output != self.own)
                .find(|r| !r.is_default() && overlaps(&r.destination))
                .map(|r| (r.output, TakenBy::Route(r.destination)))
        })
    }
}

async fn name(route: &mut Route, index: Option<u32>) -> Result<String, Error> {
    let Some(index) = index else { return Ok("no interface".to_owned()) };
    let answer = route.one(link::get(index)).await?;
    let link = facts::link(route, "read the interface of", answer)?;
    Ok(link.map_or_else(|| format!("interface {index}"), |l| l.name))
}

/// Where the host's traffic to the outside goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The device that leads out.
    pub device: IfName,
    /// In bytes: the device's, or the route's where that is smaller.
    pub mtu: u32,
}

/// Addresses far apart of which no host has a route to all, (parts of) default routes excepted.
const OUTSIDE: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(1, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V4(Ipv4Addr::new(93, 184, 215, 14)),
];

/// The same for IPv6.
const OUTSIDE6: [IpAddr; 3] = [
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x4860, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2a00, 0x1450, 0, 0, 0, 0, 0, 1)),
];

/// The IPv4 default route, looked up as the kernel would use it, policy rules included; `None`
/// without.
///
/// # Errors
/// If the kernel cannot be asked, or the device has a name carboy cannot handle.
pub fn default_route() -> Result<Option<DefaultRoute>, Error> {
    way_to(OUTSIDE)
}

/// The same for IPv6.
///
/// # Errors
/// As for [`default_route`].
pub fn default_route6() -> Result<Option<DefaultRoute>, Error> {
    way_to(OUTSIDE6)
}

fn way_to(outside: [IpAddr; 3]) -> Result<Option<DefaultRoute>, Error> {
    netlink::run("the default route", FEATURE, async |route| {
        let answers = route.send(outside.map(address::get_route).into()).await?;
        // ENETUNREACH and the like: there is no way out.
        let matched = answers.into_iter().flatten().flat_map(|m| facts::routes(&m));
        let found = matched.filter(RouteFact::is_default).find_map(|r| Some((r.output?, r.mtu)));
        let Some((index, mtu)) = found else { return Ok(None) };
        let answer = route.one(link::get(index)).await?;
        let Some(link) = facts::link(route, "read the device of", answer)? else {
            return Ok(None);
        };
        let mtu = mtu.filter(|mtu| *mtu != 0).map_or(link.mtu, |mtu| mtu.min(link.mtu));
        let device = IfName::new(link.name.clone())
            .map_err(|source| Error::DeviceName { name: link.name, source })?;
        Ok(Some(DefaultRoute { device, mtu }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, output: u32) -> RouteFact {
        RouteFact {
            destination: destination.parse().unwrap(),
            gateway: None,
            output: Some(output),
            table: 254,
            mtu: None,
        }
    }

    fn overlap(
        subnet: &str,
        own: Option<u32>,
        addresses: &[(u32, &str)],
        routes: &[RouteFact],
    ) -> Option<(Option<u32>, TakenBy)> {
        let addresses = addresses.iter().map(|(i, a)| (*i, a.parse().unwrap())).collect();
        let occupied = Occupied { own, addresses, routes: routes.to_vec() };
        occupied.first_overlap(subnet.parse().unwrap())
    }

    #[test]
    fn overlaps_are_found_in_both_directions() {
        let by_route = |r: &str| Some((Some(3), TakenBy::Route(r.parse().unwrap())));
        let cases = [
            ("192.168.7.0/24", by_route("192.168.7.0/24")),
            ("192.168.0.0/16", by_route("192.168.0.0/16")),
            ("192.168.7.128/25", by_route("192.168.7.128/25")),
            ("192.168.7.9/32", by_route("192.168.7.9/32")),
            ("192.168.8.0/24", None),
            ("0.0.0.0/0", None),
            ("128.0.0.0/1", None),
        ];
        for (destination, expected) in cases {
            let found = overlap("192.168.7.0/24", None, &[], &[route(destination, 3)]);
            assert_eq!(found, expected, "{destination}");
        }
        for (destination, expected) in
            [("fd00::/8", by_route("fd00::/8")), ("fd00:2::/64", None), ("::/0", None)]
        {
            let found = overlap("fd00:1::/64", None, &[], &[route(destination, 3)]);
            assert_eq!(found, expected, "{destination}");
        }
    }

    #[test]
    fn our_own_bridge_is_not_in_the_way() {
        let (subnet, address) = ("192.168.7.0/24", "192.168.7.1/24");
        let routes = [route(subnet, 3)];
        assert_eq!(overlap(subnet, Some(3), &[(3, address)], &routes), None);
        let taken = overlap(subnet, Some(4), &[(3, address)], &routes);
        assert_eq!(taken, Some((Some(3), TakenBy::Address(address.parse().unwrap()))));
    }
}
