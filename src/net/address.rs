//! Requests about addresses, routes and neighbours of either family: which attributes go into which
//! message. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::net::link::request;
use crate::net::netlink::{CHANGE, CREATE, DUMP, GET, REPLACE, Request};
use crate::net::spec::MacAddr;

/// `IP6_RT_PRIO_ADDRCONF`: the metric of the connected routes that the kernel makes itself. EXCL
/// looks at routes of the same metric alone.
const CONNECTED6_METRIC: u32 = 256;

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// An address; `claimed` leaves out the connected route, to be added with EXCL. An IPv6 address can
/// be used at once: it was pinned, nobody need be asked for duplicates.
pub(crate) fn add_address(index: u32, address: IpNet, claimed: bool) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes.push(AddressAttribute::Address(address.addr()));
    message.attributes.push(AddressAttribute::Local(address.addr()));
    let mut flags = AddressFlags::empty();
    flags.set(AddressFlags::Noprefixroute, claimed);
    match address {
        IpNet::V4(net) => message.attributes.push(AddressAttribute::Broadcast(net.broadcast())),
        IpNet::V6(_) => flags |= AddressFlags::Nodad,
    }
    if !flags.is_empty() {
        message.attributes.push(AddressAttribute::Flags(flags));
    }
    request("add the address of", CREATE, RouteNetlinkMessage::NewAddress(message))
}

pub(crate) fn delete_address(index: u32, address: IpNet) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(address.addr()));
    // One that is added twice may have gone with the other.
    request("delete an address of", CHANGE, RouteNetlinkMessage::DelAddress(message))
        .forgiving(libc::EADDRNOTAVAIL)
}

/// The addresses of one interface, or of all if `index` is 0.
pub(crate) fn dump_addresses(index: u32, family: AddressFamily) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = family;
    message.header.index = index;
    message.header.scope = AddressScope::Universe;
    request("list the addresses of", DUMP, RouteNetlinkMessage::GetAddress(message))
}

/// A route in the main table.
fn route(family: AddressFamily, index: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes.push(RouteAttribute::Oif(index));
    message
}

/// The connected route of a claimed address; EEXIST means that somebody else has the subnet.
pub(crate) fn claim_subnet(index: u32, address: IpNet) -> Request {
    let mut message = route(family(address.addr()), index);
    message.header.protocol = RouteProtocol::Kernel;
    message.header.destination_prefix_length = address.prefix_len();
    message.attributes.push(RouteAttribute::Destination(address.network().into()));
    match address {
        IpNet::V4(net) => {
            message.header.scope = RouteScope::Link;
            message.attributes.push(RouteAttribute::PrefSource(IpAddr::V4(net.addr()).into()));
        }
        IpNet::V6(_) => message.attributes.push(RouteAttribute::Priority(CONNECTED6_METRIC)),
    }
    request("add the connected route of", CREATE, RouteNetlinkMessage::NewRoute(message))
}

pub(crate) fn add_default_route(index: u32, gateway: IpAddr) -> Request {
    let mut message = route(family(gateway), index);
    message.attributes.push(RouteAttribute::Gateway(gateway.into()));
    request("add the default route of", REPLACE, RouteNetlinkMessage::NewRoute(message))
}

/// Deletes a default route through the interface, whoever made it, whatever its scope and metric.
pub(crate) fn delete_default_route(
    index: u32,
    of: AddressFamily,
    gateway: Option<IpAddr>,
) -> Request {
    let mut message = route(of, index);
    message.attributes.extend(gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
    message.header.protocol = RouteProtocol::Unspec;
    message.header.scope = RouteScope::NoWhere;
    message.header.kind = RouteType::Unspec;
    request("delete the default route of", CHANGE, RouteNetlinkMessage::DelRoute(message))
}

/// All unicast routes, of one output interface if given, whatever their table.
pub(crate) fn dump_routes(index: Option<u32>, family: AddressFamily) -> Request {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family,
        kind: RouteType::Unicast,
        protocol: RouteProtocol::Unspec,
        ..RouteHeader::default()
    };
    if let Some(index) = index {
        message.attributes.push(RouteAttribute::Oif(index));
    }
    request("list the routes of", DUMP, RouteNetlinkMessage::GetRoute(message))
}

/// The FIB entry that decides about an address (`ip route get fibmatch`). A strict kernel wants all
/// else unset.
pub(crate) fn get_route(address: IpAddr) -> Request {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(address),
        destination_prefix_length: if address.is_ipv4() { 32 } else { 128 },
        protocol: RouteProtocol::Unspec,
        scope: RouteScope::Universe,
        kind: RouteType::Unspec,
        flags: RouteFlags::FibMatch,
        ..RouteHeader::default()
    };
    message.attributes.push(RouteAttribute::Destination(address.into()));
    request("look up the route of", GET, RouteNetlinkMessage::GetRoute(message))
}

fn neighbour(index: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = index;
    let destination = match ip {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    };
    message.attributes.push(NeighbourAttribute::Destination(destination));
    message
}

/// A permanent neighbour entry: reached at once, and nobody can take the address by ARP or by
/// neighbour discovery.
pub(crate) fn set_neighbour(index: u32, ip: IpAddr, mac: MacAddr) -> Request {
    let mut message = neighbour(index, ip);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()));
    request("add the neighbour entry of", REPLACE, RouteNetlinkMessage::NewNeighbour(message))
}

pub(crate) fn get_neighbour(index: u32, ip: IpAddr) -> Request {
    let message = RouteNetlinkMessage::GetNeighbour(neighbour(index, ip));
    request("read the neighbour entry of", GET, message)
}

pub(crate) fn delete_neighbour(index: u32, ip: IpAddr) -> Request {
    let message = RouteNetlinkMessage::DelNeighbour(neighbour(index, ip));
    request("delete the neighbour entry of", CHANGE, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strict_kernel_gets_route_queries_with_nothing_else_set() {
        for (ip, length) in [("10.0.0.1", 32), ("2001:db8::1", 128)] {
            let RouteNetlinkMessage::GetRoute(message) = get_route(ip.parse().unwrap()).message
            else {
                panic!("no RTM_GETROUTE");
            };
            assert_eq!(message.header.destination_prefix_length, length);
            assert_eq!(message.header.table, 0);
            assert_eq!(message.header.protocol, RouteProtocol::Unspec);
            assert_eq!(message.header.kind, RouteType::Unspec);
            assert_eq!(message.attributes.len(), 1);
        }
    }

    #[test]
    fn a_pinned_ipv6_address_is_used_at_once() {
        let flags = |address: &str, claimed| {
            let RouteNetlinkMessage::NewAddress(message) =
                add_address(3, address.parse().unwrap(), claimed).message
            else {
                panic!("no RTM_NEWADDR");
            };
            message.attributes.into_iter().find_map(|a| match a {
                AddressAttribute::Flags(flags) => Some(flags),
                _ => None,
            })
        };
        assert_eq!(flags("10.0.0.1/24", false), None);
        assert_eq!(flags("10.0.0.1/24", true), Some(AddressFlags::Noprefixroute));
        assert_eq!(flags("fd00::1/64", false), Some(AddressFlags::Nodad));
        let both = AddressFlags::Nodad | AddressFlags::Noprefixroute;
        assert_eq!(flags("fd00::1/64", true), Some(both));
    }
}
