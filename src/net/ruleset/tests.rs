//! Tests of the rule set.

use std::net::Ipv4Addr;

use super::*;
use crate::names::IfName;
use crate::net::spec::{BridgeRules, MacAddr, PortRules};

fn chain(table: &Table, name: &str) -> Chain {
    table.chains.iter().find(|c| c.name == name).cloned().unwrap()
}

#[test]
fn keys_have_the_lengths_their_sets_say() {
    let bridge: IfName = "cb-abcdefghijkl".parse().unwrap();
    let rules = PortRules {
        bridge: bridge.clone(),
        veth: "cv-abcdefghijkl".parse().unwrap(),
        mac: MacAddr([2, 0xb2, 1, 2, 3, 4]),
        ip: Ipv4Addr::new(10, 0, 0, 2),
        ip6: None,
    };
    let mut elements = port_elements(&rules);
    elements.extend(bridge_elements(&BridgeRules {
        bridge,
        gateway: Ipv4Addr::new(10, 0, 0, 1),
        gateway6: None,
        internal: true,
        egress: None,
        host_ports: Vec::new(),
        log_group: None,
    }));
    let sets: Vec<_> =
        tables().iter().flat_map(|t| t.sets.clone().into_iter().map(|s| (t.family, s))).collect();
    assert_eq!(elements.len(), 4);
    for element in elements {
        let set = sets.iter().find(|(f, s)| *f == element.family && s.name == element.set);
        let (_, set) = set.unwrap();
        assert_eq!(set.key_length() as usize, element.key.len(), "{}", element.set);
    }
}

#[test]
fn key_types_are_those_of_nft() {
    let [inet, bridge] = tables();
    let types: Vec<_> =
        inet.sets.iter().chain(&bridge.sets).map(|s| (s.name, s.key_type())).collect();
    let ifname = 41;
    assert_eq!(
        types,
        [
            (SRC4, ifname << 6 | 7),
            (INTERNAL, ifname),
            (BRIDGES, ifname),
            (GUARDED, ifname),
            (L2, ifname << 12 | 9 << 6 | 7)
        ]
    );
}

#[test]
fn every_jump_and_every_set_exists() {
    for table in tables() {
        let chains: Vec<_> = table.chains.iter().map(|c| c.name.to_owned()).collect();
        let sets: Vec<_> = table.sets.iter().map(|s| s.name.to_owned()).collect();
        for expression in
            table.chains.iter().flat_map(|c| &c.rules).flat_map(|rule| &rule.expressions)
        {
            match expression {
                Expression::Jump(chain) => assert!(chains.contains(chain), "{chain}"),
                Expression::In(set) | Expression::NotIn(set) => {
                    assert!(sets.contains(set), "{set}");
                }
                _ => {}
            }
        }
    }
}

#[test]
fn what_comes_from_a_bundle_is_dropped_before_anything_is_accepted() {
    let [inet, bridge] = tables();
    let last = |c: &Chain| c.rules.last().unwrap().expressions.last().cloned();
    for closed in [chain(&inet, "to"), chain(&inet, "local"), chain(&bridge, "port")] {
        assert_eq!(last(&closed), Some(Expression::Drop), "{}", closed.name);
    }
    let from = chain(&inet, "from");
    let accepts = from.rules.iter().position(|r| r.expressions.contains(&Expression::Accept));
    assert_eq!(accepts, Some(from.rules.len() - 1));
    let names: Vec<_> = from.rules.iter().map(|r| r.comment).collect();
    assert_eq!(
        names,
        [
            "not IPv4",
            "spoofed source",
            "to another bottle",
            "internal network",
            "link-local destination",
            "out"
        ]
    );
}

#[test]
fn every_drop_is_counted() {
    for table in tables() {
        for rule in table.chains.iter().flat_map(|c| &c.rules) {
            let drops = rule.expressions.contains(&Expression::Drop);
            let counts = rule.expressions.contains(&Expression::Counter);
            assert_eq!(drops, counts, "{}", rule.comment);
        }
    }
}

#[test]
fn comments_are_unique_in_their_chain() {
    for chain in tables().iter().flat_map(|t| &t.chains) {
        let mut comments: Vec<_> = chain.rules.iter().map(|r| r.comment).collect();
        comments.sort_unstable();
        comments.dedup();
        assert_eq!(comments.len(), chain.rules.len(), "{}", chain.name);
    }
}

#[test]
fn interface_names_come_back_from_keys() {
    let device: IfName = "eth0".parse().unwrap();
    assert_eq!(ifname_of(&guarded_element(&device).key), Some(device));
    assert_eq!(ifname_of(&[0xff; 16]), None);
}
