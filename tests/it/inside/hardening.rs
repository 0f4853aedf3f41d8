//! What confines a bundle: by default, and where it was asked for otherwise.

use std::fs;

use super::{both, exec, exec_script, fields, host_with_image, inspect, up_busybox, with_image};
use crate::common::TestHost;
use crate::common::bottle::down;

/// The sets of `/proc/PID/status`.
fn sets(status: &str) -> [u64; 5] {
    let found = fields(status);
    ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"]
        .map(|set| u64::from_str_radix(found[set], 16).unwrap())
}

/// A `both` that may be called again on the same host.
fn both_again(host: &TestHost, flags: &[&str], script: &str) -> [String; 2] {
    let told = both(host, flags, script);
    fs::remove_file(host.dir().join("shared/init")).unwrap();
    told
}

#[test]
fn capabilities_are_added_and_dropped_as_with_docker() {
    const CHOWN: u64 = 1;
    const KILL: u64 = 1 << 5;
    const NET_RAW: u64 = 1 << 13;
    let default: u64 = super::CAPABILITIES.iter().map(|bit| 1_u64 << bit).sum();
    let host = host_with_image();
    let cases: [(&[&str], u64); 4] = [
        (&["--cap-add", "net_raw"], default | NET_RAW),
        (&["--cap-drop", "CAP_CHOWN", "--cap-drop", "KILL"], default & !(CHOWN | KILL)),
        (&["--cap-drop", "ALL"], 0),
        (&["--cap-drop", "ALL", "--cap-add", "CHOWN"], CHOWN),
    ];
    for (flags, want) in cases {
        for status in both_again(&host, flags, "cat /proc/self/status") {
            assert_eq!(sets(&status), [want, want, want, 0, 0], "{flags:?}");
        }
    }
    let ours = fs::read_to_string("/proc/self/status").unwrap();
    let all = sets(&ours)[2] & !CHOWN;
    let flags = ["--cap-add", "ALL", "--cap-drop", "CHOWN"];
    for status in both_again(&host, &flags, "cat /proc/self/status") {
        assert_eq!(sets(&status), [all, all, all, 0, 0]);
    }
    // A user of the image can use what was asked for, and nothing else.
    let flags = ["--user", "web", "--cap-add", "NET_RAW"];
    for status in both_again(&host, &flags, "cat /proc/self/status") {
        assert_eq!(sets(&status), [default | NET_RAW, NET_RAW, NET_RAW, NET_RAW, NET_RAW]);
    }
}

#[test]
fn what_cannot_be_given_is_refused_before_anything_changes() {
    let host = host_with_image();
    let refused = |flags: &[&str], exit, code| {
        let head = ["up", "--json", "demo", "--image", "test-busybox"];
        let error = host.carboy(&[&head[..], flags].concat()).error(exit, code);
        host.assert_clean();
        error["message"].as_str().unwrap().to_owned()
    };
    host.assert_clean();
    assert!(refused(&["--cap-add", "NET_RAWW"], 2, "invalid").contains("NET_RAWW"));
    assert!(refused(&["--security-opt", "seccomp=/x"], 2, "invalid").contains("seccomp=/x"));
    refused(&["--security-opt", "no-new-privileges=false"], 2, "invalid");
    refused(&["--ulimit", "nofile=2:1"], 2, "invalid");
    // What carboy does not have it cannot give.
    let carboy = env!("CARGO_BIN_EXE_carboy");
    let script = format!("{carboy} up --json demo --image test-busybox --cap-add SYS_TIME");
    let output = host.run(["capsh", "--drop=cap_sys_time", "--", "-c", &script]);
    let message = output.error(6, "permission")["message"].to_string();
    assert!(message.contains("CAP_SYS_TIME"), "{message}");
    host.assert_clean();
}

#[test]
fn a_capability_opens_its_system_calls() {
    let host = host_with_image();
    let script = "busybox chroot / busybox true 2>&1 && echo done; \
                  busybox unshare -m busybox true 2>/dev/null || echo refused";
    for said in both_again(&host, &["--cap-add", "SYS_CHROOT"], script) {
        assert_eq!(said, "done\nrefused\n");
    }
    let status = "busybox grep Seccomp: /proc/self/status; busybox grep NoNew /proc/self/status";
    for said in both_again(&host, &["--security-opt", "seccomp=unconfined"], status) {
        assert_eq!(said, "Seccomp:\t0\nNoNewPrivs:\t1\n");
    }
}

