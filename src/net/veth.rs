//! A veth pair: the host end a port of the bridge, `eth0` inside the namespace with the pinned
//! address.
//!
//! The port learns nothing and is locked: the bridge's static FDB entry is the only MAC address
//! frames may come from, and permanent neighbour entries on both sides make the first packet go
//! at once and ARP useless for taking an address.

use std::fs::File;
use std::os::fd::AsRawFd;

use ipnet::Ipv4Net;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoBridgePort, InfoKind};

use crate::net::diff::{Differences, on_off};
use crate::net::error::{Error, Refusal};
use crate::net::facts::{self, Link, RouteFact};
use crate::net::link::{self, CONTAINER_IFINDEX};
use crate::net::netlink::{self, Request, Route};
use crate::net::netns;
use crate::net::spec::{CONTAINER_IFNAME, MacAddr, Veth};
use crate::net::sysctl;
use crate::presence::{Creation, Drift, Presence, Removal};

/// What the kernel lacks if it does not know the link type.
const FEATURE: &str = "veth support (CONFIG_VETH)";

fn object(spec: &Veth) -> String {
    format!("veth pair {} ({})", spec.name, spec.container)
}

/// Makes the pair, if the host end's name is free, and configures both ends. The pinned address
/// answers when the call returns.
///
/// # Errors
/// [`Error::Missing`] without the bridge or the namespace, [`Error::Foreign`] if the namespace has
/// an `eth0`, else what the kernel said; nothing of the pair remains then.
pub fn create(spec: &Veth) -> Result<Creation, Error> {
    let namespace = netns::open(&spec.netns)?;
    netlink::run_both(&object(spec), FEATURE, &namespace, async |host, inside| {
        make(spec, &namespace, host, inside).await
    })
}

async fn make(
    spec: &Veth,
    namespace: &File,
    host: &mut Route,
    inside: &mut Route,
) -> Result<Creation, Error> {
    let bridge = bridge_index(host, spec)
        .await?
        .ok_or_else(|| Error::Missing { object: format!("bridge {}", spec.bridge) })?;
    let index = match host.one(link::create_veth(spec, bridge, namespace.as_raw_fd())).await? {
        Ok(messages) => messages
            .into_iter()
            .find_map(|m| match m {
                RouteNetlinkMessage::NewLink(l) => Some(l.header.index),
                _ => None,
            })
            .ok_or_else(|| Error::answer(&object(spec), "no interface index"))?,
        Err(Refusal { errno: libc::EEXIST, .. }) => {
            // The kernel does not say which end it means.
            return match find(host, spec.name.as_str()).await? {
                Some(_) => Ok(Creation::Exists),
                None => Err(Error::Foreign {
                    object: format!("{CONTAINER_IFNAME} in {}", spec.netns.display()),
                    found: "an interface that carboy did not make".to_owned(),
                }),
            };
        }
        Err(refusal) => return Err(host.refused("create", refusal)),
    };
    if let Err(error) = configure(spec, host, inside, index, bridge).await {
        // The first error says what went wrong; a pair that stays is half made, which observe and
        // remove know how to handle.
        host.send(vec![link::delete_neighbour(bridge, spec.address.addr()), link::delete(index)])
            .await
            .ok();
        return Err(error);
    }
    Ok(Creation::Created)
}

async fn configure(
    spec: &Veth,
    host: &mut Route,
    inside: &mut Route,
    index: u32,
    bridge: u32,
) -> Result<(), Error> {
    sysctl::disable_ipv6(&object(spec), spec.name.as_str())?;
    host.all(vec![
        link::add_altname(index, spec.container.as_str()),
        link::no_link_local(index),
        link::set_port_flags(index),
        link::set_fdb_entry(index, spec.peer_mac),
        link::set_neighbour(bridge, spec.address.addr(), spec.peer_mac),
        link::set_up(index),
    ])
    .await?;
    let mut requests = vec![
        link::no_link_local(CONTAINER_IFINDEX),
        link::add_address(CONTAINER_IFINDEX, spec.address, false),
        link::set_up(CONTAINER_IFINDEX),
        link::set_neighbour(CONTAINER_IFINDEX, spec.gateway, spec.bridge_mac),
    ];
    if !spec.internal {
        requests.push(link::add_default_route(CONTAINER_IFINDEX, spec.gateway));
    }
    requests.push(link::get(CONTAINER_IFINDEX));
    inside.all(requests).await?;
    host.all(vec![link::get(index), link::get(bridge)]).await
}

