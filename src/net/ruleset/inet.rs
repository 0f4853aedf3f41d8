//! The table `inet carboy`: what is routed, and what is for the host itself. Pure.

use crate::net::ruleset::words::{
    DENIED, DENIED_TO, accept, count_and_drop, deny, deny_to, destination_is_in, iifname,
    iifname_is_bridge, is_in, is_ipv4, is_ipv6, is_new_and_plain, is_redirected, is_reply, jump,
    oif_is_bridge_not_in, oifname_is_bridge, oifname_is_no_bridge, rule, source4_is_not_in,
    source6_is_not_in, verdict_of,
};
use crate::net::ruleset::{
    BRIDGES, Base, Chain, Expression, Family, GUARDED, GUARDED6, HOOK_FORWARD, HOOK_INPUT,
    HOOK_POSTROUTING, HOST_PORTS, Holds, KeyPart, Meta, Reason, Rule, SRC4, SRC6, Set, Table,
    UPLINKS, UPLINKS6, WAYS, denied_chain, drop_sets, guest,
};

/// Before the filters at priority 0, whose drops stay in force all the same.
const FILTER_PRIORITY: i32 = -5;
/// NF_IP_PRI_NAT_SRC.
const SRCNAT_PRIORITY: i32 = 100;

/// The chain of bridges whose way out is not narrowed.
pub(super) const ANYWHERE: &str = "anywhere";

/// IPv4 destinations that no bundle reaches, whatever its policy says.
const NEVER4: [(&str, &str); 2] = [
    // RFC 3927; cloud metadata services listen there.
    ("link-local", "169.254.0.0/16"),
    ("multicast", "224.0.0.0/4"),
];

/// The same for IPv6.
const NEVER6: [(&str, &str); 6] = [
    ("link-local", "fe80::/10"),
    ("multicast", "ff00::/8"),
    // RFC 4291: no address on any wire; a translator might take it for IPv4.
    ("mapped IPv4", "::ffff:0:0/96"),
    // RFC 6052: 169.254.0.0/16 behind a NAT64.
    ("translated link-local", "64:ff9b::a9fe:0/112"),
    ("metadata of EC2", "fd00:ec2::/32"),
    ("metadata of GCE", "fd20:ce::254/128"),
];

pub(super) fn table() -> Table {
    let base = |kind, hook, priority| Some(Base { kind, hook, priority });
    let hooked = |name: &'static str, base, rules| Chain { name: name.into(), base, rules };
    let set = |name, key, holds| Set { name, key, holds };
    let mut sets = vec![
        set(SRC4, &[KeyPart::Ifname, KeyPart::Ipv4Addr], Holds::Keys),
        set(SRC6, &[KeyPart::Ifname, KeyPart::Ipv6Addr], Holds::Keys),
        set(WAYS, &[KeyPart::Ifname], Holds::Verdicts),
        set(HOST_PORTS, &[KeyPart::Ifname], Holds::Verdicts),
        set(BRIDGES, &[KeyPart::Ifname], Holds::Keys),
        set(GUARDED, &[KeyPart::Ifname], Holds::Keys),
        set(UPLINKS, &[KeyPart::Ifname, KeyPart::Ifname], Holds::Keys),
        set(UPLINKS6, &[KeyPart::Ifname, KeyPart::Ifname], Holds::Keys),
        set(GUARDED6, &[KeyPart::Ifname], Holds::Keys),
    ];
    sets.extend(drop_sets());
    sets.push(guest::bridged_set());
    let out = [iifname_is_bridge(), oifname_is_no_bridge(), vec![Expression::Masquerade]];
    Table {
        family: Family::Inet,
        sets,
        chains: vec![
            denied_chain(DENIED, Meta::Iifname),
            denied_chain(DENIED_TO, Meta::Oifname),
            Chain::plain("never4", never_rules(&NEVER4)),
            Chain::plain("never6", never_rules(&NEVER6)),
            Chain::plain("from", from_rules()),
            Chain::plain(ANYWHERE, anywhere_rules()),
            Chain::plain("to", to_rules()),
            Chain::plain("local", local_rules()),
            hooked("forward", base("filter", HOOK_FORWARD, FILTER_PRIORITY), forward_rules()),
            hooked(
                "input",
                base("filter", HOOK_INPUT, FILTER_PRIORITY),
                vec![rule("from bundles to the host", [iifname_is_bridge(), jump("local")])],
            ),
            hooked(
                "postrouting",
                base("nat", HOOK_POSTROUTING, SRCNAT_PRIORITY),
                vec![rule("bundles go out as the host", out)],
            ),
        ],
    }
}

