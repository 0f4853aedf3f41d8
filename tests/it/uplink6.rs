//! The way out in IPv6: through the device of the IPv6 default route, and for bundles alone.

use std::io::{Read, Write};
use std::net::SocketAddr;

use crate::common::bottle::{HEALTH, down, text, up};
use crate::common::uplink::{DEVICE, HOST6, OUTSIDE6};
use crate::common::{TestHost, netns};

const CONTAINER: &str = "claude-bottle-sidecars-demo";
const DUAL: [&str; 3] = ["demo", "--subnet", "fd00:77:8::/64"];

fn sysctl(host: &TestHost, device: &str, name: &str) -> String {
    let path = format!("/proc/sys/net/ipv6/conf/{device}/{name}");
    host.run(["cat", &path]).ok().stdout().trim().to_owned()
}

/// Whether the kernel forwards for single devices (Linux 6.17). One that does not is refused a way
/// out, which is asserted here.
fn forwards(host: &TestHost) -> bool {
    if has_switch(host) {
        return true;
    }
    let error = host.carboy(&[&["--json", "up"], &DUAL[..]].concat()).error(7, "unsupported");
    assert!(text(&error, "hint").contains("net.ipv6.conf.all.forwarding=1"), "{error}");
    host.assert_clean();
    false
}

fn has_switch(host: &TestHost) -> bool {
    host.path("/proc/sys/net/ipv6/conf/all/force_forwarding").exists()
}

fn guarded(host: &TestHost) -> bool {
    host.run(["nft", "list", "set", "inet", "carboy", "guarded6"]).ok().stdout().contains(DEVICE)
}

/// Whom a server outside sees when something in the bundle's namespace asks it.
fn seen_as(host: &TestHost, server: SocketAddr) -> std::io::Result<String> {
    let limit = std::time::Duration::from_secs(2);
    let mut stream = netns::connect(&host.netns(Some(CONTAINER)), server, limit)?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.lines().last().unwrap_or_default().to_owned())
}

#[test]
fn a_bundle_goes_out_behind_the_hosts_ipv6_address() {
    let mut host = TestHost::new();
    host.uplink6();
    if !forwards(&host) {
        return;
    }
    let server = host.existing_uplink().serve_peer_address_at(OUTSIDE6.into());
    let bottle = up(&host, &DUAL);
    assert_eq!(seen_as(&host, server).unwrap(), HOST6.to_string());
    // The host is no router: it goes on to accept router advertisements.
    for device in ["all", DEVICE] {
        assert_eq!(sysctl(&host, device, "forwarding"), "0", "{device}");
    }
    assert_eq!((sysctl(&host, DEVICE, "force_forwarding").as_str(), guarded(&host)), ("1", true));
    // Nobody outside reaches the bundle.
    let outside = host.existing_uplink();
    outside.run(&["ip", "route", "add", text(&bottle, "subnet6"), "via", &HOST6.to_string()]).ok();
    let ip6 = text(&bottle, "bundle_ip6").parse::<std::net::IpAddr>().unwrap();
    assert!(outside.tcp((ip6, HEALTH)).is_err());
    assert_eq!(up(&host, &DUAL)["changed"], false);
    // It is turned off with the last bottle that has IPv6.
    up(&host, &["other"]);
    down(&host, "demo");
    assert_eq!((sysctl(&host, DEVICE, "force_forwarding").as_str(), guarded(&host)), ("0", false));
    down(&host, "other");
    host.assert_clean();
}

#[test]
fn what_carboy_turned_on_is_known_after_a_flush() {
    let mut host = TestHost::new();
    host.uplink6();
    if !forwards(&host) {
        return;
    }
    let server = host.existing_uplink().serve_peer_address_at(OUTSIDE6.into());
    up(&host, &DUAL);
    host.run(["nft", "flush", "ruleset"]).ok();
    assert_eq!(up(&host, &DUAL)["changed"], true);
    assert!(guarded(&host));
    assert_eq!(seen_as(&host, server).unwrap(), HOST6.to_string());
    host.run(["nft", "flush", "ruleset"]).ok();
    down(&host, "demo");
    assert_eq!(sysctl(&host, DEVICE, "force_forwarding"), "0");
    host.assert_clean();
}

#[test]
fn what_was_on_before_stays_on_and_is_not_guarded() {
    let mut host = TestHost::new();
    host.uplink6();
    let names: &[&str] =
        if forwards(&host) { &["force_forwarding", "forwarding"] } else { &["forwarding"] };
    for &name in names {
        let device = if name == "forwarding" { "all" } else { DEVICE };
        let set = |value: &str| {
            let word = format!("net.ipv6.conf.{device}.{name}={value}");
            host.run(["sysctl", "-qw", &word]).ok();
        };
        set("1");
        up(&host, &DUAL);
        assert!(!guarded(&host), "{name}");
        down(&host, "demo");
        assert_eq!(sysctl(&host, device, name), "1");
        set("0");
    }
}

#[test]
fn a_kernel_that_can_only_make_routers_is_refused() {
    const ALL: &str = "/proc/sys/net/ipv6/conf/all";
    let mut host = TestHost::new();
    host.uplink6();
    host.run(["mount", "-t", "tmpfs", "tmpfs", ALL]).ok();
    host.take_baseline();
    for verb in ["plan", "up"] {
        let error = host.carboy(&[&["--json", verb], &DUAL[..]].concat()).error(7, "unsupported");
        assert!(text(&error, "hint").contains("net.ipv6.conf.all.forwarding=1"), "{error}");
    }
    host.assert_clean();
    // Without a way out there is nothing to forward.
    up(&host, &[&DUAL[..], &["--internal"]].concat());
    down(&host, "demo");
    host.run(["umount", ALL]).ok();
    host.forget_leaks();
}

#[test]
fn without_an_ipv6_route_out_the_bundle_answers_the_host_alone() {
    let mut host = TestHost::new();
    host.uplink();
    let bottle = up(&host, &DUAL);
    let ip6 = text(&bottle, "bundle_ip6").parse::<std::net::IpAddr>().unwrap();
    host.tcp((ip6, HEALTH)).unwrap();
    if has_switch(&host) {
        assert_eq!(sysctl(&host, DEVICE, "force_forwarding"), "0");
    }
    down(&host, "demo");
}
