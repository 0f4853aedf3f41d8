//! The contract's table: each verb against each state it may find.

use serde_json::Value;

use crate::common::TestHost;
use crate::common::bottle::{HEALTH, assert_answers, bundle_ip, down, inspect, text, up};

const NETWORK: &str = "claude-bottle-bundle-demo";
const CONTAINER: &str = "claude-bottle-sidecars-demo";

/// `network create --json` with these addresses.
fn create(host: &TestHost, name: &str, subnet: &str, gateway: &str) -> crate::common::Output {
    host.carboy(&["network", "create", "--json", "--subnet", subnet, "--gateway", gateway, name])
}

#[test]
fn network_create_and_rm() {
    let host = TestHost::new();
    let flags = ["network", "create", "--subnet", "10.77.1.0/24", "--gateway", "10.77.1.1"];
    let plain = host.carboy(&[&flags[..], &[NETWORK]].concat());
    assert_eq!(plain.ok().stdout(), format!("{NETWORK}\n"));
    let again = create(&host, NETWORK, "10.77.1.0/24", "10.77.1.1").ok().stdout_json();
    assert_eq!((text(&again, "name"), &again["changed"]), (NETWORK, &Value::Bool(false)));

    for (subnet, gateway) in [("10.77.2.0/24", "10.77.2.1"), ("10.77.1.0/24", "10.77.1.254")] {
        let before = host.run(["ip", "address"]).stdout();
        let error = create(&host, NETWORK, subnet, gateway).error(4, "conflict").to_string();
        assert!(error.contains(gateway) && error.contains("10.77.1.1"), "says both: {error}");
        assert_eq!(host.run(["ip", "address"]).stdout(), before);
    }

    let listed = host.carboy(&["network", "ls", "--json"]).ok().stdout_json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let seen = host.carboy(&["network", "inspect", "--json", NETWORK]).ok().stdout_json();
    let seen = if seen.is_array() { seen[0].clone() } else { seen };
    assert_eq!(seen["subnet"], "10.77.1.0/24");

    let removed = host.carboy(&["network", "rm", "--json", NETWORK]).ok().stdout_json();
    let removed = if removed.is_array() { removed[0].clone() } else { removed };
    assert_eq!(removed["changed"], true);
    host.assert_clean();
    let absent = host.carboy(&["network", "rm", NETWORK]);
    assert!(!absent.ok().stderr().is_empty(), "a note on stderr: {absent}");
}

#[test]
fn a_damaged_network_is_repaired() {
    let host = TestHost::new();
    let made = || create(&host, NETWORK, "10.77.1.0/24", "10.77.1.1").ok().stdout_json();
    made();
    let damages = [
        "ip address flush dev $0",
        "ip link set $0 down",
        "ip link set $0 address 02:00:00:00:00:01",
        "ip link property del dev $0 altname claude-bottle-bundle-demo",
        "nft flush ruleset",
        "echo 0 >/proc/sys/net/ipv4/conf/$0/forwarding",
    ];
    let bridge = bridge_of(NETWORK);
    for damage in damages {
        let before = host.run(["sh", "-c", "ip -4 -j address show $0; nft list ruleset", &bridge]);
        host.run(["sh", "-c", damage, &bridge]).ok();
        assert_eq!(made()["changed"], true, "{damage}");
        assert_eq!(made()["changed"], false, "{damage}");
        let after = host.run(["sh", "-c", "ip -4 -j address show $0; nft list ruleset", &bridge]);
        assert_eq!(comparable(&before.stdout()), comparable(&after.stdout()), "{damage}");
    }
    host.run(["ip", "link", "del", &bridge]).ok();
    assert_eq!(made()["changed"], true);
    host.carboy(&["network", "rm", NETWORK]).ok();
    host.assert_clean();
}

