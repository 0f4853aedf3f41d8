//! What is there after a loss of power: a load does not wait for its thousands of files to be on
//! disk, and still nothing half-written is ever run.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::common::bottle::{self, down, up};

/// Where the kernel tells its boots apart.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// An ext4 in a file, mounted.
fn disk(host: &TestHost, file: &Path, at: &str) {
    fs::create_dir(host.path(at)).unwrap();
    host.run(["mount", "-o", "loop,noatime", &file.display().to_string(), at]).ok();
}

/// Another boot than this one, as far as `host` can see.
fn boot_again(host: &TestHost, number: u32) {
    let id = host.dir().join(format!("boot{number}"));
    fs::write(&id, format!("01234567-89ab-cdef-0123-{number:012}\n")).unwrap();
    let id = id.display().to_string();
    host.run(["mount", "--bind", &id, BOOT_ID]).ok();
}

/// The files of an image's layers, with their content.
fn content(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut places = vec![root.to_owned()];
    while let Some(place) = places.pop() {
        for entry in fs::read_dir(&place).unwrap().map(Result::unwrap) {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir() {
                places.push(path);
            } else if kind.is_file() && entry.file_name() != "layer.json" {
                let name = path.strip_prefix(root).unwrap().to_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// The boots that the layers' records name.
fn marks(root: &Path) -> Vec<Option<String>> {
    let layers = fs::read_dir(root.join("images/layers")).unwrap().map(Result::unwrap);
    let record = |layer: fs::DirEntry| fs::read(layer.path().join("layer.json")).unwrap();
    let json = layers.map(|layer| serde_json::from_slice::<Value>(&record(layer)).unwrap());
    json.map(|record| record["unsettled"].as_str().map(str::to_owned)).collect()
}

#[test]
fn what_was_loaded_outlives_a_loss_of_power() {
    let host = TestHost::new();
    let image = images::layered();
    let (file, copy) = (host.dir().join("disk"), host.dir().join("copy"));
    fs::File::create(&file).unwrap().set_len(256 << 20).unwrap();
    host.run(["mkfs.ext4", "-q", &file.display().to_string()]).ok();
    disk(&host, &file, "/run/before");
    let archive = image.oci_archive.display().to_string();
    host.carboy(&["--root", "/run/before", "image", "load", &archive]).ok();
    // What the disk has at this moment, and nothing of what the kernel would still have written.
    host.run(["cp", "--sparse=always", &file.display().to_string(), &copy.display().to_string()])
        .ok();
    let want = content(&host.path("/run/before/images/layers"));
    assert!(want.len() > 5, "{:?}", want.keys());
    disk(&host, &copy, "/run/after");
    boot_again(&host, 1);
    let flags = ["--root", "/run/after"];
    let image_flags = ["up", "--json", "demo", "--image", image.name];
    host.carboy(&[&flags[..], &image_flags].concat()).ok();
    assert_eq!(content(&host.path("/run/after/images/layers")), want);
    assert!(marks(&host.path("/run/after")).iter().all(Option::is_none));
    host.carboy(&[&flags[..], &["down", "demo"]].concat()).ok();
    host.run(["umount", BOOT_ID, "/run/before", "/run/after"]).ok();
    host.run(["rmdir", "/run/before", "/run/after"]).ok();
}

#[test]
fn what_was_unpacked_again_is_there_for_good() {
    let host = TestHost::new();
    bottle::load(&host, &images::layered());
    let root = host.path("/var/lib/carboy");
    assert!(marks(&root).iter().all(Option::is_some), "the load waited");
    let again = || {
        let bottle = up(&host, &["demo", "--image", images::layered().name]);
        assert_eq!(bottle["changed"], true);
        down(&host, "demo");
        let layers = fs::read_dir(root.join("images/layers")).unwrap().map(Result::unwrap);
        layers.map(|layer| layer.metadata().unwrap().ino()).collect::<BTreeSet<_>>()
    };
    let loaded = again();
    boot_again(&host, 1);
    let restored = again();
    assert!(loaded.is_disjoint(&restored), "a layer of another boot was believed");
    assert!(marks(&root).iter().all(Option::is_none));
    boot_again(&host, 2);
    assert_eq!(again(), restored, "it was unpacked once more");
    host.run(["umount", BOOT_ID]).ok();
    host.run(["umount", BOOT_ID]).ok();
}
