//! `start` and `stop`: the two primitives, their refusals, and what they leave behind.

use std::fs;
use std::time::{Duration, Instant};

use crate::common::bottle::{WEB, assert_answers, down, inspect, load, up};
use crate::common::{Output, TestHost, images, poll};

const NETWORK: &str = "claude-bottle-bundle-demo";
const SUBNET: &str = "10.77.1.0/24";

/// A host with a network and the busybox image.
fn host_with_network() -> TestHost {
    let mut host = TestHost::new();
    load(&host, &images::busybox());
    host.carboy(&["network", "create", "--subnet", SUBNET, "--gateway", "10.77.1.1", NETWORK]).ok();
    host.take_baseline();
    host
}

/// `start --json demo` on that network.
fn start(host: &TestHost, flags: &[&str], ip: &str, rest: &[&str]) -> Output {
    let head = ["start", "--json", "demo", "--network", NETWORK, "--ip", ip];
    host.carboy(&[&head[..], flags, rest].concat())
}

fn remove_network(host: &mut TestHost) {
    host.carboy(&["network", "rm", NETWORK]).ok();
    host.forget_leaks();
}

#[test]
fn start_refuses_what_cannot_be_and_leaves_nothing() {
    let mut host = host_with_network();
    let busybox = ["test-busybox"];
    start(&host, &[], "10.77.1.2", &["no-such-image"]).error(3, "not-found");
    start(&host, &["-v", "/no/such/path:/x"], "10.77.1.2", &busybox).error(3, "not-found");
    for ip in ["10.78.0.2", "10.77.1.0", "10.77.1.255", "10.77.1.1"] {
        let output = start(&host, &[], ip, &busybox);
        let error = output.stderr_json();
        let code = error.get("error").unwrap_or(&error)["code"].clone();
        assert!(
            matches!(
                (output.exit_code(), code.as_str()),
                (Some(2), Some("invalid")) | (Some(4), Some("conflict"))
            ),
            "{ip}: {output}"
        );
        host.assert_clean();
    }
    let absent =
        ["start", "--json", "demo", "--network", "claude-bottle-bundle-none", "--ip", "10.77.1.2"];
    host.carboy(&[&absent[..], &busybox].concat()).error(3, "not-found");
    // Late failures: the program is found to be missing only when it is run.
    let output = start(&host, &[], "10.77.1.2", &["test-busybox", "/no/such/program"]);
    assert_ne!(output.exit_code(), Some(0), "{output}");
    host.assert_clean();
    remove_network(&mut host);
}

#[test]
fn a_taken_name_is_a_conflict_running_or_exited() {
    let mut host = host_with_network();
    start(&host, &[], "10.77.1.2", &["test-busybox"]).ok();
    start(&host, &[], "10.77.1.2", &["test-busybox"]).error(4, "conflict");
    // The end of process 1 may come to the one that ends it before its own.
    host.carboy(&["exec", "demo", "--", "kill", "-TERM", "1"]);
    let exited = || inspect(&host, "demo")["state"] == "exited";
    assert!(poll(Duration::from_secs(5), exited), "{}", inspect(&host, "demo"));
    start(&host, &[], "10.77.1.2", &["test-busybox"]).error(4, "conflict");
    host.carboy(&["stop", "demo"]).ok();
    start(&host, &[], "10.77.1.2", &["test-busybox"]).ok();
    host.carboy(&["stop", "demo"]).ok();
    host.assert_clean();
    remove_network(&mut host);
}

#[test]
fn an_address_in_use_is_refused() {
    let mut host = host_with_network();
    start(&host, &[], "10.77.1.2", &["test-busybox"]).ok();
    let second =
        ["start", "--json", "two", "--network", NETWORK, "--ip", "10.77.1.2", "test-busybox"];
    host.carboy(&second).error(4, "conflict");
    host.carboy(&["stop", "-f", "demo"]).ok();
    host.assert_clean();
    remove_network(&mut host);
}

#[test]
fn stop_asks_first_and_kills_after_the_grace() {
    let mut host = host_with_network();
    let deaf = ["test-busybox", "sh", "-c", "trap : TERM; while :; do sleep 1; done"];
    // (what runs, flags of stop, at least and at most this long)
    let cases: [(&[&str], &[&str], u64, u64); 3] = [
        (&["test-busybox"], &[], 0, 5_000),
        (&deaf, &["--time", "1"], 900, 6_000),
        (&deaf, &["-f"], 0, 2_000),
    ];
    for (image, flags, least, most) in cases {
        start(&host, &[], "10.77.1.2", image).ok();
        // The trap must be set before the signal comes.
        std::thread::sleep(Duration::from_millis(300));
        let begin = Instant::now();
        let stopped = host.carboy(&[&["stop", "--json"], flags, &["demo"]].concat());
        let took = begin.elapsed();
        assert_eq!(stopped.ok().exit_code(), Some(0));
        assert!(took >= Duration::from_millis(least), "{image:?} {flags:?}: {took:?}");
        assert!(took <= Duration::from_millis(most), "{image:?} {flags:?}: {took:?}");
        host.assert_clean();
    }
    let absent = host.carboy(&["stop", "demo"]);
    assert!(!absent.ok().stderr().is_empty(), "a note on stderr: {absent}");
    remove_network(&mut host);
}

