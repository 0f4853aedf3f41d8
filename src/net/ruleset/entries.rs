//! All that the tables hold about one bridge or one port: elements, and the chains of its own that
//! some of them lead to. Pure.

use crate::names::{BRIDGE_IFNAME_PREFIX, GUEST_IFNAME_PREFIX, IfName, VETH_IFNAME_PREFIX};
use crate::net::policy::{Egress, HostPort, Protocol};
use crate::net::ruleset::element::{
    bridge_element, drop_element, l2, l2_6, named, source, uplink_element,
};
use crate::net::ruleset::guest::BRIDGED;
use crate::net::ruleset::inet::ANYWHERE;
use crate::net::ruleset::words::{
    accept, deny, destination_is_in, destination4_is, destination6_is, l4proto_is, port_is, rule,
};
use crate::net::ruleset::{
    Chain, Element, Expression, Family, HOST_PORTS, LOGGED, Reason, Rule, SRC4, SRC6, UPLINKS,
    UPLINKS6, WAYS, Way,
};
use crate::net::spec::{BridgeRules, PortRules};

/// So many denied packets in a second are told of, and so many at once: enough to see what is
/// wrong, too few to be a load.
const LOG_RATE: u64 = 50;
const LOG_BURST: u32 = 100;
/// Enough for the headers of Ethernet, IPv6 with extensions, and TCP.
const LOG_BYTES: u32 = 128;

/// The chains of a bridge or port: what stands before the interface's name.
const EGRESS: &str = "egress-";
const PORTS: &str = "ports-";
const LOG: &str = "log-";

/// Whether a chain is a bottle's own, by its name.
pub fn is_own_chain(name: &str) -> bool {
    let interface = [EGRESS, PORTS, LOG].iter().find_map(|prefix| name.strip_prefix(prefix));
    interface.is_some_and(|name| {
        [BRIDGE_IFNAME_PREFIX, VETH_IFNAME_PREFIX, GUEST_IFNAME_PREFIX]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    })
}

/// What the tables hold about one bridge or port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// Its elements.
    pub elements: Vec<Element>,
    /// Its chains, each with its table's family.
    pub chains: Vec<(Family, Chain)>,
}

impl Entries {
    /// These and the others.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.elements.extend(others.elements);
        self.chains.extend(others.chains);
        self
    }

    pub(super) fn without(mut self, wanted: &Self) -> Self {
        self.elements.retain(|e| !wanted.elements.iter().any(|w| w.is_place_of(e)));
        let is = |one: &(Family, Chain), other: &(Family, Chain)| {
            (one.0, &one.1.name) == (other.0, &other.1.name)
        };
        self.chains.retain(|c| !wanted.chains.iter().any(|w| is(w, c)));
        self
    }

    /// Adds a chain, and the element of a map that leads to it.
    fn lead(&mut self, element: Element, chain: String, rules: Vec<Rule>) {
        let family = element.family;
        self.elements.push(element.leading(Way::Jump(chain.clone())));
        self.chains.push((family, Chain::plain(chain, rules)));
    }

    pub(super) fn log(&mut self, family: Family, interface: &IfName, group: u16) {
        let expressions = vec![
            Expression::Limit { rate: LOG_RATE, burst: LOG_BURST },
            Expression::Log { group, snaplen: LOG_BYTES },
        ];
        let rules = vec![rule("told of", [expressions])];
        self.lead(named(LOGGED, family, interface), format!("{LOG}{interface}"), rules);
    }
}

impl From<Vec<Element>> for Entries {
    fn from(elements: Vec<Element>) -> Self {
        Self { elements, chains: Vec::new() }
    }
}

/// The sets of the `inet` table whose keys begin with a bridge's name and go on with another one.
pub const BRIDGE_SETS: [&str; 3] = [UPLINKS, UPLINKS6, BRIDGED];

