//! Bounds on what a bundle uses, what it is told to use, and how running out is told.

use std::time::Duration;

use super::{cgroup_values, exec, exec_script, host_with_image, inspect, up_busybox, with_image};
use crate::common::bottle::{assert_answers, down, text};
use crate::common::{TestHost, poll};

/// Fills a tmpfs, which counts as the container's memory, and dies of it.
const TOO_MUCH: &str = "busybox tail /dev/zero";

#[test]
fn running_out_of_memory_is_told_as_such() {
    let host = host_with_image();
    up_busybox(&host, &["--memory", "16m"], &["sh", "-c", &format!("exec {TOO_MUCH}")]);
    let status = || inspect(&host, "demo");
    assert!(poll(Duration::from_secs(20), || status()["state"] == "exited"), "{}", status());
    // The monitor writes the end down a moment after it.
    assert!(poll(Duration::from_secs(10), || status()["exit_code"] == 137), "{}", status());
    assert_eq!(status()["oom_killed"], true, "{}", status());
    let listed = host.carboy(&["ps"]).ok().stdout();
    assert!(listed.contains("exited (137, OOM)"), "{listed}");
    down(&host, "demo");

    // One that is killed otherwise did not run out.
    let bottle = up_busybox(&host, &["--memory", "16m"], &[]);
    assert_eq!(status()["oom_killed"], false);
    host.run(["kill", "-9", &bottle["pid"].to_string()]).ok();
    assert!(poll(Duration::from_secs(10), || status()["exit_code"] == 137), "{}", status());
    assert_eq!(status()["oom_killed"], false);
    let listed = host.carboy(&["ps"]).ok().stdout();
    assert!(listed.contains("exited (137)"), "{listed}");
    down(&host, "demo");

    // A command may run out, too: the bundle goes on.
    up_busybox(&host, &["--memory", "16m"], &[]);
    let output = exec_script(&host, TOO_MUCH);
    assert_eq!(output.exit_code(), Some(137), "{output}");
    assert_eq!((&status()["oom_killed"], &status()["state"]), (&true.into(), &"running".into()));
    down(&host, "demo");
}

#[test]
fn swap_and_disks_are_bounded_as_asked_for() {
    let host = host_with_image();
    let values = |container: &str, names: &[&str]| cgroup_values(&host, container, names);
    for (flags, want) in [
        (&["--memory", "32m"][..], "33554432"),
        (&["--memory", "32m", "--memory-swap", "64m"], "67108864"),
    ] {
        let bottle = up_busybox(&host, flags, &[]);
        let container = text(&bottle, "container");
        let v1 = values(container, &["memory.memsw.limit_in_bytes"]);
        let v2 = values(container, &["memory.swap.max"]);
        let more = want.parse::<u64>().unwrap() - (32 << 20);
        assert!(v1 == [want] || v2 == [more.to_string()], "{flags:?}: {v1:?} {v2:?}");
        let limits = &inspect(&host, "demo")["launch"]["limits"];
        assert_eq!(limits["memory_swap"].to_string(), want);
        down(&host, "demo");
    }
    let disks = host.run(["lsblk", "-dnpo", "NAME,MAJ:MIN"]).ok().stdout();
    let (disk, number) = disks.lines().next().unwrap().split_once(char::is_whitespace).unwrap();
    let rate = format!("{disk}:1m");
    let flags = ["--device-read-bps", &rate, "--device-write-bps", &rate];
    let bottle = up_busybox(&host, &flags, &[]);
    let container = text(&bottle, "container");
    let v1 =
        values(container, &["blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device"]);
    let line = format!("{} 1048576", number.trim());
    let v2 = values(container, &["io.max"]);
    assert!(v1 == [line.clone(), line] || v2[0].contains("rbps=1048576"), "{v1:?} {v2:?}");
    assert_eq!(up_busybox(&host, &flags, &[])["changed"], false);
    down(&host, "demo");
}

