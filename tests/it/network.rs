//! The network of a bottle as `ip`, `nft` and real connections see it.

use std::net::Ipv4Addr;

use crate::common::TestHost;
use crate::common::bottle::{
    HEALTH, WEB, assert_answers, bundle_ip, down, inspect, load, text, up,
};
use crate::common::images;
use crate::common::uplink::HOST;

const CONTAINER: &str = "claude-bottle-sidecars-demo";

/// Fetches a URL from inside the bottle's container; the body if it worked.
fn fetch(host: &TestHost, slug: &str, url: &str) -> Option<String> {
    let output = host.carboy(&["exec", slug, "--", "timeout", "2", "wget", "-q", "-O", "-", url]);
    (output.exit_code() == Some(0)).then(|| output.stdout().trim().to_owned())
}

#[test]
fn addresses_are_where_the_plan_says() {
    let host = TestHost::new();
    let bottle = up(
        &host,
        &["demo", "--subnet", "10.77.8.0/24", "--gateway", "10.77.8.254", "--ip", "10.77.8.9"],
    );
    for (key, want) in [
        ("subnet", "10.77.8.0/24"),
        ("gateway", "10.77.8.254"),
        ("bundle_ip", "10.77.8.9"),
        ("mac", "02:b2:0a:4d:08:09"),
    ] {
        assert_eq!(bottle[key], want, "{key}");
        assert_eq!(inspect(&host, "demo")[key], want, "inspect: {key}");
    }
    let bridge = host.json(["ip", "-j", "-4", "address", "show", text(&bottle, "bridge")]);
    assert_eq!(bridge[0]["addr_info"][0]["local"], "10.77.8.254");
    assert_eq!(bridge[0]["addr_info"][0]["prefixlen"], 24);
    let inside = host.netns_run(CONTAINER, ["ip", "-j", "-4", "address", "show", "eth0"]);
    let inside = inside.ok().stdout_json();
    assert_eq!(inside[0]["addr_info"][0]["local"], "10.77.8.9");
    let link = host.netns_run(CONTAINER, ["ip", "-j", "link", "show", "eth0"]).ok().stdout_json();
    assert_eq!(link[0]["address"], "02:b2:0a:4d:08:09");
    let route = host.netns_run(CONTAINER, ["ip", "-j", "route", "show", "default"]);
    assert_eq!(route.ok().stdout_json()[0]["gateway"], "10.77.8.254");
    assert_answers(&host, &bottle, HEALTH);
    down(&host, "demo");
}

#[test]
fn the_same_slug_gets_the_same_answer() {
    let host = TestHost::new();
    let first = up(&host, &["demo"]);
    down(&host, "demo");
    let second = up(&host, &["demo"]);
    assert_eq!(first["bundle_ip"], second["bundle_ip"]);
    assert_eq!(first["mac"], second["mac"]);
    assert_answers(&host, &second, HEALTH);
    let ip = bundle_ip(&second).octets();
    assert_eq!(ip[3], 2);
    assert_eq!(text(&second, "gateway"), Ipv4Addr::new(ip[0], ip[1], ip[2], 1).to_string());
    down(&host, "demo");
}

#[test]
fn a_taken_subnet_is_not_chosen() {
    let host = TestHost::new();
    let wanted = host.carboy(&["plan", "--json", "demo"]).ok().stdout_json();
    let address = format!("{}/24", text(&wanted, "gateway"));
    host.run(["ip", "link", "add", "lan0", "type", "bridge"]).ok();
    host.run(["ip", "address", "add", &address, "dev", "lan0"]).ok();
    host.run(["ip", "link", "set", "lan0", "up"]).ok();
    let bottle = up(&host, &["demo"]);
    assert_ne!(bottle["subnet"], wanted["subnet"]);
    assert_answers(&host, &bottle, HEALTH);
    down(&host, "demo");
    host.run(["ip", "link", "del", "lan0"]).ok();
}

