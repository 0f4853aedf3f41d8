//! With an egress list a bundle reaches what is in the list, whatever runs in it, and nothing else.

use std::net::Ipv4Addr;

use super::{Bottle, FORBIDDEN, LAST, PORT, received, udp_socket};
use crate::common::TestHost;
use crate::common::bottle::{down, inspect};
use crate::common::uplink::OUTSIDE;
use crate::common::wire::{ICMP, UDP, contains, fragment, icmp, ipv4, udp};

/// Another address of the outside.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

#[test]
fn only_what_is_listed_is_reached() {
    let mut host = TestHost::new();
    let uplink = host.uplink();
    uplink.run(&["ip", "address", "add", "192.0.2.77/24", "dev", "out0"]).ok();
    let (server, other) = (uplink.serve_peer_address(), uplink.serve_peer_address());
    let udp_port = udp_socket(uplink.netns(), Ipv4Addr::UNSPECIFIED, PORT);
    let tcp = format!("{OUTSIDE}:{}/tcp", server.port());
    let datagrams = format!("192.0.2.64/26:{PORT}/udp");
    let bottle = Bottle::up(&host, "demo", &["--egress", &tcp, "--egress", &datagrams]);
    let free = Bottle::up(&host, "free", &[]);
    for (bottle, to, reached) in [
        (&bottle, server, true),
        (&bottle, other, false),
        (&bottle, (ELSEWHERE, server.port()).into(), false),
        (&free, server, true),
        (&free, other, true),
    ] {
        assert_eq!(bottle.connects(to), reached, "{} to {to}", bottle.slug);
    }
    let outside = host.existing_uplink().wire();
    let wire = bottle.wire();
    let icmp = |content| icmp(8, content);
    for frame in [
        bottle.datagram(OUTSIDE, PORT, FORBIDDEN),
        bottle.datagram(ELSEWHERE, PORT + 1, FORBIDDEN),
        bottle.datagram(OUTSIDE, server.port(), FORBIDDEN),
        bottle.routed(&ipv4(bottle.ip, ELSEWHERE, ICMP, &[], &icmp(FORBIDDEN))),
        // SCTP has ports where UDP has them, and is no UDP.
        bottle.routed(&ipv4(bottle.ip, ELSEWHERE, 132, &[], &udp(PORT, FORBIDDEN))),
        bottle.routed(&fragment((bottle.ip, ELSEWHERE), UDP, &[], 100, FORBIDDEN)),
        bottle.datagram(ELSEWHERE, PORT, LAST),
    ] {
        wire.send(&frame);
    }
    assert!(outside.until(LAST, |frame| contains(frame, FORBIDDEN)).is_empty());
    assert_eq!(received(&udp_port).unwrap(), LAST);
    assert!(bottle.dropped(&host, "not-in-egress") >= 5);
    assert!(inspect(&host, "free")["drops"].get("not-in-egress").is_none());
    down(&host, "demo");
    down(&host, "free");
}

#[test]
fn without_port_or_protocol_everything_of_an_address_is_reached() {
    let mut host = TestHost::new();
    let server = host.uplink().serve_peer_address();
    let bottle = Bottle::up(&host, "demo", &["--egress", &OUTSIDE.to_string()]);
    assert!(bottle.connects(server));
    let outside = host.existing_uplink().wire();
    let wire = bottle.wire();
    wire.send(&bottle.datagram(ELSEWHERE, PORT, FORBIDDEN));
    wire.send(&bottle.routed(&ipv4(bottle.ip, OUTSIDE, ICMP, &[], &icmp(8, LAST))));
    assert!(outside.until(LAST, |frame| contains(frame, FORBIDDEN)).is_empty());
    down(&host, "demo");
}

#[test]
fn a_port_without_protocol_is_of_both() {
    let mut host = TestHost::new();
    let uplink = host.uplink();
    let server = uplink.serve_peer_address();
    let datagrams = udp_socket(uplink.netns(), OUTSIDE, server.port());
    let bottle = Bottle::up(&host, "demo", &["--egress", &server.to_string()]);
    assert!(bottle.connects(server));
    bottle.wire().send(&bottle.datagram(OUTSIDE, server.port(), LAST));
    assert_eq!(received(&datagrams).unwrap(), LAST);
    down(&host, "demo");
}

#[test]
fn a_narrower_list_ends_what_was_open() {
    let mut host = TestHost::new();
    let uplink = host.uplink();
    let server = udp_socket(uplink.netns(), OUTSIDE, PORT);
    let bottle = Bottle::up(&host, "demo", &["--egress", &format!("{OUTSIDE}:{PORT}")]);
    let client = udp_socket(bottle.netns.clone(), Ipv4Addr::UNSPECIFIED, 0);
    client.send_to(b"one", (OUTSIDE, PORT)).unwrap();
    let mut buffer = [0; 64];
    let (_, from) = server.recv_from(&mut buffer).unwrap();
    server.send_to(b"answer", from).unwrap();
    assert_eq!(received(&client).unwrap(), b"answer");
    let outside = host.existing_uplink().wire();
    // The connection is known to the host, and does not count: each packet is judged.
    let chain = format!("egress-{}", bottle.bridge);
    let closed = format!("flush chain inet carboy {chain}");
    host.run(["nft", &closed]).ok();
    client.send_to(FORBIDDEN, (OUTSIDE, PORT)).unwrap();
    let again = ["up", "--json", "demo", "--egress", &format!("{OUTSIDE}:{PORT}")];
    assert_eq!(host.carboy(&again).ok().stdout_json()["changed"], true);
    client.send_to(LAST, (OUTSIDE, PORT)).unwrap();
    assert!(outside.until(LAST, |frame| contains(frame, FORBIDDEN)).is_empty());
    assert_eq!(received(&server).unwrap(), LAST);
    down(&host, "demo");
}

#[test]
fn a_long_list_is_taken_whole() {
    let host = TestHost::new();
    let list: Vec<String> =
        (0..600u32).map(|n| format!("{}:443", Ipv4Addr::from(n << 8))).collect();
    let mut arguments = vec!["network", "create", "--json", "claude-bottle-bundle-demo"];
    arguments.extend(list.iter().flat_map(|one| ["--egress", one]));
    host.carboy(&arguments).ok();
    assert_eq!(host.carboy(&arguments).ok().stdout_json()["changed"], false);
    let listed = host.run(["nft", "list", "table", "inet", "carboy"]).ok().stdout();
    assert_eq!(listed.matches("dport 443 accept").count(), 1200);
    host.carboy(&["network", "rm", "claude-bottle-bundle-demo"]).ok();
}