#[test]
fn the_name_is_free_when_stop_returns() {
    let mut host = host_with_network();
    for _ in 0..4 {
        let bottle = start(&host, &[], "10.77.1.2", &["test-busybox"]).ok().stdout_json();
        assert_eq!(bottle["changed"], true);
        host.carboy(&["stop", "-f", "demo"]).ok();
    }
    host.assert_clean();
    remove_network(&mut host);
}

#[test]
fn several_bottles_stop_in_one_call() {
    let host = TestHost::new();
    for slug in ["one", "two"] {
        up(&host, &[slug]);
    }
    host.carboy(&["stop", "-f", "one", "absent", "two"]).ok();
    for slug in ["one", "two"] {
        down(&host, slug);
    }
    host.assert_clean();
}

#[test]
fn the_exit_code_is_kept() {
    let host = TestHost::new();
    load(&host, &images::busybox());
    up(&host, &["demo", "--image", "test-busybox", "--", "sh", "-c", "sleep 0.2; exit 7"]);
    assert!(poll(Duration::from_secs(5), || inspect(&host, "demo")["state"] == "exited"));
    assert_eq!(inspect(&host, "demo")["exit_code"], 7);
    down(&host, "demo");
}

#[test]
fn limits_reach_the_cgroup() {
    let host = TestHost::new();
    load(&host, &images::busybox());
    let limits = ["--memory", "67108864", "--pids-limit", "33", "--cpus", "0.5"];
    let bottle = up(&host, &[&["demo", "--image", "test-busybox"], &limits[..]].concat());
    let pid = bottle["pid"].to_string();
    // The process' own cgroup in each hierarchy, by proc_pid_cgroup(5).
    let read = |names: &[(&str, &str)]| {
        let cgroups = fs::read_to_string(host.path(format!("/proc/{pid}/cgroup"))).unwrap();
        let found = names.iter().find_map(|(controller, file)| {
            let line = cgroups.lines().find(|line| {
                line.split(':').nth(1).is_some_and(|c| c.split(',').any(|c| c == *controller))
            })?;
            let relative = line.splitn(3, ':').nth(2)?.trim_start_matches('/');
            host.cgroups().directories().iter().find_map(|(hierarchy, _)| {
                let root = hierarchy.mount.as_path();
                // Seen from the machine the path begins at the hierarchy's root.
                fs::read_to_string(root.join(relative).join(file)).ok()
            })
        });
        found.unwrap_or_else(|| panic!("{names:?} in {cgroups}")).trim().to_owned()
    };
    assert_eq!(read(&[("memory", "memory.limit_in_bytes"), ("", "memory.max")]), "67108864");
    assert_eq!(read(&[("pids", "pids.max"), ("", "pids.max")]), "33");
    let quota = read(&[("cpu", "cpu.cfs_quota_us"), ("", "cpu.max")]);
    assert!(matches!(quota.as_str(), "50000" | "50000 100000"), "{quota}");
    assert_answers(&host, &bottle, WEB);
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn volumes_are_seen_inside() {
    let host = TestHost::new();
    load(&host, &images::busybox());
    let (data, file) = (host.dir().join("data"), host.dir().join("file"));
    fs::create_dir(&data).unwrap();
    fs::write(&file, "from the host\n").unwrap();
    let volumes = [format!("{}:/data", data.display()), format!("{}:/etc/file:ro", file.display())];
    up(&host, &["demo", "--image", "test-busybox", "-v", &volumes[0], "-v", &volumes[1]]);
    let inside = |script: &str| host.carboy(&["exec", "demo", "--", "sh", "-c", script]);
    inside("echo from inside >/data/x").ok();
    assert_eq!(fs::read_to_string(data.join("x")).unwrap(), "from inside\n");
    // A file that is written in place on the host is seen changed.
    fs::write(&file, "changed\n").unwrap();
    assert_eq!(inside("cat /etc/file").ok().stdout(), "changed\n");
    assert_ne!(inside("echo x >/etc/file").exit_code(), Some(0));
    down(&host, "demo");
    assert!(data.join("x").exists());
}

#[test]
fn a_read_only_root_cannot_be_written() {
    let host = TestHost::new();
    load(&host, &images::busybox());
    up(&host, &["demo", "--image", "test-busybox", "--read-only"]);
    let touch = host.carboy(&["exec", "demo", "--", "touch", "/x"]);
    assert_ne!(touch.exit_code(), Some(0), "{touch}");
    down(&host, "demo");
}