#[test]
fn a_bottle_reaches_the_outside_behind_the_hosts_address() {
    let mut host = TestHost::new();
    let server = host.uplink().serve_peer_address();
    load(&host, &images::busybox());
    let bottle = up(&host, &["demo", "--image", "test-busybox"]);
    assert_eq!(fetch(&host, "demo", &format!("http://{server}/")), Some(HOST.to_string()));
    assert_ne!(
        host.run(["cat", "/proc/sys/net/ipv4/conf/up0/forwarding"]).ok().stdout().trim(),
        "0"
    );
    assert_eq!(host.run(["cat", "/proc/sys/net/ipv4/ip_forward"]).ok().stdout().trim(), "0");
    drop(bottle);
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn the_outside_does_not_reach_a_bottle() {
    let mut host = TestHost::new();
    host.uplink();
    let bottle = up(&host, &["demo"]);
    let uplink = host.existing_uplink();
    let via = HOST.to_string();
    uplink.run(&["ip", "route", "add", text(&bottle, "subnet"), "via", &via]).ok();
    assert!(uplink.tcp((bundle_ip(&bottle), HEALTH)).is_err());
    assert_answers(&host, &bottle, HEALTH);
    down(&host, "demo");
}

#[test]
fn bottles_do_not_reach_each_other() {
    let host = TestHost::new();
    load(&host, &images::busybox());
    let (one, two) = (
        up(&host, &["one", "--image", "test-busybox"]),
        up(&host, &["two", "--image", "test-busybox"]),
    );
    for bottle in [&one, &two] {
        assert_answers(&host, bottle, WEB);
    }
    let own = format!("http://{}:{WEB}/", bundle_ip(&one));
    assert_eq!(fetch(&host, "one", &own).as_deref(), Some("busybox"));
    assert_eq!(fetch(&host, "two", &own), None);
    let gateway = format!("http://{}:{WEB}/", text(&two, "gateway"));
    assert_eq!(fetch(&host, "one", &gateway), None);
    down(&host, "one");
    down(&host, "two");
}

#[test]
fn a_bottle_does_not_reach_the_hosts_services() {
    let mut host = TestHost::new();
    host.uplink();
    load(&host, &images::busybox());
    let mut server = host.spawn(["busybox", "httpd", "-f", "-p", "0.0.0.0:8081", "-h", "/proc"]);
    let bottle = up(&host, &["demo", "--image", "test-busybox"]);
    for address in [text(&bottle, "gateway"), &HOST.to_string()] {
        assert!(host.tcp((address.parse::<Ipv4Addr>().unwrap(), 8081)).is_ok());
        assert_eq!(fetch(&host, "demo", &format!("http://{address}:8081/version")), None);
    }
    server.kill();
    down(&host, "demo");
}

#[test]
fn a_forged_source_address_does_not_leave_the_bottle() {
    let mut host = TestHost::new();
    let server = host.uplink().serve_peer_address();
    let bottle = up(&host, &["demo"]);
    let inside = |words: &[&str]| host.netns_run(CONTAINER, words);
    let url = format!("http://{server}/");
    let fetch = ["timeout", "2", "busybox", "wget", "-q", "-O", "-", &url];
    assert_eq!(inside(&fetch).ok().stdout().trim(), HOST.to_string());
    let gateway = text(&bottle, "gateway");
    inside(&["ip", "address", "add", "203.0.113.9/32", "dev", "eth0"]).ok();
    inside(&["ip", "route", "replace", "default", "via", gateway, "src", "203.0.113.9"]).ok();
    assert_ne!(inside(&fetch).exit_code(), Some(0));
    down(&host, "demo");
}

#[test]
fn what_is_not_carboys_stays_as_it_is() {
    let mut host = TestHost::new();
    let foreign = "table inet foreign { chain input { type filter hook input priority 0; \
                   tcp dport 1 drop; }; }; table ip nat { chain postrouting { type nat hook \
                   postrouting priority 100; }; }";
    host.run(["nft", foreign]).ok();
    host.run(["ip", "link", "add", "docker0", "type", "bridge"]).ok();
    host.run(["ip", "netns", "add", "foreign"]).ok();
    host.take_baseline();
    up(&host, &["demo"]);
    down(&host, "demo");
    // The leak check compares the foreign table, link and namespace too.
    host.assert_clean();
}

#[test]
fn the_shared_table_goes_with_the_last_bottle() {
    let host = TestHost::new();
    let (one, two) = (up(&host, &["one"]), up(&host, &["two"]));
    let tables = || host.run(["nft", "list", "tables"]).ok().stdout();
    assert!(tables().contains("table inet carboy"), "{}", tables());
    down(&host, "one");
    assert!(tables().contains("table inet carboy"), "{}", tables());
    assert!(host.tcp((bundle_ip(&one), HEALTH)).is_err());
    assert_answers(&host, &two, HEALTH);
    down(&host, "two");
    assert_eq!(tables(), "");
}
