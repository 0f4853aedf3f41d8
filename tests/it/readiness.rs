//! `up --wait` and `--ready`, health checks, events, and the unit for systemd.

use std::time::Duration;

use serde_json::Value;

use crate::common::bottle::{down, inspect, load, up};
use crate::common::{Output, TestHost, images, poll};

const PATIENCE: Duration = Duration::from_secs(20);

fn host() -> TestHost {
    let host = TestHost::new();
    load(&host, &images::busybox());
    host
}

fn start(host: &TestHost, flags: &[&str], script: &str) -> Output {
    let fixed = ["up", "demo", "--image", "test-busybox"];
    host.carboy(&[&fixed[..], flags, &["--", "sh", "-c", script]].concat())
}

fn events(host: &TestHost, flags: &[&str]) -> Vec<Value> {
    let output = host.carboy(&[&["events", "--json"], flags].concat());
    output.ok().stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

/// Ready in all three ways after a while, and not in any before.
const SLOW: &str = "echo begins; sleep 1; httpd -p 8080 -h /www; touch /ready; echo 'is ready: yes'; \
                    while :; do sleep 1; done";

#[test]
fn up_returns_when_all_conditions_hold() {
    for condition in ["tcp:8080", "exec:test -e /ready && echo fine", "log:^is ready: y.s$"] {
        let host = host();
        start(&host, &["--wait=15s", "--ready", condition], SLOW).ok();
        assert_eq!(host.carboy(&["exec", "demo", "--", "ls", "/ready"]).exit_code(), Some(0));
        down(&host, "demo");
        host.assert_clean();
    }
}

#[test]
fn what_is_not_ready_in_time_is_exit_code_8_and_stays_up() {
    let host = host();
    let script = "echo first words; echo last words >&2; while :; do sleep 1; done";
    for (condition, lacks) in [
        ("tcp:8080", "does not answer on port 8080"),
        ("exec:exit 3", "does not pass"),
        ("exec:sleep 60", "does not pass"),
        ("log:never", "has written no line that matches"),
    ] {
        let output = start(&host, &["--wait=300ms", "--ready", condition], script);
        let said = output.code(8).stderr();
        assert!(said.contains(lacks) && said.contains("last words"), "{said}");
        assert_eq!(inspect(&host, "demo")["state"], "running");
    }
    let both = ["--wait=300ms", "--ready", "log:first", "--ready", "log:never"];
    start(&host, &both, script).code(8);
    for bad in [&["--ready", "udp:1"][..], &["--ready", "log:("], &["--wait=soon"]] {
        start(&host, bad, script).code(2);
    }
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn health_is_checked_as_docker_does() {
    let host = host();
    let flags = [
        "--health-cmd",
        "echo looked; test -e /well",
        "--health-interval",
        "100ms",
        "--health-retries",
        "2",
        "--wait=15s",
    ];
    let script = "sleep 0.5; touch /well; while :; do sleep 1; done";
    start(&host, &flags, script).ok();
    let health = || inspect(&host, "demo")["health"].clone();
    assert_eq!(health()["status"], "healthy");
    assert!(host.carboy(&["ps"]).ok().stdout().contains("running, healthy"));
    host.carboy(&["exec", "demo", "--", "sh", "-c", "mv /well /ill"]).ok();
    assert!(poll(PATIENCE, || health()["status"] == "unhealthy"), "{}", health());
    assert!(poll(PATIENCE, || health()["failing_streak"].as_u64() >= Some(5)));
    let log = health()["log"].clone();
    assert_eq!(log.as_array().unwrap().len(), 5);
    assert_eq!((&log[4]["exit_code"], &log[4]["output"]), (&Value::from(1), &"looked\n".into()));
    host.carboy(&["exec", "demo", "--", "sh", "-c", "mv /ill /well"]).ok();
    assert!(poll(PATIENCE, || health()["status"] == "healthy" && health()["failing_streak"] == 0));
    let seen = events(&host, &["demo"]);
    let seen: Vec<&str> = kinds(&seen).into_iter().filter(|k| k.contains("healthy")).collect();
    // It may have been found ill before it was well.
    assert!(seen.ends_with(&["healthy", "unhealthy", "healthy"]), "{seen:?}");
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn a_check_that_takes_too_long_has_failed_and_is_ended() {
    let host = host();
    let flags = [
        "--health-cmd",
        "exec sleep 1000",
        "--health-interval",
        "50ms",
        "--health-timeout",
        "100ms",
        "--health-retries",
        "1",
    ];
    start(&host, &flags, "while :; do sleep 1; done").ok();
    let health = || inspect(&host, "demo")["health"].clone();
    assert!(poll(PATIENCE, || health()["status"] == "unhealthy"));
    let entry = health()["log"][0].clone();
    assert_eq!(entry["exit_code"], -1);
    assert!(entry["output"].as_str().unwrap().contains("longer than 100ms"), "{entry}");
    assert!(poll(PATIENCE, || {
        let all = host.carboy(&["exec", "demo", "--", "ps"]).ok().stdout();
        all.matches("sleep 1000").count() <= 1
    }));
    down(&host, "demo");
    let off = start(&host, &["--no-healthcheck", "--health-cmd", "true"], "sleep 9");
    off.code(2);
    host.assert_clean();
}

#[test]
fn events_tell_a_bundles_life_and_outlive_it() {
    let host = host();
    let script = "trap 'exit 0' TERM; n=$(cat /n || echo 0); n=$((n+1)); echo $n >/n; \
                  [ $n = 1 ] && sleep 1 && exit 7; while :; do sleep 1 & wait $!; done";
    let mut follow = host.spawn_carboy(&["events", "-f", "demo"]);
    start(&host, &["--restart", "always"], script).ok();
    assert!(poll(PATIENCE, || inspect(&host, "demo")["restarts"] == 1));
    assert!(poll(PATIENCE, || inspect(&host, "demo")["state"] == "running"));
    let veth = host.run(["sh", "-c", "ls /sys/class/net | grep cv-"]).ok().stdout();
    host.run(["ip", "link", "set", veth.trim(), "down"]).ok();
    start(&host, &["--restart", "always"], script).ok();
    down(&host, "demo");
    let all = events(&host, &[]);
    let mut expected = vec!["created", "started", "ready", "died", "restarted", "drift", "ready"];
    expected.extend(["died", "stopped", "removed"]);
    assert_eq!(kinds(&all), expected, "{all:?}");
    assert_eq!(all[3]["exit_code"], 7);
    assert!(all.iter().all(|event| event["slug"] == "demo"));
    assert!(all[5]["detail"].as_str().unwrap().contains(veth.trim()), "{}", all[5]);
    let lines: Vec<String> = follow.lines().take(expected.len()).collect();
    assert!(lines[3].ends_with("demo died (7)"), "{lines:?}");
    assert!(follow.kill(), "it follows on");
    assert!(events(&host, &["other"]).is_empty());
    assert_eq!(events(&host, &["--since", "1h"]).len(), all.len());
    assert_eq!(events(&host, &["--since", all[4]["time"].as_str().unwrap()]).len(), 6);
    host.carboy(&["events", "--since", "yesterday"]).code(2);
    host.assert_clean();
}

#[test]
fn what_a_repeated_up_finds_in_order_is_no_event() {
    let host = host();
    up(&host, &["demo", "--image", "test-busybox"]);
    let before = events(&host, &[]);
    up(&host, &["demo", "--image", "test-busybox"]);
    assert_eq!(events(&host, &[]), before);
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn a_generated_unit_is_one_and_does_what_it_says() {
    let mut host = host();
    // What systemd-analyze keeps.
    host.allow("/run/systemd");
    let script = "echo \"100% $0 \\\\\"; while :; do sleep 1; done";
    let options = ["demo", "--image", "test-busybox", "--ready", "log:^100%", "-e", "TOKEN"];
    let all = [&["generate", "systemd"], &options[..], &["--", "sh", "-c", script]].concat();
    let unit = host.carboy(&all).ok().stdout();
    assert!(events(&host, &[]).is_empty(), "it starts nothing");
    let path = host.dir().join("carboy-demo.service");
    std::fs::write(&path, &unit).unwrap();
    let path = path.display().to_string();
    let verified =
        host.run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", &path]);
    assert_eq!((verified.exit_code(), verified.stderr().as_str()), (Some(0), ""), "{unit}");
    // What systemd would run, with its own rules undone.
    let line = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.replace("%%", "%").replace("$$", "\\$")
    };
    host.run(["sh", "-c", &line("ExecStart=")]).ok();
    assert!(host.carboy(&["logs", "demo"]).ok().stdout().starts_with("100% sh"));
    host.run(["sh", "-c", &line("ExecStop=")]).ok();
    assert_eq!(host.carboy(&["inspect", "demo"]).exit_code(), Some(3));
    host.carboy(&["generate", "systemd", "demo", "--subnet", "10.0.0.0"]).code(2);
    host.assert_clean();
}

#[test]
fn a_service_manager_is_told_when_the_bottle_is_ready() {
    let host = host();
    let path = host.dir().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let path = path.display().to_string();
    let up = ["up", "demo", "--image", "test-busybox", "--wait"];
    host.carboy_with(&up, &[("NOTIFY_SOCKET", &path)], None).ok();
    let mut message = [0; 256];
    let length = socket.recv(&mut message).unwrap();
    assert_eq!(&message[..length], b"READY=1\nSTATUS=bottle demo is up");
    let gone = host.carboy_with(&up, &[("NOTIFY_SOCKET", "/nowhere/notify")], None);
    assert!(gone.ok().stderr().contains("could not be told"), "{}", gone.stderr());
    host.carboy_with(&up, &[("NOTIFY_SOCKET", "")], None).ok();
    down(&host, "demo");
    host.assert_clean();
}
