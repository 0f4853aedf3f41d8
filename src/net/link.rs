//! Requests about links and the bridge's forwarding table: which attributes go into which message;
//! those about addresses, routes and neighbours are in [`address`](crate::net::address). Pure.
//!
//! The create message honours name, MAC, MTU, group and master, and ignores alias, altname and
//! bridge-port data without a word (Linux 6.18): those are messages of their own.

use std::os::fd::RawFd;

use netlink_packet_core::{DefaultNla, NLM_F_APPEND};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, BridgePortState, BridgeStpState, In6AddrGenMode,
    InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage, Prop,
};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth};

use crate::net::netlink::{CHANGE, CREATE, DUMP, GET, REPLACE, Request};
use crate::net::spec::{Bridge, CONTAINER_IFNAME, MacAddr, Veth};

pub(crate) fn request(
    operation: &'static str,
    flags: u16,
    message: RouteNetlinkMessage,
) -> Request {
    Request { operation, flags, message, forgiven: None }
}

fn change(operation: &'static str, message: LinkMessage) -> Request {
    request(operation, CHANGE, RouteNetlinkMessage::NewLink(message))
}

/// Creates the bridge. Its index has to be asked for: only Linux 6.2 and later would answer with it.
/// Its MTU is a message of its own: one that is part of this does not count as wanted, and goes back to
/// 1500 when the last port leaves.
pub(crate) fn create_bridge(spec: &Bridge) -> Request {
    let message = LinkBridge::new(spec.name.as_str())
        .address(spec.mac.octets().to_vec())
        .link_group(spec.group)
        .stp_state(BridgeStpState::Disabled)
        .forward_delay(0)
        .mcast_snooping(false)
        .build();
    request("create", CREATE, RouteNetlinkMessage::NewLink(message))
}

/// No spanning tree, no delay before a port forwards, no multicast snooping: one port needs none.
/// The spanning tree in a message of its own: while it is on, the kernel takes no delay of 0.
pub(crate) fn set_bridge_options(index: u32) -> [Request; 2] {
    let request = |options: Vec<InfoBridge>| {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(options)),
        ]));
        change("set the bridge options of", message)
    };
    [
        request(vec![InfoBridge::StpState(BridgeStpState::Disabled)]),
        request(vec![InfoBridge::ForwardDelay(0), InfoBridge::MulticastSnooping(false)]),
    ]
}

/// Creates the pair in one message, the peer inside the namespace: moving a device there later
/// would cost 15–20 ms. One queue each avoids an expedited RCU wait.
pub(crate) fn create_veth(spec: &Veth, bridge: u32, namespace: RawFd) -> Request {
    let queues = [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];
    let [tx, rx] = queues.clone();
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(CONTAINER_IFNAME)
        .setns_by_fd(namespace)
        .address(spec.peer_mac.octets().to_vec())
        .mtu(spec.mtu)
        .append_extra_attribute(tx)
        .append_extra_attribute(rx)
        .build();
    let [tx, rx] = queues;
    let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .name(spec.name.as_str())
        .address(spec.mac.octets().to_vec())
        .mtu(spec.mtu)
        .link_group(spec.group)
        .controller(bridge)
        .append_extra_attribute(tx)
        .append_extra_attribute(rx)
        .build();
    request("create", CREATE, RouteNetlinkMessage::NewLink(message))
}

/// Looks a link up; `__dev_get_by_name` of the kernel takes altnames of at most 15 bytes, too.
pub(crate) fn get_by_name(name: &str) -> Request {
    let message = LinkUnspec::new_with_name(name).build();
    request("look up", GET, RouteNetlinkMessage::GetLink(message))
}

/// Looks a link up by its altname, which may be longer than an interface name.
pub(crate) fn get_by_altname(name: &str) -> Request {
    const IFLA_ALT_IFNAME: u16 = 53;
    let value = [name.as_bytes(), b"\0"].concat();
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Other(DefaultNla::new(IFLA_ALT_IFNAME, value)));
    request("look up the altname of", GET, RouteNetlinkMessage::GetLink(message))
}

/// All bridges; the kernel leaves out the other links.
pub(crate) fn dump_bridges() -> Request {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
    request("list the bridges for", DUMP, RouteNetlinkMessage::GetLink(message))
}

/// Reads a link; as the last request of a creation it also activates the devices, without which
/// the first packet may be lost for a second.
pub(crate) fn get(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    request("read", GET, RouteNetlinkMessage::GetLink(message))
}

pub(crate) fn delete(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    request("delete", CHANGE, RouteNetlinkMessage::DelLink(message))
}

pub(crate) fn set_up(index: u32) -> Request {
    change("set up", LinkUnspec::new_with_index(index).up().build())
}

pub(crate) fn set_mac(index: u32, mac: MacAddr) -> Request {
    let message = LinkUnspec::new_with_index(index).address(mac.octets().to_vec()).build();
    change("set the MAC address of", message)
}

pub(crate) fn set_mtu(index: u32, mtu: u32) -> Request {
    change("set the MTU of", LinkUnspec::new_with_index(index).mtu(mtu).build())
}

