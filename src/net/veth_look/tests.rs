use std::net::Ipv4Addr;

use super::*;
use crate::presence::Presence;

fn spec(internal: bool) -> Veth {
    Veth {
        name: "cv-x".parse().unwrap(),
        container: "c".parse().unwrap(),
        bridge: "cb-x".parse().unwrap(),
        bridge_mac: MacAddr([2; 6]),
        netns: "/run/netns/c".into(),
        mac: MacAddr([4; 6]),
        address: "10.0.0.2/24".parse().unwrap(),
        peer_mac: MacAddr([6; 6]),
        gateway: Ipv4Addr::new(10, 0, 0, 1),
        address6: None,
        gateway6: None,
        internal,
        meets_ports: false,
        mtu: 1500,
        group: 7,
    }
}

fn seen(spec: &Veth) -> Seen {
    let route = |destination: &str, gateway| RouteFact {
        destination: destination.parse().unwrap(),
        gateway,
        output: Some(2),
        table: 254,
        mtu: None,
    };
    let mut routes = vec![route("10.0.0.0/24", None)];
    if !spec.internal {
        routes.push(route("0.0.0.0/0", Some(spec.gateway.into())));
    }
    let link = Link {
        altnames: vec![spec.container.to_string()],
        mac: Some(spec.mac),
        mtu: spec.mtu,
        group: spec.group,
        up: true,
        controller: Some(3),
        port: vec![InfoBridgePort::Isolated(true), InfoBridgePort::Learning(false)],
        ..Link::default()
    };
    let peer = Link { mac: Some(spec.peer_mac), mtu: spec.mtu, up: true, ..Link::default() };
    Seen {
        link,
        bridge: Some(3),
        fdb: Some(spec.peer_mac),
        neighbours: vec![Some(spec.peer_mac)],
        peer: Some(peer),
        addresses: vec![spec.address.into()],
        routes,
        gateways: vec![Some(spec.bridge_mac)],
    }
}

#[test]
fn a_pair_as_planned_does_not_differ() {
    for spec in [spec(false), spec(true)] {
        assert_eq!(differences(&spec, &seen(&spec)).into_presence(), Presence::Present);
    }
}

#[test]
fn each_difference_is_named() {
    type Break = fn(&mut Seen);
    let cases: [(Break, &str); 9] = [
        (|s| s.link.controller = Some(9), "veth cv-x master"),
        (|s| s.link.port = vec![InfoBridgePort::Learning(true)], "veth cv-x learning"),
        (|s| s.fdb = None, "veth cv-x fdb"),
        (|s| s.neighbours = vec![Some(MacAddr([9; 6]))], "neighbour 10.0.0.2 on cb-x"),
        (|s| s.peer = None, "eth0 of c"),
        (|s| s.addresses.clear(), "eth0 of c inet"),
        (|s| s.routes.clear(), "eth0 of c route default"),
        (|s| s.routes[1].gateway = None, "eth0 of c route default"),
        (|s| s.gateways = vec![None], "neighbour 10.0.0.1 on eth0 of c"),
    ];
    let spec = spec(false);
    for (damage, resource) in cases {
        let mut damaged = seen(&spec);
        damage(&mut damaged);
        match differences(&spec, &damaged).into_presence() {
            Presence::Drifted(drift) => {
                assert_eq!(drift.len(), 1, "{drift:?}");
                assert_eq!(drift[0].resource, resource);
            }
            other => panic!("{resource}: {other:?}"),
        }
    }
}

#[test]
fn an_internal_bundle_must_not_have_a_default_route() {
    let internal = spec(true);
    let open = seen(&spec(false));
    assert!(matches!(differences(&internal, &open).into_presence(), Presence::Drifted(_)));
}
