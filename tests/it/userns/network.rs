//! The bundle's network is the host's: what its programs may do there, and who sees to it.

use std::time::Duration;

use super::{CONTAINER, script, start, with_image};
use crate::common::bottle::{bundle_ip, down, up};
use crate::common::{TestHost, poll};

/// Two settings of the namespace, a line each.
const SETTINGS: [&str; 2] = ["ip_unprivileged_port_start", "ping_group_range"];

#[test]
fn low_ports_and_icmp_sockets_are_open_to_everybody_inside() {
    let host = with_image(TestHost::new());
    let serve = ["busybox", "httpd", "-f", "-p", "80", "-h", "/www"];
    let bottle = start(&host, &["--user", "web"], &serve);
    let ip = bundle_ip(&bottle);
    assert!(poll(Duration::from_secs(5), || host.tcp((ip, 80)).is_ok()), "port 80");
    let pid = bottle["pid"].to_string();
    // busybox knows raw sockets alone; the host's ping, as a user of the bundle, knows the others.
    let enter = ["nsenter", "-t", &pid, "--user", "--net", "-S", "1000", "-G", "1000", "--"];
    host.run([&enter[..], &["ping", "-c", "1", "-W", "5", &ip.to_string()]].concat()).ok();
    // Root inside has no rights over the host's network.
    let refused =
        script(&host, "ip link set eth0 down 2>&1; ip addr add 10.9.9.9/24 dev eth0 2>&1; true");
    assert_eq!(refused.matches("not permitted").count(), 2, "{refused}");
    down(&host, "demo");
}

#[test]
fn rights_over_the_network_are_asked_for_in_vain() {
    let host = with_image(TestHost::new());
    let flags = ["up", "demo", "--image", "test-busybox", "--userns", "--cap-add", "NET_ADMIN"];
    let output = host.carboy(&flags);
    output.ok();
    assert!(output.stderr().contains("CAP_NET_ADMIN has no effect"), "{output}");
    let refused = script(&host, "ip link set eth0 down 2>&1; true");
    assert!(refused.contains("not permitted"), "{refused}");
    down(&host, "demo");
}

#[test]
fn what_is_changed_there_is_seen_and_put_right() {
    let host = with_image(TestHost::new());
    start(&host, &[], &[]);
    let values = || {
        SETTINGS.map(|name| {
            let path = format!("/proc/sys/net/ipv4/{name}");
            host.netns_run(CONTAINER, ["cat", &path]).ok().stdout().trim().to_owned()
        })
    };
    assert_eq!(values(), ["0", "0\t2147483647"]);
    host.carboy(&["verify", "demo"]).ok();
    let break_it = "echo 1024 >/proc/sys/net/ipv4/ip_unprivileged_port_start; \
                    echo 1 0 >/proc/sys/net/ipv4/ping_group_range";
    host.netns_run(CONTAINER, ["sh", "-c", break_it]).ok();
    let found = host.carboy(&["verify", "--json", "demo"]);
    found.code(1);
    for name in SETTINGS {
        assert!(found.stdout().contains(&format!("net.ipv4.{name}")), "{found}");
    }
    let flags = ["demo", "--image", "test-busybox", "--userns"];
    assert_eq!(up(&host, &flags)["changed"], true);
    assert_eq!(values(), ["0", "0\t2147483647"]);
    host.carboy(&["verify", "demo"]).ok();
    assert_eq!(up(&host, &flags)["changed"], false);
    down(&host, "demo");
}
