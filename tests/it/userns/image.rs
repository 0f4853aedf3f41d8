//! Images in a bundle with ids of its own: several layers, owners, and the image's own volumes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use super::{exec, script, start};
use crate::common::bottle::{down, load, up};
use crate::common::{TestHost, images};
use crate::image_config::host_with;

#[test]
fn layers_are_joined_as_for_others_and_shared_with_them() {
    let host = TestHost::new();
    load(&host, &images::layered());
    let image = images::layered().name;
    up(&host, &["own", "--image", image, "--userns"]);
    up(&host, &["other", "--image", image]);
    let look = "cd /layers; ls -R; cat kept changed dir/new; echo more >>kept; \
                busybox mv changed moved; busybox rm -r dir; busybox mkdir dir; ls -R; \
                busybox stat -c '%u %n' *";
    let of = |slug: &str| host.carboy(&["exec", slug, "--", "sh", "-c", look]).ok().stdout();
    let own = of("own");
    assert!(own.contains("moved") && !own.contains("gone"), "{own}");
    assert_eq!(own, of("other"));
    // What one of them has written the layers do not have.
    down(&host, "own");
    up(&host, &["own", "--image", image, "--userns"]);
    let kept = host.carboy(&["exec", "own", "--", "cat", "/layers/kept"]).ok().stdout();
    assert_eq!(kept, "lower");
    down(&host, "own");
    down(&host, "other");
}

#[test]
fn owners_and_the_images_volumes_are_as_the_image_has_them() {
    let settings =
        ["--config.volume", "/owned", "--config.user", "web", "--config.workingdir", "/w/d"];
    let host = host_with(&settings, |root| {
        let owned = root.join("owned");
        fs::create_dir(&owned).unwrap();
        fs::set_permissions(&owned, fs::Permissions::from_mode(0o700)).unwrap();
        chown(&owned, Some(1000), Some(1000)).unwrap();
        fs::write(root.join("far"), "far").unwrap();
        chown(root.join("far"), Some(70_000), Some(70_000)).unwrap();
    });
    up(&host, &["demo", "--image", "t", "--userns"]);
    let look = "id -u; pwd; touch /owned/x && echo made; cat /far; echo; \
                busybox stat -c '%a %u:%g %n' /owned /owned/x /far /w/d; \
                busybox grep ' /owned ' /proc/mounts | busybox cut -d ' ' -f 3";
    let said = script(&host, look);
    let want = [
        "1000",
        "/w/d",
        "made",
        "far",
        "700 1000:1000 /owned",
        "644 1000:1000 /owned/x",
        // It has no id of the range.
        "644 65534:65534 /far",
        "755 0:0 /w/d",
        "tmpfs",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), want);
    down(&host, "demo");
}

#[test]
fn a_host_that_hides_a_part_of_proc_is_told_so() {
    let mut host = TestHost::new();
    load(&host, &images::busybox());
    host.run(["mount", "--bind", "/dev/null", "/proc/interrupts"]).ok();
    host.take_baseline();
    let all = ["up", "--json", "demo", "--image", "test-busybox", "--userns"];
    let error = host.carboy(&all).error(7, "unsupported");
    assert!(error.to_string().contains("/proc/interrupts is covered"), "{error}");
    host.assert_clean();
    host.run(["umount", "/proc/interrupts"]).ok();
    start(&host, &[], &[]);
    exec(&host, &["id"]).ok();
    down(&host, "demo");
    host.forget_leaks();
}
