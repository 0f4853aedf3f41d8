//! What a guest may send and be sent. Pure.
//!
//! A guest's port passes frames to and from one bundle alone, by all of their addresses, and of
//! those only what its open ports have to do with. The rules keep no state, for a frame between two
//! ports of a bridge has no connection unless the kernel tracks bridged frames, which it cannot do
//! beside br_netfilter. All is judged before anything else that filters bridged frames.

use super::{
    BRIDGE_PRIORITY, Base, Chain, Element, Expression, Family, HOOK_FORWARD, HOOK_INPUT,
    HOOK_PREROUTING, Header, KeyPart, Meta, Rule, Set, count_and_drop, jump, rule,
};
use crate::names::GUEST_IFNAME_PREFIX;
use crate::net::policy::Protocol;
use crate::net::spec::{End, GuestRules};

/// A guest's port and both ends of its wire:
/// `iifname . ether saddr . ip saddr . ether daddr . ip daddr`.
const GUESTS: &str = "guests";
/// The same for IPv6.
const GUESTS6: &str = "guests6";
/// A guest's port and an open port of its bundle: `iifname . meta l4proto . th dport`.
const GUEST_PORTS: &str = "guest_ports";
/// Guests' ports to which every TCP port of the bundle is open.
const GUEST_TCP: &str = "guest_tcp";
/// In `inet`: bridges on which a guest meets its bundle, twice: `iifname . oifname`.
const BRIDGED: &str = "bridged";

/// The sets of the `bridge` table whose keys begin with a guest's port.
pub const GUEST_SETS: [&str; 4] = [GUESTS, GUESTS6, GUEST_PORTS, GUEST_TCP];

const HOOK_OUTPUT: u32 = 3;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// The bits of SYN and ACK in the 13th byte of a TCP header (RFC 9293), and those of a first segment.
const SYN_ACK: u8 = 0x12;
const SYN: u8 = 0x02;

pub(super) fn sets() -> [Set; 4] {
    use KeyPart::{EtherAddr, Ifname, Ipv4Addr, Ipv6Addr, Port, Protocol};
    [
        Set { name: GUESTS, key: &[Ifname, EtherAddr, Ipv4Addr, EtherAddr, Ipv4Addr] },
        Set { name: GUESTS6, key: &[Ifname, EtherAddr, Ipv6Addr, EtherAddr, Ipv6Addr] },
        Set { name: GUEST_PORTS, key: &[Ifname, Protocol, Port] },
        Set { name: GUEST_TCP, key: &[Ifname] },
    ]
}

pub(super) fn bridged_set() -> Set {
    Set { name: BRIDGED, key: &[KeyPart::Ifname, KeyPart::Ifname] }
}

/// Where br_netfilter is on, bridged frames come through the `inet` table as if they were routed.
/// They have been judged already; what is really routed back to its own bridge meets the rules for
/// what the host sends to a guest.
pub(super) fn bridged_rule() -> Rule {
    let names = vec![
        Expression::Meta { key: Meta::Iifname, to: 0 },
        Expression::Meta { key: Meta::Oifname, to: 4 },
        Expression::In(BRIDGED.to_owned()),
        Expression::Accept,
    ];
    rule("between a guest and its bundle", [names])
}

pub(super) fn chains() -> Vec<Chain> {
    let chain = |name, rules| Chain { name, base: None, rules };
    let base = |name, hook, rules| {
        let base = Some(Base { kind: "filter", hook, priority: BRIDGE_PRIORITY });
        Chain { name, base, rules }
    };
    vec![
        chain("guest_ports", port_rules()),
        chain("guest_answers", answer_rules()),
        chain("guest_from", between(&FROM_GUEST, "guest_ports")),
        chain("guest_to", between(&TO_GUEST, "guest_answers")),
        base(
            "guest_prerouting",
            HOOK_PREROUTING,
            vec![rule("from guests", [is_guest(Meta::Iifname), jump("guest_from")])],
        ),
        // Frames to the reserved group addresses (IEEE 802.1D) pass the bridge by and come here.
        base(
            "guest_input",
            HOOK_INPUT,
            vec![rule("from guests to the host", [is_guest(Meta::Iifname), count_and_drop()])],
        ),
        base(
            "guest_forward",
            HOOK_FORWARD,
            vec![rule("to guests", [is_guest(Meta::Oifname), jump("guest_to")])],
        ),
        base(
            "guest_output",
            HOOK_OUTPUT,
            vec![rule("from the host to guests", [is_guest(Meta::Oifname), count_and_drop()])],
        ),
    ]
}

/// Which property of a frame is the guest's and which the bundle's.
struct Way {
    port: Meta,
    /// Offsets in the Ethernet header of the guest's address and the bundle's.
    mac: (u32, u32),
    /// The same in the IPv4 header.
    ip: (u32, u32),
    /// The same in the IPv6 header.
    ip6: (u32, u32),
}

