//! The log of a bottle: its bytes, its bounds, its readers, and a disk without room.

use std::fs;
use std::time::Duration;

use crate::common::bottle::{down, inspect, load, text, up};
use crate::common::{Output, TestHost, images, poll};

const LOG_DIR: &str = "/var/lib/carboy/bundles/claude-bottle-sidecars-demo/log";

/// A host with a bottle that runs a script.
fn with_script(flags: &[&str], script: &str) -> TestHost {
    let host = TestHost::new();
    load(&host, &images::busybox());
    start(&host, flags, script);
    host
}

fn start(host: &TestHost, flags: &[&str], script: &str) {
    up(host, &[&["demo", "--image", "test-busybox"], flags, &["--", "sh", "-c", script]].concat());
}

fn logs(host: &TestHost, flags: &[&str]) -> Output {
    host.carboy(&[&["logs"], flags, &["demo"]].concat()).ok().clone()
}

#[track_caller]
fn await_line(host: &TestHost, line: &str) {
    let there = || logs(host, &[]).stdout().lines().any(|l| l == line);
    assert!(poll(Duration::from_secs(20), there), "no line {line:?}");
}

fn touch(host: &TestHost, path: &str) {
    host.carboy(&["exec", "demo", "--", "touch", path]).ok();
}

#[test]
fn output_is_kept_byte_for_byte() {
    let script = "busybox printf 'a\\0\\377b\\r\\n'; busybox seq -s , 20000; \
                  busybox printf 'no end'; while :; do sleep 1; done";
    let host = with_script(&[], script);
    let numbers = (1..=20_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let whole = [b"a\0\xffb\r\n", numbers.as_bytes(), b"\n"].concat();
    let complete = || logs(&host, &[]).stdout_bytes() == whole;
    assert!(poll(Duration::from_secs(10), complete), "{}", logs(&host, &[]));
    // A line in pieces has one time.
    assert_eq!(logs(&host, &["-t"]).stdout_bytes().split(|b| *b == b'\n').count(), 3);
    host.carboy(&["kill", "demo"]).ok();
    host.carboy(&["wait", "demo"]).ok();
    let with_rest = [&whole[..], b"no end"].concat();
    assert_eq!(logs(&host, &[]).stdout_bytes(), with_rest);
    let last = logs(&host, &["--json", "--tail", "1"]).stdout_json();
    assert_eq!((&last["text"], &last["partial"]), (&"no end".into(), &true.into()));
    down(&host, "demo");
}

#[test]
fn a_span_of_time_is_shown() {
    let host = with_script(
        &[],
        "for n in 1 2 3 4 5; do until [ -e /$n ]; do sleep 0.02; done; echo $n; done; sleep 1000",
    );
    // Lines that are read together have one time.
    for n in ["1", "2", "3", "4", "5"] {
        touch(&host, &format!("/{n}"));
        await_line(&host, n);
    }
    let stamped = logs(&host, &["-t"]).stdout();
    let times: Vec<&str> = stamped.lines().map(|line| line.split_once(' ').unwrap().0).collect();
    let show = |flags: &[&str]| logs(&host, flags).stdout().replace('\n', "");
    assert_eq!(show(&["--since", times[2]]), "345");
    assert_eq!(show(&["--until", times[2]]), "123");
    assert_eq!(show(&["--since", times[1], "--until", times[3]]), "234");
    assert_eq!(show(&["--until", times[3], "--tail", "2"]), "34");
    assert_eq!(show(&["--follow", "--until", times[1]]), "12");
    assert_eq!(show(&["--since", "10m", "--tail", "all"]), "12345");
    assert_eq!(show(&["--until", "2020-01-31"]), "");
    for bad in [["--since", "yesterday"], ["--tail", "-1"]] {
        let arguments = [&["logs", "--json"], &bad[..], &["demo"]].concat();
        host.carboy(&arguments).error(2, "usage");
    }
    down(&host, "demo");
}

#[test]
fn the_log_keeps_to_its_bounds() {
    let bounds = ["--log-opt", "max-size=16k", "--log-opt", "max-file=2"];
    let host = with_script(&bounds, "busybox seq 20000; echo end; sleep 1000");
    await_line(&host, "end");
    let mut files: Vec<_> = fs::read_dir(host.path(LOG_DIR)).unwrap().map(Result::unwrap).collect();
    files.sort_by_key(|file| file.file_name());
    let names: Vec<_> = files.iter().map(|file| file.file_name()).collect();
    assert_eq!(names, ["bundle.log", "bundle.log.1"]);
    for file in &files {
        assert!(file.metadata().unwrap().len() <= 16 << 10, "{file:?}");
    }
    let shown = logs(&host, &[]).stdout();
    let numbers: Vec<u32> = shown.lines().filter_map(|line| line.parse().ok()).collect();
    let first = numbers[0];
    assert_eq!(numbers, (first..=20_000).collect::<Vec<_>>());
    let log = inspect(&host, "demo")["launch"]["log"].clone();
    assert_eq!((&log["max_size"], &log["max_files"]), (&16384.into(), &2.into()));
    // Another bound is another bottle.
    let other = ["up", "--json", "demo", "--image", "test-busybox", "--log-opt", "max-file=4"];
    let script = ["--", "sh", "-c", "busybox seq 20000; echo end; sleep 1000"];
    host.carboy(&[&other[..], &script].concat()).error(4, "conflict");
    host.carboy(&["up", "--json", "x", "--log-opt", "max-size=lots"]).error(2, "invalid");
    down(&host, "demo");
}

#[test]
fn a_reader_follows_across_any_number_of_rotations() {
    let bounds = ["--log-opt", "max-size=64k", "--log-opt", "max-file=2"];
    let script = "echo ready; until [ -e /go ]; do sleep 0.1; done; busybox seq 50000; sleep 1000";
    let host = with_script(&bounds, script);
    let mut follow = host.spawn_carboy(&["logs", "-f", "demo"]);
    let mut lines = follow.lines();
    assert_eq!(lines.next().as_deref(), Some("ready"));
    touch(&host, "/go");
    for n in 1..=50_000 {
        assert_eq!(lines.next(), Some(n.to_string()));
    }
    down(&host, "demo");
    assert_eq!(follow.wait(), Some(0));
}

#[test]
fn a_reader_that_does_not_read_holds_nothing_up() {
    let bounds = ["--log-opt", "max-size=1k", "--log-opt", "max-file=1"];
    let script = "echo ready; until [ -e /go ]; do sleep 0.1; done; busybox seq 200000; \
                  echo done; sleep 1000";
    let host = with_script(&bounds, script);
    let mut stuck = host.spawn_carboy(&["logs", "-f", "demo"]);
    let mut lines = stuck.lines();
    assert_eq!(lines.next().as_deref(), Some("ready"));
    touch(&host, "/go");
    // The other end of its pipe is not read: it soon stands still.
    await_line(&host, "done");
    let size = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().metadata().unwrap().len();
    let kept: u64 = fs::read_dir(host.path(LOG_DIR)).unwrap().map(size).sum();
    assert!(kept <= 110 << 10, "{kept} bytes");
    stuck.kill();
    down(&host, "demo");
}

#[test]
fn the_last_lines_of_a_bottle_are_followed() {
    for _ in 0..5 {
        let host = with_script(&[], "until [ -e /go ]; do sleep 0.05; done; busybox seq 5000");
        let mut follow = host.spawn_carboy(&["logs", "-f", "demo"]);
        // The end of process 1 may come to the one that ends it before its own.
        host.carboy(&["exec", "demo", "--", "touch", "/go"]);
        assert_eq!(follow.lines().count(), 5000);
        assert_eq!(follow.wait(), Some(0));
        down(&host, "demo");
    }
}

#[test]
fn a_full_disk_costs_lines_and_the_log_says_how_many() {
    const ROOT: &str = "/var/lib/small";
    let mut host = TestHost::new();
    fs::create_dir(host.path(ROOT)).unwrap();
    host.run(["mount", "-t", "tmpfs", "-o", "size=12m,mode=755", "tmpfs", ROOT]).ok();
    host.allow(ROOT);
    let carboy = |arguments: &[&str]| host.carboy(&[&["--root", ROOT], arguments].concat());
    let archive = images::busybox().oci_archive.display().to_string();
    carboy(&["image", "load", &archive]).ok();
    let script = "echo ready; until [ -e /dev/shm/1 ]; do sleep 0.1; done; busybox seq 100000; \
                  touch /dev/shm/2; until [ -e /dev/shm/3 ]; do sleep 0.1; done; echo after; \
                  while :; do sleep 1; done";
    carboy(&["up", "demo", "--image", "test-busybox", "--", "sh", "-c", script]).ok();
    let shown = || carboy(&["logs", "demo"]).ok().clone();
    assert!(poll(Duration::from_secs(10), || shown().stdout() == "ready\n"));
    // Only root's processes may use what is left of some file systems: of this one nobody.
    let filled = host.run(["dd", "if=/dev/zero", &format!("of={ROOT}/fill"), "bs=64k"]);
    assert!(filled.stderr().contains("No space left"), "{filled}");
    let exec = |command: &[&str]| carboy(&[&["exec", "demo", "--"], command].concat());
    exec(&["touch", "/dev/shm/1"]).ok();
    let written = || exec(&["ls", "/dev/shm/2"]).exit_code() == Some(0);
    assert!(poll(Duration::from_secs(20), written), "the bottle does not get on");
    let status = carboy(&["inspect", "demo"]).ok().stdout_json();
    assert_eq!(text(&status, "state"), "running");
    fs::remove_file(host.path(format!("{ROOT}/fill"))).unwrap();
    exec(&["touch", "/dev/shm/3"]).ok();
    assert!(poll(Duration::from_secs(20), || shown().stdout().ends_with("after\n")));
    let all = shown();
    let notices: Vec<u64> = all
        .stderr()
        .lines()
        .filter_map(|line| {
            let rest = line.strip_prefix("carboy: ")?;
            rest.split_once(" bytes of output were lost: ")?.0.parse().ok()
        })
        .collect();
    let numbers: usize = (1..=100_000_u32).map(|n| n.to_string().len() + 1).sum();
    let output = "ready\n".len() + numbers + "after\n".len();
    let lost = usize::try_from(notices.iter().sum::<u64>()).unwrap();
    assert!(lost > 0, "{}", all.stderr());
    assert_eq!(all.stdout().len() + lost, output, "{}", all.stderr());
    carboy(&["down", "demo"]).ok();
    host.run(["umount", ROOT]).ok();
    fs::remove_dir(host.path(ROOT)).unwrap();
    host.take_baseline();
}