async fn find(route: &mut Route, name: &str) -> Result<Option<Link>, Error> {
    let answer = route.one(link::get_by_name(name)).await?;
    facts::link(route, "look up", answer)
}

async fn bridge_index(host: &mut Route, spec: &Veth) -> Result<Option<u32>, Error> {
    Ok(find(host, spec.bridge.as_str()).await?.map(|l| l.index))
}

fn is_ours(link: &Link, spec: &Veth) -> bool {
    link.name == spec.name.as_str()
        && link.is_ours(&InfoKind::Veth, spec.container.as_str(), spec.group, spec.mac)
}

/// What was read of a pair whose host end is ours.
#[derive(Default)]
struct Seen {
    link: Link,
    bridge: Option<u32>,
    fdb: Option<MacAddr>,
    neighbour: Option<MacAddr>,
    /// `eth0`, if it is the other end of this pair.
    peer: Option<Link>,
    addresses: Vec<Ipv4Net>,
    routes: Vec<RouteFact>,
    gateway: Option<MacAddr>,
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
enum Look {
    Absent,
    Foreign(String),
    Ours(Box<Seen>),
}

/// Without its namespace the pair is looked at from the host alone: its inside is absent then.
fn look(spec: &Veth) -> Result<Look, Error> {
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
enum Part {
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
    fn is_inside(self) -> bool {
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

fn differences(spec: &Veth, seen: &Seen) -> Differences<Part> {
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
    let via = |gateway: Option<std::net::Ipv4Addr>| {
        gateway.map_or("no gateway".to_owned(), |g| format!("via {g}"))
    };
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

/// Compares both ends of the pair with the spec.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn observe(spec: &Veth) -> Result<Presence, Error> {
    Ok(match look(spec)? {
        Look::Absent => Presence::Absent,
        Look::Foreign(found) => Presence::Foreign(found),
        Look::Ours(seen) => differences(spec, &seen).into_presence(),
    })
}

/// Puts right what differs. The pair and its indexes stay, unless its other end is not `eth0` of
/// the namespace any more: then it is made anew.
///
/// # Errors
/// [`Error::Missing`] if the pair, its bridge or the namespace is gone, [`Error::Foreign`] if it is
/// not ours, else what the kernel said.
pub fn repair(spec: &Veth, drift: &[Drift]) -> Result<(), Error> {
    let seen = match look(spec)? {
        Look::Ours(seen) => seen,
        Look::Absent => return Err(Error::Missing { object: object(spec) }),
        Look::Foreign(found) => return Err(Error::Foreign { object: object(spec), found }),
    };
    let parts = differences(spec, &seen).parts(drift);
    if parts.contains(&Part::Pair) {
        remove(spec)?;
        create(spec)?;
        return Ok(());
    }
    let bridge =
        seen.bridge.ok_or_else(|| Error::Missing { object: format!("bridge {}", spec.bridge) })?;
    let namespace = netns::open(&spec.netns)?;
    let object = object(spec);
    let (index, peer) =
        (seen.link.index, seen.peer.as_ref().map_or(CONTAINER_IFINDEX, |p| p.index));
    if parts.contains(&Part::InnerIpv6) {
        netlink::on_thread(&object, || {
            netlink::enter(&object, &namespace)?;
            sysctl::disable_ipv6(&object, CONTAINER_IFNAME)
        })?;
    }
    netlink::run_both(&object, FEATURE, &namespace, async |host, inside| {
        if parts.contains(&Part::Ipv6) {
            sysctl::disable_ipv6(&object, spec.name.as_str())?;
        }
        let stale = seen.routes.iter().filter(|r| r.is_main() && r.destination.prefix_len() == 0);
        let (mut out, mut inner) = (Vec::new(), Vec::new());
        for part in &parts {
            let requests = if part.is_inside() { &mut inner } else { &mut out };
            if *part == Part::InnerRoute {
                requests.extend(stale.clone().map(|r| link::delete_default_route(peer, r.gateway)));
            }
            requests.extend(repair_requests(spec, *part, index, peer, bridge));
        }
        host.all(out).await?;
        inner.push(link::get(peer));
        inside.all(inner).await?;
        host.all(vec![link::get(index), link::get(bridge)]).await
    })
}

/// Nothing for what takes more than a request. A port that is attached anew has lost its flags and
/// its FDB entry.
fn repair_requests(spec: &Veth, part: Part, index: u32, peer: u32, bridge: u32) -> Vec<Request> {
    match part {
        Part::Mac => vec![link::set_mac(index, spec.mac)],
        Part::Mtu => vec![link::set_mtu(index, spec.mtu)],
        Part::Group => vec![link::set_group(index, spec.group)],
        Part::Altname => vec![link::add_altname(index, spec.container.as_str())],
        Part::Controller => vec![
            link::set_controller(index, bridge),
            link::set_port_flags(index),
            link::set_fdb_entry(index, spec.peer_mac),
        ],
        Part::LinkLocal => vec![link::no_link_local(index)],
        Part::PortFlags => vec![link::set_port_flags(index)],
        Part::Fdb => vec![link::set_fdb_entry(index, spec.peer_mac)],
        Part::Up => vec![link::set_up(index)],
        Part::Neighbour => {
            vec![link::set_neighbour(bridge, spec.address.addr(), spec.peer_mac)]
        }
        Part::InnerMac => vec![link::set_mac(peer, spec.peer_mac)],
        Part::InnerMtu => vec![link::set_mtu(peer, spec.mtu)],
        Part::InnerAddress => vec![link::add_address(peer, spec.address, false)],
        Part::InnerUp => vec![link::set_up(peer)],
        Part::InnerRoute if spec.internal => Vec::new(),
        Part::InnerRoute => vec![link::add_default_route(peer, spec.gateway)],
        Part::InnerNeighbour => {
            vec![link::set_neighbour(peer, spec.gateway, spec.bridge_mac)]
        }
        Part::Pair | Part::Ipv6 | Part::InnerIpv6 => Vec::new(),
    }
}

/// Removes the pair, if the host end is ours, and the neighbour entry on the bridge.
///
/// # Errors
/// What the kernel said.
pub fn remove(spec: &Veth) -> Result<Removal, Error> {
    netlink::run(&object(spec), FEATURE, async |host| {
        let mut removal = Removal::Absent;
        if let Some(bridge) = bridge_index(host, spec).await? {
            let ip = spec.address.addr();
            let entry = host.one(link::get_neighbour(bridge, ip)).await?;
            if facts::pinned_neighbour(entry) == Some(spec.peer_mac) {
                forgive(host, link::delete_neighbour(bridge, ip), libc::ENOENT).await?;
                removal = Removal::Removed;
            }
        }
        match find(host, spec.name.as_str()).await? {
            Some(link) if is_ours(&link, spec) => {
                forgive(host, link::delete(link.index), libc::ENODEV).await?;
                Ok(Removal::Removed)
            }
            _ => Ok(removal),
        }
    })
}

/// Sends a request that may fail in one way: what it removes is gone already.
async fn forgive(route: &mut Route, request: Request, errno: i32) -> Result<(), Error> {
    let operation = request.operation;
    match route.one(request).await? {
        Err(refusal) if refusal.errno != errno => Err(route.refused(operation, refusal)),
        _ => Ok(()),
    }
}
