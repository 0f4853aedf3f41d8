//! IPv6 beside IPv4: pinned as IPv4 is, and nothing of it where it was not asked for.

use std::fs;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;

use serde_json::Value;

use crate::common::TestHost;
use crate::common::bottle::{ECHO, HEALTH, assert_answers, down, inspect, text, up};

const CONTAINER: &str = "claude-bottle-sidecars-demo";
const NETWORK: &str = "claude-bottle-bundle-demo";
const DUAL: [&str; 5] = ["demo", "--subnet", "10.77.8.0/24", "--subnet", "fd00:77:8::/64"];

fn bundle_ip6(bottle: &Value) -> Ipv6Addr {
    text(bottle, "bundle_ip6").parse().unwrap()
}

fn sysctl(host: &TestHost, netns: Option<&str>, device: &str, name: &str) -> String {
    let path = format!("/proc/sys/net/ipv6/conf/{device}/{name}");
    let output = match netns {
        Some(netns) => host.netns_run(netns, ["cat", &path]),
        None => host.run(["cat", &path]),
    };
    output.ok().stdout().trim().to_owned()
}

/// The addresses of a device, of one scope or of all.
fn addresses6(host: &TestHost, netns: Option<&str>, device: &str) -> Vec<String> {
    let command = ["ip", "-j", "-6", "address", "show", "dev", device];
    let output = match netns {
        Some(netns) => host.netns_run(netns, command),
        None => host.run(command),
    };
    let json = output.ok().stdout_json();
    let infos = json[0]["addr_info"].as_array().cloned().unwrap_or_default();
    infos.iter().map(|i| format!("{}/{}", i["local"].as_str().unwrap(), i["prefixlen"])).collect()
}

#[test]
fn the_pinned_ipv6_address_answers_when_up_returns() {
    let host = TestHost::new();
    let bottle = up(&host, &DUAL);
    let ip6 = bundle_ip6(&bottle);
    assert_eq!(ip6, "fd00:77:8::2".parse::<Ipv6Addr>().unwrap());
    for port in [ECHO, HEALTH] {
        let to = SocketAddr::from((ip6, port));
        host.tcp(to).unwrap_or_else(|e| panic!("{to} at the first attempt: {e}"));
    }
    assert_answers(&host, &bottle, HEALTH);
    assert_eq!(bottle["allow_cidrs"][1], "fd00:77:8::2/128");
    assert_eq!(inspect(&host, "demo")["gateway6"], "fd00:77:8::1");
    down(&host, "demo");
}

#[test]
fn all_that_ipv6_needs_is_pinned() {
    let host = TestHost::new();
    let bottle =
        up(&host, &[&DUAL[..], &["--gateway", "fd00:77:8::fe", "--ip6", "fd00:77:8::9"]].concat());
    let (bridge, inside) = (text(&bottle, "bridge"), Some(CONTAINER));
    assert_eq!(addresses6(&host, None, bridge), ["fd00:77:8::fe/64"]);
    assert_eq!(addresses6(&host, inside, "eth0"), ["fd00:77:8::9/64"]);
    assert_eq!(addresses6(&host, inside, "lo"), ["::1/128"]);
    let route = host.netns_run(CONTAINER, ["ip", "-j", "-6", "route", "show", "default"]);
    assert_eq!(route.ok().stdout_json()[0]["gateway"], "fd00:77:8::fe");
    for (netns, device) in [(None, bridge), (inside, "eth0")] {
        assert_eq!(sysctl(&host, netns, device, "accept_ra"), "0", "{device}");
        assert_eq!(sysctl(&host, netns, device, "disable_ipv6"), "0", "{device}");
    }
    // A port of a bridge needs no IPv6 of its own, and what may come later has none.
    assert_eq!(sysctl(&host, None, &host_end(&host), "disable_ipv6"), "1");
    assert_eq!(sysctl(&host, inside, "default", "disable_ipv6"), "1");
    let neighbour = |json: Value| (json[0]["lladdr"].clone(), json[0]["state"][0].clone());
    let outer = host.json(["ip", "-j", "neigh", "show", "fd00:77:8::9", "dev", bridge]);
    assert_eq!(neighbour(outer), (bottle["mac"].clone(), "PERMANENT".into()));
    let inner = host.netns_run(CONTAINER, ["ip", "-j", "neigh", "show", "fd00:77:8::fe"]);
    assert_eq!(neighbour(inner.ok().stdout_json()).1, "PERMANENT");
    down(&host, "demo");
}

/// The name of the veth pair's end on the host.
fn host_end(host: &TestHost) -> String {
    text(&host.json(["ip", "-j", "link", "show", CONTAINER])[0], "ifname").to_owned()
}

