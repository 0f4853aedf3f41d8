//! What is dropped is counted for its bottle and reason, and told to whoever listens.

use std::net::Ipv4Addr;

use carboy::net::spec::{BridgeRules, Firewall, MacAddr, PortRules};
use carboy::net::{bridge_rules, firewall, port_rules};
use carboy::presence::{Creation, Presence, Removal};

use super::{Bottle, FORBIDDEN, LAST, PORT};
use crate::common::bottle::{down, inspect};
use crate::common::wire::Wire;
use crate::common::{TestHost, netns};

#[test]
fn each_bottle_has_counts_of_its_own() {
    let host = TestHost::new();
    let (one, two) = (Bottle::up(&host, "one", &[]), Bottle::up(&host, "two", &[]));
    let zero = inspect(&host, "one")["drops"].clone();
    let reasons: Vec<&String> = zero.as_object().unwrap().keys().collect();
    assert_eq!(
        reasons,
        [
            "foreign-frame",
            "forged-arp",
            "host-service",
            "ipv6",
            "link-local",
            "other-bottle",
            "other-bridge",
            "router-message",
            "spoofed-source",
            "unasked-for"
        ]
    );
    let frame = one.datagram(one.gateway, PORT, FORBIDDEN);
    for _ in 0..3 {
        one.wire().send(&frame);
    }
    let drops = &inspect(&host, "one")["drops"];
    assert_eq!(drops["host-service"]["packets"], 3);
    assert_eq!(drops["host-service"]["bytes"], 3 * (frame.len() - 14));
    assert_eq!(inspect(&host, "two")["drops"], zero);
    let wide = host.carboy(&["ps", "--wide"]).ok().stdout();
    let column: Vec<&str> =
        wide.lines().map(|line| line.split_whitespace().last().unwrap()).collect();
    assert_eq!(column, ["DROPPED", "3", "0"], "{wide}");
    assert!(!host.carboy(&["ps"]).ok().stdout().contains("DROPPED"));
    let wide = host.carboy(&["ps", "--wide", "--json"]).ok().stdout_json();
    assert_eq!(wide[0]["drops"]["host-service"]["packets"], 3);
    // The rules that all share are made anew; what the bottles have stays, and its counts.
    host.run(["nft", "flush", "chain", "inet", "carboy", "from"]).ok();
    assert_eq!(host.carboy(&["up", "--json", "two"]).ok().stdout_json()["changed"], true);
    assert_eq!(one.dropped(&host, "host-service"), 3);
    assert_eq!(two.dropped(&host, "host-service"), 0);
    for slug in ["one", "two"] {
        assert_eq!(host.carboy(&["up", "--json", slug]).ok().stdout_json()["changed"], false);
        down(&host, slug);
    }
}

/// Without the bottle's entries its counts are unknown, not zero, and `up` begins anew.
#[test]
fn no_firewall_no_counts() {
    let host = TestHost::new();
    let bottle = Bottle::up(&host, "demo", &[]);
    host.run(["nft", "flush", "ruleset"]).ok();
    assert_eq!(inspect(&host, "demo")["drops"], serde_json::json!({}));
    host.carboy(&["up", "demo"]).ok();
    assert_eq!(bottle.dropped(&host, "host-service"), 0);
    down(&host, "demo");
}

