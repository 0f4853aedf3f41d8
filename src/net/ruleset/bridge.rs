//! The table `bridge carboy`: what may come from a bundle's port, and what may go to it. Pure.

use crate::net::ruleset::words::{
    ARP, DENIED, DENIED_TO, DESTINATION6, IPV4, IPV6, SOURCE4, SOURCE6, accept, deny, deny_to,
    ether_type, has_ip_options, icmp_type, iifname_is_port, is_in, is_not_in, jump, l4proto_is,
    oifname_is_port, owner, rule,
};
use crate::net::ruleset::{
    Base, Chain, Expression, Family, HOOK_POSTROUTING, HOOK_PREROUTING, Header, Holds, KeyPart, L2,
    L2_6, Meta, Reason, Rule, Set, Table, denied_chain, drop_sets,
};

/// NF_BR_PRI_NAT_DST_BRIDGED: before everything else that filters bridged frames.
const BRIDGE_PRIORITY: i32 = -300;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// RFC 792.
const REDIRECT: u8 = 5;
/// Of ICMPv6 messages all from here on are about groups, routers and neighbours (RFC 2710, 4861).
const LISTENER_QUERY: u8 = 130;

pub(super) fn table() -> Table {
    let base = |hook| Some(Base { kind: "filter", hook, priority: BRIDGE_PRIORITY });
    let hooked = |name: &'static str, base, rules| Chain { name: name.into(), base, rules };
    let mut sets = vec![
        Set {
            name: L2,
            key: &[KeyPart::Ifname, KeyPart::EtherAddr, KeyPart::Ipv4Addr],
            holds: Holds::Keys,
        },
        Set {
            name: L2_6,
            key: &[KeyPart::Ifname, KeyPart::EtherAddr, KeyPart::Ipv6Addr],
            holds: Holds::Keys,
        },
    ];
    sets.extend(drop_sets());
    Table {
        family: Family::Bridge,
        sets,
        chains: vec![
            denied_chain(DENIED, Meta::Iifname),
            denied_chain(DENIED_TO, Meta::Oifname),
            Chain::plain("port", port_rules()),
            hooked(
                "prerouting",
                base(HOOK_PREROUTING),
                vec![rule("from bundles", [iifname_is_port(), jump("port")])],
            ),
            hooked("postrouting", base(HOOK_POSTROUTING), vec![to_port_rule()]),
        ],
    }
}

fn port_rules() -> Vec<Rule> {
    // The Ethernet source stands at 6 of the frame, the ARP sender's hardware address at 8 and its
    // IPv4 address at 14 of the ARP header (RFC 826).
    let ethernet = (Header::Link, 6);
    let ipv4 = owner(Meta::Iifname, ethernet, (SOURCE4, 4));
    let arp = owner(Meta::Iifname, (Header::Network, 8), (14, 4));
    let ipv6 = owner(Meta::Iifname, ethernet, (SOURCE6, 16));
    let is = |number: u8| vec![Expression::Equal(vec![number])];
    let at_least = |number: u8| vec![Expression::AtLeast(vec![number])];
    vec![
        // Source routes and router alerts: nothing of a bundle needs them.
        rule("IP options", [ether_type(IPV4), has_ip_options(), deny(Reason::ForeignFrame)]),
        rule(
            "redirects",
            [
                ether_type(IPV4),
                l4proto_is(ICMP),
                icmp_type(),
                is(REDIRECT),
                deny(Reason::RouterMessage),
            ],
        ),
        rule("IPv4 from its owner", [ether_type(IPV4), ipv4, is_in(L2), accept()]),
        rule("ARP from its owner", [ether_type(ARP), arp, is_in(L2), accept()]),
        // Neighbour entries are permanent on both sides.
        rule(
            "neighbour discovery",
            [
                ether_type(IPV6),
                l4proto_is(ICMPV6),
                icmp_type(),
                at_least(LISTENER_QUERY),
                deny(Reason::RouterMessage),
            ],
        ),
        rule("IPv6 from its owner", [ether_type(IPV6), ipv6, is_in(L2_6), accept()]),
        rule("spoofed source", [ether_type(IPV4), deny(Reason::SpoofedSource)]),
        rule("forged ARP", [ether_type(ARP), deny(Reason::ForgedArp)]),
        rule("unwanted IPv6", [ether_type(IPV6), deny(Reason::Ipv6)]),
        rule("foreign frame", [deny(Reason::ForeignFrame)]),
    ]
}

/// Where IPv6 is off the host sends none either, whatever its sysctls say.
fn to_port_rule() -> Rule {
    let ipv6 = owner(Meta::Oifname, (Header::Link, 0), (DESTINATION6, 16));
    rule(
        "IPv6 to its owner alone",
        [oifname_is_port(), ether_type(IPV6), ipv6, is_not_in(L2_6), deny_to(Reason::Ipv6)],
    )
}
