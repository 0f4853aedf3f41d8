//! What the kernel's answers say, reduced to what carboy compares. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InfoBridge,
    InfoBridgePort, InfoData, InfoKind, InfoPortData, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage, Prop, State,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::net::error::{Error, Refusal};
use crate::net::netlink::{Answer, Route};
use crate::net::spec::MacAddr;

/// A link, as RTM_GETLINK describes it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) altnames: Vec<String>,
    pub(crate) alias: Option<String>,
    pub(crate) kind: Option<InfoKind>,
    pub(crate) mac: Option<MacAddr>,
    pub(crate) mtu: u32,
    pub(crate) group: u32,
    pub(crate) up: bool,
    /// It is up, and so is the other end.
    pub(crate) running: bool,
    pub(crate) controller: Option<u32>,
    /// The other end's index, in its own namespace.
    pub(crate) peer: Option<u32>,
    /// Any number but 0 is on.
    pub(crate) forwarding: Option<i32>,
    pub(crate) rp_filter: Option<i32>,
    /// `None` if the kernel has no IPv6.
    pub(crate) ipv6_disabled: Option<bool>,
    pub(crate) link_local: Option<bool>,
    /// Router advertisements: 0 is off.
    pub(crate) accept_ra: Option<i32>,
    /// IPv6 forwarding for this device alone; 0 also where the kernel has no such setting.
    pub(crate) force_forwarding: Option<i32>,
    pub(crate) stp: Option<bool>,
    pub(crate) forward_delay: Option<u32>,
    pub(crate) multicast_snooping: Option<bool>,
    pub(crate) port: Vec<InfoBridgePort>,
}

impl Link {
    /// What it is, in the words of `ip -d link`.
    pub(crate) fn describe(&self) -> String {
        let kind = self.kind.as_ref().map_or("device".to_owned(), |k| format!("{k} device"));
        let mac = self.mac.map(|m| format!(", address {m}")).unwrap_or_default();
        let alt = self.altnames.first().map(|a| format!(", altname {a}")).unwrap_or_default();
        format!("a {kind} {}{mac}{alt} that carboy did not make", self.name)
    }

    /// Whether the link is of the kind and carries either our altname or, half made, our group and
    /// MAC address, which are part of the create message.
    pub(crate) fn is_ours(&self, kind: &InfoKind, altname: &str, group: u32, mac: MacAddr) -> bool {
        self.kind.as_ref() == Some(kind)
            && (self.altnames.iter().any(|a| a == altname)
                || (self.group == group && self.mac == Some(mac)))
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            up: message.header.flags.contains(LinkFlags::Up),
            ..Self::default()
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Address(mac) => link.mac = mac_of(&mac),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::OperState(state) => link.running = state == State::Up,
                LinkAttribute::Group(group) => link.group = group,
                LinkAttribute::Controller(index) => link.controller = Some(index),
                LinkAttribute::Link(index) => link.peer = Some(index),
                LinkAttribute::PropList(properties) => {
                    link.altnames.extend(properties.into_iter().filter_map(|p| match p {
                        Prop::AltIfName(name) => Some(name),
                        _ => None,
                    }));
                }
                LinkAttribute::LinkInfo(infos) => infos.into_iter().for_each(|i| link.info(i)),
                LinkAttribute::AfSpecUnspec(specs) => {
                    specs.into_iter().for_each(|s| link.af_spec(s));
                }
                _ => {}
            }
        }
        link
    }
}

