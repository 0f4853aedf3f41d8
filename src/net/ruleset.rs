//! The firewall as values: the static rules every bottle shares, and a bottle's set elements. Pure.
//!
//! Two tables of one name, `inet` for what is routed and `bridge` for what a bundle may send on its
//! wire. The rules match by wildcard (`cb-*`, `cv-*`), so that a bridge of which the sets know
//! nothing passes nothing; a bottle costs set elements alone. One pair of tables serves all
//! prefixes of a host, for the interface names are hashes of full names.

mod element;
mod expression;

pub use element::{
    Element, bridge_element, bridge_elements, guarded_element, guarded6_element, ifname_of,
    internal_element, port_elements,
};
pub use expression::{Conntrack, Expression, Header, Meta};

use crate::names::{BRIDGE_IFNAME_PREFIX, VETH_IFNAME_PREFIX};

/// The name of both tables.
pub const TABLE: &str = "carboy";

/// The comment that marks a table as ours.
pub const TABLE_COMMENT: &str = "carboy sidecar bundles";

/// Bridges and their pinned addresses: `iifname . ip saddr`.
pub const SRC4: &str = "src4";
/// Bridges that have no way out.
pub const INTERNAL: &str = "internal";
/// Every bottle's bridge: while there is one, the shared tables stay.
pub const BRIDGES: &str = "bridges";
/// Devices on which carboy turned forwarding on.
pub const GUARDED: &str = "guarded";
/// Bridges with IPv6: while there is one, IPv6 forwarding stays on.
pub const BRIDGES6: &str = "bridges6";
/// Devices on which carboy turned IPv6 forwarding on.
pub const GUARDED6: &str = "guarded6";
/// Ports and what may come from them: `iifname . ether saddr . ip saddr`.
pub const L2: &str = "l2";

/// The family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// Bridged frames.
    Bridge,
}

/// A table with all that is static in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its family.
    pub family: Family,
    /// Its sets; their elements are the bottles'.
    pub sets: Vec<Set>,
    /// Its chains with their rules.
    pub chains: Vec<Chain>,
}

/// A set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: &'static str,
    /// What its keys consist of.
    pub key: &'static [KeyPart],
}

/// A part of a key; each is padded to four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// An interface name, 16 bytes.
    Ifname,
    /// An Ethernet address, 6 bytes.
    EtherAddr,
    /// An IPv4 address, 4 bytes.
    Ipv4Addr,
}

impl KeyPart {
    /// The type's number in nft(8)'s user space (`TYPE_IFNAME` and so on in nftables'
    /// include/datatype.h) and its padded length.
    const fn number_and_length(self) -> (u32, u32) {
        match self {
            Self::Ifname => (41, 16),
            Self::EtherAddr => (9, 8),
            Self::Ipv4Addr => (7, 4),
        }
    }
}

impl Set {
    /// The key's type as nft(8) writes it: six bits for each part.
    pub fn key_type(&self) -> u32 {
        self.key.iter().fold(0, |all, part| (all << 6) | part.number_and_length().0)
    }

