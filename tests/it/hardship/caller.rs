//! Callers with something missing, ignored or inherited that others have not.

use std::fs;

use serde_json::Value;

use super::{CONTAINER, SOON, Said, monitors, shell};
use crate::common::bottle::{HEALTH, assert_answers, down, inspect, load, up};
use crate::common::host::OWN_CGROUP;
use crate::common::{TestHost, images, poll};

/// The answer of a `carboy up --json` that must succeed.
#[track_caller]
fn report(said: &Said) -> Value {
    assert_eq!(said.code, Some(0), "{said}");
    serde_json::from_str(&said.stdout).unwrap()
}

#[test]
fn up_without_ptrace_sees_that_all_is_well() {
    let host = TestHost::new();
    let script = r#"exec setpriv --bounding-set -sys_ptrace --inh-caps -sys_ptrace \
                    "$0" up --json demo"#;
    let first = report(&shell(&host, script));
    assert_answers(&host, &first, HEALTH);
    for _ in 0..2 {
        let again = report(&shell(&host, script));
        assert_eq!(again["changed"], false);
        assert_eq!(again["pid"], first["pid"]);
    }
    assert!(host.path(format!("/proc/{}", first["pid"])).exists());
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn a_caller_that_ignores_the_end_of_its_children_gets_exit_codes() {
    let host = TestHost::new();
    load(&host, &images::busybox());
    up(&host, &["demo", "--image", "test-busybox"]);
    let said = shell(&host, r#"exec env --ignore-signal=CHLD "$0" exec demo -- sh -c 'exit 7'"#);
    assert_eq!(said.code, Some(7), "{said}");
    down(&host, "demo");
    let script = r#"exec env --ignore-signal=CHLD "$0" up --json demo --image test-busybox -- \
                    sh -c 'while [ ! -e /tmp/go ]; do sleep 0.1; done; exit 3'"#;
    report(&shell(&host, script));
    host.carboy(&["exec", "demo", "--", "touch", "/tmp/go"]).ok();
    assert!(poll(SOON, || inspect(&host, "demo")["state"] == "exited"));
    assert_eq!(inspect(&host, "demo")["exit_code"], 3);
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn a_bundle_is_no_safer_from_the_oom_killer_than_others() {
    let host = TestHost::new();
    load(&host, &images::busybox());
    // Without CAP_SYS_RESOURCE the caller stays as it is, and what follows must hold all the same.
    let protect = "echo -500 >/proc/self/oom_score_adj 2>/dev/null || :";
    let up = format!("{protect}\nexec \"$0\" up --json demo --image test-busybox");
    let bottle = report(&shell(&host, &up));
    let path = host.path(format!("/proc/{}/oom_score_adj", bottle["pid"]));
    let init: i32 = fs::read_to_string(path).unwrap().trim().parse().unwrap();
    assert!(init >= 0, "PID 1: {init}");
    let exec = format!("{protect}\nexec \"$0\" exec demo -- cat /proc/self/oom_score_adj");
    let said = shell(&host, &exec);
    assert!(said.stdout.trim().parse::<i32>().is_ok_and(|adj| adj >= 0), "exec: {said}");
    down(&host, "demo");
}

/// The group of a process below the test's own, in each hierarchy (proc_pid_cgroup(5)).
fn groups(host: &TestHost, pid: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(host.path(format!("/proc/{pid}/cgroup"))).unwrap();
    let known: Vec<_> = host.cgroups().directories().iter().map(|(h, _)| h.v1.as_deref()).collect();
    let mut found = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap(), fields.next().unwrap());
        let mounted = known.iter().any(|options| match options {
            None => controllers.is_empty(),
            Some(options) => options.trim_start_matches("none,") == controllers,
        });
        let below = path.strip_prefix(&format!("/{}", host.name()));
        if mounted {
            found.push((controllers.to_owned(), below.unwrap_or(path).to_owned()));
        }
    }
    assert!(!found.is_empty(), "{text}");
    found
}

/// Brings `demo` up from a cgroup `caller` in each hierarchy, and takes it down.
fn live_apart_from_the_caller(mut host: TestHost) {
    let only_v2 = host.path("/sys/fs/cgroup/cgroup.procs").exists();
    let roots = if only_v2 { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/*" };
    // cpusets(7): a new one of version 1 is empty and takes no process before it is filled.
    let fill = "cat $root/$file >$root/caller/$file";
    let fill =
        format!("for file in cpuset.cpus cpuset.mems; do [ ! -e $root/$file ] || {fill}; done");
    let fill = if only_v2 { ":" } else { &fill };
    let make = format!("for root in {roots}; do mkdir $root/caller && {fill} || exit 1; done");
    host.run(["sh", "-c", &make]).ok();
    host.take_baseline();
    let join =
        format!("for root in {roots}; do echo 0 >$root/caller/cgroup.procs || exit 98; done");
    let bottle = report(&shell(&host, &format!("{join}\nexec \"$0\" up --json demo")));
    let [monitor] = &monitors(&host)[..] else { panic!("{:?}", monitors(&host)) };
    let mut wrong = Vec::new();
    for (what, pid) in [("the monitor", monitor.clone()), ("PID 1", bottle["pid"].to_string())] {
        for (controllers, group) in groups(&host, &pid) {
            if only_v2 && !controllers.is_empty() {
                // The test's own arrangement, of which the host has nothing mounted.
                continue;
            }
            let first = group.split('/').nth(1).unwrap_or_default();
            // The monitor has no group among version 1's controllers: only not the caller's.
            let systemd_looks = controllers.is_empty() || controllers == "name=systemd";
            let rootless = what == "PID 1" || systemd_looks;
            if ["caller", OWN_CGROUP].contains(&first) || (first.is_empty() && rootless) {
                wrong.push(format!("{what} is in {group:?} of {controllers:?}"));
            }
        }
    }
    assert_answers(&host, &bottle, HEALTH);
    assert!(host.path(format!("/run/netns/{CONTAINER}")).exists());
    down(&host, "demo");
    host.assert_clean();
    host.run(["sh", "-c", &format!("rmdir {roots}/caller")]).ok();
    host.forget_leaks();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_bundle_does_not_live_in_its_callers_cgroup() {
    live_apart_from_the_caller(TestHost::new());
}

#[test]
fn a_bundle_does_not_live_in_its_callers_cgroup_on_cgroup2() {
    live_apart_from_the_caller(TestHost::cgroup2());
}
