//! Bottles do not reach each other: not by address, not by the other's gateway, not on the wire.

use super::{Bottle, FORBIDDEN, LAST, PORT, assert_only_last_passes};
use crate::common::TestHost;
use crate::common::bottle::{HEALTH, assert_answers, down};
use crate::common::wire::{ARP, BROADCAST, IPV4, UDP, Wire, arp, contains, ethernet, ipv4, udp};

#[test]
fn neither_by_address_nor_by_the_gateway() {
    let host = TestHost::new();
    let (one, two) = (Bottle::up(&host, "one", &[]), Bottle::up(&host, "two", &[]));
    for bottle in [&one, &two] {
        assert_answers(&host, &bottle.up, HEALTH);
        assert!(bottle.connects((std::net::Ipv4Addr::LOCALHOST, HEALTH)));
    }
    let mut server = host.spawn(["busybox", "httpd", "-f", "-p", "0.0.0.0:8081", "-h", "/proc"]);
    for (from, to) in [(&one, &two), (&two, &one)] {
        assert!(!from.connects((to.ip, HEALTH)));
        assert!(!from.connects((to.gateway, 8081)));
        assert!(!from.connects((from.gateway, 8081)));
    }
    assert!(host.tcp((one.gateway, 8081)).is_ok());
    server.kill();
    assert!(one.dropped(&host, "other-bottle") >= 1);
    assert!(one.dropped(&host, "host-service") >= 2);
    down(&host, "one");
    down(&host, "two");
}

#[test]
fn nor_on_the_wire() {
    let host = TestHost::new();
    let (one, two) = (Bottle::up(&host, "one", &[]), Bottle::up(&host, "two", &[]));
    let packet = ipv4(one.ip, two.ip, UDP, &[], &udp(PORT, FORBIDDEN));
    let ask = arp(1, (one.mac, one.ip), ([0; 6], two.ip), FORBIDDEN);
    let frames = [
        ("routed", one.routed(&packet)),
        ("to the other's MAC", ethernet(two.mac, one.mac, IPV4, &packet)),
        ("to the other's bridge", ethernet(two.gateway_mac, one.mac, IPV4, &packet)),
        ("to all", ethernet(BROADCAST, one.mac, IPV4, &packet)),
        ("who has it?", ethernet(BROADCAST, one.mac, ARP, &ask)),
    ];
    let (inside, bridge) = (two.wire(), Wire::new(&host.netns(None), &two.bridge));
    let wire = one.wire();
    for (_, frame) in &frames {
        wire.send(frame);
    }
    // What comes last on the other's wire is from the other itself.
    let last = two.datagram(two.gateway, PORT, LAST);
    for seen_at in [&inside, &bridge] {
        assert_only_last_passes(&two.wire(), &[], &last, seen_at);
    }
    // Its own answers would show that it was asked.
    let answers = one.wire();
    one.wire().send(&one.datagram(one.gateway, PORT, LAST));
    assert!(answers.until(LAST, |f| contains(f, &two.mac)).is_empty());
    down(&host, "one");
    down(&host, "two");
}
