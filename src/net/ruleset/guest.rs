//! What a guest may send and be sent. Pure.
//!
//! A guest's port passes frames to and from one bundle alone, by all of their addresses, and of
//! those only what its open ports have to do with. The rules keep no state, for a frame between two
//! ports of a bridge has no connection unless the kernel tracks bridged frames, which it cannot do
//! beside br_netfilter. All is judged before anything else that filters bridged frames.

use crate::names::GUEST_IFNAME_PREFIX;
use crate::net::policy::Protocol;
use crate::net::ruleset::bridge::BRIDGE_PRIORITY;
use crate::net::ruleset::element::{drop_element, ifname, ifname_of, named, uplink_of};
use crate::net::ruleset::words::{
    DESTINATION4, DESTINATION6, IPV4, IPV6, SOURCE4, SOURCE6, accept, deny, deny_to, ether_type,
    jump, l4proto_is, rule,
};
use crate::net::ruleset::{
    Base, Chain, Element, Entries, Expression, Family, HOOK_FORWARD, HOOK_INPUT, HOOK_PREROUTING,
    Header, Holds, KeyPart, Meta, Reason, Rule, Set,
};
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
pub(super) const BRIDGED: &str = "bridged";

/// The sets of the `bridge` table whose keys begin with a guest's port.
pub const GUEST_SETS: [&str; 4] = [GUESTS, GUESTS6, GUEST_PORTS, GUEST_TCP];

const HOOK_OUTPUT: u32 = 3;
/// The bits of SYN and ACK in the 13th byte of a TCP header (RFC 9293), and those of a first segment.
const SYN_ACK: u8 = 0x12;
const SYN: u8 = 0x02;

pub(super) fn sets() -> [Set; 4] {
    use KeyPart::{EtherAddr, Ifname, Ipv4Addr, Ipv6Addr, Port, Protocol};
    [
        Set {
            name: GUESTS,
            key: &[Ifname, EtherAddr, Ipv4Addr, EtherAddr, Ipv4Addr],
            holds: Holds::Keys,
        },
        Set {
            name: GUESTS6,
            key: &[Ifname, EtherAddr, Ipv6Addr, EtherAddr, Ipv6Addr],
            holds: Holds::Keys,
        },
        Set { name: GUEST_PORTS, key: &[Ifname, Protocol, Port], holds: Holds::Keys },
        Set { name: GUEST_TCP, key: &[Ifname], holds: Holds::Keys },
    ]
}

