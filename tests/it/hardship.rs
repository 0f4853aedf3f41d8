//! Odd hosts, odd callers, odd images and accidents at the wrong moment: what must hold then, too.

mod caller;
mod state;

use std::fmt;
use std::fs;
use std::time::Duration;

use crate::common::bottle::{WEB, assert_answers, down, inspect, load, up};
use crate::common::{TestHost, images, poll};

const CONTAINER: &str = "claude-bottle-sidecars-demo";

/// How long something may take that happens by itself.
const SOON: Duration = Duration::from_secs(10);

/// What a shell with carboy in it did.
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, stdout, stderr } = self;
        write!(f, "exit code {code:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// Runs a shell script in the host's own cgroups; `$0` is carboy.
fn shell(host: &TestHost, script: &str) -> Said {
    let (out, err) = (host.dir().join("stdout"), host.dir().join("stderr"));
    let script = format!("exec >{} 2>{}\n{script}", out.display(), err.display());
    let code = host.spawn(["sh", "-c", &script, env!("CARGO_BIN_EXE_carboy")]).wait();
    let read = |path| fs::read_to_string(path).unwrap();
    Said { code, stdout: read(out), stderr: read(err) }
}

/// Loads `test-busybox` with these flags of `umoci config`.
fn load_variant(host: &TestHost, config: &[&str]) {
    let layout = host.dir().join("variant").display().to_string();
    let image = images::busybox();
    host.run(["cp", "-r", &image.layout.display().to_string(), &layout]).ok();
    let tagged = format!("{layout}:{}", image.name);
    host.run([&["umoci", "config", "--image", &tagged], config].concat()).ok();
    let loaded = host.carboy(&["image", "load", &layout]);
    assert_eq!(loaded.ok().stdout().trim(), image.name);
}

/// Whether the bottle's container runs.
fn runs(host: &TestHost) -> bool {
    let output = host.carboy(&["inspect", "--json", "demo"]);
    output.exit_code() == Some(0) && output.stdout_json()["state"] == "running"
}

/// The pids of all monitors, as the host counts.
fn monitors(host: &TestHost) -> Vec<String> {
    let entries = fs::read_dir(host.path("/proc")).unwrap().flatten();
    let named = entries.filter(|entry| {
        // A process may go while it is read.
        fs::read(entry.path().join("comm")).is_ok_and(|comm| comm == b"carboy-monitor\n")
    });
    named.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Fetches a URL from inside the bottle's container; the body if it worked.
fn fetch(host: &TestHost, url: &str) -> Option<String> {
    let wget = ["exec", "demo", "--", "timeout", "3", "wget", "-q", "-O", "-", url];
    let output = host.carboy(&wget);
    (output.exit_code() == Some(0)).then(|| output.stdout().trim().to_owned())
}

#[test]
fn a_real_time_stop_signal_is_sent_where_it_is_handled_and_else_no_hindrance() {
    let host = TestHost::new();
    load_variant(&host, &["--config.stopsignal", "SIGRTMIN+3"]);
    let said = host.dir().join("said");
    fs::create_dir(&said).unwrap();
    let volume = format!("{}:/said", said.display());
    // The kernel's 32 plus the two of the C library plus 3.
    let handles = "trap 'echo 37 >/said/signal; exit 0' 37; touch /said/ready; \
                   while :; do sleep 1 & wait $!; done";
    for (verb, command) in [
        ("down", &[][..]),
        ("stop", &[]),
        ("down", &["--", "sh", "-c", handles]),
        ("stop", &["--", "sh", "-c", handles]),
    ] {
        up(&host, &[&["demo", "--image", "test-busybox", "-v", &volume], command].concat());
        if !command.is_empty() {
            assert!(poll(SOON, || said.join("ready").exists()));
        }
        host.carboy(&[verb, "demo"]).ok();
        if !command.is_empty() {
            assert_eq!(fs::read_to_string(said.join("signal")).unwrap(), "37\n");
            fs::remove_file(said.join("signal")).unwrap();
            fs::remove_file(said.join("ready")).unwrap();
        }
        down(&host, "demo");
        host.assert_clean();
    }
}

#[test]
fn up_follows_the_default_route_to_another_device() {
    let mut host = TestHost::new();
    let first = host.uplink().serve_peer_address();
    let www = host.dir().join("www");
    fs::create_dir(&www).unwrap();
    fs::write(www.join("index.html"), "second\n").unwrap();
    for words in [
        "ip netns add second",
        "ip -n second link set lo up",
        "ip -n second address add 203.0.113.1/32 dev lo",
        "ip link add up1 type veth peer name out1 netns second",
        "ip address add 198.51.100.2/24 dev up1",
        "ip -n second address add 198.51.100.1/24 dev out1",
        "ip link set up1 up",
        "ip -n second link set out1 up",
    ] {
        host.run(words.split(' ').collect::<Vec<_>>()).ok();
    }
    load(&host, &images::busybox());
    let www = www.display().to_string();
    let serve = ["ip", "netns", "exec", "second", "busybox", "httpd", "-f", "-p", "203.0.113.1:80"];
    let mut server = host.spawn([&serve[..], &["-h", &www]].concat());
    host.run(["ip", "route", "add", "203.0.113.1", "via", "198.51.100.1"]).ok();
    let serves = || host.tcp(([203, 0, 113, 1], 80)).is_ok();
    assert!(poll(SOON, serves), "the second outside does not answer the host");
    host.run(["ip", "route", "del", "203.0.113.1"]).ok();
    host.take_baseline();

    let arguments = ["demo", "--image", "test-busybox"];
    up(&host, &arguments);
    assert!(fetch(&host, &format!("http://{first}/")).is_some());
    host.run(["ip", "route", "replace", "default", "via", "198.51.100.1", "dev", "up1"]).ok();
    let moved = up(&host, &arguments);
    assert_eq!(fetch(&host, "http://203.0.113.1/").as_deref(), Some("second"));
    host.run(["ip", "link", "del", "up0"]).ok();
    let bereft = up(&host, &arguments);
    assert_eq!(fetch(&host, "http://203.0.113.1/").as_deref(), Some("second"));
    assert_eq!(bereft["pid"], moved["pid"], "it was started anew");
    assert_eq!(up(&host, &arguments)["changed"], false);
    down(&host, "demo");
    host.run(["ip", "route", "del", "default"]).ok();
    let left = host.leaks();
    assert!(!left.iter().any(|line| line.starts_with('+')), "{left:#?}");
    server.kill();
    host.forget_leaks();
}

#[test]
fn down_does_not_wait_for_an_up_that_waits_for_daemons() {
    let host = TestHost::new();
    load_variant(&host, &["--config.label", "dev.carboy.daemons=x=9999/tcp"]);
    let mut waiting = host.spawn_carboy(&["up", "demo", "--image", "test-busybox"]);
    assert!(poll(SOON, || runs(&host)), "the container does not run");
    down(&host, "demo");
    // 8 would say that it waited to the end of its patience, and `down` with it.
    let code = waiting.wait();
    assert!(!matches!(code, Some(0 | 8) | None), "`up` ended with {code:?}");
    host.assert_clean();
}

#[test]
fn up_after_a_killed_up_waits_for_the_daemons_too() {
    let host = TestHost::new();
    load_variant(&host, &["--config.label", "dev.carboy.daemons=x=9999/tcp"]);
    let mut killed = host.spawn_carboy(&["up", "demo", "--image", "test-busybox"]);
    assert!(poll(SOON, || runs(&host)), "the container does not run");
    assert!(killed.kill(), "`up` did not wait");
    let mut second = host.spawn_carboy(&["up", "demo", "--image", "test-busybox"]);
    let ended = poll(Duration::from_secs(1), || second.ended());
    assert!(!ended, "`up` does not wait for a daemon that is not there");
    assert!(poll(SOON, || runs(&host)), "the container does not run");
    host.carboy(&["exec", "demo", "--", "httpd", "-p", "9999", "-h", "/www"]).ok();
    assert_eq!(second.wait(), Some(0));
    down(&host, "demo");
}

#[test]
fn the_log_outlives_a_restart_that_fails() {
    let host = TestHost::new();
    load(&host, &images::busybox());
    let directory = host.dir().join("programs");
    fs::create_dir(&directory).unwrap();
    fs::copy("/bin/busybox", directory.join("sh")).unwrap();
    let volume = format!("{}:/programs", directory.display());
    let flags = ["demo", "--image", "test-busybox", "-v", &volume, "--"];
    let script = "echo first; while [ ! -e /tmp/go ]; do sleep 0.1; done; exit 3";
    let arguments = [&flags[..], &["/programs/sh", "-c", script]].concat();
    up(&host, &arguments);
    // The end of process 1 may come to the one that ends it before its own.
    host.carboy(&["exec", "demo", "--", "touch", "/tmp/go"]);
    assert!(poll(SOON, || inspect(&host, "demo")["state"] == "exited"));
    let logged = || host.carboy(&["logs", "demo"]).ok().stdout();
    assert_eq!(logged(), "first\n");
    // Found out when the program is run, and before anything is done.
    for path in [directory.join("sh"), directory] {
        host.run(["rm", "-r", &path.display().to_string()]).ok();
        let output = host.carboy(&[&["up"], &arguments[..]].concat());
        assert_ne!(output.exit_code(), Some(0), "{output}");
        assert_eq!(logged(), "first\n", "after {output}");
    }
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn a_user_who_is_not_root_may_open_its_own_output() {
    let host = TestHost::new();
    load(&host, &images::busybox());
    let script = "echo hi >/dev/stdout; echo oops >/dev/stderr; while :; do sleep 1; done";
    let flags = ["demo", "--image", "test-busybox", "--user", "65534:65534", "--"];
    up(&host, &[&flags[..], &["sh", "-c", script]].concat());
    let logs = || host.carboy(&["logs", "demo"]);
    poll(SOON, || logs().stdout() == "hi\n" && logs().stderr() == "oops\n");
    assert_eq!((logs().stdout().as_str(), logs().stderr().as_str()), ("hi\n", "oops\n"));
    down(&host, "demo");
}

#[test]
fn a_bundle_outlives_its_monitor_and_up_puts_it_right() {
    let host = TestHost::new();
    load(&host, &images::busybox());
    let arguments = ["demo", "--image", "test-busybox"];
    let bottle = up(&host, &arguments);
    let logged = || host.carboy(&["logs", "demo"]).ok().stdout();
    assert!(poll(SOON, || logged() == "started\n"), "{}", logged());
    let [monitor] = &monitors(&host)[..] else { panic!("{:?}", monitors(&host)) };
    host.run(["kill", "-9", monitor]).ok();
    assert!(poll(SOON, || monitors(&host).is_empty()));

    assert_answers(&host, &bottle, WEB);
    let comm = fs::read_to_string(host.path(format!("/proc/{}/comm", bottle["pid"]))).unwrap();
    assert_eq!(comm, "sh\n");

    let repaired = up(&host, &arguments);
    assert_eq!(repaired["changed"], true);
    assert_eq!(repaired["pid"], bottle["pid"]);
    assert_answers(&host, &repaired, WEB);
    assert_eq!(host.carboy(&["exec", "demo", "--", "echo", "hi"]).ok().stdout(), "hi\n");
    assert_eq!(logged(), "started\n");
    assert_eq!(monitors(&host).len(), 1);
    assert_eq!(up(&host, &arguments)["changed"], false);
    down(&host, "demo");
    host.assert_clean();
}
