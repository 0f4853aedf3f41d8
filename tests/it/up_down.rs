//! `up` and `down` with no flags: the whole life of a bottle.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::common::TestHost;
use crate::common::bottle::{HEALTH, assert_answers, assert_echoes, bundle_ip, down, text, up};

const NETWORK: &str = "claude-bottle-bundle-demo";
const CONTAINER: &str = "claude-bottle-sidecars-demo";

fn life(host: &TestHost) {
    let bottle = up(host, &["demo"]);
    assert_answers(host, &bottle, HEALTH);
    assert_echoes(host, &bottle);
    assert_eq!(bottle["changed"], true);
    for (key, want) in [
        ("slug", "demo"),
        ("network", NETWORK),
        ("container", CONTAINER),
        ("netns", "/run/netns/claude-bottle-sidecars-demo"),
    ] {
        assert_eq!(bottle[key], want, "{key}");
    }
    assert_eq!(bottle["allow_cidrs"], serde_json::json!([format!("{}/32", bundle_ip(&bottle))]));
    assert_eq!(bottle["image"]["reference"], "embedded:sidecars");
    assert!(text(&bottle["image"], "digest").starts_with("sha256:"));

    let link = host.json(["ip", "-j", "link", "show", NETWORK]);
    assert_eq!(link[0]["ifname"], bottle["bridge"]);
    assert!(text(&bottle, "bridge").starts_with("cb-"));
    let port = host.json(["ip", "-j", "link", "show", CONTAINER]);
    assert!(text(&port[0], "ifname").starts_with("cv-"));
    assert_eq!(port[0]["master"], bottle["bridge"]);
    assert!(host.run(["ip", "netns", "list"]).ok().stdout().contains(CONTAINER));

    let pid = bottle["pid"].as_u64().unwrap();
    let joined = fs::read_link(host.path(format!("/proc/{pid}/ns/net"))).unwrap();
    let named = fs::metadata(host.netns(Some(CONTAINER))).unwrap().ino();
    assert_eq!(joined.display().to_string(), format!("net:[{named}]"));

    let again = up(host, &["demo"]);
    assert_eq!(again["changed"], false);
    assert_eq!(again["pid"], bottle["pid"]);

    down(host, "demo");
    host.assert_clean();
    let second = host.carboy(&["down", "demo"]);
    assert!(!second.ok().stderr().is_empty(), "a note on stderr: {second}");
    host.assert_clean();
}

#[test]
fn a_bottle_lives_and_leaves_nothing() {
    life(&TestHost::new());
}

#[test]
fn a_bottle_lives_and_leaves_nothing_on_cgroup2() {
    life(&TestHost::cgroup2());
}

#[test]
fn without_json_stdout_is_data_only_and_down_says_nothing_there() {
    let host = TestHost::new();
    host.carboy(&["up", "demo"]).ok();
    let listed = host.carboy(&["ps"]).ok().stdout();
    assert!(listed.contains("demo"), "{listed}");
    down(&host, "demo");
}

#[test]
fn many_bottles_answer_at_the_first_attempt() {
    let host = TestHost::new();
    let slugs: Vec<String> = (0..6).map(|n| format!("b{n}")).collect();
    for slug in &slugs {
        assert_answers(&host, &up(&host, &[slug]), HEALTH);
    }
    let all = host.carboy(&["ps", "--json"]).ok().stdout_json();
    assert_eq!(all.as_array().unwrap().len(), slugs.len());
    for slug in &slugs {
        down(&host, slug);
    }
    host.assert_clean();
}

#[test]
fn plan_changes_nothing_and_says_what_up_does() {
    let host = TestHost::new();
    let files = ["find", "/run", "/var/lib", "-printf", "%y %m %s %T@ %p\\n"];
    let before = host.run(files).ok().stdout();
    let plan = host.carboy(&["plan", "--json", "demo"]).ok().stdout_json();
    host.assert_clean();
    assert_eq!(host.run(files).ok().stdout(), before);
    assert!(!host.path("/var/lib/carboy").exists() && !host.path("/run/carboy").exists());
    let bottle = up(&host, &["demo"]);
    let keys = [
        "slug",
        "network",
        "container",
        "bridge",
        "subnet",
        "gateway",
        "bundle_ip",
        "mac",
        "netns",
    ];
    for key in keys {
        assert_eq!(plan[key], bottle[key], "{key}");
    }
    down(&host, "demo");
}

#[test]
fn the_daemons_of_the_list_run_and_no_others() {
    let host = TestHost::new();
    let bottle = up(&host, &["demo", "--daemons", "health"]);
    assert_answers(&host, &bottle, HEALTH);
    assert!(host.tcp((bundle_ip(&bottle), crate::common::bottle::ECHO)).is_err());
    let idle = up(&host, &["idle", "--daemons", ""]);
    assert!(host.tcp((bundle_ip(&idle), HEALTH)).is_err());
    down(&host, "demo");
    down(&host, "idle");
}

#[test]
fn calls_on_one_bottle_at_once_are_serialised() {
    let host = TestHost::new();
    let mut calls: Vec<_> = (0..4).map(|_| host.spawn_carboy(&["up", "--json", "demo"])).collect();
    let changes: Vec<bool> = calls
        .iter_mut()
        .map(|call| {
            let text: String = call.lines().collect();
            assert_eq!(call.wait(), Some(0), "{text}");
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            json["changed"].as_bool().unwrap()
        })
        .collect();
    assert_eq!(changes.iter().filter(|changed| **changed).count(), 1, "{changes:?}");
    down(&host, "demo");
}

#[test]
fn another_prefix_state_and_root_keep_to_themselves() {
    let mut host = TestHost::new();
    let root = host.dir().join("images").display().to_string();
    let flags = ["--prefix", "other", "--state", "/run/elsewhere", "--root", &root];
    host.carboy(&[&flags[..], &["up", "demo"]].concat()).ok();
    host.run(["ip", "link", "show", "other-bundle-demo"]).ok();
    host.run(["ip", "link", "show", NETWORK]).code(1);
    assert!(!host.path("/run/carboy").exists() && !host.path("/var/lib/carboy").exists());
    host.carboy(&[&flags[..], &["down", "demo"]].concat()).ok();
    // The state directory itself may stay, but nothing of a bottle in it.
    let left = host.leaks();
    assert!(left.iter().all(|l| l.starts_with("+ file /run/elsewhere")), "{left:#?}");
    assert!(!left.iter().any(|l| l.contains("demo")), "{left:#?}");
    host.forget_leaks();
}
