//! `verify` and `reload` as verbs: which bottles, what they print, what they leave alone.

use std::time::Duration;

use serde_json::Value;

use crate::common::bottle::{HEALTH, WEB, assert_answers, down, inspect, load, text, up};
use crate::common::{TestHost, images, poll};

/// Everything of the host that either verb could touch, as lines. Timers run by themselves, and
/// the uplink's IPv6 address settles by itself.
fn everything(host: &TestHost) -> Vec<String> {
    let script = "ip -d -o link | sed 's/gc_timer *[0-9.]*//'; ip -4 -o address; ip -4 route; \
                  ip neigh show nud permanent; bridge fdb | grep master; nft -s -a list ruleset; \
                  find /run/carboy /run/netns -printf '%p %i %T@\n' | sort; \
                  grep . /proc/sys/net/ipv4/conf/*/forwarding";
    let text = host.run(["sh", "-c", script]).ok().stdout();
    text.lines().map(str::to_owned).collect()
}

#[track_caller]
fn assert_untouched(host: &TestHost, before: &[String]) {
    let after = everything(host);
    let lines = before.iter().chain(&after);
    let differing: Vec<&String> =
        lines.filter(|line| !before.contains(line) || !after.contains(line)).collect();
    assert!(differing.is_empty(), "{differing:#?}");
}

/// What must stay when only the network is put back.
fn living(host: &TestHost, slug: &str) -> [String; 3] {
    let bottle = inspect(host, slug);
    let index = |name: &str| {
        let link = host.json(["ip", "-j", "link", "show", name]);
        link[0]["ifindex"].to_string()
    };
    [bottle["pid"].to_string(), index(text(&bottle, "network")), index(text(&bottle, "container"))]
}

#[test]
fn verify_reads_and_changes_nothing() {
    let mut host = TestHost::new();
    host.uplink();
    up(&host, &["demo"]);
    let before = everything(&host);
    assert_eq!(host.carboy(&["verify"]).ok().stdout(), "bottle demo is as planned\n");
    assert_untouched(&host, &before);
    host.run(["ip", "link", "set", "claude-bottle-bundle-demo", "mtu", "1400"]).ok();
    host.run(["nft", "flush", "chain", "inet", "carboy", "from"]).ok();
    host.run(["umount", "/run/netns/claude-bottle-sidecars-demo"]).ok();
    let broken = everything(&host);
    let output = host.carboy(&["verify", "demo"]);
    output.code(1);
    assert!(output.stdout().starts_with("bottle demo is not as planned\n"), "{output}");
    assert!(output.stdout().contains("mtu: wanted 1500, found 1400\n"), "{output}");
    assert_eq!(output.stderr(), "");
    assert_untouched(&host, &broken);
    down(&host, "demo");
}

#[test]
fn verify_answers_for_those_named_or_for_all() {
    let host = TestHost::new();
    let all = |arguments: &[&str]| host.carboy(&[&["verify", "--json"], arguments].concat());
    assert_eq!(all(&[]).ok().stdout(), "[]\n");
    all(&["demo"]).error(3, "not-found");
    up(&host, &["demo"]);
    up(&host, &["other"]);
    let slugs = |report: &Value| -> Vec<String> {
        report.as_array().unwrap().iter().map(|r| text(r, "slug").to_owned()).collect()
    };
    assert_eq!(slugs(&all(&[]).ok().stdout_json()), ["demo", "other"]);
    assert_eq!(slugs(&all(&["other", "demo"]).ok().stdout_json()), ["other", "demo"]);
    let one = all(&["demo"]).ok().stdout_json();
    assert_eq!((&one["slug"], &one["ok"]), (&"demo".into(), &true.into()));
    host.run(["ip", "link", "set", "claude-bottle-sidecars-other", "down"]).ok();
    let report = all(&[]).code(1).stdout_json();
    assert_eq!((&report[0]["ok"], &report[1]["ok"]), (&true.into(), &false.into()), "{report}");
    // A network alone is what was planned where nothing else was.
    host.carboy(&["stop", "-f", "demo"]).ok();
    all(&["demo"]).ok();
    // What cannot be read is not as planned.
    std::fs::write(host.path("/run/carboy/networks/claude-bottle-bundle-demo.json"), "{").unwrap();
    all(&[]).code(1);
    down(&host, "demo");
    down(&host, "other");
    host.assert_clean();
}

