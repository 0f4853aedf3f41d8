//! What of the host is in the way of a subnet, and where the default route leads. Reads only.
//!
//! Two strictly filtered dumps, of addresses and of unicast routes, whatever the size of the
//! subnet: a query per address is faster for a handful of addresses only, and cannot see the
//! addresses of devices that are down. Links are never dumped.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::names::IfName;
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
    Address(Ipv4Net),
    /// A route to somewhere else.
    Route(Ipv4Net),
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.by {
            TakenBy::Address(address) => write!(f, "address {address} of {}", self.device),
            TakenBy::Route(route) => write!(f, "route {route} through {}", self.device),
        }
    }
}

/// Finds an address or a route of the host that overlaps the subnet, in either direction. A default
/// route, also one split in two, is none; nor is anything of the bridge `own_bridge`.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn find(subnet: Ipv4Net, own_bridge: &IfName) -> Result<Option<Taken>, Error> {
    netlink::run(&format!("the host's routes beside {subnet}"), FEATURE, async |route| {
        let requests = vec![
            link::get_by_name(own_bridge.as_str()),
            link::dump_addresses(0),
            link::dump_routes(None),
        ];
        let mut answers = route.send(requests).await?.into_iter();
        let mut next = || answers.next().unwrap_or(Ok(Vec::new()));
        let (own, addresses, routes) = (next(), next(), next());
        let own = facts::link(route, "look up the bridge in", own)?
            .filter(|l| l.name == own_bridge.as_str())
            .map(|l| l.index);
        let addresses = addresses.map_err(|r| route.refused("list", r))?;
        let routes = routes.map_err(|r| route.refused("list", r))?;
        match first_overlap(subnet, own, &facts::addresses(&addresses), &facts::routes(&routes)) {
            None => Ok(None),
            Some((index, by)) => Ok(Some(Taken { device: name(route, index).await?, by })),
        }
    })
}

/// The pure part of [`find`]: the interface's index, if the route has one, and what is in the way.
fn first_overlap(
    subnet: Ipv4Net,
    own: Option<u32>,
    addresses: &[(u32, Ipv4Net)],
    routes: &[RouteFact],
) -> Option<(Option<u32>, TakenBy)> {
    let overlaps = |other: &Ipv4Net| other.contains(&subnet) || subnet.contains(&other.network());
    let address = addresses
        .iter()
        .find(|(index, address)| Some(*index) != own && overlaps(address))
        .map(|(index, address)| (Some(*index), TakenBy::Address(*address)));
    address.or_else(|| {
        routes
            .iter()
            .filter(|r| own.is_none() || r.output != own)
            .find(|r| !r.is_default() && overlaps(&r.destination))
            .map(|r| (r.output, TakenBy::Route(r.destination)))
    })
}

async fn name(route: &mut Route, index: Option<u32>) -> Result<String, Error> {
    let Some(index) = index else { return Ok("no interface".to_owned()) };
    let answer = route.one(link::get(index)).await?;
    let link = facts::link(route, "read the interface of", answer)?;
    Ok(link.map_or_else(|| format!("interface {index}"), |l| l.name))
}

/// Where the host's IPv4 traffic to the outside goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The device that leads out.
    pub device: IfName,
    /// In bytes: the device's, or the route's where that is smaller.
    pub mtu: u32,
}

/// Addresses far apart of which no host has a route to all, (parts of) default routes excepted.
const OUTSIDE: [Ipv4Addr; 3] =
    [Ipv4Addr::new(1, 0, 0, 1), Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(93, 184, 215, 14)];

/// The default route, looked up as the kernel would use it, policy rules included; `None` without.
///
/// # Errors
/// If the kernel cannot be asked, or the device has a name carboy cannot handle.
pub fn default_route() -> Result<Option<DefaultRoute>, Error> {
    netlink::run("the default route", FEATURE, async |route| {
        let answers = route.send(OUTSIDE.map(link::get_route).into()).await?;
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

    #[test]
    fn overlaps_are_found_in_both_directions() {
        let subnet = "192.168.7.0/24".parse().unwrap();
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
            let found = first_overlap(subnet, None, &[], &[route(destination, 3)]);
            assert_eq!(found, expected, "{destination}");
        }
    }

    #[test]
    fn our_own_bridge_is_not_in_the_way() {
        let subnet: Ipv4Net = "192.168.7.0/24".parse().unwrap();
        let addresses = [(3, "192.168.7.1/24".parse().unwrap())];
        let routes = [route("192.168.7.0/24", 3)];
        assert_eq!(first_overlap(subnet, Some(3), &addresses, &routes), None);
        let taken = first_overlap(subnet, Some(4), &addresses, &routes);
        assert_eq!(taken, Some((Some(3), TakenBy::Address(addresses[0].1))));
    }
}