/// What a bridge has.
pub fn bridge_entries(rules: &BridgeRules) -> Entries {
    let bridge = &rules.bridge;
    let mut entries = Entries::default();
    entries.elements.push(bridge_element(bridge));
    for (set, device) in [(UPLINKS, &rules.uplink), (UPLINKS6, &rules.uplink6)] {
        let element = device.as_ref().map(|device| uplink_element(set, bridge, device));
        entries.elements.extend(element);
    }
    let reasons = Reason::OF_BRIDGE.into_iter().filter(|reason| match reason {
        Reason::InternalNetwork => rules.internal,
        Reason::NotInEgress => rules.egress.is_some() && !rules.internal,
        Reason::OtherBridge => rules.egress.is_none() && !rules.internal,
        _ => true,
    });
    entries.elements.extend(reasons.map(|r| drop_element(Family::Inet, bridge, r)));
    match &rules.egress {
        _ if rules.internal => {}
        None => {
            let way = named(WAYS, Family::Inet, bridge).leading(Way::Jump(ANYWHERE.to_owned()));
            entries.elements.push(way);
        }
        Some(list) => entries.lead(
            named(WAYS, Family::Inet, bridge),
            format!("{EGRESS}{bridge}"),
            egress_rules(list),
        ),
    }
    if !rules.host_ports.is_empty() {
        let element = named(HOST_PORTS, Family::Inet, bridge);
        entries.lead(element, format!("{PORTS}{bridge}"), host_port_rules(rules));
    }
    if let Some(group) = rules.log_group {
        entries.log(Family::Inet, bridge, group);
    }
    entries
}

/// What a bridge of that name may have under keys that follow from its name, and this one must not.
pub fn bridge_leftovers(rules: &BridgeRules) -> Entries {
    let all = BridgeRules {
        internal: false,
        egress: Some(Vec::new()),
        host_ports: vec![HostPort { protocol: Protocol::Tcp, port: 1 }],
        log_group: Some(0),
        ..rules.clone()
    };
    let listed = bridge_entries(&all);
    let open = bridge_entries(&BridgeRules { egress: None, ..all.clone() }).without(&listed);
    let internal = bridge_entries(&BridgeRules { internal: true, ..all }).without(&listed);
    listed.and(open).and(internal).without(&bridge_entries(rules))
}

/// What a port has.
pub fn port_entries(rules: &PortRules) -> Entries {
    let mut entries = Entries::default();
    entries.elements.push(source(SRC4, &rules.bridge, &rules.ip.octets()));
    entries.elements.push(l2(&rules.veth, rules.mac, rules.ip));
    if let Some(ip) = rules.ip6 {
        entries.elements.push(source(SRC6, &rules.bridge, &ip.octets()));
        entries.elements.push(l2_6(&rules.veth, rules.mac, ip));
    }
    let counters = Reason::OF_PORT.map(|r| drop_element(Family::Bridge, &rules.veth, r));
    entries.elements.extend(counters);
    if let Some(group) = rules.log_group {
        entries.log(Family::Bridge, &rules.veth, group);
    }
    entries
}

/// What a port of that name may have, and this one must not.
pub fn port_leftovers(rules: &PortRules) -> Entries {
    port_entries(&PortRules { log_group: Some(0), ..rules.clone() }).without(&port_entries(rules))
}

/// The last rule says what the chain is for; without it the packet would be dropped too, by the
/// chain it came from.
fn egress_rules(list: &[Egress]) -> Vec<Rule> {
    let mut single: Vec<Egress> = list.iter().flat_map(one_protocol_each).collect();
    single.sort_unstable();
    single.dedup();
    let mut rules: Vec<Rule> = single
        .iter()
        .map(|egress| {
            let protocol = egress.protocol.map(|p| l4proto_is(p.number())).unwrap_or_default();
            let port = egress.port.map(port_is).unwrap_or_default();
            let destination = destination_is_in(egress.destination);
            rule(egress.to_string(), [destination, protocol, port, accept()])
        })
        .collect();
    rules.push(rule("not in the list", [deny(Reason::NotInEgress)]));
    rules
}

/// Only TCP and UDP have ports: a port without a protocol is one of each.
fn one_protocol_each(egress: &Egress) -> Vec<Egress> {
    match (egress.port, egress.protocol) {
        (Some(_), None) => [Protocol::Tcp, Protocol::Udp]
            .map(|protocol| Egress { protocol: Some(protocol), ..*egress })
            .to_vec(),
        _ => vec![*egress],
    }
}

/// At the bridge's own address alone: the host has others, and the other bottles' gateways.
fn host_port_rules(rules: &BridgeRules) -> Vec<Rule> {
    let gateway4 = ("", destination4_is(rules.gateway));
    let gateway6 = rules.gateway6.map(|ip| (" in IPv6", destination6_is(ip)));
    let gateways: Vec<_> = [gateway4].into_iter().chain(gateway6).collect();
    let mut all = Vec::new();
    for open in &rules.host_ports {
        for (suffix, destination) in &gateways {
            let protocol = l4proto_is(open.protocol.number());
            let parts = [destination.clone(), protocol, port_is(open.port), accept()];
            all.push(rule(format!("{open}{suffix}"), parts));
        }
    }
    all
}
