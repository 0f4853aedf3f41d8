//! A bundle with ids of its own is started again, taken over, checked and ended like any other.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{both_kinds, exec, first_id, script, start, with_image, words};
use crate::common::bottle::{down, inspect, text};
use crate::common::{TestHost, images, poll};

const PATIENCE: Duration = Duration::from_secs(15);

fn logs(host: &TestHost) -> String {
    host.carboy(&["logs", "demo"]).ok().stdout()
}

/// Counts its runs in a file of its own.
const COUNTING: &str = "n=$(cat /n 2>/dev/null || echo 0); n=$((n+1)); echo $n >/n; \
                        echo run $n id $(busybox awk '{print $2}' /proc/self/uid_map) $(cat /run/secrets/key)";

#[test]
fn it_is_started_again_with_the_same_ids_and_all_it_had() {
    for host in both_kinds() {
        let file = host.dir().join("key").display().to_string();
        fs::write(&file, "k3y").unwrap();
        let volume = host.dir().join("shared");
        fs::create_dir(&volume).unwrap();
        let volume = format!("{}:/v:idmap", volume.display());
        let secret = format!("key={file}");
        let flags = ["--restart", "on-failure", "--secret", &secret, "-v", &volume];
        let run =
            format!("{COUNTING}; touch /v/$n; [ $n -lt 3 ] && exit 3; while :; do sleep 1; done");
        start(&host, &flags, &["sh", "-c", &run]);
        assert!(poll(PATIENCE, || logs(&host).lines().count() == 3), "{}", logs(&host));
        let first = first_id(&host, "demo");
        let want = |n: usize| format!("run {n} id {first} k3y");
        let lines = |count: usize| (1..=count).map(want).collect::<Vec<_>>();
        assert_eq!(logs(&host).lines().collect::<Vec<_>>(), lines(3));
        host.carboy(&["restart", "-t", "0", "demo"]).ok();
        assert!(poll(PATIENCE, || logs(&host).lines().count() == 4), "{}", logs(&host));
        assert_eq!(logs(&host).lines().collect::<Vec<_>>(), lines(4));
        assert_eq!(words(&script(&host, "ls /v")), ["1", "2", "3", "4"]);
        host.carboy(&["verify", "demo"]).ok();
        down(&host, "demo");
        host.assert_clean();
    }
}

