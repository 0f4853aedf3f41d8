//! The bridge of a bundle network, with its gateway address.
//!
//! The subnet is claimed atomically: the address is added without its connected route, and then
//! the route with EXCL, which fails if any interface has the same subnet already. (The kernel
//! accepts one address on two interfaces.)

use ipnet::Ipv4Net;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::InfoKind;

use crate::names::BRIDGE_IFNAME_PREFIX;
use crate::net::altname;
use crate::net::diff::{Differences, on_off};
use crate::net::error::{Error, Refusal};
use crate::net::facts::{self, Link, RouteFact};
use crate::net::link;
use crate::net::netlink::{self, Request, Route};
use crate::net::spec::Bridge;
use crate::net::sysctl;
use crate::presence::{Creation, Drift, Presence, Removal};

/// What the bridge's alias says: who made it.
pub const ALIAS: &str = "carboy";

/// What the kernel lacks if it does not know the link type.
const FEATURE: &str = "bridge support (CONFIG_BRIDGE)";

/// net.ipv4.conf.*.rp_filter: drop what could not be answered through the same interface.
const RP_FILTER_STRICT: u32 = 1;

fn object(spec: &Bridge) -> String {
    format!("bridge {} ({})", spec.name, spec.network)
}

fn gateway(spec: &Bridge) -> Ipv4Net {
    Ipv4Net::new_assert(spec.gateway, spec.subnet.prefix_len())
}

