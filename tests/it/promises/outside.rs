//! Nobody outside reaches a bundle unasked, and the host is no router for them; what the
//! administrator publishes passes.

use std::net::Ipv4Addr;

use super::{Bottle, FORBIDDEN, LAST, PORT, received, udp_socket};
use crate::common::TestHost;
use crate::common::bottle::{HEALTH, assert_answers, down};
use crate::common::uplink::{HOST, OUTSIDE};
use crate::common::wire::{Wire, contains};

#[test]
fn what_is_unasked_for_does_not_come_in() {
    let mut host = TestHost::new();
    host.uplink();
    let bottle = Bottle::up(&host, "demo", &[]);
    let uplink = host.existing_uplink();
    let subnet = bottle.up["subnet"].as_str().unwrap();
    uplink.run(&["ip", "route", "add", subnet, "via", &HOST.to_string()]).ok();
    uplink.run(&["ip", "route", "add", "203.0.113.0/24", "via", &HOST.to_string()]).ok();
    assert!(uplink.tcp((bottle.ip, HEALTH)).is_err());
    let inside = udp_socket(bottle.netns.clone(), bottle.ip, PORT);
    let outside = udp_socket(uplink.netns(), OUTSIDE, PORT);
    outside.send_to(FORBIDDEN, (bottle.ip, PORT)).unwrap();
    // The host is no router between others either.
    let wire = uplink.wire();
    outside.send_to(FORBIDDEN, (Ipv4Addr::new(203, 0, 113, 1), PORT)).unwrap();
    inside.send_to(LAST, (OUTSIDE, PORT)).unwrap();
    let mut buffer = [0; 64];
    let (_, from) = outside.recv_from(&mut buffer).unwrap();
    // What was forwarded has lived a hop shorter.
    let back = wire.until(LAST, |frame| contains(frame, FORBIDDEN) && frame[22] < 64);
    assert!(back.is_empty(), "{back:02x?}");
    // The answer to what was asked is the first that arrives.
    outside.send_to(LAST, from).unwrap();
    assert_eq!(received(&inside).unwrap(), LAST);
    assert!(bottle.dropped(&host, "unasked-for") >= 2);
    assert_answers(&host, &bottle.up, HEALTH);
    down(&host, "demo");
}

#[test]
fn what_the_administrator_publishes_does() {
    let mut host = TestHost::new();
    host.uplink();
    let bottle = Bottle::up(&host, "demo", &[]);
    let rule = format!(
        "table ip mine {{ chain pre {{ type nat hook prerouting priority -100; \
         ip daddr {HOST} tcp dport 80 dnat to {}:{HEALTH}; }}; }}",
        bottle.ip
    );
    host.run(["nft", &rule]).ok();
    let uplink = host.existing_uplink();
    assert!(uplink.tcp((HOST, 80)).is_ok());
    assert!(uplink.tcp((HOST, 81)).is_err());
    host.run(["nft", "delete", "table", "ip", "mine"]).ok();
    down(&host, "demo");
}

#[test]
fn a_connection_of_before_does_not_stay_open() {
    let mut host = TestHost::new();
    host.uplink();
    let bottle = Bottle::up(&host, "demo", &[]);
    let uplink = host.existing_uplink();
    let subnet = bottle.up["subnet"].as_str().unwrap();
    uplink.run(&["ip", "route", "add", subnet, "via", &HOST.to_string()]).ok();
    let inside = udp_socket(bottle.netns.clone(), bottle.ip, PORT);
    let outside = udp_socket(uplink.netns(), OUTSIDE, PORT);
    // Without a firewall everybody comes in, and the host tracks it.
    host.run(["nft", "flush", "ruleset"]).ok();
    host.run(["nft", "table inet track { chain c { type filter hook forward priority 0; ct state new accept; }; }"]).ok();
    outside.send_to(b"in", (bottle.ip, PORT)).unwrap();
    let mut buffer = [0; 64];
    let (_, from) = inside.recv_from(&mut buffer).unwrap();
    inside.send_to(b"out", from).unwrap();
    assert_eq!(received(&outside).unwrap(), b"out");
    assert_eq!(host.carboy(&["up", "--json", "demo"]).ok().stdout_json()["changed"], true);
    host.run(["nft", "delete", "table", "inet", "track"]).ok();
    let bridge = Wire::new(&host.netns(None), &bottle.bridge);
    outside.send_to(FORBIDDEN, (bottle.ip, PORT)).unwrap();
    inside.send_to(LAST, (OUTSIDE, PORT + 1)).unwrap();
    assert!(bridge.until(LAST, |frame| contains(frame, FORBIDDEN)).is_empty());
    down(&host, "demo");
}