#[test]
fn without_ipv6_not_one_frame_of_it_is_seen() {
    let host = TestHost::new();
    let bottle = up(&host, &["demo"]);
    let bridge = text(&bottle, "bridge");
    let veth = host_end(&host);
    // Counts what the bridge hands up, and what it sends, before anything is dropped.
    let counters = format!(
        "table netdev watch {{ chain in {{ type filter hook ingress device {veth} priority -500; \
         ether type ip6 counter; }}; chain out {{ type filter hook egress device {veth} \
         priority -500; ether type ip6 counter; }}; }}"
    );
    host.run(["nft", &counters]).ok();
    for (netns, device) in [(None, bridge), (None, veth.as_str()), (Some(CONTAINER), "eth0")] {
        assert_eq!(addresses6(&host, netns, device), [""; 0], "{device}");
        assert_eq!(sysctl(&host, netns, device, "disable_ipv6"), "1", "{device}");
    }
    assert_eq!(addresses6(&host, Some(CONTAINER), "lo"), [""; 0]);
    // What makes a kernel with IPv6 speak: a link that comes up.
    for action in ["down", "up"] {
        host.run(["ip", "link", "set", bridge, action]).ok();
        host.netns_run(CONTAINER, ["ip", "link", "set", "eth0", action]).ok();
    }
    up(&host, &["demo"]);
    assert_answers(&host, &bottle, HEALTH);
    let rules = host.run(["nft", "-j", "list", "table", "netdev", "watch"]).ok().stdout();
    assert!(rules.contains("\"packets\": 0"), "{rules}");
    assert!(!rules.replace("\"packets\": 0", "").contains("\"packets\""), "{rules}");
    host.run(["nft", "delete", "table", "netdev", "watch"]).ok();
    down(&host, "demo");
}

#[test]
fn damage_to_ipv6_is_repaired_and_nothing_else() {
    let host = TestHost::new();
    let bottle = up(&host, &DUAL);
    let bridge = text(&bottle, "bridge").to_owned();
    let index =
        |device: &str| host.json(["ip", "-j", "link", "show", device])[0]["ifindex"].clone();
    let before = (index(&bridge), index(CONTAINER));
    let gateway = "fd00:77:8::1/64";
    let outer: [&[&str]; 9] = [
        &["ip", "-6", "address", "flush", "dev", &bridge],
        &["ip", "-6", "route", "flush", "dev", &bridge],
        &["ip", "neigh", "del", "fd00:77:8::2", "dev", &bridge],
        &["ip", "link", "set", &bridge, "down"],
        &["ip", "link", "set", &bridge, "mtu", "1000"],
        &["sysctl", "-qw", &format!("net.ipv6.conf.{bridge}.disable_ipv6=1")],
        &["sysctl", "-qw", &format!("net.ipv6.conf.{bridge}.accept_ra=1")],
        &["sysctl", "-qw", &format!("net.ipv6.conf.{bridge}.force_forwarding=0")],
        &["ip", "address", "del", gateway, "dev", &bridge],
    ];
    let inner: [&[&str]; 7] = [
        &["ip", "-6", "address", "flush", "dev", "eth0"],
        &["ip", "-6", "route", "del", "default"],
        &["ip", "-6", "neigh", "flush", "all", "nud", "permanent"],
        &["ip", "link", "set", "eth0", "down"],
        &["ip", "link", "set", "eth0", "mtu", "1000"],
        &["sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1"],
        &["sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=1"],
    ];
    // Linux before 6.17 has no such setting to damage.
    let forces = Path::new("/proc/sys/net/ipv6/conf/default/force_forwarding").exists();
    let is_there = |c: &&&[&str]| forces || !c.iter().any(|word| word.contains("force_forwarding"));
    let outer = outer.iter().filter(is_there).map(|c| (false, c));
    let all = outer.chain(inner.iter().map(|c| (true, c)));
    for (inside, command) in all {
        match inside {
            true => host.netns_run(CONTAINER, command).ok(),
            false => host.run(command).ok(),
        };
        assert_eq!(up(&host, &DUAL)["changed"], true, "{command:?}");
        assert_eq!(up(&host, &DUAL)["changed"], false, "after {command:?}");
        let to = SocketAddr::from((bundle_ip6(&bottle), HEALTH));
        host.tcp(to).unwrap_or_else(|e| panic!("after {command:?}: {e}"));
        assert_eq!((index(&bridge), index(CONTAINER)), before, "{command:?}");
        assert_eq!(addresses6(&host, None, &bridge), [gateway], "after {command:?}");
    }
    down(&host, "demo");
}

#[test]
fn a_damaged_ipv6_record_or_none_stands_in_nobodys_way() {
    let host = TestHost::new();
    for damage in ["none", "truncated"] {
        up(&host, &DUAL);
        for path in [
            format!("/run/carboy/networks/{NETWORK}.json"),
            format!("/run/carboy/bundles/{CONTAINER}/record.json"),
        ] {
            match damage {
                "none" => fs::remove_file(host.path(&path)).unwrap(),
                _ => fs::write(host.path(&path), "{").unwrap(),
            }
        }
        down(&host, "demo");
        host.assert_clean();
    }
}

#[test]
fn bad_ipv6_wishes_are_refused_before_anything_changes() {
    let host = TestHost::new();
    let cases: [(&[&str], &str); 5] = [
        (&["--subnet", "fd00::1/64"], "invalid"),
        (&["--ip6", "fd00::2"], "invalid"),
        (&["--subnet", "fd00::/64", "--ip6", "fd00:1::2"], "invalid"),
        (&["--subnet", "fd00::/64", "--mtu", "1279"], "invalid"),
        (&["--subnet", "fd00::/64", "--subnet", "fd01::/64"], "usage"),
    ];
    for (arguments, code) in cases {
        for verb in ["plan", "up"] {
            let all = [&["--json", verb, "demo"], arguments].concat();
            host.carboy(&all).error(2, code);
        }
        host.assert_clean();
    }
}
