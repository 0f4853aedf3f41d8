//! The restart policy, and what becomes of a bundle whose monitor is killed.

use std::time::Duration;

use serde_json::Value;

use crate::common::bottle::{down, inspect, load, text, up};
use crate::common::{TestHost, images, poll};

const PATIENCE: Duration = Duration::from_secs(15);

fn host_with(flags: &[&str], script: &str) -> TestHost {
    let host = TestHost::new();
    load(&host, &images::busybox());
    let fixed = ["demo", "--image", "test-busybox"];
    up(&host, &[&fixed[..], flags, &["--", "sh", "-c", script]].concat());
    host
}

fn logs(host: &TestHost) -> String {
    host.carboy(&["logs", "demo"]).ok().stdout()
}

fn restarts(host: &TestHost) -> u64 {
    inspect(host, "demo")["restarts"].as_u64().unwrap()
}

/// What keeps its state in files of a directory of its own, the exit code among them.
const COUNTING: &str = "n=$(cat /n 2>/dev/null || echo 0); n=$((n+1)); echo $n >/n; \
                        echo run $n on $(hostname) $(ip -4 addr show eth0 | grep -o 'inet [0-9./]*')";

/// The monitor of the only bottle, as the host counts.
fn monitor(host: &TestHost) -> String {
    let find = "for p in /proc/[0-9]*; do case $(tr '\\0' ' ' <$p/cmdline) in carboy-monitor*) \
                echo ${p#/proc/};; esac; done";
    host.run(["sh", "-c", find]).ok().stdout().trim().to_owned()
}

fn kill(host: &TestHost, signal: &str, pid: &str) {
    host.run(["kill", signal, pid]).ok();
}

fn assert_nothing_changes(host: &TestHost, flags: &[&str], script: &str) {
    let fixed = ["demo", "--image", "test-busybox"];
    let again = up(host, &[&fixed[..], flags, &["--", "sh", "-c", script]].concat());
    assert_eq!(again["changed"], false, "{again}");
}

