//! What carboy makes of real images, beside what others make of them: `umoci unpack` for the files,
//! `runc` for the way they are started. The image of three layers with everything a layer may hold
//! is in `store.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::bottle::{down, text, up};
use crate::common::images::busybox;
use crate::common::{Output, TestHost};
use crate::store::{layers, load, tree};

/// The image at `layout` has one layer; carboy's directory of it equals what umoci makes.
#[track_caller]
fn assert_as_umoci(host: &TestHost, layout: &Path, name: &str) -> tree::Tree {
    let source = format!("{}:{name}", layout.display());
    let reference = host.dir().join("reference");
    host.run(["umoci", "unpack", "--image", &source, &reference.display().to_string()]).ok();
    let want = reference.join("rootfs");
    // On disk, as outside of tests: a file system in memory may lack some attributes.
    let root = host.dir().join("root");
    load(host, &["--root", &root.display().to_string()], layout);
    let layers = layers(host, &root.join("images"), &format!("oci:{source}"));
    assert_eq!(layers.len(), 1);
    let found = tree::read(&layers[0]);
    tree::assert_same(&found, &tree::read(&want), name);
    assert_eq!(tree::link_counts(&layers[0]), tree::link_counts(&want));
    found
}

#[test]
fn busybox_unpacks_as_umoci_does() {
    let mut host = TestHost::new();
    // skopeo's cache.
    host.allow("/var/lib/containers");
    let image = busybox();
    let found = assert_as_umoci(&host, &image.layout, image.name);
    assert!(found.contains_key(Path::new("./bin/busybox")), "{:?}", found.keys());
}

/// The files of this machine's required packages: what mmdebstrap would unpack, without a mirror.
const PACKAGES: &str = r#"
    set -eu
    dpkg-query --show --showformat='${Priority} ${binary:Package}\n' |
        sed -n 's/^required //p' | xargs dpkg-query --listfiles | grep '^/' |
        sed -E 's#^/(bin|sbin|lib|lib64)/#/usr/\1/#' |
        grep -Ev '^/(dev|proc|sys|run|tmp|var/lib)(/|$)' | sort -u |
        while IFS= read -r path; do
            if [ -e "$path" ] || [ -L "$path" ]; then printf '.%s\n' "$path"; fi
        done >"$1/list"
    tar --directory=/ --no-recursion --files-from="$1/list" --format=posix --numeric-owner \
        --xattrs --xattrs-include='*' --sparse --create --file="$1/debian.tar"
    umoci init --layout "$1/debian"
    umoci new --image "$1/debian:debian"
    umoci raw add-layer --image "$1/debian:debian" "$1/debian.tar"
"#;

#[test]
fn debian_unpacks_as_umoci_does() {
    let mut host = TestHost::new();
    host.allow("/var/lib/containers");
    let directory = host.dir().display().to_string();
    // Not inside: the host has a /var/lib of its own.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", PACKAGES, "sh", &directory]);
    Output::of(command, "the packages' files".to_owned(), None).ok();
    let found = assert_as_umoci(&host, &host.dir().join("debian"), "debian");
    assert!(found.len() > 2_000, "{} files", found.len());
    let count = |what: &str| found.values().filter(|line| line.contains(what)).count();
    assert!(count("mode 104755") > 2, "set-user-id programs");
    assert!(count("mode 10275") > 0, "set-group-id programs");
    assert!(count(" -> ") > 100, "symbolic links");
    let times = tree::link_counts(&host.dir().join("reference/rootfs"));
    assert!(times.values().any(|&count| count > 1), "hard links");
}

/// The specification that the bundle's monitor wrote.
fn config_of(host: &TestHost) -> Value {
    let found = host.run(["find", "/run/carboy", "-name", "config.json"]).ok().stdout();
    assert_eq!(found.lines().count(), 1, "{found}");
    serde_json::from_slice(&fs::read(host.path(found.trim())).unwrap()).unwrap()
}

#[test]
fn runc_starts_what_carboy_describes() {
    let mut host = TestHost::new();
    host.allow("/var/lib/containers");
    let image = busybox();
    load(&host, &[], &image.layout);
    let started = up(&host, &["demo", "--image", image.name, "-u", "web"]);
    let mut config = config_of(&host);
    let source = format!("oci:{}:{}", image.layout.display(), image.name);
    let lower = layers(&host, Path::new("/var/lib/carboy/images"), &source);
    let bundle = PathBuf::from("/run/other");
    let rootfs = bundle.join("rootfs").display().to_string();
    host.run(["mkdir", "-p", &rootfs]).ok();
    // A copy of the unpacked layer: runc makes mount points in it.
    host.run(["cp", "-a", &format!("{}/.", lower[0].display()), &rootfs]).ok();
    config["root"]["path"] = json!("rootfs");
    config["linux"]["cgroupsPath"] = json!("/carboy-second-opinion");
    let script = "id -u; id -g; pwd; hostname; grep -c : /proc/net/dev; grep CapBnd /proc/self/status; touch /sys/x";
    config["process"]["args"] = json!(["/bin/sh", "-c", script]);
    fs::write(host.path(bundle.join("config.json")), config.to_string()).unwrap();
    let run = ["runc", "--root", "/run/runc", "run", "--bundle", "/run/other", "second"];
    let output = host.run(run);
    let said = output.stdout();
    let ours = host.carboy(&["exec", "demo", "--", "sh", "-c", script]).stdout();
    assert_eq!(said, ours, "{output}");
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..2], ["1000", "1000"], "{output}");
    assert!(output.stderr().contains("Read-only file system"), "{output}");
    assert_eq!(text(&started, "slug"), "demo");
    down(&host, "demo");
    host.run(["rm", "-r", "/run/other", "/run/runc"]).ok();
}
