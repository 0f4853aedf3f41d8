//! The image store as root: what it unpacks equals what `umoci` unpacks, a killed load leaves no
//! harm, two loads at once agree, and no archive reaches outside.

pub(crate) mod archive;
mod image;
mod power_loss;
mod sources;
pub(crate) mod tree;
mod verbs;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde_json::Value;
use sha2::{Digest, Sha256};

use self::archive::{Tar, own_architecture};
use crate::common::bottle::text;
use crate::common::{Output, TestHost, images, poll};

/// Where the store keeps what, as its header in `src/oci/store.rs` says.
const STORE: &str = "/var/lib/carboy/images";

/// `carboy image load --json`, which must succeed; what it loaded.
#[track_caller]
pub(crate) fn load(host: &TestHost, flags: &[&str], path: &Path) -> Vec<Value> {
    let path = path.display().to_string();
    let output = host.carboy(&[flags, &["image", "load", "--json", &path]].concat());
    output.ok().stdout_json().as_array().unwrap().clone()
}

/// The layers' directories of an image, the lowest first, found by the chain of its configuration
/// (OCI image specification, `config.md`, "Layer ChainID").
pub(crate) fn layers(host: &TestHost, store: &Path, source: &str) -> Vec<PathBuf> {
    let config = host.json(["skopeo", "inspect", "--config", source]);
    let mut chain = String::new();
    let mut found = Vec::new();
    for diff_id in config["rootfs"]["diff_ids"].as_array().unwrap() {
        let diff_id = diff_id.as_str().unwrap();
        chain = match chain.as_str() {
            "" => diff_id.to_owned(),
            below => {
                let digest = Sha256::digest(format!("{below} {diff_id}"));
                format!("sha256:{}", HEXLOWER.encode(&digest))
            }
        };
        let hex = chain.strip_prefix("sha256:").unwrap();
        found.push(store.join("layers").join(hex).join("diff"));
    }
    found
}

