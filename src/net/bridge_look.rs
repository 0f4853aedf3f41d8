//! What a bridge is and how it differs from its spec: the reading half of
//! [`bridge`](crate::net::bridge).

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::InfoKind;

use crate::net::address;
use crate::net::diff::{Differences, on_off};
use crate::net::error::Error;
use crate::net::facts::{self, Link, RouteFact};
use crate::net::link;
use crate::net::netlink::Route;
use crate::net::spec::Bridge;
use crate::net::sysctl;

/// What the bridge's alias says: who made it.
pub(crate) const ALIAS: &str = "carboy";

/// net.ipv4.conf.*.rp_filter: drop what could not be answered through the same interface.
pub(crate) const RP_FILTER_STRICT: u32 = 1;

/// The bridge's own addresses, IPv4 first.
pub(crate) fn gateways(spec: &Bridge) -> impl Iterator<Item = IpNet> {
    let gateway = Ipv4Net::new_assert(spec.gateway, spec.subnet.prefix_len());
    [Some(IpNet::V4(gateway)), spec.gateway6.map(IpNet::V6)].into_iter().flatten()
}

/// What was read of a bridge that is ours.
pub(crate) struct Seen {
    pub(crate) link: Link,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) routes: Vec<RouteFact>,
    /// The kernel can forward IPv6 for one device alone.
    pub(crate) can_force: bool,
}

/// What a look at the bridge's name found.
pub(crate) enum Look {
    Absent,
    Foreign(String),
    Ours(Box<Seen>),
}

pub(crate) async fn look(route: &mut Route, spec: &Bridge) -> Result<Look, Error> {
    let Some(link) = find(route, spec).await? else { return Ok(Look::Absent) };
    if !is_ours(&link, spec) {
        return Ok(Look::Foreign(link.describe()));
    }
    let index = link.index;
    let mut seen = Seen { link, addresses: Vec::new(), routes: Vec::new(), can_force: false };
    let mut families = vec![AddressFamily::Inet];
    if spec.gateway6.is_some() {
        families.push(AddressFamily::Inet6);
        seen.can_force = sysctl::can_force_forwarding();
    }
    for family in families {
        let requests =
            vec![address::dump_addresses(index, family), address::dump_routes(Some(index), family)];
        let mut answers = route.send(requests).await?;
        let routes = answers.pop().unwrap_or(Ok(Vec::new()));
        let addresses = answers.pop().unwrap_or(Ok(Vec::new()));
        let routes = routes.map_err(|r| route.refused("list the routes of", r))?;
        let addresses = addresses.map_err(|r| route.refused("list the addresses of", r))?;
        seen.addresses.extend(facts::addresses(&addresses).into_iter().map(|(_, a)| a));
        seen.routes.extend(facts::routes(&routes));
    }
    Ok(Look::Ours(Box::new(seen)))
}

pub(crate) async fn find(route: &mut Route, spec: &Bridge) -> Result<Option<Link>, Error> {
    let answer = route.one(link::get_by_name(spec.name.as_str())).await?;
    facts::link(route, "look up", answer)
}

/// A link found by an altname of that text has another name: not ours.
pub(crate) fn is_ours(link: &Link, spec: &Bridge) -> bool {
    link.name == spec.name.as_str()
        && link.is_ours(&InfoKind::Bridge, spec.network.as_str(), spec.group, spec.mac)
}

/// What is repaired as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Mac,
    Mtu,
    Group,
    Alias,
    Altname,
    Options,
    LinkLocal,
    Ipv6,
    Forwarding,
    Up,
    /// One that is not the bridge's own.
    Stranger(IpNet),
    Address(IpNet),
    Route(IpNet),
}

pub(crate) fn differences(spec: &Bridge, seen: &Seen) -> Differences<Part> {
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
    if spec.gateway6.is_some() {
        // Without IPv6 in the kernel, or at an MTU too small for it, there is none to ask.
        found.expect(Part::Ipv6, name("IPv6"), "on", ipv6);
        found.expect_if_known(Part::Ipv6, name("accept_ra"), 0, link.accept_ra);
        if seen.can_force {
            let forced = off(link.force_forwarding.map(|mode| mode != 0));
            found.expect(Part::Ipv6, name("IPv6 force_forwarding"), "on", forced);
        }
    } else {
        found.expect_if_known(Part::Ipv6, name("IPv6"), "off", ipv6);
    }
    let forwarding = off(link.forwarding.map(|mode| mode != 0));
    found.expect_if_known(Part::Forwarding, name("forwarding"), "on", forwarding);
    let strict = i32::try_from(RP_FILTER_STRICT).unwrap_or(i32::MAX);
    found.expect_if_known(Part::Forwarding, name("rp_filter"), strict, link.rp_filter);
    found.expect(Part::Up, name("state"), "up", Some(if link.up { "up" } else { "down" }));
    // Before the own ones: with an address the kernel deletes those of its range that came later.
    for address in seen.addresses.iter().filter(|a| gateways(spec).all(|own| own != **a)) {
        let resource = format!("{} {address}", name(family(*address, "inet")));
        found.expect(Part::Stranger(*address), resource, "absent", Some("present"));
    }
    // The kernel takes IPv6 addresses from a link that goes down: they come after `Up`.
    for wanted in gateways(spec) {
        let address = seen.addresses.iter().find(|a| **a == wanted).copied();
        found.expect(Part::Address(wanted), name(family(wanted, "inet")), wanted, address);
        let subnet = wanted.trunc();
        let route = seen.routes.iter().find(|r| r.is_main() && r.destination == subnet);
        let route = route.map(|r| r.destination);
        found.expect(Part::Route(wanted), name(family(wanted, "route")), subnet, route);
    }
    found
}

/// The name of a difference in the words of `ip`: `inet6`, `route6`.
fn family(address: IpNet, what: &'static str) -> &'static str {
    match (address, what) {
        (IpNet::V6(_), "inet") => "inet6",
        (IpNet::V6(_), "route") => "route6",
        _ => what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::spec::MacAddr;
    use crate::presence::Presence;

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
            destination: spec.subnet.into(),
            gateway: None,
            output: Some(3),
            table: 254,
            mtu: None,
        };
        Seen { link, addresses: gateways(spec).collect(), routes: vec![route], can_force: true }
    }

    #[test]
    fn each_difference_is_named() {
        type Break = fn(&mut Seen);
        let spec = spec();
        assert_eq!(differences(&spec, &seen(&spec)).into_presence(), Presence::Present);
        let cases: [(Break, &str); 8] = [
            (|s| s.link.mtu = 1400, "bridge cb-x mtu"),
            (|s| s.link.mac = None, "bridge cb-x address"),
            (|s| s.link.altnames.clear(), "bridge cb-x altname"),
            (|s| s.link.up = false, "bridge cb-x state"),
            (|s| s.addresses.clear(), "bridge cb-x inet"),
            (|s| s.addresses.push("10.0.0.1/8".parse().unwrap()), "bridge cb-x inet 10.0.0.1/8"),
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
