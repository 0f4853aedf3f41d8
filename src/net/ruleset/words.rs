//! What rules say, in pieces: the words that `nft list ruleset` prints. Pure.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::names::{BRIDGE_IFNAME_PREFIX, VETH_IFNAME_PREFIX};
use crate::net::ruleset::{Conntrack, Expression, Header, Meta, Reason, Rule};

pub(super) const IPV4: [u8; 2] = [0x08, 0x00];
pub(super) const ARP: [u8; 2] = [0x08, 0x06];
pub(super) const IPV6: [u8; 2] = [0x86, 0xdd];

/// Where the addresses stand in the headers (RFC 791, RFC 8200).
pub(super) const SOURCE4: u32 = 12;
pub(super) const DESTINATION4: u32 = 16;
pub(super) const SOURCE6: u32 = 8;
pub(super) const DESTINATION6: u32 = 24;

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)` and that of `IP_CT_RELATED`.
const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
/// `IPS_DST_NAT`.
const DST_NAT: u32 = 1 << 5;
/// `IP_CT_DIR_REPLY`.
const REPLY: u8 = 1;

/// The chains that count a packet, tell of it, and drop it: by where it came from, or where to.
pub(super) const DENIED: &str = "denied";
pub(super) const DENIED_TO: &str = "denied-to";

pub(super) fn rule(
    comment: impl Into<Cow<'static, str>>,
    parts: impl IntoIterator<Item = Vec<Expression>>,
) -> Rule {
    Rule { comment: comment.into(), expressions: parts.into_iter().flatten().collect() }
}

fn load(key: Meta) -> Expression {
    Expression::Meta { key, to: 0 }
}

fn payload(base: Header, offset: u32, length: u32, to: u32) -> Expression {
    Expression::Payload { base, offset, length, to }
}

pub(super) fn iifname() -> Vec<Expression> {
    vec![load(Meta::Iifname)]
}

pub(super) fn oifname() -> Vec<Expression> {
    vec![load(Meta::Oifname)]
}

/// A comparison with less than a whole name is nft's wildcard.
pub(super) fn iifname_is_bridge() -> Vec<Expression> {
    vec![load(Meta::Iifname), Expression::Equal(BRIDGE_IFNAME_PREFIX.into())]
}

pub(super) fn oifname_is_bridge() -> Vec<Expression> {
    vec![load(Meta::Oifname), Expression::Equal(BRIDGE_IFNAME_PREFIX.into())]
}

pub(super) fn oifname_is_no_bridge() -> Vec<Expression> {
    vec![load(Meta::Oifname), Expression::Differs(BRIDGE_IFNAME_PREFIX.into())]
}

/// Whether the packet goes to a bridge, and that and where it comes from are not in the set.
pub(super) fn oif_is_bridge_not_in(set: &str) -> Vec<Expression> {
    let kind = super::element::ifname("bridge");
    vec![
        load(Meta::Oifkind),
        Expression::Equal(kind),
        load(Meta::Iifname),
        Expression::Meta { key: Meta::Oifname, to: 4 },
        Expression::NotIn(set.to_owned()),
    ]
}

pub(super) fn iifname_is_port() -> Vec<Expression> {
    vec![load(Meta::Iifname), Expression::Equal(VETH_IFNAME_PREFIX.into())]
}

pub(super) fn oifname_is_port() -> Vec<Expression> {
    vec![load(Meta::Oifname), Expression::Equal(VETH_IFNAME_PREFIX.into())]
}

pub(super) fn is_ipv4() -> Vec<Expression> {
    vec![load(Meta::Nfproto), Expression::Equal(vec![NFPROTO_IPV4])]
}

pub(super) fn is_ipv6() -> Vec<Expression> {
    vec![load(Meta::Nfproto), Expression::Equal(vec![NFPROTO_IPV6])]
}

/// Of the frame itself: for one with a VLAN tag this is the tag's type, whereas `meta protocol`
/// would be that of what is inside.
pub(super) fn ether_type(number: [u8; 2]) -> Vec<Expression> {
    vec![payload(Header::Link, 12, 2, 0), Expression::Equal(number.to_vec())]
}

/// Whether name and source of an IPv4 packet are not in the set; `is_ipv4` lets `nft list` print
/// the field's name.
pub(super) fn source4_is_not_in(set: &str) -> Vec<Expression> {
    let key = [load(Meta::Iifname), payload(Header::Network, SOURCE4, 4, 4)];
    [is_ipv4(), key.into(), vec![Expression::NotIn(set.to_owned())]].concat()
}

/// The same for IPv6.
pub(super) fn source6_is_not_in(set: &str) -> Vec<Expression> {
    let key = [load(Meta::Iifname), payload(Header::Network, SOURCE6, 16, 4)];
    [is_ipv6(), key.into(), vec![Expression::NotIn(set.to_owned())]].concat()
}

/// The name of a port, an Ethernet address and an address of so many bytes in the network header.
pub(super) fn owner(
    name: Meta,
    (base, mac): (Header, u32),
    (address, length): (u32, u32),
) -> Vec<Expression> {
    vec![load(name), payload(base, mac, 6, 4), payload(Header::Network, address, length, 6)]
}

/// Whether the packet is for the range.
pub(super) fn destination_is_in(range: IpNet) -> Vec<Expression> {
    let (mut words, offset, address, mask) = match range {
        IpNet::V4(net) => {
            let (address, mask) = (net.network().octets(), net.netmask().octets());
            (is_ipv4(), DESTINATION4, address.to_vec(), mask.to_vec())
        }
        IpNet::V6(net) => {
            let (address, mask) = (net.network().octets(), net.netmask().octets());
            (is_ipv6(), DESTINATION6, address.to_vec(), mask.to_vec())
        }
    };
    if range.prefix_len() == 0 {
        return words;
    }
    let length = u32::try_from(address.len()).unwrap_or(u32::MAX);
    words.push(payload(Header::Network, offset, length, 0));
    if range.prefix_len() < range.max_prefix_len() {
        words.push(Expression::Mask(mask));
    }
    words.push(Expression::Equal(address));
    words
}

pub(super) fn destination4_is(ip: Ipv4Addr) -> Vec<Expression> {
    destination_is_in(IpNet::from(std::net::IpAddr::V4(ip)))
}

pub(super) fn destination6_is(ip: Ipv6Addr) -> Vec<Expression> {
    destination_is_in(IpNet::from(std::net::IpAddr::V6(ip)))
}

pub(super) fn l4proto_is(number: u8) -> Vec<Expression> {
    vec![load(Meta::L4proto), Expression::Equal(vec![number])]
}

/// The port a TCP or UDP packet is for (RFC 9293, RFC 768).
pub(super) fn port_is(port: u16) -> Vec<Expression> {
    let port = port.to_be_bytes().to_vec();
    vec![payload(Header::Transport, 2, 2, 0), Expression::Equal(port)]
}

/// The first byte of an ICMP or ICMPv6 message.
pub(super) fn icmp_type() -> Vec<Expression> {
    vec![payload(Header::Transport, 0, 1, 0)]
}

/// An IPv4 header of more than 20 bytes has options.
pub(super) fn has_ip_options() -> Vec<Expression> {
    vec![
        payload(Header::Network, 0, 1, 0),
        Expression::Mask(vec![0x0f]),
        Expression::Differs(vec![5]),
    ]
}

/// What belongs to a connection that the other side began. The direction is asked for too, so that
/// a connection does not outlive the rule that let it begin.
pub(super) fn is_reply() -> Vec<Expression> {
    let state = connection_has(Conntrack::State, ESTABLISHED_OR_RELATED);
    let direction = Expression::Connection { key: Conntrack::Direction, to: 0 };
    [state, vec![direction, Expression::Equal(vec![REPLY])]].concat()
}

pub(super) fn is_redirected() -> Vec<Expression> {
    connection_has(Conntrack::Status, DST_NAT)
}

/// Neither established, nor related, nor redirected.
pub(super) fn is_new_and_plain() -> Vec<Expression> {
    [
        connection_has_no(Conntrack::State, ESTABLISHED_OR_RELATED),
        connection_has_no(Conntrack::Status, DST_NAT),
    ]
    .concat()
}

fn masked(key: Conntrack, bits: u32) -> [Expression; 2] {
    let mask = bits.to_ne_bytes().to_vec();
    [Expression::Connection { key, to: 0 }, Expression::Mask(mask)]
}

fn connection_has(key: Conntrack, bits: u32) -> Vec<Expression> {
    [&masked(key, bits)[..], &[Expression::Differs(vec![0; 4])]].concat()
}

fn connection_has_no(key: Conntrack, bits: u32) -> Vec<Expression> {
    [&masked(key, bits)[..], &[Expression::Equal(vec![0; 4])]].concat()
}

pub(super) fn is_in(set: &str) -> Vec<Expression> {
    vec![Expression::In(set.to_owned())]
}

pub(super) fn is_not_in(set: &str) -> Vec<Expression> {
    vec![Expression::NotIn(set.to_owned())]
}

pub(super) fn verdict_of(map: &str) -> Vec<Expression> {
    vec![Expression::VerdictOf(map.to_owned())]
}

pub(super) fn accept() -> Vec<Expression> {
    vec![Expression::Accept]
}

pub(super) fn jump(chain: &str) -> Vec<Expression> {
    vec![Expression::Jump(chain.to_owned())]
}

pub(super) fn count_and_drop() -> Vec<Expression> {
    vec![Expression::Counter, Expression::Drop]
}

/// Ends the packet's way, on account of where it came from. The mark dies with the packet: it
/// carries the reason to the counters and to whoever listens.
pub(super) fn deny(reason: Reason) -> Vec<Expression> {
    denied(reason, DENIED)
}

/// The same on account of where it was to go.
pub(super) fn deny_to(reason: Reason) -> Vec<Expression> {
    denied(reason, DENIED_TO)
}

fn denied(reason: Reason, chain: &str) -> Vec<Expression> {
    let mark = reason.mark().to_ne_bytes().to_vec();
    vec![Expression::Load(mark), Expression::SetMark, Expression::Jump(chain.to_owned())]
}

/// An interface's name and the mark: a key of the set of drops.
pub(super) fn name_and_mark(name: Meta) -> Vec<Expression> {
    vec![load(name), Expression::Meta { key: Meta::Mark, to: 4 }]
}
