//! A bundle reaches of the host only the ports that were opened to it, and those at its own gateway.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::{Bottle, FORBIDDEN, LAST, PORT, received, udp_socket};
use crate::common::TestHost;
use crate::common::bottle::{down, inspect};
use crate::common::uplink::HOST;
use crate::common::wire::{UDP, fragment, udp};

/// A port on which a server of the host listens, on all its addresses.
const OPEN: u16 = 8081;
const CLOSED: u16 = 8082;

#[test]
fn a_port_is_open_at_the_own_gateway_alone() {
    let mut host = TestHost::new();
    host.uplink();
    let mut servers = [OPEN, CLOSED].map(|port| {
        let port = format!("0.0.0.0:{port}");
        host.spawn(["busybox", "httpd", "-f", "-p", &port, "-h", "/proc"])
    });
    let open = format!("tcp/{OPEN}");
    let one = Bottle::up(&host, "one", &["--host-port", &open]);
    let two = Bottle::up(&host, "two", &["--host-port", &open, "--host-port", "udp/53"]);
    let none = Bottle::up(&host, "none", &[]);
    for address in [one.gateway, two.gateway, none.gateway, HOST] {
        for port in [OPEN, CLOSED] {
            let listens =
                crate::common::poll(Duration::from_secs(5), || host.tcp((address, port)).is_ok());
            assert!(listens, "{address}:{port}");
        }
    }
    for (bottle, other) in [(&one, &two), (&two, &one), (&none, &one)] {
        let open = bottle.slug != "none";
        assert_eq!(bottle.connects((bottle.gateway, OPEN)), open, "{}", bottle.slug);
        assert!(!bottle.connects((bottle.gateway, CLOSED)));
        assert!(!bottle.connects((other.gateway, OPEN)), "another bottle's gateway");
        assert!(!bottle.connects((HOST, OPEN)), "the host's own address");
        assert!(bottle.dropped(&host, "host-service") >= 3);
    }
    for server in &mut servers {
        server.kill();
    }
    for slug in ["one", "two", "none"] {
        down(&host, slug);
    }
}

#[test]
fn a_port_is_open_for_its_protocol_alone_and_not_for_fragments() {
    let host = TestHost::new();
    let bottle = Bottle::up(&host, "demo", &["--host-port", "udp/4711", "--host-port", "tcp/8081"]);
    let open = udp_socket(host.netns(None), Ipv4Addr::UNSPECIFIED, PORT);
    let closed = udp_socket(host.netns(None), Ipv4Addr::UNSPECIFIED, OPEN);
    let wire = bottle.wire();
    wire.send(&bottle.datagram(bottle.gateway, OPEN, FORBIDDEN));
    // A datagram in two pieces, of which only the first shows the port.
    let pieces = |port| {
        let whole = udp(port, &[LAST, &[b'.'; 64 - 8][..]].concat());
        let (first, rest) = whole.split_at(16);
        let ends = (bottle.ip, bottle.gateway);
        [
            bottle.routed(&fragment(ends, UDP, &[], 0x2000, first)),
            bottle.routed(&fragment(ends, UDP, &[], 2, rest)),
        ]
    };
    for piece in pieces(OPEN).iter().chain(&pieces(PORT)) {
        wire.send(piece);
    }
    // The host puts them together before it looks at the port.
    assert!(received(&open).unwrap().starts_with(LAST));
    closed.set_nonblocking(true).unwrap();
    assert!(received(&closed).is_err());
    assert!(!bottle.connects((bottle.gateway, PORT)));
    // A later fragment without a first one is nobody's.
    let lone = fragment((bottle.ip, bottle.gateway), UDP, &[], 100, FORBIDDEN);
    wire.send(&bottle.routed(&lone));
    wire.send(&bottle.datagram(bottle.gateway, PORT, LAST));
    assert_eq!(received(&open).unwrap(), LAST);
    down(&host, "demo");
}

#[test]
fn a_closed_port_ends_what_was_open() {
    let host = TestHost::new();
    let bottle = Bottle::up(&host, "demo", &["--host-port", "udp/4711"]);
    let server = udp_socket(host.netns(None), Ipv4Addr::UNSPECIFIED, PORT);
    let client = udp_socket(bottle.netns.clone(), Ipv4Addr::UNSPECIFIED, 0);
    client.send_to(b"one", (bottle.gateway, PORT)).unwrap();
    let mut buffer = [0; 16];
    let (_, from) = server.recv_from(&mut buffer).unwrap();
    server.send_to(b"answer", from).unwrap();
    assert_eq!(received(&client).unwrap(), b"answer");
    // By hand: the connection's state is what matters here, and `--replace` makes a new bundle.
    let chain = format!("ports-{}", bottle.bridge);
    host.run(["nft", "flush", "chain", "inet", "carboy", &chain]).ok();
    client.send_to(FORBIDDEN, (bottle.gateway, PORT)).unwrap();
    server.set_nonblocking(true).unwrap();
    assert!(server.recv_from(&mut buffer).is_err());
    // `up` opens it again.
    let again = host.carboy(&["up", "--json", "demo", "--host-port", "udp/4711"]);
    assert_eq!(again.ok().stdout_json()["changed"], true);
    server.set_nonblocking(false).unwrap();
    client.send_to(LAST, (bottle.gateway, PORT)).unwrap();
    assert_eq!(received(&server).unwrap(), LAST);
    down(&host, "demo");
}

#[test]
fn the_host_reaches_the_bundle_all_the_same() {
    let host = TestHost::new();
    let bottle = Bottle::up(&host, "demo", &[]);
    let bundle = udp_socket(bottle.netns.clone(), bottle.ip, PORT);
    let own = udp_socket(host.netns(None), Ipv4Addr::UNSPECIFIED, 0);
    own.send_to(LAST, (bottle.ip, PORT)).unwrap();
    let mut buffer = [0; 64];
    let (length, from) = bundle.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], LAST);
    bundle.send_to(b"answer", from).unwrap();
    assert_eq!(received(&own).unwrap(), b"answer");
    // An answer is to a question: the same words from another port are none.
    let other = udp_socket(bottle.netns.clone(), bottle.ip, PORT + 1);
    other.send_to(FORBIDDEN, from).unwrap();
    own.set_nonblocking(true).unwrap();
    assert!(received(&own).is_err());
    assert_eq!(inspect(&host, "demo")["drops"]["host-service"]["packets"], 1);
    down(&host, "demo");
}
