//! `start --attach`: output, exit code, signals and removal of a bundle in the foreground.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::bottle::{inspect, load};
use crate::common::spawned::Spawned;
use crate::common::{Output, TestHost, images, poll};

const NETWORK: &str = "claude-bottle-bundle-demo";

/// A host with a network and the busybox image.
fn host_with_network() -> TestHost {
    let mut host = TestHost::new();
    load(&host, &images::busybox());
    let range = ["--subnet", "10.77.1.0/24", "--gateway", "10.77.1.1", NETWORK];
    host.carboy(&[&["network", "create"], &range[..]].concat()).ok();
    host.take_baseline();
    host
}

fn words<'a>(flags: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    let head = ["start", "--attach", "demo", "--network", NETWORK, "--ip", "10.77.1.2"];
    [&head[..], flags, &["test-busybox"], command].concat()
}

fn run(host: &TestHost, flags: &[&str], script: &str) -> Output {
    host.carboy(&words(flags, &["sh", "-c", script]))
}

fn spawn(host: &TestHost, flags: &[&str], script: &str) -> Spawned {
    host.spawn_carboy(&words(flags, &["sh", "-c", script]))
}

fn remove_network(host: &mut TestHost) {
    host.carboy(&["network", "rm", NETWORK]).ok();
    host.forget_leaks();
}

#[test]
fn output_and_exit_code_are_the_programs() {
    let mut host = host_with_network();
    let output = run(&host, &[], "echo out; echo err >&2; busybox printf 'a\\0\\377'; exit 7");
    output.code(7);
    assert_eq!(output.stdout_bytes(), b"out\na\0\xff");
    assert_eq!(output.stderr(), "err\n");
    // As with Docker it is there until it is removed.
    assert_eq!(inspect(&host, "demo")["exit_code"], 7);
    run(&host, &[], "true").code(125);
    host.carboy(&["stop", "demo"]).ok();
    let output = run(&host, &["--rm"], "busybox seq 100000");
    let numbers: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(output.ok().stdout(), numbers);
    host.assert_clean();
    run(&host, &["--rm", "--init"], "kill -KILL $$").code(137);
    remove_network(&mut host);
}

#[test]
fn what_cannot_be_run_has_dockers_exit_codes() {
    let mut host = host_with_network();
    host.carboy(&words(&[], &["/no/such/program"])).code(127);
    let script = host.dir().join("script");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o644)).unwrap();
    let volume = format!("{}:/script", script.display());
    host.carboy(&words(&["-v", &volume], &["/script"])).code(126);
    host.carboy(&["start", "-a", "demo", "--network", "none", "--ip", "10.77.1.2", "x"]).code(125);
    let detached =
        ["start", "--json", "demo", "--rm", "--network", NETWORK, "--ip", "10.77.1.2", "x"];
    host.carboy(&detached).error(2, "usage");
    host.assert_clean();
    remove_network(&mut host);
}

#[test]
fn signals_are_the_bundles() {
    let mut host = host_with_network();
    let script = "trap 'echo hup' HUP; trap 'echo term; exit 3' TERM; echo ready; \
                  while :; do sleep 0.1; done";
    let mut carboy = spawn(&host, &["--rm"], script);
    let mut lines = carboy.lines();
    assert_eq!(lines.next().unwrap(), "ready");
    carboy.signal(Signal::SIGHUP);
    assert_eq!(lines.next().unwrap(), "hup");
    carboy.signal(Signal::SIGTERM);
    assert_eq!(lines.next().unwrap(), "term");
    assert_eq!(carboy.wait(), Some(3));
    host.assert_clean();
    remove_network(&mut host);
}

#[test]
fn a_bundle_that_does_not_heed_outlives_its_caller() {
    let mut host = host_with_network();
    let mut carboy = spawn(&host, &[], "trap '' INT; echo ready; while :; do sleep 0.1; done");
    let mut lines = carboy.lines();
    assert_eq!(lines.next().unwrap(), "ready");
    // Signals of one kind that wait are one signal.
    let ended = || {
        if !carboy.ended() {
            carboy.signal(Signal::SIGINT);
        }
        carboy.ended()
    };
    assert!(poll(Duration::from_secs(10), ended));
    assert_eq!(carboy.wait(), Some(128 + 2));
    assert_eq!(inspect(&host, "demo")["state"], "running");
    host.carboy(&["stop", "-f", "demo"]).ok();
    let mut carboy = spawn(&host, &["--rm"], "echo ready; while :; do sleep 0.1; done");
    assert_eq!(carboy.lines().next().unwrap(), "ready");
    assert!(carboy.kill());
    assert_eq!(inspect(&host, "demo")["state"], "running");
    host.carboy(&["stop", "-f", "demo"]).ok();
    remove_network(&mut host);
}

#[test]
fn a_bundle_that_is_started_again_is_followed() {
    let mut host = host_with_network();
    let output = run(&host, &["--rm", "--restart", "on-failure:2"], "echo run; exit 5");
    assert_eq!(output.code(5).stdout(), "run\nrun\nrun\n");
    let head = ["start", "demo", "--network", NETWORK, "--ip", "10.77.1.2"];
    let rest =
        ["--restart", "on-failure:2", "test-busybox", "sh", "-c", "sleep 0.3; echo run; exit 5"];
    host.carboy(&[&head[..], &rest].concat()).ok();
    assert_eq!(host.carboy(&["logs", "-f", "demo"]).ok().stdout(), "run\nrun\nrun\n");
    host.carboy(&["stop", "demo"]).ok();
    remove_network(&mut host);
}
