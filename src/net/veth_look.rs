//! What a veth pair is and how it differs from its spec: the reading half of
//! [`veth`](crate::net::veth).

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily::{self, Inet, Inet6};
use netlink_packet_route::link::{BridgePortState, InfoBridgePort, InfoKind};

use crate::net::address;
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
    /// The bridge's entries for the pinned addresses, in their order.
    pub(crate) neighbours: Vec<Option<MacAddr>>,
    /// `eth0`, if it is the other end of this pair.
    pub(crate) peer: Option<Link>,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) routes: Vec<RouteFact>,
    /// The entries inside for the gateways, in the order of the pinned addresses.
    pub(crate) gateways: Vec<Option<MacAddr>>,
}

impl Seen {
    /// The default routes inside, of one family.
    pub(crate) fn default_routes(&self, ipv6: bool) -> impl Iterator<Item = &RouteFact> {
        self.routes.iter().filter(move |r| {
            let of6 = matches!(r.destination, IpNet::V6(_));
            r.is_main() && r.destination.prefix_len() == 0 && of6 == ipv6
        })
    }
}

async fn look_at_host(spec: &Veth, host: &mut Route, link: Link) -> Result<Seen, Error> {
    let bridge = bridge_index(host, spec).await?;
    let fdb = host.one(link::get_fdb_entry(link.index, spec.peer_mac)).await?;
    let mut neighbours = Vec::new();
    for (address, _) in spec.addresses() {
        let entry = match bridge {
            Some(index) => host.one(address::get_neighbour(index, address.addr())).await?,
            None => Ok(Vec::new()),
        };
        neighbours.push(facts::pinned_neighbour(entry));
    }
    let fdb = facts::pinned_neighbour(fdb);
    Ok(Seen { link, bridge, fdb, neighbours, ..Seen::default() })
}

async fn look_inside(spec: &Veth, inside: &mut Route, seen: &mut Seen) -> Result<(), Error> {
    let Some(peer) = find(inside, CONTAINER_IFNAME).await? else { return Ok(()) };
    if peer.kind != Some(InfoKind::Veth) || peer.peer != Some(seen.link.index) {
        return Ok(());
    }
    for (address, gateway) in spec.addresses() {
        let family: AddressFamily = if address.addr().is_ipv6() { Inet6 } else { Inet };
        let requests = vec![
            address::get_neighbour(peer.index, gateway),
            address::dump_addresses(peer.index, family),
            address::dump_routes(Some(peer.index), family),
        ];
        let mut answers = inside.send(requests).await?.into_iter();
        let mut next = || answers.next().unwrap_or(Ok(Vec::new()));
        let (gateway, addresses, routes) = (next(), next(), next());
        let addresses = addresses.map_err(|r| inside.refused("list the addresses of", r))?;
        let routes = routes.map_err(|r| inside.refused("list the routes of", r))?;
        seen.gateways.push(facts::pinned_neighbour(gateway));
        seen.addresses.extend(facts::addresses(&addresses).into_iter().map(|(_, a)| a));
        seen.routes.extend(facts::routes(&routes));
    }
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
    PortState,
    Fdb,
    Up,
    Neighbour(IpAddr),
    InnerMac,
    InnerMtu,
    InnerLinkLocal,
    InnerIpv6,
    InnerUp,
    /// One that is not pinned.
    InnerStranger(IpNet),
    InnerAddress(IpNet),
    InnerRoute(IpAddr),
    InnerNeighbour(IpAddr),
}