/// What another bundle of the same network has is not too much, and what neither has is.
#[test]
fn bundles_that_share_a_network_are_told_apart() {
    let mut host = TestHost::new();
    load(&host, &images::busybox());
    let demo = up(&host, &["demo", "--subnet", "10.77.1.0/24"]);
    let (network, bridge) = (text(&demo, "network"), text(&demo, "bridge"));
    host.carboy(&["start", "two", "--network", network, "--ip", "10.77.1.9", "test-busybox"]).ok();
    let two = inspect(&host, "two");
    host.carboy(&["verify", "demo", "two"]).ok();
    let element = format!("add element inet carboy src4 {{ {bridge} . 10.77.1.77 }}");
    host.run(["nft", &element]).ok();
    for slug in ["demo", "two"] {
        let report = host.carboy(&["verify", "--json", slug]).code(1).stdout_json();
        let resource = text(&report["drift"][0], "resource");
        assert!(resource.ends_with(&format!("set src4 {bridge} . 10.77.1.77")), "{report}");
    }
    host.carboy(&["reload", "demo"]).ok();
    host.carboy(&["verify", "demo", "two"]).ok();
    // Nor does the network go from under it.
    let replace = ["--json", "up", "demo", "--subnet", "10.77.2.0/24", "--replace"];
    host.carboy(&replace).error(5, "in-use");
    host.carboy(&["verify", "demo", "two"]).ok();
    assert_answers(&host, &demo, HEALTH);
    assert_answers(&host, &two, WEB);
    host.carboy(&["stop", "-f", "two"]).ok();
    down(&host, "demo");
    host.forget_leaks();
}

#[test]
fn reload_puts_the_network_of_all_bottles_back() {
    let mut host = TestHost::new();
    host.uplink();
    let bottles = [up(&host, &["demo"]), up(&host, &["other"])];
    let before = [living(&host, "demo"), living(&host, "other")];
    let was = host.run(["nft", "-s", "list", "ruleset"]).ok().stdout();
    host.run(["nft", "flush", "ruleset"]).ok();
    let report = host.carboy(&["reload", "--json"]).ok().stdout_json();
    for (number, slug) in ["demo", "other"].iter().enumerate() {
        assert_eq!(report[number]["slug"], *slug, "{report}");
        assert_eq!(report[number]["changed"], true, "{report}");
        assert_eq!(living(&host, slug), before[number], "{slug} goes on as it was");
        assert_answers(&host, &bottles[number], HEALTH);
    }
    let lines = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(|l| l.trim().to_owned()).collect();
        lines.sort();
        lines
    };
    let is = host.run(["nft", "-s", "list", "ruleset"]).ok().stdout();
    assert_eq!(lines(&is).len(), lines(&was).len(), "{is}");
    host.carboy(&["verify"]).ok();
    let quiet = everything(&host);
    let again = host.carboy(&["reload"]).ok().stdout();
    assert_eq!(again.matches("was in place\n").count(), 2, "{again}");
    assert_untouched(&host, &quiet);
    down(&host, "demo");
    down(&host, "other");
    host.assert_clean();
}

#[test]
fn reload_starts_no_container() {
    let host = TestHost::new();
    up(&host, &["demo"]);
    let pid = inspect(&host, "demo")["pid"].to_string();
    host.run(["kill", "-9", &pid]).ok();
    let ended = poll(Duration::from_secs(10), || inspect(&host, "demo")["state"] == "exited");
    assert!(ended, "{}", inspect(&host, "demo"));
    for break_it in [
        "ip link del claude-bottle-bundle-demo",
        "ip link del claude-bottle-sidecars-demo",
        "ip netns del claude-bottle-sidecars-demo",
    ] {
        host.run(break_it.split(' ').collect::<Vec<_>>()).ok();
        let reloaded = host.carboy(&["reload", "--json", "demo"]).ok().stdout_json();
        assert_eq!(reloaded["changed"], true, "{break_it}");
        assert_eq!(inspect(&host, "demo")["state"], "exited");
        let report = host.carboy(&["verify", "--json", "demo"]).code(1).stdout_json();
        let drift = report["drift"].as_array().unwrap();
        assert_eq!(drift.len(), 1, "{break_it}: all but the container: {report}");
        assert!(text(&drift[0], "resource").starts_with("container "), "{break_it}: {report}");
    }
    let bottle = up(&host, &["demo"]);
    assert_answers(&host, &bottle, HEALTH);
    host.carboy(&["verify", "demo"]).ok();
    host.carboy(&["reload", "--json", "nobody"]).error(3, "not-found");
    down(&host, "demo");
    host.assert_clean();
}