/// Makes the bridge if its name is free.
///
/// # Errors
/// [`Error::Overlap`] if somebody has the subnet, [`Error::Foreign`] if another link has the
/// altname, else what the kernel said; nothing of the bridge remains then.
pub fn create(spec: &Bridge) -> Result<Creation, Error> {
    netlink::run(&object(spec), FEATURE, async |route| {
        let index = match route.one(link::create_bridge(spec)).await? {
            Ok(messages) => facts::created(&object(spec), messages)?.index,
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
    sysctl::disable_ipv6(&object(spec), spec.name.as_str())?;
    altname::add(route, index, spec.network.as_str()).await?;
    route
        .all(vec![
            link::no_link_local(index),
            link::set_alias(index, ALIAS),
            link::set_forwarding(index, 1, Some(RP_FILTER_STRICT)),
            link::add_address(index, gateway(spec), true),
            link::set_up(index),
        ])
        .await?;
    claim(route, spec, index).await?;
    route.all(vec![link::get(index)]).await
}

/// The route needs the bridge to be up.
async fn claim(route: &mut Route, spec: &Bridge, index: u32) -> Result<(), Error> {
    let request = link::claim_subnet(index, spec.subnet, spec.gateway);
    let operation = request.operation;
    match route.one(request).await? {
        Ok(_) => Ok(()),
        Err(Refusal { errno: libc::EEXIST, .. }) => {
            let device = holder(route, spec, index).await?;
            Err(Error::Overlap { object: object(spec), subnet: spec.subnet, device })
        }
        Err(refusal) => Err(route.refused(operation, refusal)),
    }
}

/// The name of the interface that has the subnet, for the error.
async fn holder(route: &mut Route, spec: &Bridge, own: u32) -> Result<String, Error> {
    let routes = route.one(link::dump_routes(None)).await?;
    let routes = routes.map_err(|r| route.refused("find who has the subnet of", r))?;
    let other = facts::routes(&routes)
        .into_iter()
        .filter(|r| r.is_main() && r.destination == spec.subnet.trunc())
        .find_map(|r| r.output.filter(|index| *index != own));
    let Some(index) = other else { return Ok("another interface".to_owned()) };
    let answer = route.one(link::get(index)).await?;
    let link = facts::link(route, "read who has the subnet of", answer)?;
    Ok(link.map_or_else(|| format!("interface {index}"), |l| l.name))
}

/// What was read of a bridge that is ours.
struct Seen {
    link: Link,
    addresses: Vec<Ipv4Net>,
    routes: Vec<RouteFact>,
}

/// What a look at the bridge's name found.
enum Look {
    Absent,
    Foreign(String),
    Ours(Box<Seen>),
}

async fn look(route: &mut Route, spec: &Bridge) -> Result<Look, Error> {
    let Some(link) = find(route, spec).await? else { return Ok(Look::Absent) };
    if !is_ours(&link, spec) {
        return Ok(Look::Foreign(link.describe()));
    }
    let index = link.index;
    let mut answers =
        route.send(vec![link::dump_addresses(index), link::dump_routes(Some(index))]).await?;
    let routes = answers.pop().unwrap_or(Ok(Vec::new()));
    let addresses = answers.pop().unwrap_or(Ok(Vec::new()));
    let routes = routes.map_err(|r| route.refused("list the routes of", r))?;
    let addresses = addresses.map_err(|r| route.refused("list the addresses of", r))?;
    Ok(Look::Ours(Box::new(Seen {
        addresses: facts::addresses(&addresses).into_iter().map(|(_, a)| a).collect(),
        routes: facts::routes(&routes),
        link,
    })))
}

async fn find(route: &mut Route, spec: &Bridge) -> Result<Option<Link>, Error> {
    let answer = route.one(link::get_by_name(spec.name.as_str())).await?;
    facts::link(route, "look up", answer)
}

/// A link found by an altname of that text has another name: not ours.
fn is_ours(link: &Link, spec: &Bridge) -> bool {
    link.name == spec.name.as_str()
        && link.is_ours(&InfoKind::Bridge, spec.network.as_str(), spec.group, spec.mac)
}

/// What is repaired as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Mac,
    Mtu,
    Group,
    Alias,
    Altname,
    Options,
    LinkLocal,
    Ipv6,
    Forwarding,
    Address,
    Up,
    Route,
}

fn differences(spec: &Bridge, seen: &Seen) -> Differences<Part> {
    let link = &seen.link;
    let mut found = Differences::new();
    let name = |what: &str| format!("bridge {} {what}", spec.name);
    found.expect(Part::Mac, name("address"), spec.mac, link.mac);
    found.expect(Part::Mtu, name("mtu"), spec.mtu, Some(link.mtu));
    found.expect(Part::Group, name("group"), spec.group, Some(link.group));
    found.expect(Part::Alias, name("alias"), ALIAS, link.alias.as_deref());
    let altname = link.altnames.iter().find(|a| *a == spec.network.as_str());
    found.expect(
        Part::Altname,
        name("altname"),
        spec.network.as_str(),
        altname.map(String::as_str),
    );
    let off = |on: Option<bool>| on.map(on_off);
    found.expect_if_known(Part::Options, name("stp_state"), "off", off(link.stp));
    found.expect_if_known(Part::Options, name("forward_delay"), 0, link.forward_delay);
    let snooping = off(link.multicast_snooping);
    found.expect_if_known(Part::Options, name("mcast_snooping"), "off", snooping);
    found.expect_if_known(Part::LinkLocal, name("IPv6 link-local"), "off", off(link.link_local));
    let ipv6 = link.ipv6_disabled.map(|disabled| on_off(!disabled));
    found.expect_if_known(Part::Ipv6, name("IPv6"), "off", ipv6);
    let forwarding = off(link.forwarding.map(|mode| mode != 0));
    found.expect_if_known(Part::Forwarding, name("forwarding"), "on", forwarding);
    let strict = i32::try_from(RP_FILTER_STRICT).unwrap_or(i32::MAX);
    found.expect_if_known(Part::Forwarding, name("rp_filter"), strict, link.rp_filter);
    let wanted = gateway(spec);
    let address = seen.addresses.iter().find(|a| **a == wanted);
    found.expect(Part::Address, name("inet"), wanted, address.copied());
    found.expect(Part::Up, name("state"), "up", Some(if link.up { "up" } else { "down" }));
    let route = seen.routes.iter().find(|r| r.is_main() && r.destination == spec.subnet.trunc());
    let route = route.map(|r| r.destination);
    found.expect(Part::Route, name("route"), spec.subnet.trunc(), route);
    found
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
            Look::Absent => return Err(Error::Missing { object: object(spec) }),
            Look::Foreign(found) => return Err(Error::Foreign { object: object(spec), found }),
        };
        let parts = differences(spec, &seen).parts(drift);
        let index = seen.link.index;
        if parts.contains(&Part::Ipv6) {
            sysctl::disable_ipv6(&object(spec), spec.name.as_str())?;
        }
        if parts.contains(&Part::Altname) {
            altname::add(route, index, spec.network.as_str()).await?;
        }
        let requests = parts.iter().filter_map(|part| repair_request(spec, index, *part));
        route.all(requests.collect()).await?;
        if parts.contains(&Part::Route) {
            claim(route, spec, index).await?;
        }
        route.all(vec![link::get(index)]).await
    })
}

