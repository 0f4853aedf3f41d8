//! Forwarding on the device that leads out belongs to the bottles that go out through it: it comes
//! with the first of them, goes with the last, and follows the default route.

use crate::common::TestHost;
use crate::common::bottle::{down, up};
use crate::common::uplink::{DEVICE, HOST};

const CONTAINER: &str = "claude-bottle-sidecars-demo";

fn forwarding(host: &TestHost, device: &str) -> String {
    let path = format!("/proc/sys/net/ipv4/conf/{device}/forwarding");
    host.run(["cat", &path]).ok().stdout().trim().to_owned()
}

/// What the set has, as text; it may be long.
fn set(host: &TestHost, name: &str) -> String {
    host.run(["nft", "list", "set", "inet", "carboy", name]).ok().stdout()
}

/// Whom a server outside sees when something in the bundle's namespace asks it.
fn seen_as(host: &TestHost, server: &str) -> Option<String> {
    let url = format!("http://{server}");
    let ask = ["timeout", "3", "busybox", "wget", "-q", "-O", "-", &url];
    let output = host.netns_run(CONTAINER, ask);
    (output.exit_code() == Some(0)).then(|| output.stdout().trim().to_owned())
}

#[test]
fn a_bottle_without_a_way_out_does_not_keep_it() {
    let mut host = TestHost::new();
    host.uplink();
    up(&host, &["closed", "--internal"]);
    assert_eq!(forwarding(&host, DEVICE), "0");
    up(&host, &["demo"]);
    up(&host, &["other", "--egress", "192.0.2.1"]);
    down(&host, "demo");
    assert_eq!(forwarding(&host, DEVICE), "2", "the other bottle goes out there");
    down(&host, "other");
    assert_eq!(forwarding(&host, DEVICE), "0");
    assert!(!set(&host, "guarded").contains(DEVICE));
    host.carboy(&["verify", "closed"]).ok();
    down(&host, "closed");
    host.assert_clean();
}

#[test]
fn it_follows_the_default_route_and_leaves_nothing_behind() {
    let mut host = TestHost::new();
    let server = host.uplink().serve_peer_address().to_string();
    let host = host;
    for words in [
        "ip link add lan0 type veth peer name lan1",
        "ip link set lan1 up",
        "ip link set lan0 up",
        "ip address add 198.51.100.2/24 dev lan0",
    ] {
        host.run(words.split(' ').collect::<Vec<_>>()).ok();
    }
    let route = |via: &str, device: &str| {
        host.run(["ip", "route", "replace", "default", "via", via, "dev", device]).ok();
    };
    up(&host, &["demo"]);
    up(&host, &["other"]);
    assert_eq!(seen_as(&host, &server), Some(HOST.to_string()));
    route("198.51.100.1", "lan0");
    let report = host.carboy(&["verify", "--json", "demo"]).code(1).stdout_json();
    assert_eq!(report["drift"].as_array().unwrap().len(), 1, "{report}");
    assert_eq!(up(&host, &["demo"])["changed"], true);
    let both = (forwarding(&host, DEVICE), forwarding(&host, "lan0"));
    assert_eq!(both, ("2".to_owned(), "2".to_owned()), "the other has not moved yet");
    host.carboy(&["verify", "demo"]).ok();
    host.carboy(&["reload", "other"]).ok();
    let both = (forwarding(&host, DEVICE), forwarding(&host, "lan0"));
    assert_eq!(both, ("0".to_owned(), "2".to_owned()), "the old device is given back");
    assert!(!set(&host, "guarded").contains(DEVICE));
    assert!(!set(&host, "uplinks").contains(DEVICE));
    host.carboy(&["verify"]).ok();
    // Without a way out nobody keeps any.
    host.run(["ip", "route", "del", "default"]).ok();
    host.carboy(&["reload"]).ok();
    assert_eq!(forwarding(&host, "lan0"), "0");
    host.carboy(&["verify"]).ok();
    route("192.0.2.1", DEVICE);
    host.carboy(&["reload"]).ok();
    assert_eq!(seen_as(&host, &server), Some(HOST.to_string()));
    // Not even where nobody knows any more which device it was.
    host.run(["ip", "route", "del", "default"]).ok();
    host.run(["rm", "-r", "/run/carboy"]).ok();
    down(&host, "demo");
    down(&host, "other");
    assert_eq!(forwarding(&host, DEVICE), "0");
    route("192.0.2.1", DEVICE);
    host.run(["ip", "link", "del", "lan0"]).ok();
    host.assert_clean();
}
