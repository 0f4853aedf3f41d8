//! Which address ranges bottles get, and whom they do not take them from.

use std::collections::HashSet;

use serde_json::Value;

use crate::common::TestHost;
use crate::common::bottle::{HEALTH, assert_answers, configure, down, text, up};

/// Networks on one host, by one shell: a process each, and no more.
fn create_many(host: &TestHost, from: u32, to: u32) {
    let script = "for i in $(seq $1 $2); do $0 network create net-$i >/dev/null || exit; done";
    host.run([
        "sh",
        "-c",
        script,
        env!("CARGO_BIN_EXE_carboy"),
        &from.to_string(),
        &to.to_string(),
    ])
    .ok();
}

fn networks(host: &TestHost) -> Vec<Value> {
    let all = host.carboy(&["network", "ls", "--json"]).ok().stdout_json();
    all.as_array().unwrap().clone()
}

/// What `network create --subnet` says it overlaps; nothing may have changed.
#[track_caller]
fn overlaps(host: &TestHost, subnet: &str) -> String {
    let error = host.carboy(&["--json", "network", "create", "--subnet", subnet, "mine"]);
    let error = error.error(4, "overlap");
    host.carboy(&["network", "inspect", "mine"]).code(3);
    text(&error, "message").to_owned()
}

#[test]
fn a_benchmark_range_works_as_pool() {
    let mut host = TestHost::new();
    configure(&host, "pool = \"198.18.0.0/15\"\npool_prefix = 28\n");
    let bottle = up(&host, &["demo"]);
    let subnet = text(&bottle, "subnet");
    assert!(subnet.starts_with("198.18.") || subnet.starts_with("198.19."), "{subnet}");
    assert!(subnet.ends_with("/28"), "{subnet}");
    assert_answers(&host, &bottle, HEALTH);
    down(&host, "demo");
    // The configuration file and what shows it.
    host.forget_leaks();
}

#[test]
fn a_pool_is_used_to_its_last_subnet() {
    let mut host = TestHost::new();
    create_many(&host, 1, 256);
    let all = networks(&host);
    let subnets: HashSet<&str> = all.iter().map(|n| text(n, "subnet")).collect();
    assert_eq!((all.len(), subnets.len()), (256, 256));
    host.carboy(&["--json", "network", "create", "one-more"]).error(4, "overlap");
    // What is given back is given out again.
    host.carboy(&["network", "rm", "net-77"]).ok();
    host.carboy(&["network", "create", "one-more"]).ok();
    // They go with the host: to remove them one by one takes the kernel a quarter of a minute.
    host.forget_leaks();
}

#[test]
fn what_is_in_the_way_is_named() {
    let host = TestHost::new();
    for words in [
        // A VPN: a device with a route to elsewhere.
        "ip tuntap add dev vpn0 mode tun",
        "ip link set vpn0 up",
        "ip address add 10.8.0.2/32 dev vpn0",
        "ip route add 10.60.0.0/16 dev vpn0",
        // Half of it leads the other half of the world through itself.
        "ip route add 0.0.0.0/1 dev vpn0",
        // A device that is down has no route, but an address.
        "ip link add lan0 type bridge",
        "ip address add 10.64.0.1/24 dev lan0",
        // Docker's, without containers.
        "ip link add docker0 type bridge",
        "ip address add 172.17.0.1/16 dev docker0",
        "ip route add fd00:60::/32 dev vpn0",
    ] {
        host.run(words.split(' ').collect::<Vec<_>>()).ok();
    }
    for (subnet, what) in [
        ("10.60.7.0/24", "route 10.60.0.0/16 through vpn0"),
        ("10.56.0.0/13", "route 10.60.0.0/16 through vpn0"),
        ("10.8.0.0/24", "address 10.8.0.2/32 of vpn0"),
        ("10.64.0.0/25", "address 10.64.0.1/24 of lan0"),
        ("172.17.9.0/24", "address 172.17.0.1/16 of docker0"),
    ] {
        let message = overlaps(&host, subnet);
        assert!(message.contains(what), "{subnet}: {message}");
    }
    let both = ["--json", "network", "create", "--subnet", "10.1.0.0/24", "mine", "--subnet"];
    let error = host.carboy(&[&both[..], &["fd00:60:1::/64"]].concat()).error(4, "overlap");
    assert!(text(&error, "message").contains("route fd00:60::/32 through vpn0"), "{error}");
    // The default route's half is in nobody's way.
    host.carboy(&["network", "create", "--subnet", "10.63.0.0/24", "mine"]).ok();
    host.carboy(&["network", "rm", "mine"]).ok();
    for device in ["vpn0", "lan0", "docker0"] {
        host.run(["ip", "link", "del", device]).ok();
    }
}

#[test]
fn a_bottle_keeps_its_range_without_its_bridge() {
    let host = TestHost::new();
    let one = up(&host, &["one", "--subnet", "10.70.0.0/24", "--subnet", "fd00:70::/64"]);
    host.run(["ip", "link", "del", text(&one, "bridge")]).ok();
    for ranges in [&["--subnet", "10.70.0.0/25"][..], &["--subnet", "fd00:70::/48"]] {
        for verb in ["plan", "up"] {
            let all = [&["--json", verb, "two"], ranges].concat();
            let error = host.carboy(&all).error(4, "overlap");
            assert!(text(&error, "message").contains("claude-bottle-bundle-one"), "{error}");
        }
    }
    let again = up(&host, &["one", "--subnet", "10.70.0.0/24", "--subnet", "fd00:70::/64"]);
    assert_eq!((&again["subnet"], &again["changed"]), (&one["subnet"], &Value::Bool(true)));
    assert_answers(&host, &again, HEALTH);
    down(&host, "one");
    // It is free again.
    up(&host, &["two", "--subnet", "10.70.0.0/25"]);
    down(&host, "two");
}

#[test]
fn nobody_is_given_the_range_of_a_bottle_whose_bridge_is_gone() {
    let mut host = TestHost::new();
    configure(&host, "pool = \"10.71.0.0/29\"\npool_prefix = 30\n");
    for name in ["one", "two"] {
        host.carboy(&["network", "create", name]).ok();
    }
    for network in networks(&host) {
        host.run(["ip", "link", "del", text(&network, "bridge")]).ok();
    }
    host.carboy(&["--json", "network", "create", "three"]).error(4, "overlap");
    host.carboy(&["network", "rm", "one"]).ok();
    host.carboy(&["network", "create", "three"]).ok();
    host.carboy(&["network", "rm", "two", "three"]).ok();
    host.forget_leaks();
}
