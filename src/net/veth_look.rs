//! What a veth pair is and how it differs from its spec: the reading half of
//! [`veth`](crate::net::veth).

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink_packet_route::link::{InfoBridgePort, InfoKind};

use crate::net::diff::{Differences, on_off};
use crate::net::error::Error;
use crate::net::facts::{self, Link, RouteFact};
use crate::net::link;
use crate::net::netlink::{self, Route};
use crate::net::netns;
use crate::net::spec::{CONTAINER_IFNAME, MacAddr, Veth};

/// What the kernel lacks if it does not know the link type.
pub(crate) const FEATURE: &str = "veth support (CONFIG_VETH)";

pub(crate) fn object(spec: &Veth) -> String {
    format!("veth pair {} ({})", spec.name, spec.container)
}

pub(crate) async fn find(route: &mut Route, name: &str) -> Result<Option<Link>, Error> {
    let answer = route.one(link::get_by_name(name)).await?;
    facts::link(route, "look up", answer)
}

pub(crate) async fn bridge_index(host: &mut Route, spec: &Veth) -> Result<Option<u32>, Error> {
    let link = find(host, spec.bridge.as_str()).await?;
    Ok(link.filter(|l| l.kind == Some(InfoKind::Bridge)).map(|l| l.index))
}

pub(crate) fn is_ours(link: &Link, spec: &Veth) -> bool {
    link.name == spec.name.as_str()
        && link.is_ours(&InfoKind::Veth, spec.container.as_str(), spec.group, spec.mac)
}

/// What was read of a pair whose host end is ours.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) link: Link,
    pub(crate) bridge: Option<u32>,
    pub(crate) fdb: Option<MacAddr>,
    pub(crate) neighbour: Option<MacAddr>,
    /// `eth0`, if it is the other end of this pair.
    pub(crate) peer: Option<Link>,
    pub(crate) addresses: Vec<Ipv4Net>,
    pub(crate) routes: Vec<RouteFact>,
    pub(crate) gateway: Option<MacAddr>,
}

async fn look_at_host(spec: &Veth, host: &mut Route, link: Link) -> Result<Seen, Error> {
    let bridge = bridge_index(host, spec).await?;
    let fdb = host.one(link::get_fdb_entry(link.index, spec.peer_mac)).await?;
    let neighbour = match bridge {
        Some(index) => host.one(link::get_neighbour(index, spec.address.addr())).await?,
        None => Ok(Vec::new()),
    };
    let (fdb, neighbour) = (facts::pinned_neighbour(fdb), facts::pinned_neighbour(neighbour));
    Ok(Seen { link, bridge, fdb, neighbour, ..Seen::default() })
}

async fn look_inside(spec: &Veth, inside: &mut Route, seen: &mut Seen) -> Result<(), Error> {
    let Some(peer) = find(inside, CONTAINER_IFNAME).await? else { return Ok(()) };
    if peer.kind != Some(InfoKind::Veth) || peer.peer != Some(seen.link.index) {
        return Ok(());
    }
    let requests = vec![
        link::get_neighbour(peer.index, spec.gateway),
        link::dump_addresses(peer.index),
        link::dump_routes(Some(peer.index)),
    ];
    let mut answers = inside.send(requests).await?.into_iter();
    let mut next = || answers.next().unwrap_or(Ok(Vec::new()));
    let (gateway, addresses, routes) = (next(), next(), next());
    let addresses = addresses.map_err(|r| inside.refused("list the addresses of", r))?;
    let routes = routes.map_err(|r| inside.refused("list the routes of", r))?;
    seen.gateway = facts::pinned_neighbour(gateway);
    seen.addresses = facts::addresses(&addresses).into_iter().map(|(_, a)| a).collect();
    seen.routes = facts::routes(&routes);
    seen.peer = Some(peer);
    Ok(())
}

/// What a look at the host end's name found.
pub(crate) enum Look {
    Absent,
    Foreign(String),
    Ours(Box<Seen>),
}