impl Link {
    fn info(&mut self, info: LinkInfo) {
        match info {
            LinkInfo::Kind(kind) => self.kind = Some(kind),
            LinkInfo::PortData(InfoPortData::BridgePort(port)) => self.port = port,
            LinkInfo::Data(InfoData::Bridge(options)) => {
                for option in options {
                    match option {
                        InfoBridge::StpState(state) => {
                            self.stp = Some(state != BridgeStpState::Disabled);
                        }
                        InfoBridge::ForwardDelay(delay) => self.forward_delay = Some(delay),
                        InfoBridge::MulticastSnooping(on) => self.multicast_snooping = Some(on),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn af_spec(&mut self, spec: AfSpecUnspec) {
        match spec {
            AfSpecUnspec::Inet(values) => {
                for value in values {
                    if let AfSpecInet::DevConf(conf) = value {
                        self.forwarding = Some(conf.forwarding);
                        self.rp_filter = Some(conf.rp_filter);
                    }
                }
            }
            AfSpecUnspec::Inet6(values) => {
                for value in values {
                    match value {
                        AfSpecInet6::DevConf(conf) => {
                            self.ipv6_disabled = Some(conf.disable_ipv6 != 0);
                            self.accept_ra = Some(conf.accept_ra);
                            self.force_forwarding = Some(conf.force_forwarding);
                        }
                        AfSpecInet6::AddrGenMode(mode) => {
                            self.link_local = Some(mode != In6AddrGenMode::None);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// An Ethernet address, if it is one.
pub(crate) fn mac_of(bytes: &[u8]) -> Option<MacAddr> {
    bytes.try_into().ok().map(MacAddr)
}

/// The link of an answer; `None` if there is none.
pub(crate) fn link(
    route: &Route,
    operation: &'static str,
    answer: Answer,
) -> Result<Option<Link>, Error> {
    let messages = match answer {
        Ok(messages) => messages,
        Err(Refusal { errno: libc::ENODEV, .. }) => return Ok(None),
        Err(refusal) => return Err(route.refused(operation, refusal)),
    };
    Ok(messages.into_iter().find_map(|m| match m {
        RouteNetlinkMessage::NewLink(link) => Some(link.into()),
        _ => None,
    }))
}

/// The addresses of an answer, each with its interface's index.
pub(crate) fn addresses(messages: &[RouteNetlinkMessage]) -> Vec<(u32, IpNet)> {
    messages
        .iter()
        .filter_map(|m| match m {
            RouteNetlinkMessage::NewAddress(address) => local_address(address),
            _ => None,
        })
        .collect()
}

/// IFA_LOCAL is the interface's own address; IFA_ADDRESS is the peer's on point-to-point links.
/// IPv6 has IFA_LOCAL on those alone.
fn local_address(message: &AddressMessage) -> Option<(u32, IpNet)> {
    let of = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| {
        message.attributes.iter().find_map(wanted)
    };
    let local = of(|a| match a {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let ip = local.or_else(|| {
        of(|a| match a {
            AddressAttribute::Address(ip @ IpAddr::V6(_)) => Some(*ip),
            _ => None,
        })
    })?;
    Some((message.header.index, IpNet::new(ip, message.header.prefix_len).ok()?))
}

/// A route, as far as carboy compares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RouteFact {
    pub(crate) destination: IpNet,
    pub(crate) gateway: Option<IpAddr>,
    /// Of several next hops the first one's.
    pub(crate) output: Option<u32>,
    pub(crate) table: u32,
    pub(crate) mtu: Option<u32>,
}

impl RouteFact {
    /// Whether it is (half of) a default route: VPNs split it into two of length 1. In IPv6 a
    /// route to all global addresses, 2000::/3, is one too.
    pub(crate) fn is_default(&self) -> bool {
        self.destination.prefix_len() <= if self.destination.addr().is_ipv4() { 1 } else { 3 }
    }

    /// Whether it is in the table that every host looks routes up in.
    pub(crate) fn is_main(&self) -> bool {
        self.table == u32::from(RouteHeader::RT_TABLE_MAIN)
    }
}

/// The routes of an answer.
pub(crate) fn routes(messages: &[RouteNetlinkMessage]) -> Vec<RouteFact> {
    messages
        .iter()
        .filter_map(|m| match m {
            RouteNetlinkMessage::NewRoute(route) => route_fact(route),
            _ => None,
        })
        .collect()
}

fn route_fact(message: &RouteMessage) -> Option<RouteFact> {
    let mut destination = match message.header.address_family {
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let (mut gateway, mut output, mut mtu) = (None, None, None);
    let mut table = u32::from(message.header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(ip) => destination = ip_of(ip)?,
            RouteAttribute::Gateway(ip) => gateway = ip_of(ip),
            RouteAttribute::Oif(index) => output = Some(*index),
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::MultiPath(hops) => {
                output = output.or(hops.first().map(|hop| hop.interface_index));
            }
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|m| match m {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let destination = IpNet::new(destination, message.header.destination_prefix_length).ok()?;
    Some(RouteFact { destination, gateway, output, table, mtu })
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

/// The permanent (or, in a bridge's FDB, static) entry of an answer: its MAC address.
pub(crate) fn pinned_neighbour(answer: Answer) -> Option<MacAddr> {
    let messages = answer.ok()?;
    messages.iter().find_map(|m| match m {
        RouteNetlinkMessage::NewNeighbour(n) if is_pinned(n) => {
            n.attributes.iter().find_map(|a| match a {
                NeighbourAttribute::LinkLayerAddress(mac) => mac_of(mac),
                _ => None,
            })
        }
        _ => None,
    })
}

fn is_pinned(message: &NeighbourMessage) -> bool {
    matches!(message.header.state, NeighbourState::Permanent | NeighbourState::Noarp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link_of(kind: InfoKind, altname: Option<&str>, group: u32, mac: u8) -> Link {
        let altnames = altname.map(str::to_owned).into_iter().collect();
        let mac = Some(MacAddr([mac; 6]));
        Link { kind: Some(kind), altnames, group, mac, ..Link::default() }
    }

    #[test]
    fn a_link_is_ours_by_altname_or_by_group_and_mac() {
        let cases = [
            (link_of(InfoKind::Bridge, Some("net"), 0, 9), true),
            (link_of(InfoKind::Bridge, None, 7, 2), true),
            (link_of(InfoKind::Bridge, None, 7, 9), false),
            (link_of(InfoKind::Bridge, Some("other"), 0, 2), false),
            (link_of(InfoKind::Dummy, Some("net"), 7, 2), false),
        ];
        for (link, ours) in cases {
            assert_eq!(
                link.is_ours(&InfoKind::Bridge, "net", 7, MacAddr([2; 6])),
                ours,
                "{link:?}"
            );
        }
    }

    #[test]
    fn a_link_message_is_reduced_to_what_matters() {
        let mut message = LinkMessage::default();
        message.header.index = 3;
        message.header.flags = LinkFlags::Up;
        message.attributes = vec![
            LinkAttribute::IfName("cb-x".to_owned()),
            LinkAttribute::Address(vec![2; 6]),
            LinkAttribute::PropList(vec![Prop::AltIfName("net".to_owned())]),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Bridge),
                LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::MulticastSnooping(true)])),
            ]),
            LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(
                In6AddrGenMode::None,
            )])]),
        ];
        let link = Link::from(message);
        assert_eq!((link.index, link.up, link.name.as_str()), (3, true, "cb-x"));
        assert_eq!(link.mac, Some(MacAddr([2; 6])));
        assert_eq!(link.altnames, ["net"]);
        assert_eq!(link.kind, Some(InfoKind::Bridge));
        assert_eq!(link.multicast_snooping, Some(true));
        assert_eq!(link.link_local, Some(false));
        assert_eq!(link.ipv6_disabled, None);
    }

    #[test]
    fn both_halves_of_a_split_default_route_are_default() {
        let route = |destination: &str| RouteFact {
            destination: destination.parse().unwrap(),
            gateway: None,
            output: None,
            table: 254,
            mtu: None,
        };
        for (destination, default) in [
            ("0.0.0.0/0", true),
            ("128.0.0.0/1", true),
            ("10.0.0.0/8", false),
            ("::/0", true),
            ("8000::/1", true),
            ("2000::/3", true),
            ("fc00::/7", false),
        ] {
            assert_eq!(route(destination).is_default(), default, "{destination}");
        }
    }
}