/// `None` for what takes more than a request.
fn repair_request(spec: &Bridge, index: u32, part: Part) -> Option<Request> {
    Some(match part {
        Part::Mac => link::set_mac(index, spec.mac),
        Part::Mtu => link::set_mtu(index, spec.mtu),
        Part::Group => link::set_group(index, spec.group),
        Part::Alias => link::set_alias(index, ALIAS),
        Part::Options => link::set_bridge_options(index),
        Part::LinkLocal => link::no_link_local(index),
        Part::Forwarding => link::set_forwarding(index, 1, Some(RP_FILTER_STRICT)),
        Part::Address => link::add_address(index, gateway(spec), true),
        Part::Up => link::set_up(index),
        Part::Altname | Part::Ipv6 | Part::Route => return None,
    })
}

/// Removes the bridge if it is ours; its ports stay. Takes some tens of milliseconds, for the
/// kernel waits until nobody uses the device.
///
/// # Errors
/// What the kernel said.
pub fn remove(spec: &Bridge) -> Result<Removal, Error> {
    netlink::run(&object(spec), FEATURE, async |route| match find(route, spec).await? {
        Some(link) if is_ours(&link, spec) => match route.one(link::delete(link.index)).await? {
            Ok(_) => Ok(Removal::Removed),
            Err(Refusal { errno: libc::ENODEV, .. }) => Ok(Removal::Absent),
            Err(refusal) => Err(route.refused("delete", refusal)),
        },
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::spec::MacAddr;

    fn spec() -> Bridge {
        Bridge {
            name: "cb-x".parse().unwrap(),
            network: "net".parse().unwrap(),
            subnet: "192.168.7.0/24".parse().unwrap(),
            gateway: "192.168.7.1".parse().unwrap(),
            gateway6: None,
            mac: MacAddr([2; 6]),
            mtu: 1500,
            group: 7,
        }
    }

    fn seen(spec: &Bridge) -> Seen {
        let link = Link {
            name: spec.name.to_string(),
            altnames: vec![spec.network.to_string()],
            alias: Some(ALIAS.to_owned()),
            mac: Some(spec.mac),
            mtu: spec.mtu,
            group: spec.group,
            up: true,
            forwarding: Some(1),
            rp_filter: Some(1),
            ipv6_disabled: Some(true),
            link_local: Some(false),
            ..Link::default()
        };
        let route = RouteFact {
            destination: spec.subnet,
            gateway: None,
            output: Some(3),
            table: 254,
            mtu: None,
        };
        Seen { link, addresses: vec![gateway(spec)], routes: vec![route] }
    }

    #[test]
    fn each_difference_is_named() {
        type Break = fn(&mut Seen);
        let spec = spec();
        assert_eq!(differences(&spec, &seen(&spec)).into_presence(), Presence::Present);
        let cases: [(Break, &str); 7] = [
            (|s| s.link.mtu = 1400, "bridge cb-x mtu"),
            (|s| s.link.mac = None, "bridge cb-x address"),
            (|s| s.link.altnames.clear(), "bridge cb-x altname"),
            (|s| s.link.up = false, "bridge cb-x state"),
            (|s| s.addresses.clear(), "bridge cb-x inet"),
            (|s| s.routes.clear(), "bridge cb-x route"),
            (|s| s.link.ipv6_disabled = Some(false), "bridge cb-x IPv6"),
        ];
        for (damage, resource) in cases {
            let mut damaged = seen(&spec);
            damage(&mut damaged);
            match differences(&spec, &damaged).into_presence() {
                Presence::Drifted(drift) => {
                    assert_eq!(drift.len(), 1, "{drift:?}");
                    assert_eq!(drift[0].resource, resource);
                }
                other => panic!("{resource}: {other:?}"),
            }
        }
    }
}