#[test]
fn an_overlap_names_who_has_the_range() {
    let mut host = TestHost::new();
    for words in [
        "ip link add lan0 type bridge",
        "ip address add 10.9.0.1/24 dev lan0",
        "ip link set lan0 up",
        "ip link add lan1 type bridge",
        "ip address add 10.10.0.1/24 dev lan1",
        "ip route add 10.11.0.0/16 dev lan0",
    ] {
        host.run(words.split(' ').collect::<Vec<_>>()).ok();
    }
    host.take_baseline();
    for (subnet, gateway, device) in [
        ("10.9.0.0/24", "10.9.0.254", "lan0"),
        ("10.9.0.128/25", "10.9.0.129", "lan0"),
        ("10.8.0.0/14", "10.8.0.1", "lan"),
        // A device that is down has an address, but no route.
        ("10.10.0.0/24", "10.10.0.254", "lan1"),
        ("10.11.3.0/24", "10.11.3.1", "lan0"),
    ] {
        let error = create(&host, NETWORK, subnet, gateway).error(4, "overlap").to_string();
        assert!(error.contains(device), "{subnet}: {error}");
        host.assert_clean();
    }
    up(&host, &["other", "--subnet", "10.77.1.0/24"]);
    let error = create(&host, NETWORK, "10.77.1.128/25", "10.77.1.129").error(4, "overlap");
    assert!(error.to_string().contains("other"), "{error}");
    down(&host, "other");
}

