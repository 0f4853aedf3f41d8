//! `carboy denied`: what a bottle with `--log-drops` was denied.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use crate::common::bottle::{HEALTH, assert_answers, bundle_ip, down, text, up};
use crate::common::{TestHost, netns, poll};

const BUNDLE: &str = "claude-bottle-sidecars-demo";
const GUEST: &str = "claude-bottle-guest-demo";

fn denied(host: &TestHost, arguments: &[&str]) -> Vec<Value> {
    let all = [&["denied", "--json", "demo"], arguments].concat();
    host.carboy(&all).ok().stdout_json().as_array().unwrap().clone()
}

/// One attempt to connect from a namespace of the host, which is denied.
fn knock(host: &TestHost, from: &str, to: impl Into<SocketAddr>) {
    let limit = Duration::from_millis(200);
    assert!(netns::connect(&host.netns(Some(from)), to.into(), limit).is_err());
}

/// Waits until what was denied has such an entry, and gives it.
#[track_caller]
fn entry(host: &TestHost, reason: &str, destination: Ipv4Addr) -> Value {
    let mut found = None;
    poll(Duration::from_secs(5), || {
        found = denied(host, &[]).into_iter().find(|flow| {
            flow["reason"] == reason && flow["destination"] == destination.to_string()
        });
        found.is_some()
    });
    found.unwrap_or_else(|| panic!("no {reason} to {destination} in {:?}", denied(host, &[])))
}

#[test]
fn what_was_denied_is_listed_with_its_reason() {
    let mut host = TestHost::new();
    host.uplink();
    let other = up(&host, &["other"]);
    let options = ["--egress", "192.0.2.1:1/tcp", "--guest", "--allow-port", "tcp/9000"];
    let bottle = up(&host, &[&["demo", "--log-drops"][..], &options].concat());
    let (ip, gateway) = (bundle_ip(&bottle), text(&bottle, "gateway").parse::<Ipv4Addr>().unwrap());
    assert_eq!(denied(&host, &[]), Vec::<Value>::new());
    // What is allowed does not appear.
    assert_answers(&host, &bottle, HEALTH);
    let outside = Ipv4Addr::new(192, 0, 2, 1);
    knock(&host, BUNDLE, (outside, 443));
    knock(&host, BUNDLE, (gateway, 22));
    knock(&host, BUNDLE, (bundle_ip(&other), HEALTH));
    knock(&host, GUEST, (ip, 9001));
    for (reason, to, port, from) in [
        ("not-in-egress", outside, 443, ip.to_string()),
        ("host-service", gateway, 22, ip.to_string()),
        ("other-bottle", bundle_ip(&other), HEALTH, ip.to_string()),
        ("from-guest", ip, 9001, text(&bottle["guest"], "ip").to_owned()),
    ] {
        let flow = entry(&host, reason, to);
        assert_eq!(flow["protocol"], "tcp", "{flow}");
        assert_eq!(flow["port"], port, "{flow}");
        assert_eq!(flow["source"], from, "{flow}");
        assert!(text(&flow, "time").starts_with("20") && text(&flow, "time").ends_with('Z'));
    }
    assert!(
        !denied(&host, &[])
            .iter()
            .any(|flow| flow["port"] == HEALTH && flow["destination"] == ip.to_string())
    );
    assert_eq!(denied(&host, &["-n", "1"]).len(), 1);
    let table = host.carboy(&["denied", "demo"]).ok().stdout();
    assert!(table.starts_with("TIME") && table.contains("not-in-egress"), "{table}");
    host.carboy(&["denied", "--json", "other"]).error(3, "not-found");
    host.carboy(&["denied", "--json", "nobody"]).error(3, "not-found");
    down(&host, "other");
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn denied_follows_and_goes_on_after_a_restart() {
    let mut host = TestHost::new();
    host.uplink();
    let outside = Ipv4Addr::new(192, 0, 2, 1);
    let options = ["demo", "--log-drops", "--egress", "192.0.2.1:1/tcp"];
    let bottle = up(&host, &options);
    knock(&host, BUNDLE, (outside, 441));
    entry(&host, "not-in-egress", outside);
    let mut follow = host.spawn_carboy(&["denied", "--json", "-f", "demo"]);
    let mut lines = follow.lines();
    let mut next_port = || loop {
        let flow: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
        // A SYN comes again while nobody answers.
        if flow["reason"] == "not-in-egress" {
            return flow["port"].clone();
        }
    };
    assert_eq!(next_port(), 441);
    knock(&host, BUNDLE, (outside, 442));
    while next_port() != 442 {}
    follow.kill();
    // Killed, the bundle is started anew by `up`, and what it is denied is kept on.
    let kill = format!("kill -9 {}", bottle["pid"]);
    host.run(["sh", "-c", &kill]).ok();
    assert!(poll(Duration::from_secs(10), || {
        let state = host.carboy(&["inspect", "--json", "demo"]).ok().stdout_json();
        state["state"] == "exited"
    }));
    assert_eq!(up(&host, &options)["changed"], true);
    let has = |port: u16| denied(&host, &[]).iter().any(|flow| flow["port"] == port);
    assert!(poll(Duration::from_secs(10), || {
        knock(&host, BUNDLE, (outside, 443));
        has(443)
    }));
    assert!(has(441) && has(442));
    down(&host, "demo");
    host.assert_clean();
}