pub(crate) fn set_group(index: u32, group: u32) -> Request {
    change("set the group of", LinkUnspec::new_with_index(index).link_group(group).build())
}

pub(crate) fn set_alias(index: u32, alias: &str) -> Request {
    change("set the alias of", LinkUnspec::new_with_index(index).alias(alias).build())
}

pub(crate) fn set_controller(index: u32, bridge: u32) -> Request {
    let message = LinkUnspec::new_with_index(index).controller(bridge).build();
    change("attach to the bridge", message)
}

pub(crate) fn add_altname(index: u32, name: &str) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::PropList(vec![Prop::AltIfName(name.to_owned())]));
    let flags = CREATE | NLM_F_APPEND;
    request("add the altname of", flags, RouteNetlinkMessage::NewLinkProp(message))
}

pub(crate) fn delete_altname(index: u32, name: &str) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::PropList(vec![Prop::AltIfName(name.to_owned())]));
    request("delete the altname of", CHANGE, RouteNetlinkMessage::DelLinkProp(message))
}

/// No link-local address is generated when the link comes up. A kernel without IPv6, and a link whose
/// MTU is too small for it, have none to generate.
pub(crate) fn no_link_local(index: u32) -> Request {
    let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let spec = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![none])]);
    let message = LinkUnspec::new_with_index(index).append_extra_attribute(spec).build();
    change("turn IPv6 link-local addresses off for", message).forgiving(libc::EAFNOSUPPORT)
}

/// `net.ipv4.conf.<link>.forwarding` (0 is off, all else on), and `rp_filter` (loose is 2, strict 1) where given.
///
/// By netlink, for /proc/sys may be read-only. The crate's own form leaves out zeros, with which
/// nothing could be turned off.
pub(crate) fn set_forwarding(index: u32, mode: u32, rp_filter: Option<u32>) -> Request {
    const IFLA_INET_CONF: u16 = 1;
    const NLA_F_NESTED: u16 = 0x8000;
    const IPV4_DEVCONF_FORWARDING: u16 = 1;
    const IPV4_DEVCONF_RP_FILTER: u16 = 8;
    let entry = |kind: u16, value: u32| {
        [&8u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &value.to_ne_bytes()].concat()
    };
    let mut entries = entry(IPV4_DEVCONF_FORWARDING, mode);
    if let Some(mode) = rp_filter {
        entries.extend(entry(IPV4_DEVCONF_RP_FILTER, mode));
    }
    let conf = AfSpecInet::Other(DefaultNla::new(IFLA_INET_CONF | NLA_F_NESTED, entries));
    let spec = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![conf])]);
    let message = LinkUnspec::new_with_index(index).append_extra_attribute(spec).build();
    change("set forwarding on", message)
}

/// The flags of a bundle's port: it talks to the bridge alone; what it may send from is the static
/// FDB entry (`locked`), and nothing unknown is sent to it.
pub(crate) fn set_port_flags(index: u32, isolated: bool) -> Request {
    let message = LinkBridgePort::new(index)
        .isolated(isolated)
        .learning(false)
        .locked(true)
        .hairpin(false)
        .flood(false)
        .mcast_flood(false)
        .bcast_flood(false)
        .build();
    change("set the port flags of", message)
}

/// Lets a port that somebody has stopped forward again; without a spanning tree nothing else would.
pub(crate) fn unblock_port(index: u32) -> Request {
    let message = LinkBridgePort::new(index).state(BridgePortState::Forwarding).build();
    change("let forward", message)
}

fn fdb_entry(port: u32, mac: MacAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = port;
    // "master": the entry of the bridge, not of the port's own driver.
    message.header.flags = NeighbourFlags::Controller;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()));
    message
}

/// A static FDB entry (`bridge fdb replace MAC dev PORT master static`); it goes with the port.
pub(crate) fn set_fdb_entry(port: u32, mac: MacAddr) -> Request {
    let mut message = fdb_entry(port, mac);
    message.header.state = NeighbourState::Noarp;
    request("add the FDB entry of", REPLACE, RouteNetlinkMessage::NewNeighbour(message))
}

pub(crate) fn get_fdb_entry(port: u32, mac: MacAddr) -> Request {
    let message = RouteNetlinkMessage::GetNeighbour(fdb_entry(port, mac));
    request("read the FDB entry of", GET, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::Emitable;

    fn bytes(request: Request) -> Vec<u8> {
        let RouteNetlinkMessage::NewLink(message) = request.message else {
            panic!("no RTM_NEWLINK");
        };
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }

    fn contains(bytes: &[u8], part: &[u8]) -> bool {
        bytes.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn forwarding_is_sent_even_where_it_is_zero() {
        let entry = |kind: u16, value: u32| {
            [&8u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &value.to_ne_bytes()].concat()
        };
        for mode in [0, 1, 2] {
            let bytes = bytes(set_forwarding(7, mode, Some(1)));
            assert!(contains(&bytes, &[entry(1, mode), entry(8, 1)].concat()), "{mode}");
        }
        assert!(!contains(&bytes(set_forwarding(7, 0, None)), &entry(8, 1)));
    }
}
