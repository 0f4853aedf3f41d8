//! The bridge of a bundle network, with its gateway address.
//!
//! The subnet is claimed atomically: the address is added without its connected route, and then
//! the route with EXCL, which fails if any interface has the same subnet already. (The kernel
//! accepts one address on two interfaces.)

use ipnet::IpNet;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::names::BRIDGE_IFNAME_PREFIX;
use crate::net::address;
use crate::net::altname;
use crate::net::bridge_look::{
    ALIAS, Look, Part, RP_FILTER_STRICT, differences, find, gateways, is_ours, look,
};
use crate::net::error::{Error, Refusal};
use crate::net::facts::{self, Link};
use crate::net::link;
use crate::net::netlink::{self, Request, Route};
use crate::net::spec::Bridge;
use crate::net::sysctl;
use crate::net::unlink::unlink;
use crate::presence::{Creation, Drift, Presence, Removal};

/// What the kernel lacks if it does not know the link type.
const FEATURE: &str = "bridge support (CONFIG_BRIDGE)";

fn object(spec: &Bridge) -> String {
    format!("bridge {} ({})", spec.name, spec.network)
}

fn missing(spec: &Bridge) -> Error {
    Error::Missing { object: object(spec) }
}

/// Makes the bridge if its name is free.
///
/// # Errors
/// [`Error::Overlap`] if somebody has the subnet, [`Error::Foreign`] if another link has the
/// altname, else what the kernel said; nothing of the bridge remains then.
pub fn create(spec: &Bridge) -> Result<Creation, Error> {
    netlink::run(&object(spec), FEATURE, async |route| {
        let index = match route.one(link::create_bridge(spec)).await? {
            Ok(_) => find(route, spec).await?.ok_or_else(|| missing(spec))?.index,
            Err(Refusal { errno: libc::EEXIST, .. }) => return Ok(Creation::Exists),
            Err(refusal) => return Err(route.refused("create", refusal)),
        };
        if let Err(error) = configure(route, spec, index).await {
            // The first error says what went wrong; a bridge that stays is half made, which
            // observe and remove know how to handle.
            route.all(vec![link::delete(index)]).await.ok();
            return Err(error);
        }
        Ok(Creation::Created)
    })
}

/// All but the link itself.
async fn configure(route: &mut Route, spec: &Bridge, index: u32) -> Result<(), Error> {
    switch_ipv6(spec)?;
    altname::add(route, index, spec.network.as_str()).await?;
    let mut requests = vec![
        link::no_link_local(index),
        link::set_alias(index, ALIAS),
        link::set_mtu(index, spec.mtu),
        link::set_forwarding(index, 1, Some(RP_FILTER_STRICT)),
    ];
    requests.extend(gateways(spec).map(|gateway| address::add_address(index, gateway, true)));
    requests.push(link::set_up(index));
    route.all(requests).await?;
    for gateway in gateways(spec) {
        claim(route, spec, index, gateway).await?;
    }
    route.all(vec![link::get(index)]).await
}

/// IPv6 as the spec has it: off, or on with the bundle's packets forwarded.
fn switch_ipv6(spec: &Bridge) -> Result<(), Error> {
    let (object, on) = (object(spec), spec.gateway6.is_some());
    sysctl::switch_ipv6(&object, spec.name.as_str(), on)?;
    if on && sysctl::can_force_forwarding() {
        sysctl::force_forwarding(&object, spec.name.as_str(), true)?;
    }
    Ok(())
}

/// The route needs the bridge to be up.
async fn claim(route: &mut Route, spec: &Bridge, index: u32, gateway: IpNet) -> Result<(), Error> {
    let request = address::claim_subnet(index, gateway);
    let operation = request.operation;
    match route.one(request).await? {
        Ok(_) => Ok(()),
        Err(Refusal { errno: libc::EEXIST, .. }) => {
            let subnet = gateway.trunc();
            let device = holder(route, subnet, index).await?;
            Err(Error::Overlap { object: object(spec), subnet, device })
        }
        Err(refusal) => Err(route.refused(operation, refusal)),
    }
}

