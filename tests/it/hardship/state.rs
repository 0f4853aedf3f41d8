//! State that is damaged, in the way, locked by others or full.

use std::fs;

use super::{CONTAINER, SOON};
use crate::common::bottle::{HEALTH, WEB, assert_answers, down, load, text, up};
use crate::common::{TestHost, images, poll};

/// Where the image store's writers lock each other out.
const IMAGES_LOCK: &str = "/var/lib/carboy/images/lock";

#[test]
fn a_state_directory_that_cannot_be_is_an_error() {
    let host = TestHost::new();
    host.run(["ln", "-s", "/nonexistent/x", "/run/carboy"]).ok();
    let carboy = env!("CARGO_BIN_EXE_carboy");
    let output = host.run(["timeout", "-s", "KILL", "10", carboy, "up", "demo"]);
    assert!(matches!(output.exit_code(), Some(1..=8)), "{output}");
    assert!(output.stderr().contains("/run/carboy"), "it is named: {output}");
    host.run(["rm", "/run/carboy"]).ok();
    host.assert_clean();
}

#[test]
fn a_damaged_record_and_a_bad_wish_cost_nobody_a_container() {
    let host = TestHost::new();
    load(&host, &images::busybox());
    let bottle = up(&host, &["demo", "--image", "test-busybox"]);
    let record = host.path(format!("/run/carboy/bundles/{CONTAINER}/record.json"));
    assert!(record.exists());
    fs::write(record, "{").unwrap();
    host.carboy(&["up", "--json", "demo", "--image", "nosuch"]).error(3, "not-found");
    assert_answers(&host, &bottle, WEB);
    let comm = fs::read_to_string(host.path(format!("/proc/{}/comm", bottle["pid"])));
    assert_eq!(comm.unwrap(), "sh\n");
    assert_answers(&host, &up(&host, &["demo", "--image", "test-busybox"]), WEB);
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn a_damaged_record_hides_no_other_bottle() {
    let host = TestHost::new();
    for slug in ["one", "two"] {
        up(&host, &[slug]);
    }
    let network = "networks/claude-bottle-bundle-one.json";
    let bundle = "bundles/claude-bottle-sidecars-one/record.json";
    let (ps, ls) = (["ps", "--json"], ["network", "ls", "--json"]);
    for (damaged, list, key, two) in [
        (network, &ps[..], "slug", "two"),
        (network, &ls, "name", "claude-bottle-bundle-two"),
        (bundle, &ps, "slug", "two"),
    ] {
        let record = host.path("/run/carboy").join(damaged);
        let good = fs::read(&record).unwrap();
        fs::write(&record, "{").unwrap();
        let output = host.carboy(list);
        let json = output.ok().stdout_json();
        let listed: Vec<&str> = json.as_array().unwrap().iter().map(|o| text(o, key)).collect();
        assert!(listed.contains(&two), "{damaged}: {output}");
        assert!(output.stderr().contains("one"), "a note on stderr: {damaged}: {output}");
        fs::write(&record, good).unwrap();
    }
    fs::write(host.path("/run/carboy").join(network), "{").unwrap();
    for slug in ["one", "two"] {
        down(&host, slug);
    }
    host.assert_clean();
}

#[test]
fn the_removal_of_an_image_and_a_first_up_do_not_wait_for_each_other() {
    let host = TestHost::new();
    load(&host, &images::busybox());
    let mut holder = host.spawn(["flock", "--no-fork", IMAGES_LOCK, "sleep", "60"]);
    let held = || host.run(["flock", "--nonblock", IMAGES_LOCK, "true"]).exit_code() == Some(1);
    assert!(poll(SOON, held), "nobody holds {IMAGES_LOCK}");
    // Those who wait stand with an arrow (proc_locks(5)).
    let waiting = || {
        let locks = fs::read_to_string(host.path("/proc/locks")).unwrap();
        locks.lines().filter(|line| line.contains("-> FLOCK")).count()
    };
    let mut removal = host.spawn_carboy(&["image", "rm", "test-busybox"]);
    assert!(poll(SOON, || waiting() == 1), "the removal does not wait for {IMAGES_LOCK}");
    let mut up = host.spawn_carboy(&["up", "demo"]);
    assert!(poll(SOON, || waiting() == 2), "`up` does not wait for the image it has to load");
    holder.kill();
    assert_eq!(removal.wait(), Some(0));
    assert_eq!(up.wait(), Some(0));
    down(&host, "demo");
    host.assert_clean();
}

/// A file system without another inode lets each write fail in turn: the first ones before
/// anything was made, the last when the container runs already.
#[test]
fn state_that_cannot_be_written_leaves_nothing_at_any_step() {
    let mut host = TestHost::new();
    // The embedded image is there from now on.
    up(&host, &["demo"]);
    down(&host, "demo");
    host.run(["mkdir", "/run/carboy"]).ok();
    host.run(
        "mount -t tmpfs -o mode=700,nr_inodes=1 carboy /run/carboy".split(' ').collect::<Vec<_>>(),
    )
    .ok();
    host.take_baseline();
    let enough = (2..40).find(|inodes| {
        let limit = format!("remount,nr_inodes={inodes}");
        host.run(["mount", "-o", &limit, "/run/carboy"]).ok();
        let output = host.carboy(&["up", "--json", "demo"]);
        if output.exit_code() == Some(0) {
            assert_answers(&host, &output.stdout_json(), HEALTH);
            return true;
        }
        // A lock that nobody holds and a directory with nothing in it stand in nobody's way.
        let empty = |line: &String| line.ends_with('/') || line.ends_with("lock");
        let mut left = host.leaks();
        left.retain(|line| !line.starts_with("+ file /run/carboy/") || !empty(line));
        assert!(left.is_empty(), "with {inodes} inodes: {left:#?}\n{output}");
        false
    });
    assert!(enough.is_some_and(|inodes| inodes > 6), "{enough:?} inodes are enough");
    down(&host, "demo");
    host.assert_clean();
    host.run(["umount", "/run/carboy"]).ok();
    host.run(["rmdir", "/run/carboy"]).ok();
    host.forget_leaks();
}