    /// The key's length in bytes.
    pub fn key_length(&self) -> u32 {
        self.key.iter().map(|part| part.number_and_length().1).sum()
    }
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: &'static str,
    /// Where packets enter it; `None` for one that is only jumped to.
    pub base: Option<Base>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// Where packets enter a chain. The policy is always accept: only what is ours is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// The hook's number (`NF_INET_*`, or `NF_BR_*` in the bridge family).
    pub hook: u32,
    /// Lower is earlier.
    pub priority: i32,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Names it, as its comment.
    pub comment: &'static str,
    /// What it matches and does.
    pub expressions: Vec<Expression>,
}

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)` and that of `IP_CT_RELATED`.
const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
/// `IPS_DST_NAT`.
const DST_NAT: u32 = 1 << 5;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];

/// Before the filters at priority 0, whose drops stay in force all the same.
const FILTER_PRIORITY: i32 = -5;
/// NF_IP_PRI_NAT_SRC.
const SRCNAT_PRIORITY: i32 = 100;
/// NF_BR_PRI_NAT_DST_BRIDGED: before everything else that filters bridged frames.
const BRIDGE_PRIORITY: i32 = -300;

const HOOK_PREROUTING: u32 = 0;
const HOOK_INPUT: u32 = 1;
const HOOK_FORWARD: u32 = 2;
const HOOK_POSTROUTING: u32 = 4;

/// Both tables.
pub fn tables() -> [Table; 2] {
    [inet(), bridge()]
}

fn inet() -> Table {
    let base = |kind, hook, priority| Some(Base { kind, hook, priority });
    let chain = |name, base, rules| Chain { name, base, rules };
    Table {
        family: Family::Inet,
        sets: vec![
            Set { name: SRC4, key: &[KeyPart::Ifname, KeyPart::Ipv4Addr] },
            Set { name: INTERNAL, key: &[KeyPart::Ifname] },
            Set { name: BRIDGES, key: &[KeyPart::Ifname] },
            Set { name: GUARDED, key: &[KeyPart::Ifname] },
            Set { name: BRIDGES6, key: &[KeyPart::Ifname] },
            Set { name: GUARDED6, key: &[KeyPart::Ifname] },
        ],
        chains: vec![
            chain("from", None, from_rules()),
            chain("to", None, to_rules()),
            chain("local", None, local_rules()),
            chain("forward", base("filter", HOOK_FORWARD, FILTER_PRIORITY), forward_rules()),
            chain(
                "input",
                base("filter", HOOK_INPUT, FILTER_PRIORITY),
                vec![rule("from bundles to the host", [iifname_is_bridge(), jump("local")])],
            ),
            chain(
                "postrouting",
                base("nat", HOOK_POSTROUTING, SRCNAT_PRIORITY),
                vec![rule(
                    "bundles go out as the host",
                    [iifname_is_bridge(), oifname_is_no_bridge(), vec![Expression::Masquerade]],
                )],
            ),
        ],
    }
}

fn forward_rules() -> Vec<Rule> {
    vec![
        rule("from bundles", [iifname_is_bridge(), jump("from")]),
        rule("to bundles", [oifname_is_bridge(), jump("to")]),
        no_router("no router for others", is_ipv4(), GUARDED),
        no_router("no IPv6 router for others", is_ipv6(), GUARDED6),
    ]
}

/// Forwarding is on there for the bundles' replies alone.
fn no_router(comment: &'static str, family: Vec<Expression>, guarded: &str) -> Rule {
    rule(
        comment,
        [
            family,
            load_iifname(),
            vec![Expression::In(guarded.to_owned())],
            oifname_is_no_bridge(),
            connection_has_no(Conntrack::State, ESTABLISHED_OR_RELATED),
            connection_has_no(Conntrack::Status, DST_NAT),
            count_and_drop(),
        ],
    )
}

fn from_rules() -> Vec<Rule> {
    vec![
        rule("not IPv4", [is_not_ipv4(), count_and_drop()]),
        rule("spoofed source", [source_is_not_pinned(), count_and_drop()]),
        rule("to another bottle", [oifname_is_bridge(), count_and_drop()]),
        rule(
            "internal network",
            [load_iifname(), vec![Expression::In(INTERNAL.to_owned())], count_and_drop()],
        ),
        rule("link-local destination", [destination_is_link_local(), count_and_drop()]),
        rule("out", [vec![Expression::Accept]]),
    ]
}

fn to_rules() -> Vec<Rule> {
    vec![
        rule(
            "replies",
            [connection_has(Conntrack::State, ESTABLISHED_OR_RELATED), vec![Expression::Accept]],
        ),
        rule(
            "published by others",
            [connection_has(Conntrack::Status, DST_NAT), vec![Expression::Accept]],
        ),
        rule("unasked for", [count_and_drop()]),
    ]
}

fn local_rules() -> Vec<Rule> {
    vec![
        rule("not IPv4", [is_not_ipv4(), count_and_drop()]),
        rule("spoofed source", [source_is_not_pinned(), count_and_drop()]),
        rule(
            "replies",
            [connection_has(Conntrack::State, ESTABLISHED_OR_RELATED), vec![Expression::Accept]],
        ),
        rule("unasked for", [count_and_drop()]),
    ]
}

fn bridge() -> Table {
    let port_rules = vec![
        // The Ethernet source stands at 6, the IPv4 source at 12 (RFC 791).
        rule("IPv4 from its owner", sender(ETHERTYPE_IPV4, (Header::Link, 6), 12)),
        // The ARP sender's hardware address stands at 8, its IPv4 address at 14 (RFC 826).
        rule("ARP from its owner", sender(ETHERTYPE_ARP, (Header::Network, 8), 14)),
        rule("spoofed or foreign", [count_and_drop()]),
    ];
    let is_port = vec![
        Expression::Meta { key: Meta::Iifname, to: 0 },
        Expression::Equal(VETH_IFNAME_PREFIX.into()),
    ];
    Table {
        family: Family::Bridge,
        sets: vec![Set {
            name: L2,
            key: &[KeyPart::Ifname, KeyPart::EtherAddr, KeyPart::Ipv4Addr],
        }],
        chains: vec![
            Chain { name: "port", base: None, rules: port_rules },
            Chain {
                name: "prerouting",
                base: Some(Base {
                    kind: "filter",
                    hook: HOOK_PREROUTING,
                    priority: BRIDGE_PRIORITY,
                }),
                rules: vec![rule("from bundles", [is_port, jump("port")])],
            },
        ],
    }
}

fn rule(comment: &'static str, parts: impl IntoIterator<Item = Vec<Expression>>) -> Rule {
    Rule { comment, expressions: parts.into_iter().flatten().collect() }
}

fn load_iifname() -> Vec<Expression> {
    vec![Expression::Meta { key: Meta::Iifname, to: 0 }]
}

/// A comparison with less than a whole name is nft's wildcard.
fn iifname_is_bridge() -> Vec<Expression> {
    let name = Expression::Meta { key: Meta::Iifname, to: 0 };
    vec![name, Expression::Equal(BRIDGE_IFNAME_PREFIX.into())]
}

fn oifname_is_bridge() -> Vec<Expression> {
    let name = Expression::Meta { key: Meta::Oifname, to: 0 };
    vec![name, Expression::Equal(BRIDGE_IFNAME_PREFIX.into())]
}

fn oifname_is_no_bridge() -> Vec<Expression> {
    let name = Expression::Meta { key: Meta::Oifname, to: 0 };
    vec![name, Expression::Differs(BRIDGE_IFNAME_PREFIX.into())]
}

fn is_ipv4() -> Vec<Expression> {
    let family = Expression::Meta { key: Meta::Nfproto, to: 0 };
    vec![family, Expression::Equal(vec![NFPROTO_IPV4])]
}

fn is_ipv6() -> Vec<Expression> {
    let family = Expression::Meta { key: Meta::Nfproto, to: 0 };
    vec![family, Expression::Equal(vec![NFPROTO_IPV6])]
}

fn is_not_ipv4() -> Vec<Expression> {
    let family = Expression::Meta { key: Meta::Nfproto, to: 0 };
    vec![family, Expression::Differs(vec![NFPROTO_IPV4])]
}

/// Only IPv4 comes here; `is_ipv4` lets `nft list` print the field's name.
fn source_is_not_pinned() -> Vec<Expression> {
    let mut expressions = is_ipv4();
    expressions.extend([
        Expression::Meta { key: Meta::Iifname, to: 0 },
        Expression::Payload { base: Header::Network, offset: 12, length: 4, to: 4 },
        Expression::NotIn(SRC4.to_owned()),
    ]);
    expressions
}

/// 169.254.0.0/16 (RFC 3927): cloud metadata services listen there.
fn destination_is_link_local() -> Vec<Expression> {
    let mut expressions = is_ipv4();
    expressions.extend([
        Expression::Payload { base: Header::Network, offset: 16, length: 4, to: 0 },
        Expression::Mask(vec![255, 255, 0, 0]),
        Expression::Equal(vec![169, 254, 0, 0]),
    ]);
    expressions
}

fn connection_has(key: Conntrack, bits: u32) -> Vec<Expression> {
    let mask = bits.to_ne_bytes().to_vec();
    let zero = 0u32.to_ne_bytes().to_vec();
    vec![Expression::Connection { key, to: 0 }, Expression::Mask(mask), Expression::Differs(zero)]
}

fn connection_has_no(key: Conntrack, bits: u32) -> Vec<Expression> {
    let mask = bits.to_ne_bytes().to_vec();
    let zero = 0u32.to_ne_bytes().to_vec();
    vec![Expression::Connection { key, to: 0 }, Expression::Mask(mask), Expression::Equal(zero)]
}

fn sender(ethertype: [u8; 2], (base, offset): (Header, u32), ip: u32) -> [Vec<Expression>; 1] {
    [vec![
        Expression::Meta { key: Meta::Protocol, to: 0 },
        Expression::Equal(ethertype.to_vec()),
        Expression::Meta { key: Meta::Iifname, to: 0 },
        Expression::Payload { base, offset, length: 6, to: 4 },
        Expression::Payload { base: Header::Network, offset: ip, length: 4, to: 6 },
        Expression::In(L2.to_owned()),
        Expression::Accept,
    ]]
}

fn jump(chain: &str) -> Vec<Expression> {
    vec![Expression::Jump(chain.to_owned())]
}

fn count_and_drop() -> Vec<Expression> {
    vec![Expression::Counter, Expression::Drop]
}

#[cfg(test)]
mod tests;