const FROM_GUEST: Way = Way { port: Meta::Iifname, mac: (6, 0), ip: (12, 16), ip6: (8, 24) };
const TO_GUEST: Way = Way { port: Meta::Oifname, mac: (0, 6), ip: (16, 12), ip6: (24, 8) };

fn between(way: &Way, next: &str) -> Vec<Rule> {
    vec![
        rule("IPv4", [ether_type(ETHERTYPE_IPV4), ends(way, way.ip, 4, GUESTS), jump(next)]),
        rule("IPv6", [ether_type(ETHERTYPE_IPV6), ends(way, way.ip6, 16, GUESTS6), jump(next)]),
        rule("anybody or anything else", [count_and_drop()]),
    ]
}

fn port_rules() -> Vec<Rule> {
    let any_port = vec![Expression::Differs(vec![0, 0])];
    vec![
        rule("open ports", [port_is_open(Meta::Iifname, 2), accept()]),
        // The look at the port keeps out fragments without one.
        rule(
            "every TCP port",
            [is_tcp(), all_tcp_is_open(Meta::Iifname), load_transport(2, 2, 0), any_port, accept()],
        ),
        rule("closed ports", [count_and_drop()]),
    ]
}

/// Each rule for TCP asks for the flags: a fragment without them matches none.
fn answer_rules() -> Vec<Rule> {
    vec![
        rule(
            "answers over TCP",
            [is_tcp(), is_not_first(), port_is_open(Meta::Oifname, 0), accept()],
        ),
        rule(
            "answers of every TCP port",
            [is_tcp(), is_not_first(), all_tcp_is_open(Meta::Oifname), accept()],
        ),
        rule("answers over UDP", [is_udp(), port_is_open(Meta::Oifname, 0), accept()]),
        rule("no answer", [count_and_drop()]),
    ]
}

fn is_guest(port: Meta) -> Vec<Expression> {
    vec![Expression::Meta { key: port, to: 0 }, Expression::Equal(GUEST_IFNAME_PREFIX.into())]
}

/// The type as it stands in the frame: that of one with a VLAN tag is the tag's.
fn ether_type(number: [u8; 2]) -> Vec<Expression> {
    let load = Expression::Payload { base: Header::Link, offset: 12, length: 2, to: 0 };
    vec![load, Expression::Equal(number.to_vec())]
}

fn ends(way: &Way, ip: (u32, u32), length: u32, set: &str) -> Vec<Expression> {
    let mac = |offset, to| Expression::Payload { base: Header::Link, offset, length: 6, to };
    let ip_at = |offset, to| Expression::Payload { base: Header::Network, offset, length, to };
    let words = length / 4;
    vec![
        Expression::Meta { key: way.port, to: 0 },
        mac(way.mac.0, 4),
        ip_at(ip.0, 6),
        mac(way.mac.1, 6 + words),
        ip_at(ip.1, 8 + words),
        Expression::In(set.to_owned()),
    ]
}

/// `offset` is 2 for the destination port, 0 for the source port.
fn port_is_open(port: Meta, offset: u32) -> Vec<Expression> {
    let mut expressions =
        vec![Expression::Meta { key: port, to: 0 }, Expression::Meta { key: Meta::L4proto, to: 4 }];
    expressions.extend(load_transport(offset, 2, 5));
    expressions.push(Expression::In(GUEST_PORTS.to_owned()));
    expressions
}

fn all_tcp_is_open(port: Meta) -> Vec<Expression> {
    vec![Expression::Meta { key: port, to: 0 }, Expression::In(GUEST_TCP.to_owned())]
}

fn is_not_first() -> Vec<Expression> {
    let mut expressions = load_transport(13, 1, 0);
    expressions.extend([Expression::Mask(vec![SYN_ACK]), Expression::Differs(vec![SYN])]);
    expressions
}

fn is_tcp() -> Vec<Expression> {
    protocol_is(Protocol::Tcp)
}

fn is_udp() -> Vec<Expression> {
    protocol_is(Protocol::Udp)
}

fn protocol_is(protocol: Protocol) -> Vec<Expression> {
    let load = Expression::Meta { key: Meta::L4proto, to: 0 };
    vec![load, Expression::Equal(vec![protocol.number()])]
}

fn load_transport(offset: u32, length: u32, to: u32) -> Vec<Expression> {
    vec![Expression::Payload { base: Header::Transport, offset, length, to }]
}

fn accept() -> Vec<Expression> {
    vec![Expression::Accept]
}

