//! Images: what independent tools made is loaded, listed, run and removed.

use std::fs;

use crate::common::TestHost;
use crate::common::bottle::{WEB, assert_answers, down, load, up};
use crate::common::images::{busybox, layered};

/// The references `image ls` shows.
fn listed(host: &TestHost) -> Vec<String> {
    let all = host.carboy(&["image", "ls", "--json"]).ok().stdout_json();
    let reference = |image: &serde_json::Value| {
        let reference = image.get("reference").or_else(|| image["image"].get("reference"));
        reference
            .and_then(|r| r.as_str())
            .unwrap_or_else(|| panic!("reference in {image}"))
            .to_owned()
    };
    all.as_array().unwrap().iter().map(reference).collect()
}

#[test]
fn each_form_of_an_image_is_loaded_and_runs() {
    let image = busybox();
    for (path, name) in [
        (&image.layout, "test-busybox"),
        (&image.oci_archive, "test-busybox"),
        (&image.docker_archive, "test-busybox:latest"),
    ] {
        let host = TestHost::new();
        let path = path.display().to_string();
        let loaded = host.carboy(&["image", "load", &path]).ok().stdout();
        assert_eq!(loaded.lines().count(), 1, "{path}: {loaded}");
        assert!(loaded.trim().ends_with(name), "{path}: {loaded}");
        assert!(listed(&host).contains(&loaded.trim().to_owned()), "{:?}", listed(&host));
        assert_answers(&host, &up(&host, &["demo", "--image", name]), WEB);
        down(&host, "demo");
        host.assert_clean();
    }
}

#[test]
fn an_archive_is_read_from_stdin() {
    let host = TestHost::new();
    let archive = fs::read(busybox().oci_archive).unwrap();
    let loaded = host.carboy_with(&["image", "load", "-"], &[], Some(&archive));
    assert_eq!(loaded.ok().stdout().trim(), "test-busybox");
}

#[test]
fn loading_twice_changes_nothing() {
    let host = TestHost::new();
    load(&host, &busybox());
    let before = host.run(["find", "/var/lib/carboy", "-type", "f"]).ok().stdout();
    load(&host, &busybox());
    let after = host.run(["find", "/var/lib/carboy", "-type", "f"]).ok().stdout();
    assert_eq!(before.lines().count(), after.lines().count(), "{before}\n{after}");
    assert_eq!(listed(&host).iter().filter(|r| r.contains("test-busybox")).count(), 1);
}

#[test]
fn layers_hide_what_lies_below() {
    let host = TestHost::new();
    load(&host, &layered());
    up(&host, &["demo", "--image", "test-layers"]);
    let inside = |script: &str| host.carboy(&["exec", "demo", "--", "sh", "-c", script]);
    assert_eq!(
        inside("cd /layers; ls . dir").ok().stdout(),
        ".:\nchanged\ndir\nkept\n\ndir:\nnew\n"
    );
    assert_eq!(inside("cat /layers/kept /layers/changed").ok().stdout(), "lowerupper");
    down(&host, "demo");
    // A bottle's own changes go with it.
    up(&host, &["demo", "--image", "test-layers"]);
    inside("rm /layers/kept; echo x >/layers/own").ok();
    down(&host, "demo");
    up(&host, &["demo", "--image", "test-layers"]);
    assert_eq!(inside("ls /layers").ok().stdout(), "changed\ndir\nkept\n");
    down(&host, "demo");
}

#[test]
fn a_removed_image_is_gone_and_a_used_one_stays() {
    let host = TestHost::new();
    load(&host, &busybox());
    up(&host, &["demo", "--image", "test-busybox"]);
    host.carboy(&["image", "rm", "--json", "test-busybox"]).error(5, "in-use");
    down(&host, "demo");
    host.carboy(&["image", "rm", "test-busybox"]).ok();
    assert!(!listed(&host).iter().any(|r| r.contains("test-busybox")));
    host.carboy(&["up", "--json", "demo", "--image", "test-busybox"]).error(3, "not-found");
    host.assert_clean();
}

#[test]
fn a_broken_archive_leaves_nothing() {
    let host = TestHost::new();
    let good = fs::read(busybox().oci_archive).unwrap();
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    for (name, bytes) in [
        ("empty", &[][..]),
        ("cut", &good[..good.len() / 2]),
        ("flipped", &flipped),
        ("text", b"no archive"),
    ] {
        let path = host.dir().join(name);
        fs::write(&path, bytes).unwrap();
        host.carboy(&["image", "load", "--json", &path.display().to_string()]).error(2, "invalid");
        assert!(!listed(&host).iter().any(|r| r.contains("test-busybox")), "{name}");
    }
    host.carboy(&["image", "load", "--json", "/no/such/file"]).error(3, "not-found");
    load(&host, &busybox());
}
