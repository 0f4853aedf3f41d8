//! `carboy port`: where a bundle's port is reached.

use crate::common::TestHost;
use crate::common::bottle::{ECHO, HEALTH, assert_answers, bundle_ip, down, up};

#[test]
fn a_port_is_reached_at_the_bundles_address() {
    let host = TestHost::new();
    let bottle = up(&host, &["demo"]);
    let ip = bundle_ip(&bottle);
    for (port, want) in [("9000", 9000), ("9000/tcp", 9000), ("53/udp", 53)] {
        let output = host.carboy(&["port", "demo", port]);
        assert_eq!(output.ok().stdout(), format!("{ip}:{want}\n"), "{port}");
    }
    let printed = host.carboy(&["port", "demo", "9000"]).ok().stdout();
    host.tcp(printed.trim().parse::<std::net::SocketAddr>().unwrap()).unwrap();
    let json = host.carboy(&["--json", "port", "demo", "9000/tcp"]).ok().stdout_json();
    let want = serde_json::json!({
        "port": 9000, "protocol": "tcp", "address": format!("{ip}:9000")
    });
    assert_eq!(json, want);
    assert_answers(&host, &bottle, HEALTH);
    down(&host, "demo");
}

#[test]
fn without_a_port_all_that_the_image_exposes_is_told() {
    let host = TestHost::new();
    let bottle = up(&host, &["demo", "--subnet", "fd00:7::/64"]);
    let ip = bundle_ip(&bottle);
    let mut want = String::new();
    for port in [HEALTH, ECHO] {
        want += &format!("{port}/tcp -> {ip}:{port}\n{port}/tcp -> [fd00:7::2]:{port}\n");
    }
    assert_eq!(host.carboy(&["port", "demo"]).ok().stdout(), want);
    let one = host.carboy(&["port", "demo", "9001"]).ok().stdout();
    assert_eq!(one, format!("{ip}:9001\n[fd00:7::2]:9001\n"));
    let json = host.carboy(&["--json", "port", "demo"]).ok().stdout_json();
    assert_eq!(json.as_array().unwrap().len(), 2);
    assert_eq!(json[0]["address6"], "[fd00:7::2]:9000");
    down(&host, "demo");
}

#[test]
fn what_is_not_there_has_no_ports() {
    let host = TestHost::new();
    for arguments in [&["port", "demo", "80"][..], &["port", "demo"]] {
        let all = [&["--json"], arguments].concat();
        host.carboy(&all).error(3, "not-found");
    }
    for bad in ["0", "65536", "http", "80/sctp"] {
        host.carboy(&["--json", "port", "demo", bad]).error(2, "usage");
    }
    host.carboy(&["network", "create", "claude-bottle-bundle-demo"]).ok();
    host.carboy(&["--json", "port", "demo", "80"]).error(3, "not-found");
    down(&host, "demo");
}