/// The rules of a bottle that is logged, as the kernel has them; and that they go again.
#[test]
fn a_log_is_a_chain_of_the_bottles_own() {
    let host = TestHost::new();
    let rules = BridgeRules {
        bridge: "cb-abcdefghijkl".parse().unwrap(),
        gateway: Ipv4Addr::new(10, 0, 0, 1),
        gateway6: Some("fd00::1".parse().unwrap()),
        uplink: None,
        uplink6: None,
        internal: false,
        egress: Some(vec!["[2001:db8::/32]:53/udp".parse().unwrap()]),
        host_ports: vec!["tcp/80".parse().unwrap()],
        log_group: Some(321),
    };
    let port = PortRules {
        bridge: rules.bridge.clone(),
        veth: "cv-abcdefghijkl".parse().unwrap(),
        mac: MacAddr([2, 0xb2, 10, 0, 0, 2]),
        ip: Ipv4Addr::new(10, 0, 0, 2),
        ip6: Some("fd00::2".parse().unwrap()),
        log_group: Some(321),
    };
    let table = Firewall {};
    netns::inside(&host.netns(None), || {
        firewall::create(&table).unwrap();
        for _ in 0..2 {
            assert_eq!(bridge_rules::create(&rules).unwrap(), Creation::Created);
            assert_eq!(port_rules::create(&port).unwrap(), Creation::Created);
            assert_eq!(bridge_rules::create(&rules).unwrap(), Creation::Exists);
            assert_eq!(bridge_rules::observe(&rules).unwrap(), Presence::Present);
            assert_eq!(port_rules::observe(&port).unwrap(), Presence::Present);
            assert_eq!(firewall::observe(&table).unwrap(), Presence::Present);
            let listed = host.run(["nft", "list", "ruleset"]).ok().stdout();
            let told = "limit rate 50/second burst 100 packets log group 321 snaplen 128";
            assert_eq!(listed.matches(told).count(), 2, "{listed}");
            assert!(listed.contains("ip6 daddr fd00::1 tcp dport 80 accept"), "{listed}");
            assert!(listed.contains("ip6 daddr 2001:db8::/32 udp dport 53 accept"), "{listed}");
            // Another policy is a difference, put right in one step.
            let plain = BridgeRules {
                internal: true,
                egress: None,
                host_ports: Vec::new(),
                log_group: None,
                ..rules.clone()
            };
            let Presence::Drifted(drift) = bridge_rules::observe(&plain).unwrap() else {
                panic!("another policy must differ")
            };
            bridge_rules::repair(&plain, &drift).unwrap();
            assert_eq!(bridge_rules::observe(&plain).unwrap(), Presence::Present);
            assert_eq!(firewall::observe(&table).unwrap(), Presence::Present);
            // What is removed is all there can be, whatever the spec says.
            assert_eq!(bridge_rules::remove(&rules).unwrap(), Removal::Removed);
            let quiet = PortRules { log_group: None, ..port.clone() };
            assert_eq!(port_rules::remove(&quiet).unwrap(), Removal::Removed);
            assert_eq!(bridge_rules::observe(&rules).unwrap(), Presence::Absent);
            assert_eq!(bridge_rules::remove(&rules).unwrap(), Removal::Absent);
        }
        assert_eq!(firewall::remove(&table).unwrap(), Removal::Removed);
    });
}

/// IPv6 of the pinned address passes the port, and nothing else of it.
#[test]
fn the_pinned_ipv6_address_is_the_only_one() {
    use crate::common::wire::{ICMPV6, IPV6, UDP, contains, ethernet, icmp, ipv6, udp};
    let host = TestHost::new();
    let bottle = Bottle::up(
        &host,
        "demo",
        &["--subnet", "10.9.8.0/24", "--subnet", "fd00:9:8::/64", "--ip6", "fd00:9:8::2"],
    );
    let (own, gateway) = ("fd00:9:8::2".parse().unwrap(), "fd00:9:8::1".parse().unwrap());
    let other = "fd00:9:8::3".parse().unwrap();
    let frame = |packet: &[u8]| ethernet(bottle.gateway_mac, bottle.mac, IPV6, packet);
    let wire = bottle.wire();
    let bridge = Wire::new(&host.netns(None), &bottle.bridge);
    // More than the few reports of multicast groups that the kernel sends by itself.
    const EACH: u64 = 20;
    for _ in 0..EACH {
        wire.send(&frame(&ipv6(other, gateway, UDP, &udp(PORT, FORBIDDEN))));
        wire.send(&frame(&ipv6(own, gateway, ICMPV6, &icmp(136, FORBIDDEN))));
    }
    wire.send(&frame(&ipv6(own, gateway, UDP, &udp(PORT, LAST))));
    assert!(bridge.until(LAST, |f| contains(f, FORBIDDEN)).is_empty());
    assert!(bottle.dropped(&host, "ipv6") >= EACH);
    assert!(bottle.dropped(&host, "router-message") >= EACH);
    down(&host, "demo");
}