/// systemd turns off at the root what none of its own units uses, at every `daemon-reload`.
#[test]
fn limits_stay_when_the_root_is_to_turn_controllers_off() {
    let host = with_image(TestHost::cgroup2());
    let there = host.run(["cat", "/sys/fs/cgroup/cgroup.controllers"]).ok().stdout();
    let flags = ["--cpus", "0.5", "--memory", "64m"];
    if !there.split_whitespace().any(|controller| controller == "cpu") {
        // A hybrid machine's controllers are version 1's: none is left for this host.
        let all = [&["up", "--json", "demo", "--image", "test-busybox"], &flags[..]].concat();
        host.carboy(&all).error(7, "unsupported");
        return;
    }
    let bottle = up_busybox(&host, &flags, &[]);
    let off = "echo -$0 >/sys/fs/cgroup/cgroup.subtree_control";
    for controller in there.split_whitespace() {
        host.run(["sh", "-c", off, controller]).code(1);
    }
    let values = cgroup_values(&host, text(&bottle, "container"), &["cpu.max", "memory.max"]);
    assert_eq!(values, ["50000 100000", "67108864"]);
    down(&host, "demo");
}

#[test]
fn stats_agree_with_the_kernels_files() {
    let host = host_with_image();
    let flags = ["--memory", "64m", "--pids-limit", "20"];
    let bottle = up_busybox(&host, &flags, &[]);
    assert_answers(&host, &bottle, crate::common::bottle::WEB);
    // Uses a processor as long as it runs.
    let mut busy = host.spawn_carboy(&["exec", "demo", "--", "sh", "-c", "while :; do :; done"]);
    let pids = || cgroup_values(&host, text(&bottle, "container"), &["pids.current"]);
    let before = pids();
    assert!(poll(Duration::from_secs(10), || pids() != before));
    let one = || {
        let all =
            host.json([env!("CARGO_BIN_EXE_carboy"), "stats", "--json", "--no-stream", "demo"]);
        assert_eq!(all.as_array().map(Vec::len), Some(1), "{all}");
        all[0].clone()
    };
    let stats = one();
    assert_eq!(stats["slug"], "demo");
    assert_eq!(stats["memory_limit"], 64 << 20, "{stats}");
    assert_eq!(stats["pids_limit"], 20, "{stats}");
    assert!(stats["pids"].as_u64().unwrap() >= 2, "{stats}");
    assert!((1..=64 << 20).contains(&stats["memory"].as_u64().unwrap()), "{stats}");
    assert!(stats["cpu_nanoseconds"].as_u64().unwrap() > 0, "{stats}");
    assert!(stats["cpu_percent"].as_f64().unwrap() > 1.0, "{stats}");
    busy.kill();
    // What the bundle itself counts on eth0 is told from its side.
    let inside = exec(&host, &["cat", "/proc/net/dev"]).ok().stdout();
    let line = inside.lines().find(|l| l.trim().starts_with("eth0:")).unwrap();
    let numbers: Vec<u64> = line.split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect();
    let stats = one();
    for (key, index) in [("rx_bytes", 0), ("rx_packets", 1), ("tx_bytes", 8), ("tx_packets", 9)] {
        assert_eq!(stats["network"][key], numbers[index], "{key}: {stats} {line}");
    }
    assert!(numbers[0] > numbers[1] && numbers[0] != numbers[8], "{line}");
    // What the firewall drops is told by the firewall's own count.
    let gateway = text(&bottle, "gateway").to_owned();
    exec_script(&host, &format!("busybox timeout 1 nc {gateway} 9"));
    let packets = |value: &serde_json::Value| -> u64 {
        let reasons = value["drops"].as_object().unwrap().values();
        reasons.map(|count| count["packets"].as_u64().unwrap()).sum()
    };
    assert!(packets(&one()) > 0, "{}", one());
    assert_eq!(one()["drops"], inspect(&host, "demo")["drops"]);
    let table = host.carboy(&["stats", "--no-stream"]).ok().stdout();
    assert!(table.starts_with("SLUG") && table.contains("/ 64.0MiB"), "{table}");
    // As long as it is asked for: a line for each look.
    let mut stream = host.spawn_carboy(&["stats", "--json", "demo"]);
    let lines: Vec<String> = stream.lines().take(2).collect();
    assert!(lines.iter().all(|line| line.contains("\"cpu_percent\":")), "{lines:?}");
    stream.kill();
    down(&host, "demo");
    assert!(!host.carboy(&["stats", "--no-stream"]).ok().stdout().contains("demo"));
    host.carboy(&["stats", "--json", "--no-stream", "demo"]).error(3, "not-found");
}