/// Without its namespace the pair is looked at from the host alone: its inside is absent then.
pub(crate) fn look(spec: &Veth) -> Result<Look, Error> {
    let object = object(spec);
    let first = netlink::run(&object, FEATURE, async |host| {
        match find(host, spec.name.as_str()).await? {
            None => Ok(Look::Absent),
            Some(link) if !is_ours(&link, spec) => Ok(Look::Foreign(link.describe())),
            Some(link) => Ok(Look::Ours(Box::new(look_at_host(spec, host, link).await?))),
        }
    })?;
    let Look::Ours(mut seen) = first else { return Ok(first) };
    match netns::open(&spec.netns) {
        Ok(namespace) => netlink::run_in(&object, FEATURE, &namespace, async |inside| {
            look_inside(spec, inside, &mut seen).await
        })?,
        Err(Error::Missing { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(Look::Ours(seen))
}

/// What is repaired as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Pair,
    Mac,
    Mtu,
    Group,
    Altname,
    Controller,
    LinkLocal,
    Ipv6,
    PortFlags,
    Fdb,
    Up,
    Neighbour,
    InnerMac,
    InnerMtu,
    InnerIpv6,
    InnerAddress,
    InnerUp,
    InnerRoute,
    InnerNeighbour,
}

impl Part {
    pub(crate) fn is_inside(self) -> bool {
        matches!(
            self,
            Self::InnerMac
                | Self::InnerMtu
                | Self::InnerIpv6
                | Self::InnerAddress
                | Self::InnerUp
                | Self::InnerRoute
                | Self::InnerNeighbour
        )
    }
}

fn up_down(link: &Link) -> &'static str {
    if link.up { "up" } else { "down" }
}

pub(crate) fn differences(spec: &Veth, seen: &Seen) -> Differences<Part> {
    let mut found = Differences::new();
    outside(spec, seen, &mut found);
    match &seen.peer {
        Some(peer) => inside(spec, seen, peer, &mut found),
        None => found.expect(
            Part::Pair,
            format!("{CONTAINER_IFNAME} of {}", spec.container),
            format!("the peer of {}", spec.name),
            None,
        ),
    }
    found
}

fn outside(spec: &Veth, seen: &Seen, found: &mut Differences<Part>) {
    let link = &seen.link;
    let name = |what: &str| format!("veth {} {what}", spec.name);
    let ip = spec.address.addr();
    found.expect(Part::Mac, name("address"), spec.mac, link.mac);
    found.expect(Part::Mtu, name("mtu"), spec.mtu, Some(link.mtu));
    found.expect(Part::Group, name("group"), spec.group, Some(link.group));
    let altname = link.altnames.iter().find(|a| *a == spec.container.as_str());
    let altname = altname.map(String::as_str);
    found.expect(Part::Altname, name("altname"), spec.container.as_str(), altname);
    let attached = link.controller.is_some() && link.controller == seen.bridge;
    let master = link.controller.map(|index| match attached {
        true => spec.bridge.to_string(),
        false => format!("interface {index}"),
    });
    found.expect(Part::Controller, name("master"), spec.bridge.to_string(), master);
    let link_local = link.link_local.map(on_off);
    found.expect_if_known(Part::LinkLocal, name("IPv6 link-local"), "off", link_local);
    let ipv6 = link.ipv6_disabled.map(|disabled| on_off(!disabled));
    found.expect_if_known(Part::Ipv6, name("IPv6"), "off", ipv6);
    for flag in &link.port {
        if let Some((what, want, is)) = port_flag(flag) {
            found.expect(Part::PortFlags, name(what), on_off(want), Some(on_off(is)));
        }
    }
    if attached {
        found.expect(Part::Fdb, name("fdb"), spec.peer_mac, seen.fdb);
    }
    found.expect(Part::Up, name("state"), "up", Some(up_down(link)));
    let resource = format!("neighbour {ip} on {}", spec.bridge);
    found.expect(Part::Neighbour, resource, spec.peer_mac, seen.neighbour);
}

/// The name in the words of `bridge -d link`, what is wanted and what is.
fn port_flag(flag: &InfoBridgePort) -> Option<(&'static str, bool, bool)> {
    Some(match flag {
        InfoBridgePort::Isolated(on) => ("isolated", true, *on),
        InfoBridgePort::Learning(on) => ("learning", false, *on),
        InfoBridgePort::Locked(on) => ("locked", true, *on),
        InfoBridgePort::HairpinMode(on) => ("hairpin", false, *on),
        InfoBridgePort::UnicastFlood(on) => ("flood", false, *on),
        InfoBridgePort::MulticastFlood(on) => ("mcast_flood", false, *on),
        InfoBridgePort::BroadcastFlood(on) => ("bcast_flood", false, *on),
        _ => return None,
    })
}

fn inside(spec: &Veth, seen: &Seen, peer: &Link, found: &mut Differences<Part>) {
    let name = |what: &str| format!("{CONTAINER_IFNAME} of {} {what}", spec.container);
    found.expect(Part::InnerMac, name("address"), spec.peer_mac, peer.mac);
    found.expect(Part::InnerMtu, name("mtu"), spec.mtu, Some(peer.mtu));
    let ipv6 = peer.ipv6_disabled.map(|disabled| on_off(!disabled));
    found.expect_if_known(Part::InnerIpv6, name("IPv6"), "off", ipv6);
    let address = seen.addresses.iter().find(|a| **a == spec.address);
    found.expect(Part::InnerAddress, name("inet"), spec.address, address.copied());
    found.expect(Part::InnerUp, name("state"), "up", Some(up_down(peer)));
    let default = seen.routes.iter().find(|r| r.is_main() && r.destination.prefix_len() == 0);
    let via =
        |gateway: Option<Ipv4Addr>| gateway.map_or("no gateway".to_owned(), |g| format!("via {g}"));
    match (spec.internal, default) {
        (true, None) => {}
        (true, Some(route)) => {
            let (want, is) = ("absent".to_owned(), via(route.gateway));
            found.expect(Part::InnerRoute, name("route default"), want, Some(is));
        }
        (false, route) => {
            let is = route.map(|r| via(r.gateway));
            found.expect(Part::InnerRoute, name("route default"), via(Some(spec.gateway)), is);
        }
    }
    let resource = format!("neighbour {} on {}", spec.gateway, name("").trim_end());
    found.expect(Part::InnerNeighbour, resource, spec.bridge_mac, seen.gateway);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presence::Presence;

    fn spec(internal: bool) -> Veth {
        Veth {
            name: "cv-x".parse().unwrap(),
            container: "c".parse().unwrap(),
            bridge: "cb-x".parse().unwrap(),
            bridge_mac: MacAddr([2; 6]),
            netns: "/run/netns/c".into(),
            mac: MacAddr([4; 6]),
            address: "10.0.0.2/24".parse().unwrap(),
            peer_mac: MacAddr([6; 6]),
            gateway: Ipv4Addr::new(10, 0, 0, 1),
            address6: None,
            gateway6: None,
            internal,
            mtu: 1500,
            group: 7,
        }
    }

    fn seen(spec: &Veth) -> Seen {
        let route = |destination: &str, gateway| RouteFact {
            destination: destination.parse().unwrap(),
            gateway,
            output: Some(2),
            table: 254,
            mtu: None,
        };
        let mut routes = vec![route("10.0.0.0/24", None)];
        if !spec.internal {
            routes.push(route("0.0.0.0/0", Some(spec.gateway)));
        }
        let link = Link {
            altnames: vec![spec.container.to_string()],
            mac: Some(spec.mac),
            mtu: spec.mtu,
            group: spec.group,
            up: true,
            controller: Some(3),
            port: vec![InfoBridgePort::Isolated(true), InfoBridgePort::Learning(false)],
            ..Link::default()
        };
        let peer = Link { mac: Some(spec.peer_mac), mtu: spec.mtu, up: true, ..Link::default() };
        Seen {
            link,
            bridge: Some(3),
            fdb: Some(spec.peer_mac),
            neighbour: Some(spec.peer_mac),
            peer: Some(peer),
            addresses: vec![spec.address],
            routes,
            gateway: Some(spec.bridge_mac),
        }
    }

    #[test]
    fn a_pair_as_planned_does_not_differ() {
        for spec in [spec(false), spec(true)] {
            assert_eq!(differences(&spec, &seen(&spec)).into_presence(), Presence::Present);
        }
    }

    #[test]
    fn each_difference_is_named() {
        type Break = fn(&mut Seen);
        let cases: [(Break, &str); 9] = [
            (|s| s.link.controller = Some(9), "veth cv-x master"),
            (|s| s.link.port = vec![InfoBridgePort::Learning(true)], "veth cv-x learning"),
            (|s| s.fdb = None, "veth cv-x fdb"),
            (|s| s.neighbour = Some(MacAddr([9; 6])), "neighbour 10.0.0.2 on cb-x"),
            (|s| s.peer = None, "eth0 of c"),
            (|s| s.addresses.clear(), "eth0 of c inet"),
            (|s| s.routes.clear(), "eth0 of c route default"),
            (|s| s.routes[1].gateway = None, "eth0 of c route default"),
            (|s| s.gateway = None, "neighbour 10.0.0.1 on eth0 of c"),
        ];
        let spec = spec(false);
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

    #[test]
    fn an_internal_bundle_must_not_have_a_default_route() {
        let internal = spec(true);
        let open = seen(&spec(false));
        assert!(matches!(differences(&internal, &open).into_presence(), Presence::Drifted(_)));
    }
}