fn forward_rules() -> Vec<Rule> {
    // Forwarding is on there for the bundles' replies alone.
    let no_router = |comment, family: Vec<Expression>, set| {
        let out = oifname_is_no_bridge();
        rule(comment, [family, iifname(), is_in(set), out, is_new_and_plain(), count_and_drop()])
    };
    vec![
        guest::bridged_rule(),
        rule("from bundles", [iifname_is_bridge(), jump("from")]),
        rule("to bundles", [oifname_is_bridge(), jump("to")]),
        no_router("no router for others", is_ipv4(), GUARDED),
        no_router("no router for others in IPv6", is_ipv6(), GUARDED6),
    ]
}

/// Every packet is judged, those of a connection too: what is closed ends what was open.
fn from_rules() -> Vec<Rule> {
    vec![
        rule("spoofed source", [source4_is_not_in(SRC4), deny(Reason::SpoofedSource)]),
        rule("spoofed IPv6 source", [source6_is_not_in(SRC6), deny(Reason::SpoofedSource)]),
        rule("to another bottle", [oifname_is_bridge(), deny(Reason::OtherBottle)]),
        rule("never", [is_ipv4(), jump("never4")]),
        rule("never in IPv6", [is_ipv6(), jump("never6")]),
        rule("out", [iifname(), verdict_of(WAYS)]),
        rule("no way out", [deny(Reason::InternalNetwork)]),
    ]
}

/// The other bridges of a host are its containers' and virtual machines': to other firewalls a bundle
/// is let through, so it is kept from them here. The host's way out may be a bridge, too.
fn anywhere_rules() -> Vec<Rule> {
    let other_bridge = |comment, family: Vec<Expression>, set| {
        rule(comment, [family, oif_is_bridge_not_in(set), deny(Reason::OtherBridge)])
    };
    vec![
        // To those who came by a DNAT rule of somebody else.
        rule("replies", [is_reply(), accept()]),
        other_bridge("to another bridge", is_ipv4(), UPLINKS),
        other_bridge("to another bridge in IPv6", is_ipv6(), UPLINKS6),
        rule("anywhere else", [accept()]),
    ]
}

fn never_rules(ranges: &[(&'static str, &str)]) -> Vec<Rule> {
    let range = |text: &str| text.parse().expect("the ranges above are ranges");
    ranges
        .iter()
        .map(|(name, text)| rule(*name, [destination_is_in(range(text)), deny(Reason::LinkLocal)]))
        .collect()
}

fn to_rules() -> Vec<Rule> {
    vec![
        rule("replies", [is_reply(), accept()]),
        rule("published by others", [is_redirected(), accept()]),
        rule("unasked for", [deny_to(Reason::UnaskedFor)]),
    ]
}

fn local_rules() -> Vec<Rule> {
    vec![
        rule("spoofed source", [source4_is_not_in(SRC4), deny(Reason::SpoofedSource)]),
        rule("spoofed IPv6 source", [source6_is_not_in(SRC6), deny(Reason::SpoofedSource)]),
        rule("replies", [is_reply(), accept()]),
        rule("open ports", [iifname(), verdict_of(HOST_PORTS)]),
        rule("unasked for", [deny(Reason::HostService)]),
    ]
}
