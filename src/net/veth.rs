//! A veth pair: the host end a port of the bridge, `eth0` inside the namespace with the pinned
//! address.
//!
//! The port learns nothing and is locked: the bridge's static FDB entry is the only MAC address
//! frames may come from, and permanent neighbour entries on both sides make the first packet go
//! at once, and ARP and neighbour discovery useless for taking an address.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use netlink_packet_route::AddressFamily::{Inet, Inet6};

use crate::net::address;
use crate::net::altname;
use crate::net::error::{Error, Refusal};
use crate::net::facts::{self, Link};
use crate::net::link;
use crate::net::netlink::{self, Request, Route};
use crate::net::netns;
use crate::net::spec::{CONTAINER_IFNAME, Veth};
use crate::net::sysctl;
use crate::net::unlink::unlink;
use crate::net::veth_look::{
    FEATURE, Look, Part, bridge_index, differences, find, is_ours, look, object,
};
use crate::presence::{Creation, Drift, Presence, Removal};

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

fn missing(spec: &Veth) -> Error {
    Error::Missing { object: object(spec) }
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
    let link = match host.one(link::create_veth(spec, bridge, namespace.as_raw_fd())).await? {
        Ok(_) => find(host, spec.name.as_str()).await?.ok_or_else(|| missing(spec))?,
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
    if let Err(error) = configure(spec, namespace, host, inside, &link, bridge).await {
        // The first error says what went wrong; a pair that stays is half made, which observe and
        // remove know how to handle.
        let mut requests = neighbours(spec, |ip| address::delete_neighbour(bridge, ip));
        requests.push(link::delete(link.index));
        host.send(requests).await.ok();
        return Err(error);
    }
    Ok(Creation::Created)
}

/// A request for each of the pinned addresses.
fn neighbours(spec: &Veth, request: impl Fn(IpAddr) -> Request) -> Vec<Request> {
    spec.addresses().map(|(address, _)| request(address.addr())).collect()
}

async fn configure(
    spec: &Veth,
    namespace: &File,
    host: &mut Route,
    inside: &mut Route,
    link: &Link,
    bridge: u32,
) -> Result<(), Error> {
    let index = link.index;
    let peer = link.peer.ok_or_else(|| Error::answer(&object(spec), "no index of the peer"))?;
    // A port of a bridge needs none of its own.
    sysctl::disable_ipv6(&object(spec), spec.name.as_str())?;
    altname::add(host, index, spec.container.as_str()).await?;
    let mut requests = vec![
        link::no_link_local(index),
        link::set_port_flags(index, !spec.meets_ports),
        link::set_fdb_entry(index, spec.peer_mac),
    ];
    requests.extend(neighbours(spec, |ip| address::set_neighbour(bridge, ip, spec.peer_mac)));
    requests.push(link::set_up(index));
    host.all(requests).await?;
    inside.all(vec![link::no_link_local(peer)]).await?;
    if spec.address6.is_some() {
        // The namespace has it off for all that comes.
        switch_inner_ipv6(spec, namespace)?;
    }
    let mut requests = vec![link::set_up(peer)];
    for (address, gateway) in spec.addresses() {
        requests.push(address::add_address(peer, address, false));
        requests.push(address::set_neighbour(peer, gateway, spec.bridge_mac));
        if !spec.internal {
            requests.push(address::add_default_route(peer, gateway));
        }
    }
    requests.push(link::get(peer));
    inside.all(requests).await?;
    host.all(vec![link::get(index), link::get(bridge)]).await
}

/// IPv6 on `eth0` as the spec has it.
fn switch_inner_ipv6(spec: &Veth, namespace: &File) -> Result<(), Error> {
    let (object, on) = (object(spec), spec.address6.is_some());
    netlink::on_thread(&object, || {
        netlink::enter(&object, namespace)?;
        sysctl::switch_ipv6(&object, CONTAINER_IFNAME, on)
    })
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
        Look::Absent => return Err(missing(spec)),
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
    let index = seen.link.index;
    let inner = seen.peer.as_ref().ok_or_else(|| Error::Missing {
        object: format!("{CONTAINER_IFNAME} in {}", spec.netns.display()),
    })?;
    let peer = inner.index;
    netlink::run_both(&object, FEATURE, &namespace, async |host, inside| {
        if parts.contains(&Part::Ipv6) {
            sysctl::disable_ipv6(&object, spec.name.as_str())?;
        }
        if parts.contains(&Part::InnerMtu) {
            // First: below 1280 bytes the link has no IPv6 that could be switched.
            inside.all(vec![link::set_mtu(peer, spec.mtu)]).await?;
            if spec.address6.is_some() && inner.ipv6_disabled.is_none() {
                // It has come back with the kernel's defaults.
                inside.all(vec![link::no_link_local(peer)]).await?;
            }
        }
        if parts.contains(&Part::InnerIpv6) {
            switch_inner_ipv6(spec, &namespace)?;
        }
        if parts.contains(&Part::Altname) {
            altname::add(host, index, spec.container.as_str()).await?;
        }
        let (mut out, mut within) = (Vec::new(), Vec::new());
        for part in &parts {
            let requests = if part.is_inside() { &mut within } else { &mut out };
            if let Part::InnerRoute(gateway) = part {
                let stale = seen.default_routes(gateway.is_ipv6());
                let family = if gateway.is_ipv6() { Inet6 } else { Inet };
                requests
                    .extend(stale.map(|r| address::delete_default_route(peer, family, r.gateway)));
            }
            requests.extend(repair_requests(spec, *part, index, peer, bridge));
        }
        host.all(out).await?;
        within.push(link::get(peer));
        inside.all(within).await?;
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
        Part::Controller => vec![
            link::set_controller(index, bridge),
            link::set_port_flags(index, !spec.meets_ports),
            link::set_fdb_entry(index, spec.peer_mac),
        ],
        Part::LinkLocal => vec![link::no_link_local(index)],
        Part::PortFlags => vec![link::set_port_flags(index, !spec.meets_ports)],
        Part::PortState => vec![link::unblock_port(index)],
        Part::Fdb => vec![link::set_fdb_entry(index, spec.peer_mac)],
        Part::Up => vec![link::set_up(index)],
        Part::Neighbour(ip) => vec![address::set_neighbour(bridge, ip, spec.peer_mac)],
        Part::InnerMac => vec![link::set_mac(peer, spec.peer_mac)],
        Part::InnerLinkLocal => vec![link::no_link_local(peer)],
        Part::InnerUp => vec![link::set_up(peer)],
        Part::InnerStranger(address) => vec![address::delete_address(peer, address)],
        Part::InnerAddress(address) => vec![address::add_address(peer, address, false)],
        Part::InnerRoute(_) if spec.internal => Vec::new(),
        Part::InnerRoute(gateway) => vec![address::add_default_route(peer, gateway)],
        Part::InnerNeighbour(gateway) => {
            vec![address::set_neighbour(peer, gateway, spec.bridge_mac)]
        }
        Part::Pair | Part::Ipv6 | Part::InnerIpv6 | Part::InnerMtu | Part::Altname => Vec::new(),
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
            for (address, _) in spec.addresses() {
                let ip = address.addr();
                let entry = host.one(address::get_neighbour(bridge, ip)).await?;
                if facts::pinned_neighbour(entry) == Some(spec.peer_mac) {
                    let delete = address::delete_neighbour(bridge, ip);
                    host.all(vec![delete.forgiving(libc::ENOENT)]).await?;
                    removal = Removal::Removed;
                }
            }
        }
        match find(host, spec.name.as_str()).await? {
            Some(link) if is_ours(&link, spec) => {
                unlink(host, &object(spec), FEATURE, link.index).await?;
                Ok(Removal::Removed)
            }
            _ => Ok(removal),
        }
    })
}