#[test]
fn a_killed_monitor_is_replaced_by_one_that_can_start_it_again() {
    let host = with_image(TestHost::new());
    let file = host.dir().join("key").display().to_string();
    fs::write(&file, "k3y").unwrap();
    let secret = format!("key={file}");
    let run = format!("{COUNTING}; while :; do sleep 1; done");
    let flags = ["--restart", "always", "--secret", &secret];
    start(&host, &flags, &["sh", "-c", &run]);
    let first = first_id(&host, "demo");
    let find = "for p in /proc/[0-9]*; do case $(tr '\\0' ' ' <$p/cmdline) in carboy-monitor*) \
                echo ${p#/proc/};; esac; done";
    let monitor = host.run(["sh", "-c", find]).ok().stdout().trim().to_owned();
    host.run(["kill", "-9", &monitor]).ok();
    assert_eq!(start(&host, &flags, &["sh", "-c", &run])["changed"], true);
    assert_eq!(start(&host, &flags, &["sh", "-c", &run])["changed"], false);
    let pid = inspect(&host, "demo")["pid"].to_string();
    host.run(["kill", "-9", &pid]).ok();
    assert!(poll(PATIENCE, || logs(&host).lines().count() == 2), "{}", logs(&host));
    let want = [1, 2].map(|n| format!("run {n} id {first} k3y"));
    assert_eq!(logs(&host).lines().collect::<Vec<_>>(), want);
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn closed_directories_on_the_way_do_not_matter() {
    let mut host = with_image(TestHost::new());
    host.allow("/run/closed");
    host.run(["mkdir", "-m", "700", "/run/closed"]).ok();
    host.take_baseline();
    let roots = ["--state", "/run/closed/a/state", "--root", "/run/closed/root"];
    let carboy = |more: &[&str]| host.carboy(&[&roots[..], more].concat());
    let archive = images::busybox().oci_archive.display().to_string();
    carboy(&["image", "load", &archive]).ok();
    let run = format!("{COUNTING}; [ $n -lt 2 ] && exit 3; while :; do sleep 1; done");
    let flags = ["up", "demo", "--image", "test-busybox", "--userns", "--restart", "on-failure"];
    carboy(&[&flags[..], &["--", "sh", "-c", &run]].concat()).ok();
    let logs = || carboy(&["logs", "demo"]).ok().stdout();
    assert!(poll(PATIENCE, || logs().lines().count() == 2), "{}", logs());
    assert_eq!(carboy(&["exec", "demo", "--", "cat", "/n"]).ok().stdout(), "2\n");
    let events = carboy(&["events", "demo"]).ok().stdout();
    assert!(events.contains("restarted"), "{events}");
    carboy(&["down", "demo"]).ok();
    // The directory of the network namespaces may be behind it as well.
    host.run(["chmod", "700", "/run"]).ok();
    start(&host, &[], &[]);
    assert_eq!(script(&host, "id -u").trim(), "0");
    host.carboy(&["restart", "demo"]).ok();
    assert_eq!(script(&host, "id -u").trim(), "0");
    down(&host, "demo");
}

#[test]
fn a_bundle_that_is_started_by_itself_takes_the_same_words() {
    let host = with_image(TestHost::new());
    let network = ["network", "create", "--subnet", "10.7.0.0/24", "--gateway", "10.7.0.1", "n"];
    host.carboy(&network).ok();
    let start = ["start", "demo", "--network", "n", "--ip", "10.7.0.2", "--userns=auto"];
    host.carboy(&[&start[..], &["test-busybox"]].concat()).ok();
    first_id(&host, "demo");
    assert_eq!(script(&host, "id -u").trim(), "0");
    host.carboy(&["stop", "-f", "demo"]).ok();
    host.carboy(&["network", "rm", "n"]).ok();
    host.assert_clean();
}

#[test]
fn its_health_is_checked_inside() {
    for host in both_kinds() {
        let check = "busybox awk '{print \"ids\", $2}' /proc/self/uid_map; test -e /ok";
        let flags = ["--health-cmd", check, "--health-interval", "200ms", "--health-retries", "1"];
        start(&host, &flags, &[]);
        let health = || inspect(&host, "demo")["health"].clone();
        assert!(poll(PATIENCE, || health()["status"] == "unhealthy"), "{}", health());
        script(&host, "touch /ok");
        assert!(poll(PATIENCE, || health()["status"] == "healthy"), "{}", health());
        assert!(health().to_string().contains(&format!("ids {}", first_id(&host, "demo"))));
        down(&host, "demo");
    }
}

#[test]
fn readiness_pause_kill_and_wait_work() {
    let host = with_image(TestHost::new());
    start(&host, &["--wait=10s", "--ready", "exec:test -e /etc/passwd"], &[]);
    assert_eq!(host.carboy(&["pause", "demo"]).exit_code(), Some(0));
    assert_eq!(text(&inspect(&host, "demo"), "state"), "paused");
    host.carboy(&["unpause", "demo"]).ok();
    let stats = host.carboy(&["stats", "--no-stream", "--json", "demo"]).ok().stdout();
    assert!(stats.contains("demo"), "{stats}");
    exec(&host, &["true"]).code(127);
    exec(&host, &["busybox", "true"]).ok();
    host.carboy(&["kill", "-s", "TERM", "demo"]).ok();
    assert_eq!(host.carboy(&["wait", "demo"]).ok().stdout().trim(), "0");
    down(&host, "demo");
    assert!(!Path::new(&host.path("/run/carboy")).exists());
}