pub(super) fn bridged_set() -> Set {
    Set { name: BRIDGED, key: &[KeyPart::Ifname, KeyPart::Ifname], holds: Holds::Keys }
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
    let hooked = |name: &'static str, hook, rules| {
        let base = Some(Base { kind: "filter", hook, priority: BRIDGE_PRIORITY });
        Chain { name: name.into(), base, rules }
    };
    vec![
        Chain::plain("guest_ports", port_rules()),
        Chain::plain("guest_answers", answer_rules()),
        Chain::plain("guest_from", between(&FROM_GUEST, "guest_ports", deny(Reason::FromGuest))),
        Chain::plain("guest_to", between(&TO_GUEST, "guest_answers", deny_to(Reason::ToGuest))),
        hooked(
            "guest_prerouting",
            HOOK_PREROUTING,
            vec![rule("from guests", [is_guest(Meta::Iifname), jump("guest_from")])],
        ),
        // Frames to the reserved group addresses (IEEE 802.1D) pass the bridge by and come here.
        hooked(
            "guest_input",
            HOOK_INPUT,
            vec![rule(
                "from guests to the host",
                [is_guest(Meta::Iifname), deny(Reason::FromGuest)],
            )],
        ),
        hooked(
            "guest_forward",
            HOOK_FORWARD,
            vec![rule("to guests", [is_guest(Meta::Oifname), jump("guest_to")])],
        ),
        hooked(
            "guest_output",
            HOOK_OUTPUT,
            vec![rule(
                "from the host to guests",
                [is_guest(Meta::Oifname), deny_to(Reason::ToGuest)],
            )],
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

const FROM_GUEST: Way = Way {
    port: Meta::Iifname,
    mac: (6, 0),
    ip: (SOURCE4, DESTINATION4),
    ip6: (SOURCE6, DESTINATION6),
};
const TO_GUEST: Way = Way {
    port: Meta::Oifname,
    mac: (0, 6),
    ip: (DESTINATION4, SOURCE4),
    ip6: (DESTINATION6, SOURCE6),
};

fn between(way: &Way, next: &str, else_deny: Vec<Expression>) -> Vec<Rule> {
    vec![
        rule("IPv4", [ether_type(IPV4), ends(way, way.ip, 4, GUESTS), jump(next)]),
        rule("IPv6", [ether_type(IPV6), ends(way, way.ip6, 16, GUESTS6), jump(next)]),
        rule("anybody or anything else", [else_deny]),
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
        rule("closed ports", [deny(Reason::FromGuest)]),
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
        rule("no answer", [deny_to(Reason::ToGuest)]),
    ]
}

fn is_guest(port: Meta) -> Vec<Expression> {
    vec![Expression::Meta { key: port, to: 0 }, Expression::Equal(GUEST_IFNAME_PREFIX.into())]
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
    l4proto_is(Protocol::Tcp.number())
}

fn is_udp() -> Vec<Expression> {
    l4proto_is(Protocol::Udp.number())
}

fn load_transport(offset: u32, length: u32, to: u32) -> Vec<Expression> {
    vec![Expression::Payload { base: Header::Transport, offset, length, to }]
}

/// What a guest has in the tables.
pub fn guest_entries(rules: &GuestRules) -> Entries {
    let key = |rest: &[u8]| [&ifname(rules.veth.as_str())[..], rest].concat();
    let element = |set, key| Element::new(Family::Bridge, set, key);
    let (guest, bundle) = (&rules.guest, &rules.bundle);
    let ends = [end(guest, &guest.ip.octets()), end(bundle, &bundle.ip.octets())].concat();
    let bridge = ifname(rules.bridge.as_str());
    let mut elements = vec![
        element(GUESTS, key(&ends)),
        Element::new(Family::Inet, BRIDGED, [&bridge[..], &bridge].concat()),
    ];
    if let (Some(ip), Some(other)) = (guest.ip6, bundle.ip6) {
        let ends = [end(guest, &ip.octets()), end(bundle, &other.octets())].concat();
        elements.push(element(GUESTS6, key(&ends)));
    }
    if rules.ports.is_empty() {
        elements.push(named(GUEST_TCP, Family::Bridge, &rules.veth));
    }
    elements.extend(rules.ports.iter().map(|open| {
        let [high, low] = open.port.to_be_bytes();
        let rest = [open.protocol.number(), 0, 0, 0, high, low, 0, 0];
        element(GUEST_PORTS, key(&rest))
    }));
    let counters = Reason::OF_GUEST.map(|r| drop_element(Family::Bridge, &rules.veth, r));
    elements.extend(counters);
    let mut entries = Entries::from(elements);
    if let Some(group) = rules.log_group {
        entries.log(Family::Bridge, &rules.veth, group);
    }
    entries
}

/// Whether it lets a guest and its bundle meet: it is the guest's, though its key is the bridge's.
pub fn is_of_guest(element: &Element) -> bool {
    element.set == BRIDGED && ifname_of(&element.key) == uplink_of(&element.key)
}

/// What a guest's port of that name may have in maps and chains, and this one must not.
pub fn guest_leftover_chains(rules: &GuestRules) -> Entries {
    let mut all = Entries::default();
    all.log(Family::Bridge, &rules.veth, 0);
    all.without(&guest_entries(rules))
}

fn end(end: &End, ip: &[u8]) -> Vec<u8> {
    [&end.mac.octets()[..], &[0, 0], ip].concat()
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
            log_group: Some(7),
        }
    }

    #[test]
    fn keys_have_the_lengths_their_sets_say() {
        let tables = tables();
        for element in guest_entries(&rules(&["tcp/9000", "udp/53"], true)).elements {
            let table = tables.iter().find(|t| t.family == element.family).unwrap();
            let set = table.sets.iter().find(|s| s.name == element.set).unwrap();
            assert_eq!(set.key_length() as usize, element.key.len(), "{}", element.set);
            // NFT_DATA_VALUE_MAXLEN
            assert!(element.key.len() <= 64);
        }
    }

    #[test]
    fn ports_are_named_or_all_of_tcp() {
        let sets = |rules| {
            let elements = guest_entries(&rules).elements;
            let own = elements.iter().filter(|e| GUEST_SETS.contains(&e.set));
            own.map(|e| e.set).collect::<Vec<_>>()
        };
        assert_eq!(sets(rules(&[], false)), [GUESTS, GUEST_TCP]);
        assert_eq!(
            sets(rules(&["tcp/1", "tcp/2"], true)),
            [GUESTS, GUESTS6, GUEST_PORTS, GUEST_PORTS]
        );
    }

    #[test]
    fn every_chain_of_a_guest_ends_closed() {
        for chain in chains() {
            let last = chain.rules.last().unwrap().expressions.last().unwrap();
            let closed = ["denied", "guest_"];
            let jumps = matches!(last, Expression::Jump(next) if closed.iter().any(|c| next.starts_with(c)));
            assert!(jumps, "{}", chain.name);
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
