//! SIGKILL of carboy at any point: the next `up` or `down` of that bottle converges.

use std::time::Duration;

use crate::common::bottle::{HEALTH, assert_answers, assert_echoes, down, up};
use crate::common::{TestHost, poll};

/// From before the first change to after the last, in milliseconds, denser at the start.
const POINTS: [u64; 14] = [1, 3, 6, 9, 12, 16, 20, 25, 32, 40, 55, 80, 120, 200];

/// Starts carboy and kills it after a while; true if that was before its end.
fn killed_after(host: &TestHost, milliseconds: u64, arguments: &[&str]) -> bool {
    let mut call = host.spawn_carboy(arguments);
    // The time of nsenter and of joining the cgroups does not count.
    let began = poll(Duration::from_secs(5), || {
        let comm = call.pid().map(|pid| std::fs::read(format!("/proc/{pid}/comm")));
        matches!(comm, Some(Ok(comm)) if comm == b"carboy\n") || call.ended()
    });
    assert!(began, "{arguments:?} does not begin");
    std::thread::sleep(Duration::from_millis(milliseconds));
    call.kill()
}

#[test]
fn up_after_a_killed_up_converges() {
    let host = TestHost::new();
    let mut killed = 0;
    for point in POINTS {
        killed += usize::from(killed_after(&host, point, &["up", "demo"]));
        let bottle = up(&host, &["demo"]);
        assert_answers(&host, &bottle, HEALTH);
        assert_echoes(&host, &bottle);
        assert_eq!(up(&host, &["demo"])["changed"], false, "killed after {point} ms");
        down(&host, "demo");
        host.assert_clean();
    }
    assert!(killed > 0, "no call was killed before its end");
}

#[test]
fn down_after_a_killed_up_leaves_nothing() {
    let host = TestHost::new();
    let mut killed = 0;
    for point in POINTS {
        killed += usize::from(killed_after(&host, point, &["up", "demo"]));
        down(&host, "demo");
        host.assert_clean();
    }
    assert!(killed > 0, "no call was killed before its end");
}

#[test]
fn down_after_a_killed_down_leaves_nothing() {
    let host = TestHost::new();
    for point in POINTS {
        up(&host, &["demo"]);
        killed_after(&host, point, &["down", "demo"]);
        down(&host, "demo");
        host.assert_clean();
    }
}

#[test]
fn up_after_a_killed_down_converges() {
    let host = TestHost::new();
    for point in POINTS {
        up(&host, &["demo"]);
        killed_after(&host, point, &["down", "demo"]);
        assert_answers(&host, &up(&host, &["demo"]), HEALTH);
    }
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn a_bundle_with_ids_of_its_own_converges_as_well() {
    let host = TestHost::new();
    let arguments = ["up", "demo", "--userns"];
    for point in POINTS {
        killed_after(&host, point, &arguments);
        assert_answers(&host, &up(&host, &arguments[1..]), HEALTH);
        assert_eq!(up(&host, &arguments[1..])["changed"], false, "killed after {point} ms");
        killed_after(&host, point, &["down", "demo"]);
        down(&host, "demo");
        host.assert_clean();
        killed_after(&host, point, &arguments);
        down(&host, "demo");
        host.assert_clean();
    }
}

#[test]
fn a_killed_monitor_is_noticed() {
    let host = TestHost::new();
    let before = up(&host, &["demo"]);
    let script = "for p in /proc/[0-9]*; do if tr '\\0' ' ' <$p/cmdline | grep -q '^[^ ]*carboy'; \
                  then kill -9 ${p#/proc/}; fi; done";
    host.run(["sh", "-c", script]).ok();
    let after = up(&host, &["demo"]);
    assert_answers(&host, &after, HEALTH);
    assert_eq!(after["bundle_ip"], before["bundle_ip"]);
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn a_broken_record_does_not_stand_in_the_way() {
    for content in ["", "{", "{\"schema\": 0}"] {
        let host = TestHost::new();
        up(&host, &["demo"]);
        let script = format!(
            "find /run/carboy -name '*.json' -path '*demo*' | while read -r f; do printf '%s' '{content}' >$f; done"
        );
        host.run(["sh", "-c", &script]).ok();
        assert_answers(&host, &up(&host, &["demo"]), HEALTH);
        host.run(["sh", "-c", &script]).ok();
        down(&host, "demo");
        host.assert_clean();
    }
}

#[test]
fn lost_state_does_not_stand_in_the_way() {
    let host = TestHost::new();
    up(&host, &["demo"]);
    host.run(["rm", "-rf", "/run/carboy"]).ok();
    down(&host, "demo");
    host.assert_clean();
}
