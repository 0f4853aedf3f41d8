//! A bundle speaks in nobody else's name: not with another address, in IP, Ethernet or ARP, and in
//! no language but IPv4 and ARP.

use std::net::Ipv4Addr;

use super::{Bottle, FORBIDDEN, LAST, PORT, assert_only_last_passes};
use crate::common::TestHost;
use crate::common::bottle::down;
use crate::common::uplink::OUTSIDE;
use crate::common::wire::{
    ARP, BROADCAST, ICMP, IPV4, QINQ, UDP, VLAN, Wire, arp, ethernet, fragment, icmp, ipv4, tagged,
    udp,
};

const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const STRANGERS_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

#[test]
fn packets_of_another_source_stay_in_the_bottle() {
    let mut host = TestHost::new();
    host.uplink();
    let bottle = Bottle::up(&host, "demo", &[]);
    let neighbour = Ipv4Addr::from(u32::from(bottle.ip) + 1);
    let packet = |from| ipv4(from, OUTSIDE, UDP, &[], &udp(PORT, FORBIDDEN));
    let spoofed = [
        ("a stranger's address", bottle.routed(&packet(STRANGER))),
        ("the neighbour's address", bottle.routed(&packet(neighbour))),
        ("the gateway's address", bottle.routed(&packet(bottle.gateway))),
        ("no address", bottle.routed(&packet(Ipv4Addr::UNSPECIFIED))),
        ("loopback", bottle.routed(&packet(Ipv4Addr::LOCALHOST))),
        ("a later fragment", bottle.routed(&fragment((STRANGER, OUTSIDE), UDP, &[], 1, FORBIDDEN))),
        ("a stranger's MAC", ethernet(bottle.gateway_mac, STRANGERS_MAC, IPV4, &packet(bottle.ip))),
        (
            "the bridge's MAC",
            ethernet(bottle.gateway_mac, bottle.gateway_mac, IPV4, &packet(bottle.ip)),
        ),
    ];
    let last = bottle.datagram(OUTSIDE, PORT, LAST);
    let wire = bottle.wire();
    // On the host's own end of the wire, behind the bridge's filters, and outside.
    let bridge = Wire::new(&host.netns(None), &bottle.bridge);
    assert_only_last_passes(&wire, &spoofed, &last, &bridge);
    let outside = host.existing_uplink().wire();
    assert_only_last_passes(&wire, &spoofed, &last, &outside);
    // What has the wrong MAC is stopped by the locked port before any rule sees it.
    assert!(bottle.dropped(&host, "spoofed-source") >= 2 * 6);
    down(&host, "demo");
}

#[test]
fn forged_arp_reaches_nobody() {
    let host = TestHost::new();
    let bottle = Bottle::up(&host, "demo", &[]);
    let neighbour = Ipv4Addr::from(u32::from(bottle.ip) + 1);
    let frame = |packet: &[u8]| ethernet(BROADCAST, bottle.mac, ARP, packet);
    let gateway = (bottle.gateway_mac, bottle.gateway);
    let forged = [
        ("the neighbour's address", arp(2, (bottle.mac, neighbour), gateway, FORBIDDEN)),
        ("the gateway's address", arp(2, (bottle.mac, bottle.gateway), gateway, FORBIDDEN)),
        (
            "a gratuitous claim of the gateway's address",
            arp(1, (bottle.mac, bottle.gateway), ([0; 6], bottle.gateway), FORBIDDEN),
        ),
        ("a stranger's MAC", arp(2, (STRANGERS_MAC, bottle.ip), gateway, FORBIDDEN)),
        (
            "a probe without address",
            arp(1, (bottle.mac, Ipv4Addr::UNSPECIFIED), gateway, FORBIDDEN),
        ),
    ]
    .map(|(name, packet)| (name, frame(&packet)));
    let last = frame(&arp(1, (bottle.mac, bottle.ip), gateway, LAST));
    let bridge = Wire::new(&host.netns(None), &bottle.bridge);
    assert_only_last_passes(&bottle.wire(), &forged, &last, &bridge);
    assert_eq!(bottle.dropped(&host, "forged-arp"), 5);
    // The host's own entry for the bundle is as it was.
    let entries = host.json(["ip", "-j", "neigh", "show", "dev", &bottle.bridge]);
    let mac = bottle.mac.map(|byte| format!("{byte:02x}")).join(":");
    assert_eq!(entries[0]["lladdr"], mac, "{entries}");
    assert_eq!(entries.as_array().unwrap().len(), 1, "{entries}");
    down(&host, "demo");
}

#[test]
fn what_is_neither_ipv4_nor_arp_passes_nowhere() {
    let mut host = TestHost::new();
    host.uplink();
    let bottle = Bottle::up(&host, "demo", &[]);
    let own = ipv4(bottle.ip, OUTSIDE, UDP, &[], &udp(PORT, FORBIDDEN));
    let to_gateway = |kind, content: &[u8]| ethernet(bottle.gateway_mac, bottle.mac, kind, content);
    // RFC 791: a loose source route by way of the gateway; record route; router alert (RFC 2113).
    let [a, b, c, d] = bottle.gateway.octets();
    let options =
        [vec![131, 7, 4, a, b, c, d, 0], vec![7, 7, 4, 0, 0, 0, 0, 0], vec![148, 4, 0, 0]];
    let with = |o: &[u8]| ipv4(bottle.ip, OUTSIDE, UDP, o, &udp(PORT, FORBIDDEN));
    let redirect = icmp(5, &[&OUTSIDE.octets()[..], &own].concat());
    let frames = [
        ("a VLAN", to_gateway(VLAN, &tagged(7, IPV4, &own))),
        ("a VLAN with no number", to_gateway(VLAN, &tagged(0, IPV4, &own))),
        ("a VLAN in a VLAN", to_gateway(QINQ, &tagged(7, VLAN, &tagged(8, IPV4, &own)))),
        ("PPPoE", to_gateway(0x8864, &[&[0x11, 0, 0, 1, 0, 80, 0, 0x21][..], &own].concat())),
        ("LLDP", ethernet([1, 0x80, 0xc2, 0, 0, 0x0e], bottle.mac, 0x88cc, FORBIDDEN)),
        ("an experiment", to_gateway(0x88b5, FORBIDDEN)),
        ("a length instead of a type", to_gateway(17, FORBIDDEN)),
        ("a source route", to_gateway(IPV4, &with(&options[0]))),
        ("a record route", to_gateway(IPV4, &with(&options[1]))),
        ("a router alert", to_gateway(IPV4, &with(&options[2]))),
        ("a redirect", bottle.routed(&ipv4(bottle.ip, bottle.gateway, ICMP, &[], &redirect))),
        (
            "a request for an address",
            ethernet(
                BROADCAST,
                bottle.mac,
                IPV4,
                &ipv4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, UDP, &[], &udp(67, FORBIDDEN)),
            ),
        ),
    ];
    let last = bottle.datagram(OUTSIDE, PORT, LAST);
    let wire = bottle.wire();
    let bridge = Wire::new(&host.netns(None), &bottle.bridge);
    assert_only_last_passes(&wire, &frames, &last, &bridge);
    let outside = host.existing_uplink().wire();
    assert_only_last_passes(&wire, &frames, &last, &outside);
    // The bridge itself keeps what is for its own protocols (LLDP).
    assert!(bottle.dropped(&host, "foreign-frame") >= 2 * 8, "{}", bottle.up);
    assert_eq!(bottle.dropped(&host, "router-message"), 2);
    assert_eq!(bottle.dropped(&host, "spoofed-source"), 2);
    down(&host, "demo");
}
