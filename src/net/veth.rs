//! A veth pair: the host end a port of the bridge, `eth0` inside the namespace with the pinned
//! address.
//!
//! The port learns nothing and is locked: the bridge's static FDB entry is the only MAC address
//! frames may come from, and permanent neighbour entries on both sides make the first packet go
//! at once and ARP useless for taking an address.

use std::fs::File;
use std::os::fd::AsRawFd;

use crate::net::altname;
use crate::net::error::{Error, Refusal};
use crate::net::facts::{self, Link};
use crate::net::link;
use crate::net::netlink::{self, Request, Route};
use crate::net::netns;
use crate::net::spec::{CONTAINER_IFNAME, Veth};
use crate::net::sysctl;
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
        Ok(messages) => facts::created(&object(spec), messages)?,
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
    if let Err(error) = configure(spec, host, inside, &link, bridge).await {
        // The first error says what went wrong; a pair that stays is half made, which observe and
        // remove know how to handle.
        host.send(vec![
            link::delete_neighbour(bridge, spec.address.addr()),
            link::delete(link.index),
        ])
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
    link: &Link,
    bridge: u32,
) -> Result<(), Error> {
    let index = link.index;
    let peer = link.peer.ok_or_else(|| Error::answer(&object(spec), "no index of the peer"))?;
    sysctl::disable_ipv6(&object(spec), spec.name.as_str())?;
    altname::add(host, index, spec.container.as_str()).await?;
    host.all(vec![
        link::no_link_local(index),
        link::set_port_flags(index, !spec.meets_ports),
        link::set_fdb_entry(index, spec.peer_mac),
        link::set_neighbour(bridge, spec.address.addr(), spec.peer_mac),
        link::set_up(index),
    ])
    .await?;
    let mut requests = vec![
        link::no_link_local(peer),
        link::add_address(peer, spec.address, false),
        link::set_up(peer),
        link::set_neighbour(peer, spec.gateway, spec.bridge_mac),
    ];
    if !spec.internal {
        requests.push(link::add_default_route(peer, spec.gateway));
    }
    requests.push(link::get(peer));
    inside.all(requests).await?;
    host.all(vec![link::get(index), link::get(bridge)]).await
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
    let index = seen.link.index;
    let peer = seen.peer.as_ref().map(|p| p.index).ok_or_else(|| Error::Missing {
        object: format!("{CONTAINER_IFNAME} in {}", spec.netns.display()),
    })?;
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
        if parts.contains(&Part::Altname) {
            altname::add(host, index, spec.container.as_str()).await?;
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
        Part::Controller => vec![
            link::set_controller(index, bridge),
            link::set_port_flags(index, !spec.meets_ports),
            link::set_fdb_entry(index, spec.peer_mac),
        ],
        Part::LinkLocal => vec![link::no_link_local(index)],
        Part::PortFlags => vec![link::set_port_flags(index, !spec.meets_ports)],
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
        Part::Pair | Part::Ipv6 | Part::InnerIpv6 | Part::Altname => Vec::new(),
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