#[test]
fn a_network_in_use_is_not_removed() {
    let host = TestHost::new();
    let bottle = up(&host, &["demo"]);
    let error = host.carboy(&["network", "rm", "--json", NETWORK]).error(5, "in-use");
    assert!(error.to_string().contains("demo"), "{error}");
    assert_answers(&host, &bottle, HEALTH);
    host.carboy(&["network", "rm", "--force", NETWORK]).ok();
    host.run(["ip", "link", "show", NETWORK]).code(1);
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn up_puts_any_damage_right() {
    let host = TestHost::new();
    let damages = [
        "ip link del claude-bottle-bundle-demo",
        "ip link del claude-bottle-sidecars-demo",
        "ip link set claude-bottle-sidecars-demo nomaster",
        "ip link set claude-bottle-sidecars-demo down",
        "ip address flush dev $1",
        "nft flush ruleset",
        "ip -n claude-bottle-sidecars-demo address flush dev eth0",
        "ip -n claude-bottle-sidecars-demo link set eth0 down",
        "ip -n claude-bottle-sidecars-demo route del default",
        "ip netns del claude-bottle-sidecars-demo",
        "kill -9 $2",
    ];
    up(&host, &["demo"]);
    for damage in damages {
        let bottle = inspect(&host, "demo");
        let pid = bottle["pid"].to_string();
        host.run(["sh", "-c", damage, "sh", text(&bottle, "bridge"), &pid]).ok();
        let repaired = up(&host, &["demo"]);
        assert_eq!(repaired["changed"], true, "{damage}");
        assert_answers(&host, &repaired, HEALTH);
        assert_eq!(up(&host, &["demo"])["changed"], false, "{damage}");
    }
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn up_with_the_same_spec_writes_nothing() {
    let host = TestHost::new();
    let arguments = ["demo", "-e", "A=1", "--label", "k=v", "--pids-limit", "50"];
    let bottle = up(&host, &arguments);
    let state = "ip -j link; ip -j address; ip -j route; ip -j neigh show nud permanent; \
                 nft -a list ruleset; ip -j -n claude-bottle-sidecars-demo address";
    let before = comparable(&host.run(["sh", "-c", state]).ok().stdout());
    // Neighbour entries change by themselves.
    let links = ["ip", "-oneline", "monitor", "link", "address", "route", "rule", "netconf"];
    let firewall = ["nft", "monitor"];
    let mut monitors = [host.spawn(links), host.spawn(firewall)];
    // Each must see a change, or it would see nothing of carboy's either.
    let marks = [
        "ip link add mark0 type bridge && ip link del mark0",
        "nft add table inet mark0 && nft delete table inet mark0",
    ];
    // The kernel tells of the first up's links up to a second later (net/core/link_watch.c).
    std::thread::sleep(std::time::Duration::from_millis(1500));
    for mark in marks {
        host.run(["sh", "-c", mark]).ok();
    }
    let again = up(&host, &arguments);
    assert_eq!(again["changed"], false);
    assert_eq!(again["pid"], bottle["pid"]);
    assert_eq!(comparable(&host.run(["sh", "-c", state]).ok().stdout()), before);
    std::thread::sleep(std::time::Duration::from_millis(200));
    for monitor in &mut monitors {
        monitor.kill();
        let is_mark = |line: &String| line.contains("mark0");
        let (marks, seen): (Vec<String>, Vec<String>) =
            monitor.lines().skip_while(|line| !is_mark(line)).partition(is_mark);
        assert!(!marks.is_empty(), "it watches nothing: {seen:#?}");
        // The marks' own transactions are those of the program nft.
        let noise = |line: &str| line.trim().is_empty() || line.ends_with("(nft)");
        let ours: Vec<&String> = seen.iter().filter(|line| !noise(line)).collect();
        assert!(ours.is_empty(), "{ours:#?}");
    }
    down(&host, "demo");
}

#[test]
fn up_with_another_spec_is_a_conflict_until_replaced() {
    let host = TestHost::new();
    let bottle = up(&host, &["demo", "-e", "A=1"]);
    let output = host.carboy(&["up", "--json", "demo", "-e", "A=1", "--pids-limit", "77"]);
    let error = output.error(4, "conflict");
    assert!(error.to_string().contains("77"), "the differences: {error}");
    assert_eq!(inspect(&host, "demo")["pid"], bottle["pid"]);
    assert_answers(&host, &bottle, HEALTH);
    let other = up(&host, &["demo", "-e", "A=1", "--pids-limit", "77", "--replace"]);
    assert_eq!(other["changed"], true);
    assert_ne!(other["pid"], bottle["pid"]);
    assert_eq!(other["bundle_ip"], bottle["bundle_ip"]);
    assert_answers(&host, &other, HEALTH);
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn up_completes_a_network_that_is_there() {
    let host = TestHost::new();
    create(&host, NETWORK, "10.77.1.0/24", "10.77.1.1").ok();
    let bottle = up(&host, &["demo", "--subnet", "10.77.1.0/24"]);
    assert_eq!(bundle_ip(&bottle).to_string(), "10.77.1.2");
    assert_answers(&host, &bottle, HEALTH);
    host.carboy(&["stop", "-f", "demo"]).ok();
    assert_answers(&host, &up(&host, &["demo", "--subnet", "10.77.1.0/24"]), HEALTH);
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn foreign_things_are_never_taken_over() {
    let bridge = bridge_of(NETWORK);
    let links = [
        format!("ip link add {bridge} type bridge"),
        format!(
            "ip link add foreign0 type bridge && ip link property add dev foreign0 altname {NETWORK}"
        ),
        format!("ip netns add {CONTAINER}"),
    ];
    for make in links {
        let mut host = TestHost::new();
        host.run(["sh", "-c", &make]).ok();
        host.take_baseline();
        host.carboy(&["up", "--json", "demo"]).error(4, "foreign");
        host.assert_clean();
        down(&host, "demo");
        host.assert_clean();
    }
}

/// The name the kernel knows the bridge by.
fn bridge_of(network: &str) -> String {
    carboy::names::NetworkName::new(network).unwrap().bridge().to_string()
}

/// Rule handles and packet counts change without anybody's doing, and the order of set elements
/// says nothing.
fn comparable(text: &str) -> String {
    let keep = |word: &&str| !word.chars().all(|c| c.is_ascii_digit());
    let mut words: Vec<&str> = text.split_whitespace().filter(keep).collect();
    words.sort_unstable();
    words.join(" ")
}