#[test]
fn a_bundle_that_fails_is_started_again_with_all_it_had() {
    let script = format!("{COUNTING}; [ $n -lt 4 ] && exit 3; while :; do sleep 1; done");
    let flags = ["--restart", "on-failure"];
    let host = host_with(&flags, &script);
    let netns = || host.run(["stat", "-L", "-c", "%i", "/run/netns/claude-bottle-sidecars-demo"]);
    let before = netns().ok().stdout();
    assert!(poll(PATIENCE, || logs(&host).lines().count() == 4), "{}", logs(&host));
    let log = logs(&host);
    let ip = text(&inspect(&host, "demo"), "bundle_ip").to_owned();
    for (n, line) in log.lines().enumerate() {
        assert!(line.starts_with(&format!("run {} on demo inet {ip}/", n + 1)), "{log}");
    }
    assert!(poll(PATIENCE, || inspect(&host, "demo")["state"] == "running"));
    let status = inspect(&host, "demo");
    assert_eq!((status["restarts"].as_u64(), &status["exit_code"]), (Some(3), &Value::Null));
    assert_eq!(netns().ok().stdout(), before);
    assert!(host.carboy(&["ps"]).ok().stdout().contains("running, 3x restarted"));
    assert_eq!(host.carboy(&["exec", "demo", "--", "cat", "/n"]).ok().stdout(), "4\n");
    assert_nothing_changes(&host, &flags, &script);
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn a_bundle_is_started_again_as_often_as_its_policy_says() {
    for (policy, code, times) in [("no", 1, 0), ("on-failure:2", 1, 2), ("on-failure", 0, 0)] {
        let host = TestHost::new();
        load(&host, &images::busybox());
        let script = format!("sleep 0.3; echo ended; exit {code}");
        let flags = ["up", "demo", "--image", "test-busybox", "--restart", policy];
        // It may end while `up` looks.
        host.carboy(&[&flags[..], &["--", "sh", "-c", &script]].concat());
        let over = || inspect(&host, "demo")["state"] == "exited" && restarts(&host) == times;
        assert!(poll(PATIENCE, over), "{policy}: {}", inspect(&host, "demo"));
        assert_eq!(inspect(&host, "demo")["exit_code"], code, "{policy}");
        assert_eq!(logs(&host).lines().count() as u64, times + 1, "{policy}");
        down(&host, "demo");
        host.assert_clean();
    }
}

#[test]
fn what_is_stopped_or_waits_to_be_started_again_ends_at_once() {
    let script = "echo up; exit 0";
    let flags = ["--restart", "unless-stopped"];
    let host = TestHost::new();
    load(&host, &images::busybox());
    let all = ["demo", "--image", "test-busybox", flags[0], flags[1], "--", "sh", "-c", script];
    host.carboy(&[&["up"], &all[..]].concat());
    // By then it waits for 3.2 s, and for 6.4 s after that.
    assert!(poll(PATIENCE, || restarts(&host) >= 6));
    assert!(poll(PATIENCE, || inspect(&host, "demo")["state"] == "restarting"));
    assert!(host.carboy(&["ps"]).ok().stdout().contains("restarting (0)"));
    assert_nothing_changes(&host, &flags, script);
    let other = host.carboy(&["up", "demo", "--image", "test-busybox", "--restart", "no"]);
    other.code(4);
    host.carboy(&["stop", "demo"]).ok();
    assert_eq!(monitor(&host), "");
    host.carboy(&["down", "demo"]).ok();
    host.assert_clean();

    let host = host_with(&["--restart", "always"], "while :; do sleep 1; done");
    down(&host, "demo");
    host.assert_clean();
    let bad = host.carboy(&["up", "demo", "--restart", "sometimes"]);
    assert!(bad.code(2).stderr().contains("on-failure:N"), "{}", bad.stderr());
    host.assert_clean();
}

#[test]
fn a_killed_monitor_is_replaced_and_nothing_of_the_output_is_lost() {
    let script = "i=0; while [ $i -lt 12000 ]; do echo line $i 0123456789; i=$((i+1)); \
                  [ $i -eq 40 ] && sleep 1; done; echo all; while :; do sleep 1; done";
    let host = host_with(&[], script);
    assert!(poll(PATIENCE, || logs(&host).lines().count() == 40));
    let pid = inspect(&host, "demo")["pid"].clone();
    kill(&host, "-9", &monitor(&host));
    // More than a pipe holds by default is written meanwhile, and nobody is told off for it.
    std::thread::sleep(Duration::from_millis(1500));
    let status = inspect(&host, "demo");
    assert_eq!((&status["state"], &status["pid"]), (&Value::from("running"), &pid));
    let fixed = ["up", "demo", "--image", "test-busybox", "--", "sh", "-c", script];
    let taken = host.carboy(&fixed);
    assert!(taken.ok().stderr().contains("another one took over"), "{}", taken.stderr());
    assert!(poll(PATIENCE, || logs(&host).ends_with("all\n")));
    let expected: String = (0..12000).map(|n| format!("line {n} 0123456789\n")).collect();
    assert!(logs(&host) == expected + "all\n", "a gap in the log");
    assert_eq!(inspect(&host, "demo")["pid"], pid);
    assert_nothing_changes(&host, &[], script);
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn any_verb_that_acts_on_a_bundle_has_another_monitor_take_over() {
    let script = "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.1; done";
    let host = host_with(&[], script);
    let verbs: [&[&str]; 7] = [
        &["exec", "demo", "--", "echo", "here"],
        &["logs", "demo"],
        &["kill", "--signal", "CONT", "demo"],
        &["pause", "demo"],
        &["unpause", "demo"],
        &["reload", "demo"],
        &["reload"],
    ];
    let mut before = monitor(&host);
    for verb in verbs {
        kill(&host, "-9", &before);
        assert!(poll(PATIENCE, || monitor(&host).is_empty()));
        // Who only looks says so, and changes nothing.
        host.carboy(&["ps"]).ok();
        assert!(host.carboy(&["verify", "demo"]).code(1).stdout().contains("without its monitor"));
        let first = host.carboy(verb);
        assert!(first.ok().stderr().contains("another one took over"), "{verb:?}: {first}");
        // It executes its program anew once it has taken over, and is nameless in between.
        assert!(poll(PATIENCE, || monitor(&host).parse::<u32>().is_ok()), "{verb:?}");
        before = monitor(&host);
        let second = host.carboy(&["logs", "demo"]);
        assert_eq!(second.ok().stderr(), "", "{verb:?}");
    }
    let lines = || logs(&host).lines().count();
    let seen = lines();
    assert!(poll(PATIENCE, || lines() > seen + 3));
    let log = logs(&host);
    assert!(log.lines().enumerate().all(|(n, line)| line == format!("line {n}")), "{log}");
    kill(&host, "-9", &before);
    let mut wait = host.spawn_carboy(&["wait", "demo"]);
    assert!(poll(PATIENCE, || !monitor(&host).is_empty()));
    down(&host, "demo");
    wait.wait();
    host.assert_clean();
}

#[test]
fn a_monitor_that_took_over_starts_the_bundle_again() {
    let script = format!("{COUNTING}; while :; do sleep 1; done");
    let flags = ["--restart", "always"];
    let host = host_with(&flags, &script);
    for n in 1..4 {
        kill(&host, "-9", &monitor(&host));
        let fixed = ["demo", "--image", "test-busybox", flags[0], flags[1], "--", "sh", "-c"];
        assert_eq!(up(&host, &[&fixed[..], &[&script]].concat())["changed"], true);
        assert_eq!(restarts(&host), n - 1);
        kill(&host, "-9", &inspect(&host, "demo")["pid"].to_string());
        assert!(poll(PATIENCE, || logs(&host).lines().count() as u64 == n + 1));
        assert!(poll(PATIENCE, || inspect(&host, "demo")["state"] == "running"));
        assert_eq!(restarts(&host), n);
    }
    // And in the pause before a restart.
    kill(&host, "-9", &inspect(&host, "demo")["pid"].to_string());
    assert!(poll(PATIENCE, || inspect(&host, "demo")["state"] == "restarting"));
    kill(&host, "-9", &monitor(&host));
    let fixed = ["demo", "--image", "test-busybox", flags[0], flags[1], "--", "sh", "-c"];
    up(&host, &[&fixed[..], &[&script]].concat());
    assert!(poll(PATIENCE, || logs(&host).lines().count() == 5), "{}", logs(&host));
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn a_monitor_survives_hangup_and_the_end_of_its_callers() {
    let host = TestHost::new();
    load(&host, &images::busybox());
    // On a terminal of its own, whose other side goes, with the shell that called.
    let script = format!(
        "{} up demo --image test-busybox -- sh -c 'while :; do echo tick; sleep 0.1; done'; kill -9 $$",
        env!("CARGO_BIN_EXE_carboy")
    );
    host.run(["script", "-qec", &format!("sh -c \"{script}\""), "/dev/null"]);
    let pid = monitor(&host);
    for signal in ["-HUP", "-TERM", "-PIPE"] {
        kill(&host, signal, &pid);
    }
    let before = logs(&host).lines().count();
    assert!(poll(PATIENCE, || logs(&host).lines().count() > before + 5));
    assert_eq!(monitor(&host), pid);
    down(&host, "demo");
    host.assert_clean();
}
