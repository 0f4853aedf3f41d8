//! Side by side with a real firewalld, with a D-Bus of its own: it rejects what it does not know.

use std::time::Duration;

use crate::common::bottle::{HEALTH, assert_answers, down, text, up};
use crate::common::spawned::Spawned;
use crate::common::uplink::HOST;
use crate::common::{TestHost, poll};

const CONTAINER: &str = "claude-bottle-sidecars-demo";
const BUS: &str = "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/run/firewall-bus";

/// A bus on which everybody may do everything and which starts nothing by itself.
const BUS_CONFIG: &str = r#"<busconfig>
<type>system</type><listen>unix:path=/run/firewall-bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/>
<allow receive_sender="*"/></policy>
</busconfig>"#;

/// firewalld with its defaults, none of the machine's settings.
struct Firewalld<'a> {
    host: &'a TestHost,
    _daemons: [Spawned; 2],
}

impl<'a> Firewalld<'a> {
    fn start(host: &'a TestHost) -> Self {
        std::fs::write(host.path("/run/firewall-bus.conf"), BUS_CONFIG).unwrap();
        let config = "--config-file=/run/firewall-bus.conf";
        let bus = host.spawn(["dbus-daemon", config, "--nofork", "--nopidfile"]);
        let limit = Duration::from_secs(30);
        let listens = poll(limit, || host.path("/run/firewall-bus").exists());
        assert!(listens, "dbus-daemon does not start (Debian package dbus)");
        let (etc, log) = ("/run/firewalld-etc", "/run/firewalld.log");
        let daemon =
            ["firewalld", "--nofork", "--nopid", "--system-config", etc, "--log-file", log];
        let daemon = host.spawn([&["env", BUS], &daemon[..]].concat());
        let firewalld = Self { host, _daemons: [bus, daemon] };
        let ready = poll(limit, || firewalld.command("--state") == Some("running".to_owned()));
        assert!(ready, "firewalld does not start (Debian package firewalld)");
        firewalld
    }

    /// What firewall-cmd says, if it succeeds.
    fn command(&self, argument: &str) -> Option<String> {
        let output = self.host.run(["env", BUS, "firewall-cmd", argument]);
        (output.exit_code() == Some(0)).then(|| output.stdout().trim().to_owned())
    }
}

/// Fetches from inside the bundle's namespace; whose address the server saw.
fn fetch(host: &TestHost, server: &str) -> Option<String> {
    let url = format!("http://{server}/");
    let wget = ["timeout", "3", "busybox", "wget", "-q", "-O", "-", &url];
    let output = host.netns_run(CONTAINER, wget);
    (output.exit_code() == Some(0)).then(|| output.stdout().trim().to_owned())
}

fn rules(host: &TestHost) -> String {
    host.run(["nft", "-s", "list", "table", "inet", "firewalld"]).ok().stdout()
}

#[test]
fn bottles_get_out_and_its_rules_stay() {
    let mut host = TestHost::new();
    let server = host.uplink().serve_peer_address().to_string();
    let firewalld = Firewalld::start(&host);
    let before = rules(&host);
    let bottle = up(&host, &["demo"]);
    assert_eq!(fetch(&host, &server), Some(HOST.to_string()));
    assert_answers(&host, &bottle, HEALTH);
    let with = rules(&host);
    let added: Vec<&str> =
        with.lines().map(str::trim).filter(|line| line.contains("carboy")).collect();
    let out = "iifname \"cb-*\" counter accept comment \"carboy: from bundles\"";
    let back = "oifname \"cb-*\" counter accept comment \"carboy: to bundles\"";
    assert_eq!(added, [out, out, back], "filter_INPUT, then filter_FORWARD");
    assert_eq!(with.lines().count(), before.lines().count() + 3);
    assert_eq!(up(&host, &["demo"])["changed"], false);

    // The reload makes all of firewalld's chains anew.
    assert_eq!(firewalld.command("--reload").as_deref(), Some("success"));
    assert_eq!(rules(&host), before);
    assert_eq!(fetch(&host, &server), None, "its final reject is in force");
    let report = host.carboy(&["verify", "--json", "demo"]).code(1).stdout_json();
    let named: Vec<&str> =
        report["drift"].as_array().unwrap().iter().map(|d| text(d, "resource")).collect();
    assert_eq!(
        named,
        [
            "rule \"carboy: from bundles\" of chain inet firewalld filter_FORWARD",
            "rule \"carboy: to bundles\" of chain inet firewalld filter_FORWARD",
            "rule \"carboy: from bundles\" of chain inet firewalld filter_INPUT",
        ]
    );
    assert_eq!(host.carboy(&["reload", "--json", "demo"]).ok().stdout_json()["changed"], true);
    assert_eq!(fetch(&host, &server), Some(HOST.to_string()));
    assert_eq!(rules(&host), with);
    host.carboy(&["verify"]).ok();

    down(&host, "demo");
    assert_eq!(rules(&host), before);
    drop(firewalld);
    host.forget_leaks();
}

#[test]
fn the_trusted_zone_outlives_its_reload() {
    let mut host = TestHost::new();
    let server = host.uplink().serve_peer_address().to_string();
    let firewalld = Firewalld::start(&host);
    let trust = ["--permanent", "--zone=trusted", "--add-interface=cb-+"];
    host.run([&["env", BUS, "firewall-cmd"], &trust[..]].concat()).ok();
    up(&host, &["demo"]);
    assert_eq!(firewalld.command("--reload").as_deref(), Some("success"));
    assert!(!rules(&host).contains("carboy"), "{}", rules(&host));
    assert_eq!(fetch(&host, &server), Some(HOST.to_string()));
    down(&host, "demo");
    drop(firewalld);
    host.forget_leaks();
}

#[test]
fn a_table_that_only_its_owner_may_change_is_named() {
    let mut host = TestHost::new();
    let owned = "(echo 'add table inet firewalld { flags owner; }'; \
                 echo 'add chain inet firewalld filter_FORWARD'; sleep 60) | nft -i";
    let mut owner = host.spawn(["sh", "-c", owned]);
    let chain = ["nft", "list", "chain", "inet", "firewalld", "filter_FORWARD"];
    let there = poll(Duration::from_secs(10), || host.run(chain).exit_code() == Some(0));
    assert!(there, "nft makes no table that it owns");
    for verb in ["up", "verify"] {
        let output = host.carboy(&[verb, "demo"]);
        output.ok();
        let told = output.stderr();
        assert!(told.contains("inet firewalld") && told.contains("firewall-cmd"), "{output}");
    }
    down(&host, "demo");
    owner.kill();
    host.forget_leaks();
}