impl Part {
    pub(crate) fn is_inside(self) -> bool {
        matches!(
            self,
            Self::InnerMac
                | Self::InnerMtu
                | Self::InnerLinkLocal
                | Self::InnerIpv6
                | Self::InnerUp
                | Self::InnerStranger(_)
                | Self::InnerAddress(_)
                | Self::InnerRoute(_)
                | Self::InnerNeighbour(_)
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
        if let Some((what, want, is)) = port_flag(spec, flag) {
            found.expect(Part::PortFlags, name(what), on_off(want), Some(on_off(is)));
        }
    }
    let blocked = link.port.iter().find_map(|value| match value {
        // While an end is down the kernel itself stops the port.
        InfoBridgePort::State(state) if link.running => Some(*state != BridgePortState::Forwarding),
        _ => None,
    });
    let word = |blocked: bool| if blocked { "blocked" } else { "forwarding" };
    found.expect_if_known(Part::PortState, name("port"), word(false), blocked.map(word));
    if attached {
        found.expect(Part::Fdb, name("fdb"), spec.peer_mac, seen.fdb);
    }
    found.expect(Part::Up, name("state"), "up", Some(up_down(link)));
    for ((address, _), entry) in spec.addresses().zip(&seen.neighbours) {
        let ip = address.addr();
        let resource = format!("neighbour {ip} on {}", spec.bridge);
        found.expect(Part::Neighbour(ip), resource, spec.peer_mac, *entry);
    }
}

/// The name in the words of `bridge -d link`, what is wanted and what is.
fn port_flag(spec: &Veth, flag: &InfoBridgePort) -> Option<(&'static str, bool, bool)> {
    Some(match flag {
        InfoBridgePort::Isolated(on) => ("isolated", !spec.meets_ports, *on),
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
    let link_local = peer.link_local.map(on_off);
    found.expect_if_known(Part::InnerLinkLocal, name("IPv6 link-local"), "off", link_local);
    let ipv6 = peer.ipv6_disabled.map(|disabled| on_off(!disabled));
    if spec.address6.is_some() {
        // Without IPv6 in the kernel, or at an MTU too small for it, there is none to ask.
        found.expect(Part::InnerIpv6, name("IPv6"), "on", ipv6);
        found.expect_if_known(Part::InnerIpv6, name("accept_ra"), 0, peer.accept_ra);
    } else {
        found.expect_if_known(Part::InnerIpv6, name("IPv6"), "off", ipv6);
    }
    found.expect(Part::InnerUp, name("state"), "up", Some(up_down(peer)));
    // Before the pinned ones: with an address the kernel deletes those of its range that came later.
    for address in seen.addresses.iter().filter(|a| spec.addresses().all(|(own, _)| own != **a)) {
        let six = if address.addr().is_ipv6() { "6" } else { "" };
        let resource = name(&format!("inet{six} {address}"));
        found.expect(Part::InnerStranger(*address), resource, "absent", Some("present"));
    }
    // The kernel takes IPv6 addresses from a link that goes down: they come after `InnerUp`.
    for ((wanted, gateway), entry) in spec.addresses().zip(&seen.gateways) {
        let six = if gateway.is_ipv6() { "6" } else { "" };
        let address = seen.addresses.iter().find(|a| **a == wanted).copied();
        found.expect(Part::InnerAddress(wanted), name(&format!("inet{six}")), wanted, address);
        let resource = name(&format!("route{six} default"));
        default_route(spec, seen, gateway, resource, found);
        let resource = format!("neighbour {gateway} on {}", name("").trim_end());
        found.expect(Part::InnerNeighbour(gateway), resource, spec.bridge_mac, *entry);
    }
}

fn default_route(
    spec: &Veth,
    seen: &Seen,
    gateway: IpAddr,
    resource: String,
    found: &mut Differences<Part>,
) {
    let via =
        |gateway: Option<IpAddr>| gateway.map_or("no gateway".to_owned(), |g| format!("via {g}"));
    let is = seen.default_routes(gateway.is_ipv6()).next().map(|r| via(r.gateway));
    match (spec.internal, is) {
        (true, None) => {}
        (true, is) => found.expect(Part::InnerRoute(gateway), resource, "absent".to_owned(), is),
        (false, is) => found.expect(Part::InnerRoute(gateway), resource, via(Some(gateway)), is),
    }
}

#[cfg(test)]
mod tests;
