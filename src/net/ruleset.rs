//! The firewall as values: the static rules every bottle shares, and what a bottle adds. Pure.
//!
//! Two tables of one name, `inet` for what is routed and `bridge` for what a bundle may send on its
//! wire. The rules match by wildcard (`cb-*`, `cv-*`), so that a bridge of which the sets know
//! nothing passes nothing. A bottle costs set elements, and a chain of its own only for what makes
//! it special: an egress list, open ports of the host, a log. One pair of tables serves all
//! prefixes of a host, for the interface names are hashes of full names.

mod bridge;
mod element;
mod entries;
mod expression;
mod guest;
mod inet;
mod reason;
mod words;

use std::borrow::Cow;

pub use element::{
    Element, Way, bridge_element, drop_element, guarded_element, guarded6_element, ifname_of,
    uplink_of,
};
pub use entries::{
    BRIDGE_SETS, Entries, bridge_entries, bridge_leftovers, is_own_chain, port_entries,
    port_leftovers,
};
pub use expression::{Conntrack, Expression, Header, Meta};
pub use guest::{GUEST_SETS, guest_entries, guest_leftover_chains, is_of_guest};
pub use reason::Reason;

/// The name of both tables.
pub const TABLE: &str = "carboy";

/// The comment that marks a table as ours.
pub const TABLE_COMMENT: &str = "carboy sidecar bundles";

/// Bridges and their pinned addresses: `iifname . ip saddr`.
pub const SRC4: &str = "src4";
/// The same for IPv6: `iifname . ip6 saddr`.
pub const SRC6: &str = "src6";
/// Bridges and their way out: accept, or the chain that decides. A bridge without one is internal.
pub const WAYS: &str = "ways";
/// Bridges to which ports of the host are open, and the chain that names the ports.
pub const HOST_PORTS: &str = "host_ports";
/// Every bottle's bridge: while there is one, the shared tables stay.
pub const BRIDGES: &str = "bridges";
/// Bridges and the device they go out through: `iifname . oifname`. While a device is in it,
/// forwarding stays on there.
pub const UPLINKS: &str = "uplinks";
/// The same for IPv6.
pub const UPLINKS6: &str = "uplinks6";
/// Devices on which carboy turned forwarding on.
pub const GUARDED: &str = "guarded";
/// Devices on which carboy turned forwarding of IPv6 on.
pub const GUARDED6: &str = "guarded6";
/// Ports and what may come from them: `iifname . ether saddr . ip saddr`.
pub const L2: &str = "l2";
/// The same for IPv6.
pub const L2_6: &str = "l2_6";
/// In both tables: what was dropped, by bridge or port and by reason; each element counts.
pub const DROPS: &str = "drops";
/// In both tables: bridges or ports whose drops are told of, and the chain that does it.
pub const LOGGED: &str = "logged";

/// The family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// Bridged frames.
    Bridge,
    /// IPv4 alone, as iptables makes its tables.
    Ip,
    /// IPv6 alone.
    Ip6,
}

impl Family {
    /// Its name in nft(8).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Bridge => "bridge",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
        }
    }
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
    /// What it has for each key.
    pub holds: Holds,
}

/// What a set has for each of its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Nothing: it is in or not.
    Keys,
    /// The number of packets that were looked up, and their bytes.
    Counters,
    /// A verdict: it is a map.
    Verdicts,
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
    /// An IPv6 address, 16 bytes.
    Ipv6Addr,
    /// A packet's mark, 4 bytes of the host's order.
    Mark,
    /// A transport protocol's number, 1 byte.
    Protocol,
    /// A port, 2 bytes.
    Port,
}

impl KeyPart {
    /// The type's number in nft(8)'s user space (`TYPE_IFNAME` and so on in nftables'
    /// include/datatype.h) and its padded length.
    const fn number_and_length(self) -> (u32, u32) {
        match self {
            Self::Ifname => (41, 16),
            Self::EtherAddr => (9, 8),
            Self::Ipv4Addr => (7, 4),
            Self::Ipv6Addr => (8, 16),
            Self::Mark => (19, 4),
            Self::Protocol => (12, 4),
            Self::Port => (13, 4),
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
    pub name: Cow<'static, str>,
    /// Where packets enter it; `None` for one that is only jumped to.
    pub base: Option<Base>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// A chain that is only jumped to.
    pub fn plain(name: impl Into<Cow<'static, str>>, rules: Vec<Rule>) -> Self {
        Self { name: name.into(), base: None, rules }
    }
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
    pub comment: Cow<'static, str>,
    /// What it matches and does.
    pub expressions: Vec<Expression>,
}

/// Both tables.
pub fn tables() -> [Table; 2] {
    [inet::table(), bridge::table()]
}

const HOOK_PREROUTING: u32 = 0;
const HOOK_INPUT: u32 = 1;
const HOOK_FORWARD: u32 = 2;
const HOOK_POSTROUTING: u32 = 4;

/// The chain where a denied packet ends: it is counted for its bottle and reason, told of where
/// somebody wants to know, and dropped.
fn denied_chain(name: &'static str, of: Meta) -> Chain {
    let load = || match of {
        Meta::Oifname => words::oifname(),
        _ => words::iifname(),
    };
    let rules = vec![
        words::rule("counted for its bottle", [words::name_and_mark(of), words::is_in(DROPS)]),
        words::rule("told of", [load(), words::verdict_of(LOGGED)]),
        words::rule("dropped", [words::count_and_drop()]),
    ];
    Chain::plain(name, rules)
}

/// The sets that both tables have.
fn drop_sets() -> [Set; 2] {
    [
        Set { name: DROPS, key: &[KeyPart::Ifname, KeyPart::Mark], holds: Holds::Counters },
        Set { name: LOGGED, key: &[KeyPart::Ifname], holds: Holds::Verdicts },
    ]
}

#[cfg(test)]
mod tests;