/// What a guest has in the sets.
pub fn guest_elements(rules: &GuestRules) -> Vec<Element> {
    let port = name(rules.veth.as_str());
    let key = |rest: &[u8]| [&port[..], rest].concat();
    let (guest, bundle) = (&rules.guest, &rules.bundle);
    let ends = [end(guest, &guest.ip.octets()), end(bundle, &bundle.ip.octets())].concat();
    let bridge = name(rules.bridge.as_str());
    let mut elements = vec![
        element(Family::Bridge, GUESTS, key(&ends)),
        element(Family::Inet, BRIDGED, [&bridge[..], &bridge].concat()),
    ];
    if let (Some(ip), Some(other)) = (guest.ip6, bundle.ip6) {
        let ends = [end(guest, &ip.octets()), end(bundle, &other.octets())].concat();
        elements.push(element(Family::Bridge, GUESTS6, key(&ends)));
    }
    if rules.ports.is_empty() {
        elements.push(element(Family::Bridge, GUEST_TCP, key(&[])));
    }
    elements.extend(rules.ports.iter().map(|open| {
        let [high, low] = open.port.to_be_bytes();
        let rest = [open.protocol.number(), 0, 0, 0, high, low, 0, 0];
        element(Family::Bridge, GUEST_PORTS, key(&rest))
    }));
    elements
}

/// An element in words, for differences: which set, and which port where it is one.
pub fn guest_words(element: &Element) -> String {
    let set = format!("set {}", element.set);
    match (element.set, element.key.get(16..)) {
        (GUEST_PORTS, Some([protocol, _, _, _, high, low, _, _])) => {
            let port = u16::from_be_bytes([*high, *low]);
            let known = [Protocol::Tcp, Protocol::Udp].into_iter();
            match known.into_iter().find(|p| p.number() == *protocol) {
                Some(protocol) => format!("{set} {protocol}/{port}"),
                None => format!("{set} protocol {protocol}, port {port}"),
            }
        }
        _ => set,
    }
}

fn element(family: Family, set: &'static str, key: Vec<u8>) -> Element {
    Element { family, set, key }
}

fn end(end: &End, ip: &[u8]) -> Vec<u8> {
    [&end.mac.octets()[..], &[0, 0], ip].concat()
}

/// A name as the kernel compares it: 16 bytes, the rest zero.
fn name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ruleset::tables;
    use crate::net::spec::MacAddr;

    fn rules(ports: &[&str], ip6: bool) -> GuestRules {
        let six = |ip: &str| ip6.then(|| ip.parse().unwrap());
        GuestRules {
            bridge: "cb-abcdefghijkl".parse().unwrap(),
            veth: "cg-abcdefghijkl".parse().unwrap(),
            guest: End {
                mac: MacAddr([2; 6]),
                ip: "10.0.0.3".parse().unwrap(),
                ip6: six("fd00::3"),
            },
            bundle: End {
                mac: MacAddr([4; 6]),
                ip: "10.0.0.2".parse().unwrap(),
                ip6: six("fd00::2"),
            },
            ports: ports.iter().map(|p| p.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn keys_have_the_lengths_their_sets_say() {
        let tables = tables();
        for element in guest_elements(&rules(&["tcp/9000", "udp/53"], true)) {
            let table = tables.iter().find(|t| t.family == element.family).unwrap();
            let set = table.sets.iter().find(|s| s.name == element.set).unwrap();
            assert_eq!(set.key_length() as usize, element.key.len(), "{}", element.set);
            // NFT_DATA_VALUE_MAXLEN
            assert!(element.key.len() <= 64);
        }
    }

    #[test]
    fn ports_are_named_or_all_of_tcp() {
        let sets = |rules| guest_elements(&rules).iter().map(|e| e.set).collect::<Vec<_>>();
        assert_eq!(sets(rules(&[], false)), [GUESTS, BRIDGED, GUEST_TCP]);
        assert_eq!(
            sets(rules(&["tcp/1", "tcp/2"], true)),
            [GUESTS, BRIDGED, GUESTS6, GUEST_PORTS, GUEST_PORTS]
        );
    }

    #[test]
    fn every_chain_of_a_guest_ends_closed() {
        for chain in chains() {
            let last = chain.rules.last().unwrap().expressions.last().unwrap();
            let jumps = matches!(last, Expression::Jump(next) if next.starts_with("guest_"));
            assert!(jumps || *last == Expression::Drop, "{}", chain.name);
        }
    }

    #[test]
    fn what_accepts_asks_for_the_transport_header() {
        // A later fragment has none, and could carry what the first left out.
        for chain in [port_rules(), answer_rules()] {
            for rule in chain.iter().filter(|r| r.expressions.contains(&Expression::Accept)) {
                let asks = |e: &Expression| {
                    matches!(e, Expression::Payload { base: Header::Transport, .. })
                };
                assert!(rule.expressions.iter().any(asks), "{}", rule.comment);
            }
        }
    }
}
