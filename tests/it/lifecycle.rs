//! `wait`, `kill`, `restart`, `pause` and `unpause`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::common::bottle::{WEB, assert_answers, down, inspect, load, up};
use crate::common::{TestHost, images, poll};

const NETNS: &str = "claude-bottle-sidecars-demo";

fn with_image(host: TestHost) -> TestHost {
    load(&host, &images::busybox());
    host
}

/// A host with a bottle that runs a script.
fn with_script(script: &str) -> TestHost {
    let host = with_image(TestHost::new());
    up(&host, &["demo", "--image", "test-busybox", "--", "sh", "-c", script]);
    host
}

fn logged(host: &TestHost, text: &str) -> bool {
    host.carboy(&["logs", "demo"]).ok().stdout().contains(text)
}

#[track_caller]
fn await_logged(host: &TestHost, text: &str) {
    assert!(poll(Duration::from_secs(10), || logged(host, text)), "no {text:?}");
}

#[test]
fn wait_prints_the_exit_code() {
    let host = with_script("until [ -e /go ]; do sleep 0.1; done; exit 7");
    let mut waiting = host.spawn_carboy(&["wait", "demo"]);
    // The end of process 1 may come to the one that ends it before its own.
    host.carboy(&["exec", "demo", "--", "touch", "/go"]);
    assert_eq!(waiting.lines().collect::<Vec<_>>(), ["7"]);
    assert_eq!(waiting.wait(), Some(0));
    assert_eq!(host.carboy(&["wait", "demo", "demo"]).ok().stdout(), "7\n7\n");
    let told = host.carboy(&["wait", "--json", "demo"]).ok().stdout_json();
    assert_eq!((&told["slug"], &told["exit_code"]), (&"demo".into(), &7.into()));
    host.carboy(&["wait", "--json", "none"]).error(3, "not-found");
    down(&host, "demo");
}

/// Whether a process holds the handle of another one.
fn has_pidfd(pid: u32) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut links = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    links.any(|link| link.to_string_lossy().contains("pidfd"))
}

#[test]
fn wait_sees_a_bottle_that_is_taken_down() {
    let host = with_image(TestHost::new());
    for (flags, code) in [(&[][..], "0"), (&["-f"], "137")] {
        let script = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done";
        up(&host, &["demo", "--image", "test-busybox", "--", "sh", "-c", script]);
        await_logged(&host, "ready\n");
        let mut waiting = host.spawn_carboy(&["wait", "demo"]);
        assert!(poll(Duration::from_secs(10), || waiting.pid().is_some_and(has_pidfd)));
        host.carboy(&[&["down"], flags, &["demo"]].concat()).ok();
        assert_eq!(waiting.lines().collect::<Vec<_>>(), [code]);
        assert_eq!(waiting.wait(), Some(0));
    }
}

#[test]
fn kill_sends_any_signal_and_sigkill_by_default() {
    let script = "for s in HUP USR1 36; do trap \"echo got $s\" $s; done; echo ready; \
                  while :; do sleep 0.1; done";
    let host = with_script(script);
    await_logged(&host, "ready\n");
    for (signal, name) in [("HUP", "HUP"), ("SIGUSR1", "USR1"), ("RTMIN+2", "36")] {
        host.carboy(&["kill", "--signal", signal, "demo"]).ok();
        await_logged(&host, &format!("got {name}\n"));
    }
    host.carboy(&["kill", "--json", "-s", "NOPE", "demo"]).error(2, "invalid");
    host.carboy(&["kill", "--json", "none"]).error(3, "not-found");
    assert_eq!(host.carboy(&["kill", "demo"]).ok().stdout(), "demo\n");
    assert_eq!(inspect(&host, "demo")["state"], "exited");
    assert_eq!(host.carboy(&["wait", "demo"]).ok().stdout(), "137\n");
    host.carboy(&["kill", "--json", "demo"]).error(3, "not-found");
    down(&host, "demo");
}

#[test]
fn a_pid_that_is_somebody_elses_gets_no_signal() {
    let host = with_script("while :; do sleep 1; done");
    let started = host.path(format!("/run/carboy/bundles/{NETNS}/run/started.json"));
    let told = fs::read_to_string(&started).unwrap();
    let mut forged: Value = serde_json::from_str(&told).unwrap();
    let time = forged["init"]["start_time"].as_u64().unwrap();
    forged["init"]["start_time"] = (time + 1).into();
    fs::write(&started, forged.to_string()).unwrap();
    host.carboy(&["kill", "--json", "demo"]).error(3, "not-found");
    fs::write(&started, told).unwrap();
    assert_eq!(inspect(&host, "demo")["state"], "running");
    down(&host, "demo");
}