#[test]
fn every_form_of_an_image_unpacks_as_umoci_does() {
    let mut host = TestHost::new();
    // skopeo's cache.
    host.allow("/var/lib/containers");
    let image = image::make(&host);
    let reference = host.dir().join("reference");
    let source = |layout: &Path| format!("{}:{}", layout.display(), image::NAME);
    let bundle = reference.display().to_string();
    host.run(["umoci", "unpack", "--image", &source(&image.layout), &bundle]).ok();
    let want = tree::read(&reference.join("rootfs"));
    for (entry, about) in image::THERE {
        let found = want.get(&Path::new(".").join(entry));
        assert!(found.is_some_and(|line| line.contains(about)), "{entry}: {found:?}");
    }
    for entry in image::GONE {
        assert!(!want.contains_key(&Path::new(".").join(entry)), "{entry} in {:?}", want.keys());
    }
    let all_devices = tree::devices(&reference.join("rootfs"));
    assert_eq!(all_devices.len(), image::DEVICES.len(), "{all_devices:?}");
    for (form, path, layout) in [
        ("layout", &image.layout, &image.layout),
        ("oci-archive", &image.oci_archive, &image.layout),
        ("docker-archive", &image.docker_archive, &image.layout),
        ("zstd", &image.zstd_layout, &image.zstd_layout),
    ] {
        // On disk, as outside of tests: a file system in memory may lack some attributes.
        let root = host.dir().join("root").join(form);
        let flags = ["--root", &root.display().to_string()];
        let loaded = load(&host, &flags, path);
        for device in image::DEVICES {
            let notes = loaded[0]["notes"].to_string();
            assert!(notes.contains(device), "{form}: {device} in {notes}");
        }
        let layers = layers(&host, &root.join("images"), &format!("oci:{}", source(layout)));
        assert_eq!(layers.len(), 3, "{form}");
        for device in layers.iter().flat_map(|layer| tree::devices(layer)) {
            assert_eq!(fs::metadata(&device).unwrap().rdev(), 0, "{form}: {device:?} is a device");
        }
        tree::assert_same(&joined(&host, &layers), &want, form);
    }
    let index = fs::read(image.zstd_layout.join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let digest = text(&index["manifests"][0], "digest").replace("sha256:", "blobs/sha256/");
    let manifest = fs::read_to_string(image.zstd_layout.join(digest)).unwrap();
    assert_eq!(manifest.matches("tar+zstd").count(), 3, "{manifest}");
}

#[test]
fn what_is_unpacked_depends_on_neither_umask_nor_group_of_the_store() {
    let mut host = TestHost::new();
    // skopeo's cache.
    host.allow("/var/lib/containers");
    let image = image::make(&host);
    let carboy = env!("CARGO_BIN_EXE_carboy");
    let unpacked = |name: &str, before: &str| {
        let root = host.dir().join(name);
        let [shown, path] = [&root, &image.layout].map(|path| path.display());
        let script =
            format!("mkdir {shown} && {before} && {carboy} --root {shown} image load {path}");
        host.run(["sh", "-c", &script.replace("DIRECTORY", &shown.to_string())]).ok();
        let source = format!("oci:{path}:{}", image::NAME);
        let layers = layers(&host, &root.join("images"), &source);
        layers.iter().map(|layer| tree::read(layer)).collect::<Vec<_>>()
    };
    let want = unpacked("plain", "umask 0");
    for (name, before) in
        [("umask", "umask 0277"), ("group", "chgrp 100 DIRECTORY && chmod g+s DIRECTORY")]
    {
        for (found, want) in unpacked(name, before).iter().zip(&want) {
            tree::assert_same(found, want, name);
        }
    }
}

/// What the layers are together, as the kernel's overlayfs shows it.
fn joined(host: &TestHost, layers: &[PathBuf]) -> tree::Tree {
    let below: Vec<_> = layers.iter().rev().map(|layer| layer.display().to_string()).collect();
    let options = format!("ro,lowerdir={}", below.join(":"));
    host.run(["mkdir", "/run/tree"]).ok();
    host.run(["mount", "-t", "overlay", "overlay", "-o", &options, "/run/tree"]).ok();
    let found = tree::read(&host.path("/run/tree"));
    host.run(["umount", "/run/tree"]).ok();
    host.run(["rmdir", "/run/tree"]).ok();
    found
}

/// A layout of three layers with many files, so that loading it takes a while.
fn large(host: &TestHost) -> PathBuf {
    let layer = |n: usize| {
        let mut tar = Tar::default().directory("dev").directory(&format!("layer{n}"));
        for file in 0..400 {
            tar = tar.file(&format!("layer{n}/{file}"), &vec![b'a' + n as u8; 4096]);
        }
        tar.end()
    };
    let path = host.dir().join("large");
    archive::layout(&path, "large", own_architecture(), &[layer(0), layer(1), layer(2)]);
    path
}

/// Nothing of an image is in the store any more.
#[track_caller]
fn assert_store_empty(host: &TestHost) {
    for directory in ["names", "manifests", "blobs/sha256", "partial", "layers", "staging"] {
        let path = host.path(Path::new(STORE).join(directory));
        let left: Vec<_> = fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{directory}: {left:?}");
    }
}

#[test]
fn a_killed_load_is_completed_by_the_next_and_removed_whole() {
    let host = TestHost::new();
    let path = large(&host);
    let arguments = ["image", "load", &path.display().to_string()];
    load(&host, &[], &path);
    let published = || {
        let names = |directory| tree::read(&host.path(STORE).join(directory)).into_keys();
        ["blobs", "layers", "manifests", "names"].map(|place| names(place).collect::<Vec<_>>())
    };
    let want = published();
    host.carboy(&["image", "rm", "large"]).ok();
    assert_store_empty(&host);
    let mut killed = 0;
    for milliseconds in [2, 5, 9, 14, 20, 27, 35, 45, 60, 80] {
        let mut call = host.spawn_carboy(&arguments);
        let began = poll(Duration::from_secs(5), || {
            let comm = call.pid().map(|pid| fs::read(format!("/proc/{pid}/comm")));
            matches!(comm, Some(Ok(comm)) if comm == b"carboy\n") || call.ended()
        });
        assert!(began, "the load does not begin");
        std::thread::sleep(Duration::from_millis(milliseconds));
        killed += usize::from(call.kill());
        // What is listed after that must be whole.
        host.carboy(&["image", "ls", "--json"]).ok();
        assert_eq!(load(&host, &[], &path)[0]["reference"], "large");
        assert_eq!(published(), want, "killed after {milliseconds} ms");
        let staging = host.path(STORE).join("staging");
        assert_eq!(fs::read_dir(staging).unwrap().count(), 0, "killed after {milliseconds} ms");
        host.carboy(&["image", "rm", "large"]).ok();
        assert_store_empty(&host);
    }
    assert!(killed > 0, "no load was killed before its end");
}

#[test]
fn of_loads_at_once_one_does_the_work() {
    let host = TestHost::new();
    let path = large(&host);
    // Makes the store.
    host.carboy(&["image", "load", &images::busybox().oci_archive.display().to_string()]).ok();
    let lock = fs::File::open(host.path(STORE).join("lock")).unwrap();
    let number = lock.metadata().unwrap().ino().to_string();
    let lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let mut changed: Vec<bool> = std::thread::scope(|scope| {
        let calls: Vec<_> =
            (0..3).map(|_| scope.spawn(|| load(&host, &[], &path)[0]["changed"].clone())).collect();
        // Each has looked before any has begun; `->` marks who waits (proc_locks(5)).
        let all_wait = poll(Duration::from_secs(20), || {
            let locks = fs::read_to_string("/proc/locks").unwrap();
            let waits = |line: &&str| line.contains("->") && line.contains(&format!(":{number} "));
            locks.lines().filter(waits).count() == 3
        });
        drop(lock);
        assert!(all_wait, "the loads do not wait for each other");
        calls.into_iter().map(|call| call.join().unwrap().as_bool().unwrap()).collect()
    });
    changed.sort_unstable();
    assert_eq!(changed, [false, false, true]);
    let all = host.carboy(&["image", "ls", "--json"]).ok().stdout_json();
    let large = |image: &&Value| image["reference"] == "large";
    assert_eq!(all.as_array().unwrap().iter().filter(large).count(), 1, "{all}");
}

/// The load must fail with this exit code and kind, name the file and leave nothing.
#[track_caller]
fn assert_refused(host: &TestHost, path: &Path, exit: i32, code: &str) -> Output {
    let output = host.carboy(&["image", "load", "--json", &path.display().to_string()]);
    let error = output.error(exit, code);
    let file = path.file_name().unwrap().to_str().unwrap();
    assert!(text(&error, "message").contains(file), "{file} in {error}");
    assert_store_empty(host);
    output
}

#[test]
fn what_is_no_image_for_this_host_is_refused_by_name() {
    let host = TestHost::new();
    let image = images::busybox();
    for (form, archive) in [("oci", &image.oci_archive), ("docker", &image.docker_archive)] {
        let good = fs::read(archive).unwrap();
        for (name, length) in [("third", good.len() / 3), ("almost", good.len() * 9 / 10)] {
            let path = host.dir().join(format!("{form}-{name}.tar"));
            fs::write(&path, &good[..length]).unwrap();
            assert_refused(&host, &path, 2, "invalid");
        }
    }
    let foreign = host.dir().join("foreign.tar");
    fs::write(&foreign, Tar::default().file("README", b"no image").end()).unwrap();
    assert_refused(&host, &foreign, 2, "invalid");

    let layer = Tar::default().file("file", b"content").end();
    let other = host.dir().join("other-architecture");
    archive::layout(&other, "other", "s390x", std::slice::from_ref(&layer));
    let output = assert_refused(&host, &other, 7, "unsupported");
    assert!(output.stderr().contains("linux/s390x"), "{output}");

    let damaged = host.dir().join("damaged");
    archive::layout(&damaged, "damaged", own_architecture(), std::slice::from_ref(&layer));
    let blob = damaged.join("blobs/sha256").join(HEXLOWER.encode(&Sha256::digest(&layer)));
    let mut changed = layer;
    changed[600] ^= 1;
    fs::write(blob, changed).unwrap();
    let output = assert_refused(&host, &damaged, 2, "invalid");
    assert!(output.stderr().contains("digest"), "{output}");
}

/// What stands in the host, where an archive must not reach.
struct Canary {
    directory: PathBuf,
    before: tree::Tree,
}

impl Canary {
    fn new(host: &TestHost) -> Self {
        host.run(["mkdir", "-p", "/run/canary/directory"]).ok();
        host.run(["sh", "-c", "echo safe >/run/canary/file; chmod 600 /run/canary/file"]).ok();
        let directory = host.path("/run/canary");
        fs::set_permissions(directory.join("directory"), fs::Permissions::from_mode(0o700))
            .unwrap();
        let before = tree::read(&directory);
        Self { directory, before }
    }

    #[track_caller]
    fn assert_untouched(&self, case: &str) {
        tree::assert_same(&tree::read(&self.directory), &self.before, case);
    }
}

#[test]
fn no_layer_reaches_outside_of_the_store() {
    let host = TestHost::new();
    let canary = Canary::new(&host);
    let tar = Tar::default;
    // From a layer's directory up to the root of the host, and more.
    let up = "../".repeat(12);
    let out = |path: &str| format!("{up}{path}");
    let cases: [(&str, i32, Tar); 16] = [
        ("dot-dot", 2, tar().file("../../../../file", b"x")),
        ("dot-dot to the root", 2, tar().file(&out("run/canary/file"), b"x")),
        ("dot-dot in the middle", 2, tar().directory("a").file("a/../../file", b"x")),
        ("absolute link, file", 2, tar().symlink("l", "/run/canary").file("l/file", b"x")),
        ("absolute link, new file", 2, tar().symlink("l", "/run/canary").file("l/new", b"x")),
        ("relative link, file", 2, tar().symlink("l", &out("run/canary")).file("l/file", b"x")),
        ("link of a link", 2, {
            tar().symlink("l", "/run/canary").symlink("m", "l").file("m/directory/new", b"x")
        }),
        ("hard link, absolute", 2, tar().hardlink("h", "/run/canary/file")),
        ("hard link, dot-dot", 2, tar().hardlink("h", &out("run/canary/file"))),
        ("hard link through a link", 2, {
            tar().symlink("l", "/run/canary").hardlink("h", "l/file").file("h", b"x")
        }),
        ("whiteout through a link", 0, tar().symlink("l", "/run/canary").file("l/.wh.file", b"")),
        ("whiteout of the parent", 2, tar().file(".wh...", b"")),
        ("link, then a directory", 0, {
            tar().symlink("l", "/run/canary/directory").directory("l").file("l/new", b"x")
        }),
        ("file over a link", 0, tar().symlink("l", "/run/canary/file").file("l", b"x")),
        ("hard link to a link", 0, {
            tar().symlink("l", "/run/canary/file").hardlink("h", "l").file("h", b"x")
        }),
        ("absolute names", 0, tar().file("/run/canary/file", b"x")),
    ];
    for (n, (case, exit, layer)) in cases.into_iter().enumerate() {
        let path = host.dir().join(format!("hostile-{n}"));
        archive::layout(&path, "hostile", own_architecture(), &[layer.end()]);
        let output = host.carboy(&["image", "load", "--json", &path.display().to_string()]);
        canary.assert_untouched(case);
        assert_eq!(output.exit_code(), Some(exit), "{case}: {output}");
        if exit == 2 {
            assert_refused(&host, &path, 2, "invalid");
        } else {
            host.carboy(&["image", "rm", "hostile"]).ok();
            assert_store_empty(&host);
        }
        canary.assert_untouched(case);
    }
    for link in ["dev", "proc", "sys"] {
        let path = host.dir().join(format!("{link}-link"));
        let layer = Tar::default().symlink(link, "/run/canary/directory").end();
        archive::layout(&path, "hostile", own_architecture(), &[layer]);
        assert_refused(&host, &path, 2, "invalid");
        canary.assert_untouched(link);
    }
    host.run(["rm", "-r", "/run/canary"]).ok();
}
