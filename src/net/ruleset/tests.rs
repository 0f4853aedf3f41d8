//! Tests of the rule set.

use std::net::Ipv4Addr;

use super::*;
use crate::names::IfName;
use crate::net::spec::{BridgeRules, MacAddr, PortRules};

fn chain(table: &Table, name: &str) -> Chain {
    table.chains.iter().find(|c| c.name == name).cloned().unwrap()
}

fn bridge_rules() -> BridgeRules {
    BridgeRules {
        bridge: "cb-abcdefghijkl".parse().unwrap(),
        gateway: Ipv4Addr::new(10, 0, 0, 1),
        gateway6: None,
        uplink: Some("eth0".parse().unwrap()),
        uplink6: None,
        internal: false,
        egress: None,
        host_ports: Vec::new(),
        log_group: None,
    }
}

fn restricted() -> BridgeRules {
    BridgeRules {
        gateway6: Some("fd00::1".parse().unwrap()),
        uplink6: Some("eth1".parse().unwrap()),
        egress: Some(vec!["10.0.0.0/8:443".parse().unwrap(), "::/0".parse().unwrap()]),
        host_ports: vec!["tcp/80".parse().unwrap()],
        log_group: Some(7),
        ..bridge_rules()
    }
}

fn port_rules() -> PortRules {
    PortRules {
        bridge: "cb-abcdefghijkl".parse().unwrap(),
        veth: "cv-abcdefghijkl".parse().unwrap(),
        mac: MacAddr([2, 0xb2, 1, 2, 3, 4]),
        ip: Ipv4Addr::new(10, 0, 0, 2),
        ip6: Some("fd00::2".parse().unwrap()),
        log_group: Some(7),
    }
}

#[test]
fn elements_are_of_the_shape_their_sets_say() {
    let mut elements = port_entries(&port_rules()).elements;
    for rules in [bridge_rules(), restricted()] {
        elements.extend(bridge_entries(&rules).elements);
    }
    elements.push(guarded_element(&"eth0".parse().unwrap()));
    elements.push(guarded6_element(&"eth0".parse().unwrap()));
    let sets: Vec<_> =
        tables().iter().flat_map(|t| t.sets.clone().into_iter().map(|s| (t.family, s))).collect();
    for element in elements {
        let set = sets.iter().find(|(f, s)| *f == element.family && s.name == element.set);
        let (_, set) = set.unwrap();
        assert_eq!(set.key_length() as usize, element.key.len(), "{}", element.set);
        assert_eq!(set.holds == Holds::Verdicts, element.way.is_some(), "{}", element.set);
    }
}

#[test]
fn key_types_are_those_of_nft() {
    let [inet, bridge] = tables();
    let types: Vec<_> =
        inet.sets.iter().chain(&bridge.sets).map(|s| (s.name, s.key_type())).collect();
    let ifname = 41;
    let ends = |ip: u32| ((((ifname << 6 | 9) << 6 | ip) << 6 | 9) << 6) | ip;
    let both = [(DROPS, ifname << 6 | 19), (LOGGED, ifname)];
    let expected = [
        &[
            (SRC4, ifname << 6 | 7),
            (SRC6, ifname << 6 | 8),
            (WAYS, ifname),
            (HOST_PORTS, ifname),
            (BRIDGES, ifname),
            (GUARDED, ifname),
            (UPLINKS, ifname << 6 | ifname),
            (UPLINKS6, ifname << 6 | ifname),
            (GUARDED6, ifname),
        ][..],
        &both,
        &[("bridged", ifname << 6 | ifname)],
        &[(L2, ifname << 12 | 9 << 6 | 7), (L2_6, ifname << 12 | 9 << 6 | 8)],
        &both,
        &[
            ("guests", ends(7)),
            ("guests6", ends(8)),
            ("guest_ports", ifname << 12 | 12 << 6 | 13),
            ("guest_tcp", ifname),
        ],
    ];
    assert_eq!(types, expected.concat());
}

