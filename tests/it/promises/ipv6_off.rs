//! While IPv6 is off there is none: not even link-local, in either direction.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::{Bottle, FORBIDDEN, LAST, PORT, assert_only_last_passes};
use crate::common::TestHost;
use crate::common::bottle::{HEALTH, assert_answers, down};
use crate::common::netns;
use crate::common::uplink::OUTSIDE;
use crate::common::wire::{
    ICMPV6, IPV6, Mac, UDP, Wire, contains, ethernet, icmp, ipv6, kind, udp,
};

/// All nodes of a link (RFC 4291).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
const GLOBAL: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

#[test]
fn nothing_of_it_is_ever_on_the_wire() {
    let host = TestHost::new();
    // The bridge stays with the network, so that all of the bundle's start is seen.
    host.carboy(&["network", "create", "claude-bottle-bundle-demo"]).ok();
    let bridge = &host.json(["ip", "-j", "link", "show", "claude-bottle-bundle-demo"])[0];
    let bridge = Wire::new(&host.netns(None), bridge["ifname"].as_str().unwrap());
    let bottle = Bottle::up(&host, "demo", &[]);
    let inside = bottle.wire();
    assert_answers(&host, &bottle.up, HEALTH);
    // Duplicate address detection and router solicitations would come within the first seconds.
    let frames = [bridge.during(Duration::from_secs(3)), inside.during(Duration::ZERO)].concat();
    assert!(frames.iter().any(|frame| kind(frame) != IPV6));
    let ipv6: Vec<_> = frames.iter().filter(|frame| kind(frame) == IPV6).collect();
    assert!(ipv6.is_empty(), "{ipv6:02x?}");
    down(&host, "demo");
}

#[test]
fn a_bundle_that_speaks_it_is_not_heard() {
    let mut host = TestHost::new();
    host.uplink();
    let bottle = Bottle::up(&host, "demo", &[]);
    let to_gateway = |packet: &[u8]| ethernet(bottle.gateway_mac, bottle.mac, IPV6, packet);
    let to_all = |packet: &[u8]| ethernet(ALL_NODES_MAC, bottle.mac, IPV6, packet);
    let frames = [
        ("link-local", to_all(&ipv6(LINK_LOCAL, ALL_NODES, UDP, &udp(PORT, FORBIDDEN)))),
        ("global", to_gateway(&ipv6(GLOBAL, GLOBAL, UDP, &udp(PORT, FORBIDDEN)))),
        ("an echo", to_all(&ipv6(LINK_LOCAL, ALL_NODES, ICMPV6, &icmp(128, FORBIDDEN)))),
        ("a solicitation", to_all(&ipv6(LINK_LOCAL, ALL_NODES, ICMPV6, &icmp(135, FORBIDDEN)))),
        ("an advertisement", to_all(&ipv6(LINK_LOCAL, ALL_NODES, ICMPV6, &icmp(136, FORBIDDEN)))),
        ("a router", to_all(&ipv6(LINK_LOCAL, ALL_NODES, ICMPV6, &icmp(134, FORBIDDEN)))),
        ("a redirect", to_all(&ipv6(LINK_LOCAL, ALL_NODES, ICMPV6, &icmp(137, FORBIDDEN)))),
        ("a listener", to_all(&ipv6(LINK_LOCAL, ALL_NODES, ICMPV6, &icmp(143, FORBIDDEN)))),
    ];
    let last = bottle.datagram(OUTSIDE, PORT, LAST);
    let bridge = Wire::new(&host.netns(None), &bottle.bridge);
    assert_only_last_passes(&bottle.wire(), &frames, &last, &bridge);
    assert_eq!(bottle.dropped(&host, "ipv6"), 3);
    assert_eq!(bottle.dropped(&host, "router-message"), 5);
    down(&host, "demo");
}

/// An administrator turns it on again, for the host's side of the wire.
#[test]
fn the_host_says_nothing_in_it_either() {
    let host = TestHost::new();
    let bottle = Bottle::up(&host, "demo", &[]);
    let host_end = Wire::new(&host.netns(None), &bottle.bridge);
    let inside = bottle.wire();
    let frame = |content| {
        let packet = ipv6(LINK_LOCAL, ALL_NODES, UDP, &udp(PORT, content));
        ethernet(ALL_NODES_MAC, bottle.gateway_mac, IPV6, &packet)
    };
    let path = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", bottle.bridge);
    netns::inside(&host.netns(None), || std::fs::write(path, "0").unwrap());
    host.run(["ip", "address", "add", "fe80::1/64", "dev", &bottle.bridge, "nodad"]).ok();
    host_end.send(&frame(FORBIDDEN));
    let own = super::udp_socket(host.netns(None), bottle.gateway, 0);
    own.send_to(LAST, (bottle.ip, PORT)).unwrap();
    let arrived = inside.until(LAST, |f| kind(f) == IPV6 || contains(f, FORBIDDEN));
    assert!(arrived.is_empty(), "{arrived:02x?}");
    assert!(bottle.dropped(&host, "ipv6") >= 1);
    assert_eq!(host.carboy(&["up", "--json", "demo"]).ok().stdout_json()["changed"], true);
    down(&host, "demo");
}