#[test]
fn resource_limits_are_as_asked_for_in_both() {
    let host = host_with_image();
    let flags = ["--ulimit", "nofile=2048:8192", "--ulimit", "nproc=77"];
    for limits in both(&host, &flags, "cat /proc/self/limits") {
        let of = |name: &str| -> Vec<String> {
            let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
            line[name.len()..].split_whitespace().take(2).map(str::to_owned).collect()
        };
        assert_eq!(of("Max open files"), ["2048", "8192"], "{limits}");
        assert_eq!(of("Max processes"), ["77", "77"], "{limits}");
        assert_eq!(of("Max core file size"), ["0", "0"], "{limits}");
    }
}

#[test]
fn namespaces_are_the_bundles_own_and_the_same_for_both() {
    let host = host_with_image();
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "uts"];
    let bottle = up_busybox(&host, &[], &[]);
    let pid = bottle["pid"].to_string();
    let of = |pid: &str| {
        let links: Vec<String> = kinds.iter().map(|n| format!("/proc/{pid}/ns/{n}")).collect();
        let links = links.iter().map(String::as_str);
        host.run(["readlink"].into_iter().chain(links).collect::<Vec<_>>()).ok().stdout()
    };
    let script = "for n in cgroup ipc mnt net pid uts; do busybox readlink /proc/self/ns/$n; done";
    let of_exec = exec_script(&host, script).ok().stdout();
    assert_eq!(of_exec, of(&pid));
    for (own, of_host) in of_exec.lines().zip(of("1").lines()) {
        assert_ne!(own, of_host);
    }
    assert_eq!(of_exec.lines().count(), kinds.len());
    down(&host, "demo");
}

#[test]
fn a_second_up_sees_no_difference_and_another_one_is_named() {
    let host = host_with_image();
    let flags = [
        "--cap-add",
        "NET_RAW",
        "--cap-drop",
        "KILL",
        "--ulimit",
        "nofile=64",
        "--tmpfs",
        "/cache:size=1m",
        "--security-opt",
        "seccomp=unconfined",
        "--read-only",
        "--memory",
        "64m",
        "--memory-swap",
        "-1",
    ];
    assert_eq!(up_busybox(&host, &flags, &[])["changed"], true);
    assert_eq!(up_busybox(&host, &flags, &[])["changed"], false);
    let launch = &inspect(&host, "demo")["launch"];
    assert_eq!(launch["security"]["seccomp_unconfined"], true);
    assert_eq!(launch["security"]["capabilities"]["everyone"][0], "CAP_NET_RAW");
    let conflict = host.carboy(&["up", "--json", "demo", "--image", "test-busybox"]);
    let message = conflict.error(4, "conflict").to_string();
    for word in [
        "capabilities",
        "NET_RAW",
        "resource limits",
        "tmpfs",
        "system-call filter",
        "read-only root",
        "memory and swap -1",
    ] {
        assert!(message.contains(word), "{word}: {message}");
    }
    down(&host, "demo");
}

#[test]
fn devices_beyond_the_usual_cannot_be_opened() {
    for host in [host_with_image(), with_image(TestHost::cgroup2())] {
        // The kernel's log: harmless, and open to root where nothing forbids it. With CAP_MKNOD
        // the node itself can be made, on the one file system that is not nodev.
        up_busybox(&host, &["--cap-add", "MKNOD", "--cap-add", "SYSLOG"], &[]);
        let script = "busybox mknod /dev/log-of-kernel c 1 11 && echo made; \
                      busybox head -c 1 /dev/log-of-kernel >/dev/null && echo opened; \
                      busybox mknod /dev/other-null c 1 3 && echo x >/dev/other-null && echo null";
        let output = exec_script(&host, script);
        assert_eq!(output.stdout(), "made\nnull\n", "{output}");
        assert!(output.stderr().contains("Operation not permitted"), "{output}");
        // On every other file system a node is of no use at all.
        let elsewhere = "busybox mknod /tmp/null c 1 3 && echo made; echo x >/tmp/null";
        let output = exec_script(&host, elsewhere);
        assert_eq!(output.stdout(), "made\n", "{output}");
        assert!(output.stderr().contains("ermission denied"), "{output}");
        assert_eq!(exec(&host, &["stat", "-c", "%t:%T", "/dev/null"]).ok().stdout(), "1:3\n");
        down(&host, "demo");
    }
}