#[test]
fn every_jump_and_every_set_exists() {
    for table in tables() {
        let chains: Vec<_> = table.chains.iter().map(|c| c.name.to_string()).collect();
        let sets: Vec<_> = table.sets.iter().map(|s| s.name.to_owned()).collect();
        let own = bridge_entries(&restricted()).and(port_entries(&port_rules())).chains;
        let own = own.iter().filter(|(family, _)| *family == table.family).map(|(_, c)| c);
        for expression in
            table.chains.iter().chain(own).flat_map(|c| &c.rules).flat_map(|rule| &rule.expressions)
        {
            match expression {
                Expression::Jump(chain) => assert!(chains.contains(chain), "{chain}"),
                Expression::In(set) | Expression::NotIn(set) | Expression::VerdictOf(set) => {
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
    for closed in
        [chain(&inet, "from"), chain(&inet, "to"), chain(&inet, "local"), chain(&bridge, "port")]
    {
        let last = closed.rules.last().unwrap();
        assert!(denies(last).is_some() && last.expressions.len() == 3, "{}", closed.name);
    }
    let from = chain(&inet, "from");
    assert!(!from.rules.iter().any(|r| r.expressions.contains(&Expression::Accept)));
    let names: Vec<_> = from.rules.iter().map(|r| r.comment.as_ref()).collect();
    assert_eq!(
        names,
        [
            "spoofed source",
            "spoofed IPv6 source",
            "to another bottle",
            "never",
            "never in IPv6",
            "out",
            "no way out"
        ]
    );
}

/// The reason, if the rule ends a packet's way.
fn denies(rule: &Rule) -> Option<Reason> {
    match rule.expressions.as_slice() {
        [.., Expression::Load(mark), Expression::SetMark, Expression::Jump(chain)]
            if chain.starts_with("denied") =>
        {
            Reason::of_mark(u32::from_ne_bytes(*mark.first_chunk().unwrap()))
        }
        _ => None,
    }
}

#[test]
fn every_drop_is_counted() {
    for table in tables() {
        let mut told = Vec::new();
        for chain in &table.chains {
            for rule in &chain.rules {
                let drops = rule.expressions.contains(&Expression::Drop);
                let counts = rule.expressions.contains(&Expression::Counter);
                assert_eq!(drops, counts, "{}", rule.comment);
                told.extend(denies(rule));
            }
        }
        let of = match table.family {
            Family::Inet => Reason::OF_BRIDGE.to_vec(),
            Family::Bridge => [&Reason::OF_PORT[..], &Reason::OF_GUEST].concat(),
            Family::Ip | Family::Ip6 => Vec::new(),
        };
        // What has no counter of its own would be missing in the sums.
        assert!(told.iter().all(|reason| of.contains(reason)), "{told:?}");
    }
}

#[test]
fn a_way_out_follows_the_policy() {
    let way = |rules: &BridgeRules| {
        let entries = bridge_entries(rules);
        entries.elements.into_iter().find(|e| e.set == WAYS).map(|e| e.way)
    };
    assert_eq!(way(&bridge_rules()), Some(Some(Way::Jump("anywhere".to_owned()))));
    let chain = "egress-cb-abcdefghijkl".to_owned();
    assert_eq!(way(&restricted()), Some(Some(Way::Jump(chain))));
    assert_eq!(way(&BridgeRules { internal: true, ..bridge_rules() }), None);
    // An empty list is a list: nothing is reached.
    let none = BridgeRules { egress: Some(Vec::new()), ..bridge_rules() };
    let rules = &bridge_entries(&none).chains[0].1.rules;
    assert_eq!(rules.iter().map(denies).collect::<Vec<_>>(), [Some(Reason::NotInEgress)]);
}

#[test]
fn lists_become_rules_in_order() {
    let comments = |rules: &BridgeRules, prefix: &str| {
        let chains = bridge_entries(rules).chains;
        let chain = chains.into_iter().find(|(_, c)| c.name.starts_with(prefix)).unwrap().1;
        chain.rules.into_iter().map(|r| r.comment.into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        comments(&restricted(), "egress-"),
        ["10.0.0.0/8:443/tcp", "10.0.0.0/8:443/udp", "::/0", "not in the list"]
    );
    assert_eq!(comments(&restricted(), "ports-"), ["tcp/80", "tcp/80 in IPv6"]);
    // A port of both protocols and one of them are not two.
    let twice = BridgeRules {
        egress: Some(vec!["1.2.3.4:5".parse().unwrap(), "1.2.3.4:5/tcp".parse().unwrap()]),
        ..bridge_rules()
    };
    assert_eq!(comments(&twice, "egress-").len(), 3);
}

#[test]
fn entries_and_leftovers_are_all_that_there_can_be() {
    let names = |entries: Entries| {
        let elements = entries.elements.into_iter().map(|e| format!("{} {:?}", e.set, e.key));
        let chains = entries.chains.into_iter().map(|(_, chain)| chain.name.into_owned());
        let mut all: Vec<String> = elements.chain(chains).collect();
        all.sort();
        all
    };
    let plain = BridgeRules { uplink6: restricted().uplink6, ..bridge_rules() };
    let internal = BridgeRules { internal: true, ..restricted() };
    let all: Vec<_> = [plain, restricted(), internal]
        .iter()
        .map(|rules| names(bridge_entries(rules).and(bridge_leftovers(rules))))
        .collect();
    assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    assert_eq!(all[0].iter().filter(|name| is_own_chain(name)).count(), 3);
    let port = port_rules();
    assert_eq!(port_leftovers(&port), Entries::default());
    let quiet = PortRules { log_group: None, ..port };
    assert_eq!(port_leftovers(&quiet).chains[0].1.name, "log-cv-abcdefghijkl");
}

#[test]
fn only_a_bottles_chains_are_its_own() {
    for table in tables() {
        assert!(!table.chains.iter().any(|c| is_own_chain(&c.name)));
    }
    assert!(!is_own_chain("egress-eth0"));
}

#[test]
fn comments_are_unique_in_their_chain() {
    for chain in tables().iter().flat_map(|t| &t.chains) {
        let mut comments: Vec<_> = chain.rules.iter().map(|r| r.comment.as_ref()).collect();
        comments.sort_unstable();
        comments.dedup();
        assert_eq!(comments.len(), chain.rules.len(), "{}", chain.name);
    }
}

#[test]
fn only_what_a_guest_needs_to_meet_its_bundle_is_of_a_guest() {
    let bridged = |from: &str, to: &str| {
        let (from, to): (IfName, IfName) = (from.parse().unwrap(), to.parse().unwrap());
        element::uplink_element(guest::BRIDGED, &from, &to)
    };
    assert!(is_of_guest(&bridged("cb-a", "cb-a")));
    assert!(!is_of_guest(&bridged("cb-a", "cb-b")));
    let same: IfName = "cb-a".parse().unwrap();
    assert!(!is_of_guest(&element::uplink_element(UPLINKS, &same, &same)));
}

#[test]
fn keys_are_told_in_words() {
    let words = |entries: Entries, set: &str| {
        let element = entries.elements.into_iter().find(|e| e.set == set).unwrap();
        element.key_words()
    };
    let port = || port_entries(&port_rules());
    assert_eq!(words(port(), L2), "cv-abcdefghijkl . 02:b2:01:02:03:04 . 10.0.0.2");
    assert_eq!(words(port(), SRC6), "cb-abcdefghijkl . fd00::2");
    assert_eq!(words(bridge_entries(&bridge_rules()), UPLINKS), "cb-abcdefghijkl . eth0");
}

#[test]
fn interface_names_come_back_from_keys() {
    let device: IfName = "eth0".parse().unwrap();
    let bridge: IfName = "cb-a".parse().unwrap();
    assert_eq!(
        uplink_of(&element::uplink_element(UPLINKS, &bridge, &device).key),
        Some(device.clone())
    );
    assert_eq!(uplink_of(&bridge_element(&bridge).key), None);
    assert_eq!(ifname_of(&guarded_element(&device).key), Some(device));
    assert_eq!(ifname_of(&[0xff; 16]), None);
}