/// The name of the interface that has the subnet, for the error.
async fn holder(route: &mut Route, subnet: IpNet, own: u32) -> Result<String, Error> {
    let family = match subnet {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    let routes = route.one(address::dump_routes(None, family)).await?;
    let routes = routes.map_err(|r| route.refused("find who has the subnet of", r))?;
    let other = facts::routes(&routes)
        .into_iter()
        .filter(|r| r.is_main() && r.destination == subnet)
        .find_map(|r| r.output.filter(|index| *index != own));
    let Some(index) = other else { return Ok("another interface".to_owned()) };
    let answer = route.one(link::get(index)).await?;
    let link = facts::link(route, "read who has the subnet of", answer)?;
    Ok(link.map_or_else(|| format!("interface {index}"), |l| l.name))
}

/// Compares the bridge with the spec.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn observe(spec: &Bridge) -> Result<Presence, Error> {
    netlink::run(&object(spec), FEATURE, async |route| {
        Ok(match look(route, spec).await? {
            Look::Absent => Presence::Absent,
            Look::Foreign(found) => Presence::Foreign(found),
            Look::Ours(seen) => differences(spec, &seen).into_presence(),
        })
    })
}

/// Puts right what differs; the bridge itself and its index stay.
///
/// # Errors
/// [`Error::Missing`] if the bridge is gone, [`Error::Foreign`] if it is not ours, else what the
/// kernel said.
pub fn repair(spec: &Bridge, drift: &[Drift]) -> Result<(), Error> {
    netlink::run(&object(spec), FEATURE, async |route| {
        let seen = match look(route, spec).await? {
            Look::Ours(seen) => seen,
            Look::Absent => return Err(missing(spec)),
            Look::Foreign(found) => return Err(Error::Foreign { object: object(spec), found }),
        };
        let parts = differences(spec, &seen).parts(drift);
        let index = seen.link.index;
        if parts.contains(&Part::Mtu) {
            // First: below 1280 bytes the link has no IPv6 that could be switched.
            route.all(vec![link::set_mtu(index, spec.mtu)]).await?;
            if seen.link.ipv6_disabled.is_none() {
                // It has come back with the kernel's defaults, a link-local address among them.
                sysctl::disable_ipv6(&object(spec), spec.name.as_str())?;
                route.all(vec![link::no_link_local(index)]).await?;
            }
        }
        if parts.contains(&Part::Ipv6) {
            switch_ipv6(spec)?;
        }
        if parts.contains(&Part::Altname) {
            altname::add(route, index, spec.network.as_str()).await?;
        }
        let requests = parts.iter().flat_map(|part| repair_requests(spec, index, *part));
        route.all(requests.collect()).await?;
        for part in &parts {
            if let Part::Route(gateway) = part {
                claim(route, spec, index, *gateway).await?;
            }
        }
        route.all(vec![link::get(index)]).await
    })
}

/// Nothing for what takes more than a request.
fn repair_requests(spec: &Bridge, index: u32, part: Part) -> Vec<Request> {
    vec![match part {
        Part::Mac => link::set_mac(index, spec.mac),
        Part::Group => link::set_group(index, spec.group),
        Part::Alias => link::set_alias(index, ALIAS),
        Part::Options => return link::set_bridge_options(index).into(),
        Part::LinkLocal => link::no_link_local(index),
        Part::Forwarding => link::set_forwarding(index, 1, Some(RP_FILTER_STRICT)),
        Part::Stranger(address) => address::delete_address(index, address),
        Part::Address(gateway) => address::add_address(index, gateway, true),
        Part::Up => link::set_up(index),
        Part::Mtu | Part::Altname | Part::Ipv6 | Part::Route(_) => return Vec::new(),
    }]
}

/// Removes the bridge if it is ours; its ports stay.
///
/// # Errors
/// What the kernel said.
pub fn remove(spec: &Bridge) -> Result<Removal, Error> {
    netlink::run(&object(spec), FEATURE, async |route| match find(route, spec).await? {
        Some(link) if is_ours(&link, spec) => {
            unlink(route, &object(spec), FEATURE, link.index).await
        }
        _ => Ok(Removal::Absent),
    })
}

/// Whether any bottle's bridge is there: the firewall's own sets may have been flushed.
pub(crate) fn any_left() -> Result<bool, Error> {
    netlink::run("the shared resources", FEATURE, async |route| {
        let request = link::dump_bridges();
        let operation = request.operation;
        let messages = route.one(request).await?.map_err(|r| route.refused(operation, r))?;
        Ok(messages.into_iter().any(|m| match m {
            RouteNetlinkMessage::NewLink(message) => {
                let link = Link::from(message);
                link.name.starts_with(BRIDGE_IFNAME_PREFIX) && link.alias.as_deref() == Some(ALIAS)
            }
            _ => false,
        }))
    })
}