#[test]
fn restart_keeps_address_log_and_files() {
    let host = with_image(TestHost::new());
    let before = up(&host, &["demo", "--image", "test-busybox"]);
    assert_answers(&host, &before, WEB);
    let netns = || fs::metadata(host.path(format!("/run/netns/{NETNS}"))).unwrap().ino();
    let (namespace, script) = (netns(), "echo kept >/www/kept; touch /bin/new; busybox rm /bin/wc");
    host.carboy(&["exec", "demo", "--", "sh", "-c", script]).ok();
    let told = host.carboy(&["restart", "--json", "demo"]).ok().stdout_json();
    let after = inspect(&host, "demo");
    assert_eq!(after["state"], "running");
    assert_eq!(after["pid"], told["pid"]);
    assert_ne!(after["pid"], before["pid"]);
    assert_eq!((&after["bundle_ip"], &after["mac"]), (&before["bundle_ip"], &before["mac"]));
    assert_eq!(netns(), namespace);
    assert_answers(&host, &after, WEB);
    let script = "cat /www/kept; ls /bin/new; [ ! -e /bin/wc ] && echo gone";
    let seen = host.carboy(&["exec", "demo", "--", "sh", "-c", script]);
    assert_eq!(seen.ok().stdout(), "kept\n/bin/new\ngone\n");
    let twice = || host.carboy(&["logs", "demo"]).ok().stdout() == "started\nstarted\n";
    assert!(poll(Duration::from_secs(5), twice));
    // One that has ended starts too, and several times over.
    host.carboy(&["kill", "demo"]).ok();
    for _ in 0..3 {
        host.carboy(&["restart", "-t", "1", "demo"]).ok();
    }
    assert_eq!(host.carboy(&["exec", "demo", "--", "cat", "/www/kept"]).ok().stdout(), "kept\n");
    let again = up(&host, &["demo", "--image", "test-busybox"]);
    assert_eq!(again["changed"], false);
    host.carboy(&["restart", "--json", "none"]).error(3, "not-found");
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn restart_works_with_a_read_only_root_and_on_cgroup2() {
    let host = with_image(TestHost::cgroup2());
    up(&host, &["demo", "--image", "test-busybox", "--read-only", "--init"]);
    host.carboy(&["restart", "demo"]).ok();
    assert_answers(&host, &inspect(&host, "demo"), WEB);
    down(&host, "demo");
}

/// What the kernel says of the bundle's freezer, by the machine's own view of the cgroups.
fn frozen(host: &TestHost) -> bool {
    let files: Vec<PathBuf> = host
        .cgroups()
        .directories()
        .iter()
        .flat_map(|(_, directory)| {
            let group = directory.join(format!("carboy.{NETNS}"));
            [group.join("freezer.state"), group.join("container/cgroup.events")]
        })
        .collect();
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    let frozen = texts.filter(|text| text.trim() == "FROZEN" || text.contains("frozen 1"));
    frozen.count() > 0
}

#[test]
fn a_paused_bottle_stands_still_and_goes_on() {
    for host in [with_image(TestHost::new()), with_image(TestHost::cgroup2())] {
        let bottle = up(&host, &["demo", "--image", "test-busybox"]);
        assert_answers(&host, &bottle, WEB);
        let told = host.carboy(&["pause", "--json", "demo"]).ok().stdout_json();
        assert_eq!(told["changed"], true);
        assert!(frozen(&host));
        assert_eq!(inspect(&host, "demo")["state"], "paused");
        assert_eq!(host.json([env!("CARGO_BIN_EXE_carboy"), "ps", "--json"])[0]["state"], "paused");
        let again = host.carboy(&["pause", "--json", "demo"]).ok().stdout_json();
        assert_eq!(again["changed"], false);
        let refused = host.carboy(&["--json", "exec", "demo", "--", "true"]);
        let hint = refused.error(125, "conflict")["hint"].as_str().unwrap_or_default().to_owned();
        assert!(hint.contains("unpause"), "{hint}");
        let told = host.carboy(&["unpause", "--json", "demo"]).ok().stdout_json();
        assert_eq!(told["changed"], true);
        assert!(!frozen(&host));
        assert_eq!(inspect(&host, "demo")["pid"], bottle["pid"]);
        assert_eq!(inspect(&host, "demo")["state"], "running");
        assert_answers(&host, &bottle, WEB);
        let told = host.carboy(&["unpause", "--json", "demo"]).ok().stdout_json();
        assert_eq!(told["changed"], false);
        // `up` brings it to where it is wanted, without ending anything.
        host.carboy(&["pause", "demo"]).ok();
        let resumed = up(&host, &["demo", "--image", "test-busybox"]);
        assert_eq!((&resumed["changed"], &resumed["pid"]), (&true.into(), &bottle["pid"]));
        assert!(!frozen(&host));
        host.carboy(&["pause", "--json", "none"]).error(3, "not-found");
        down(&host, "demo");
    }
}

#[test]
fn a_paused_bottle_can_be_ended() {
    for host in [with_image(TestHost::new()), with_image(TestHost::cgroup2())] {
        let paused = || {
            let script = "trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.1; done";
            up(&host, &["demo", "--image", "test-busybox", "--", "sh", "-c", script]);
            await_logged(&host, "ready\n");
            host.carboy(&["pause", "demo"]).ok();
        };
        paused();
        host.carboy(&["kill", "demo"]).ok();
        assert_eq!(host.carboy(&["wait", "demo"]).ok().stdout(), "137\n");
        host.carboy(&["unpause", "--json", "demo"]).error(3, "not-found");
        paused();
        // It is let go on to take its signal: the log says so.
        host.carboy(&["restart", "demo"]).ok();
        await_logged(&host, "asked\n");
        host.carboy(&["pause", "demo"]).ok();
        host.carboy(&["stop", "demo"]).ok();
        paused();
        host.carboy(&["stop", "-f", "demo"]).ok();
        paused();
        down(&host, "demo");
        host.assert_clean();
    }
}
