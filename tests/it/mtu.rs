//! How large a packet may be: on the bottle's links, and on the way out.

use std::io::Write;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::common::bottle::{HEALTH, assert_answers, assert_echoes, down, up};
use crate::common::{TestHost, netns};

const CONTAINER: &str = "claude-bottle-sidecars-demo";
const NETWORK: &str = "claude-bottle-bundle-demo";

/// The MTU of all three links, which must be one.
#[track_caller]
fn mtu(host: &TestHost) -> u64 {
    let of = |links: Value| links[0]["mtu"].as_u64().unwrap();
    let bridge = of(host.json(["ip", "-j", "link", "show", NETWORK]));
    let outer = of(host.json(["ip", "-j", "link", "show", CONTAINER]));
    let inner = host.netns_run(CONTAINER, ["ip", "-j", "link", "show", "eth0"]);
    assert_eq!((bridge, outer), (outer, of(inner.ok().stdout_json())));
    bridge
}

#[test]
fn a_small_mtu_that_was_asked_for() {
    let host = TestHost::new();
    let bottle = up(&host, &["demo", "--mtu", "1280"]);
    assert_eq!(mtu(&host), 1280);
    assert_answers(&host, &bottle, HEALTH);
    assert_echoes(&host, &bottle);
    assert_eq!(up(&host, &["demo", "--mtu", "1280"])["changed"], false);
    host.carboy(&["--json", "up", "demo", "--mtu", "1400"]).error(4, "conflict");
    down(&host, "demo");
}

#[test]
fn one_too_small_for_ipv6() {
    let host = TestHost::new();
    let bottle = up(&host, &["demo", "--mtu", "600"]);
    assert_eq!(mtu(&host), 600);
    assert_answers(&host, &bottle, HEALTH);
    assert_eq!(up(&host, &["demo", "--mtu", "600"])["changed"], false);
    host.carboy(&["verify", "demo"]).ok();
    down(&host, "demo");
}

/// A bridge whose MTU nobody has wanted goes back to 1500 when its last port leaves.
#[test]
fn the_mtu_stays_when_the_bundle_goes() {
    let host = TestHost::new();
    for bytes in ["600", "1280", "9000"] {
        let bottle = up(&host, &["demo", "--mtu", bytes]);
        host.carboy(&["stop", "-f", "demo"]).ok();
        host.carboy(&["verify", "demo"]).ok();
        assert_eq!(up(&host, &["demo", "--mtu", bytes])["changed"], true);
        assert_eq!(mtu(&host).to_string(), bytes);
        assert_answers(&host, &bottle, HEALTH);
        down(&host, "demo");
    }
}

#[test]
fn the_mtu_of_the_way_out_is_the_bottles() {
    for bytes in ["1280", "9000"] {
        let mut host = TestHost::new();
        host.uplink().run(&["ip", "link", "set", "out0", "mtu", bytes]).ok();
        host.run(["ip", "link", "set", "up0", "mtu", bytes]).ok();
        let bottle = up(&host, &["demo"]);
        assert_eq!(mtu(&host).to_string(), bytes);
        // A packet of exactly that size, not to be broken up, gets to the bundle and back.
        let size = (mtu(&host) - 28).to_string();
        let ip = bottle["bundle_ip"].as_str().unwrap();
        host.run(["ping", "-c", "1", "-W", "5", "-M", "do", "-s", &size, ip]).ok();
        down(&host, "demo");
    }
}

#[test]
fn the_smaller_mtu_of_both_ways_out_counts() {
    let mut host = TestHost::new();
    host.uplink();
    for words in [
        "ip link add six0 mtu 1400 type bridge",
        "ip link set six0 up",
        "ip -6 address add 2001:db8::2/64 dev six0 nodad",
        "ip -6 route add default via 2001:db8::1",
    ] {
        host.run(words.split(' ').collect::<Vec<_>>()).ok();
    }
    up(&host, &["demo"]);
    assert_eq!(mtu(&host), 1500);
    down(&host, "demo");
    up(&host, &["demo", "--subnet", "fd00:9::/64"]);
    assert_eq!(mtu(&host), 1400);
    down(&host, "demo");
    host.run(["ip", "link", "del", "six0"]).ok();
}

/// bottle —1500— host —1500— outside —1400— far, which asks for segments that only fit into 1500.
#[test]
fn a_bundle_learns_the_mtu_of_a_path_through_nat() {
    const FAR: &str = "198.51.100.2:7000";
    const BYTES: usize = 3 << 20;
    let mut host = TestHost::new();
    host.uplink();
    host.run(["ip", "netns", "add", "far"]).ok();
    let link = "ip link add far0 mtu 1400 type veth peer name eth0 mtu 1400 netns far";
    host.run(link.split(' ').collect::<Vec<_>>()).ok();
    let init = host.init();
    let uplink = host.existing_uplink();
    uplink.adopt(init, "far0");
    for words in [
        "ip address add 198.51.100.1/24 dev far0",
        "ip link set far0 up",
        "sysctl -qw net.ipv4.ip_forward=1",
    ] {
        uplink.run(&words.split(' ').collect::<Vec<_>>()).ok();
    }
    for words in [
        "ip link set lo up",
        "ip address add 198.51.100.2/24 dev eth0",
        "ip link set eth0 up",
        "ip route add default via 198.51.100.1 advmss 1460",
    ] {
        host.netns_run("far", words.split(' ').collect::<Vec<_>>()).ok();
    }
    let listener = netns::inside(&host.netns(Some("far")), || TcpListener::bind(FAR).unwrap());
    let sink = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap()
    });
    up(&host, &["demo"]);
    let limit = Duration::from_secs(5);
    let mut stream = netns::connect(&host.netns(Some(CONTAINER)), FAR.parse().unwrap(), limit);
    stream.as_mut().unwrap().write_all(&vec![0; BYTES]).unwrap();
    drop(stream);
    assert_eq!(sink.join().unwrap(), BYTES as u64);
    let route = host.netns_run(CONTAINER, ["ip", "route", "get", "198.51.100.2"]).ok().stdout();
    assert!(route.contains("mtu 1400"), "{route}");
    down(&host, "demo");
    host.run(["ip", "netns", "del", "far"]).ok();
    host.run(["sh", "-c", "umount /run/netns; rmdir /run/netns; true"]).ok();
}
