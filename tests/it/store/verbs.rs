//! `image inspect`, `tag`, `export` and `prune`, read back with skopeo and podman.

use std::collections::BTreeMap;

use super::*;
use crate::common::bottle;

/// The blobs of a layout, or of the store: content by digest.
fn blobs(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory.join("blobs/sha256")).unwrap().map(Result::unwrap);
    let name = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    entries.map(|entry| (name(&entry), fs::read(entry.path()).unwrap())).collect()
}

/// The digest of the manifest in a layout of one image.
fn manifest_digest(layout: &Path) -> String {
    let index: Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1, "{index}");
    text(&index["manifests"][0], "digest").to_owned()
}

fn details(host: &TestHost, name: &str) -> Value {
    host.carboy(&["image", "inspect", "--json", name]).ok().stdout_json()
}

#[test]
fn inspect_tells_what_skopeo_tells() {
    let mut host = TestHost::new();
    host.allow("/var/lib/containers");
    let image = images::layered();
    bottle::load(&host, &image);
    let place = format!("oci:{}:{}", image.layout.display(), image.name);
    let manifest = host.json(["skopeo", "inspect", "--raw", &place]);
    let config = host.json(["skopeo", "inspect", "--config", &place]);
    let found = details(&host, image.name);
    assert_eq!(found["digest"], manifest_digest(&image.layout));
    assert_eq!(found["config_digest"], manifest["config"]["digest"]);
    assert_eq!(found["references"], serde_json::json!([image.name]));
    let layers = found["layers"].as_array().unwrap();
    for (i, layer) in layers.iter().enumerate() {
        for (ours, theirs) in [("digest", "digest"), ("size", "size"), ("media_type", "mediaType")]
        {
            assert_eq!(layer[ours], manifest["layers"][i][theirs], "layer {i}");
        }
        assert_eq!(layer["diff_id"], config["rootfs"]["diff_ids"][i], "layer {i}");
        let chain = text(layer, "chain_id").trim_start_matches("sha256:");
        assert!(host.path(STORE).join("layers").join(chain).is_dir(), "layer {i}");
    }
    assert_eq!(layers.len(), manifest["layers"].as_array().unwrap().len());
    assert_eq!(found["config"]["env"], config["config"]["Env"]);
    let short = text(&found, "digest").trim_start_matches("sha256:")[..12].to_owned();
    assert_eq!(details(&host, &short)["digest"], found["digest"]);
    host.carboy(&["image", "inspect", "--json", "other"]).error(3, "not-found");
}

#[test]
fn an_exported_image_is_the_one_that_came_in() {
    let mut host = TestHost::new();
    host.allow("/var/lib/containers");
    let image = images::layered();
    bottle::load(&host, &image);
    let archive = host.dir().join("out.tar");
    let path = archive.display().to_string();
    fs::write(&archive, "what was there").unwrap();
    host.carboy(&["image", "export", image.name, &path]).ok();
    let left: Vec<_> = fs::read_dir(host.dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{left:?}");

    // skopeo: the same manifest, configuration and layers, byte for byte.
    let copied = host.dir().join("copied");
    let scratch = format!("TMPDIR={}", host.dir().display());
    let to = format!("oci:{}:x", copied.display());
    let skopeo = ["env", &scratch, "skopeo", "copy", "-q", "--preserve-digests"];
    host.run([&skopeo[..], &[&format!("oci-archive:{path}"), &to]].concat()).ok();
    assert_eq!(manifest_digest(&copied), manifest_digest(&image.layout));
    let theirs = blobs(&image.layout);
    for (digest, content) in blobs(&copied) {
        assert_eq!(theirs.get(&digest), Some(&content), "{digest}");
    }

    // podman, in directories of its own.
    let docker = host.dir().join("docker.tar").display().to_string();
    host.carboy(&["image", "export", "--format", "docker", image.name, &docker]).ok();
    let at = host.dir().join("podman").display().to_string();
    let podman = format!(
        "podman --root {at} --runroot /run/podman --storage-driver vfs --cgroup-manager cgroupfs \
         --events-backend none"
    );
    let script = format!(
        "mount -t tmpfs none /dev/shm; mount -t tmpfs none /run; export HOME=/run TMPDIR={}\n\
         for file in {path} {docker}; do {podman} load -q -i $file >&2 || exit; done\n\
         {podman} images --no-trunc --format '{{{{.Repository}}}} {{{{.ID}}}}'",
        host.dir().display()
    );
    let listed = host.run(["unshare", "-m", "sh", "-c", &script]).ok().stdout();
    let id = details(&host, image.name)["config_digest"].as_str().unwrap().to_owned();
    for name in ["localhost/test-layers", "docker.io/library/test-layers"] {
        assert!(listed.contains(&format!("{name} {id}")), "{name} {id}: {listed}");
    }

    // And carboy itself, with another store: through a pipe.
    let root = host.dir().join("other").display().to_string();
    let piped = host.carboy(&["image", "export", image.name, "-"]);
    let load = ["--root", &root, "image", "load", "--json", "-"];
    let loaded = host.carboy_with(&load, &[], Some(piped.ok().stdout_bytes())).ok().stdout_json();
    assert_eq!(loaded[0]["reference"], image.name);
    assert_eq!(loaded[0]["digest"], manifest_digest(&image.layout));
    let load = ["--root", &root, "image", "load", "--json", &docker];
    let loaded = host.carboy(&load).ok().stdout_json();
    assert_eq!(loaded[0]["reference"], "docker.io/library/test-layers:latest");
}

#[test]
fn a_failed_export_leaves_what_was_there() {
    let host = TestHost::new();
    let image = images::busybox();
    bottle::load(&host, &image);
    let archive = host.dir().join("out.tar");
    let path = archive.display().to_string();
    fs::write(&archive, "before").unwrap();
    host.carboy(&["image", "export", "--json", "other", &path]).error(3, "not-found");
    // A blob that was damaged on disk.
    let layer = details(&host, image.name)["layers"][0]["digest"].as_str().unwrap().to_owned();
    let blob = host.path(STORE).join(layer.replace("sha256:", "blobs/sha256/"));
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, &bytes).unwrap();
    let error = host.carboy(&["image", "export", "--json", image.name, &path]).error(1, "failed");
    assert!(text(&error, "message").contains(layer.trim_start_matches("sha256:")), "{error}");
    // And one that an older carboy never kept.
    fs::remove_file(&blob).unwrap();
    host.carboy(&["image", "export", "--json", image.name, &path]).error(3, "not-found");
    assert_eq!(fs::read_to_string(&archive).unwrap(), "before");
    bottle::load(&host, &image);
    host.carboy(&["image", "export", image.name, &path]).ok();
}

#[test]
fn an_export_that_is_killed_leaves_nothing() {
    let host = TestHost::new();
    bottle::load(&host, &images::busybox());
    let out = host.dir().join("out");
    fs::create_dir(&out).unwrap();
    // SIGXFSZ ends it in the middle of what it writes.
    let script = format!(
        "ulimit -c 0; ulimit -f 256; exec {} image export test-busybox {}/image.tar",
        env!("CARGO_BIN_EXE_carboy"),
        out.display()
    );
    assert_ne!(host.run(["sh", "-c", &script]).exit_code(), Some(0));
    let left: Vec<_> = fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_tag_is_a_further_name() {
    let host = TestHost::new();
    bottle::load(&host, &images::busybox());
    bottle::load(&host, &images::layered());
    let tagged = host.carboy(&["image", "tag", "--json", "test-busybox", "mine:1"]);
    let tagged = tagged.ok().stdout_json();
    assert_eq!((&tagged["reference"], &tagged["changed"]), (&"mine:1".into(), &true.into()));
    let again = host.carboy(&["image", "tag", "--json", "test-busybox", "mine:1"]);
    assert_eq!(again.ok().stdout_json()["changed"], false);
    assert_eq!(details(&host, "mine:1")["digest"], details(&host, "test-busybox")["digest"]);
    // A name goes from one image to another; the first keeps its own.
    host.carboy(&["image", "tag", "test-layers", "mine:1"]).ok();
    assert_eq!(details(&host, "mine:1")["digest"], details(&host, "test-layers")["digest"]);
    let removed = host.carboy(&["image", "rm", "--json", "test-layers"]).ok().stdout_json();
    assert_eq!(removed["deleted"], false);
    host.carboy(&["image", "tag", "--json", "none", "x"]).error(3, "not-found");
    host.carboy(&["image", "tag", "--json", "mine:1", "No Name"]).error(2, "invalid");
    host.carboy(&["image", "tag", "--json", "mine:1", "embedded:sidecars"]).error(2, "invalid");
}

#[test]
fn prune_leaves_what_is_named_or_used() {
    let host = TestHost::new();
    let (busybox, layered) = (images::busybox(), images::layered());
    bottle::load(&host, &busybox);
    bottle::load(&host, &layered);
    let running = bottle::up(&host, &["demo", "--image", "test-busybox"]);
    // Its name goes to another image; it runs on.
    host.carboy(&["image", "tag", "test-layers", "test-busybox"]).ok();
    let prune = |flags: &[&str]| {
        let words = [&["image", "prune", "--json"], flags].concat();
        host.carboy(&words).ok().stdout_json()
    };
    assert_eq!(prune(&[])["images"], serde_json::json!([]));
    // Left by a fetch and by a load that were killed.
    let partial = host.path(STORE).join("partial").join("0".repeat(64));
    fs::write(&partial, [0; 1000]).unwrap();
    fs::create_dir(host.path(STORE).join("staging/stale")).unwrap();
    fs::write(host.path(STORE).join("staging/stale/file"), [0; 234]).unwrap();
    let before = tree::read(&host.path(STORE));
    let dry = prune(&["--all", "--dry-run"]);
    tree::assert_same(&tree::read(&host.path(STORE)), &before, "a dry run");
    assert_eq!(dry["changed"], false);
    let pruned = prune(&["--all"]);
    assert_eq!(pruned["freed"], dry["freed"]);
    assert!(pruned["freed"].as_u64().unwrap() > 1234, "{pruned}");
    assert_eq!(pruned["images"].as_array().unwrap().len(), 1, "{pruned}");
    let names = pruned["images"][0]["references"].to_string();
    assert!(names.contains("test-layers") && names.contains("test-busybox"), "{names}");
    assert!(!partial.exists());

    let left = host.carboy(&["image", "ls", "--json"]).ok().stdout_json();
    assert_eq!(left.as_array().unwrap().len(), 1, "{left}");
    assert_eq!(text(&left[0], "digest"), manifest_digest(&busybox.layout));
    bottle::assert_answers(&host, &running, bottle::WEB);
    host.carboy(&["exec", "demo", "--", "cat", "/www/index.html"]).ok();
    bottle::down(&host, "demo");
    assert_eq!(prune(&[])["images"].as_array().unwrap().len(), 1);
    assert_store_empty(&host);
    assert_eq!(prune(&["--all"])["changed"], false);
}

#[test]
fn an_init_keeps_the_image_it_is_of() {
    let host = TestHost::new();
    bottle::load(&host, &images::busybox());
    bottle::up(&host, &["demo", "--image", "test-busybox", "--init"]);
    let pruned = host.carboy(&["image", "prune", "--all", "--json"]).ok().stdout_json();
    assert_eq!(pruned["images"], serde_json::json!([]));
    bottle::down(&host, "demo");
}

#[test]
fn a_killed_removal_leaves_whole_images_only() {
    let host = TestHost::new();
    let path = large(&host);
    // Some of these may come too late, on a machine that is quick.
    for milliseconds in [0, 1, 3, 6, 10, 15, 22, 30] {
        load(&host, &[], &path);
        let mut call = host.spawn_carboy(&["image", "prune", "--all"]);
        let began = poll(Duration::from_secs(5), || {
            let comm = call.pid().map(|pid| fs::read(format!("/proc/{pid}/comm")));
            matches!(comm, Some(Ok(comm)) if comm == b"carboy\n") || call.ended()
        });
        assert!(began, "the removal does not begin");
        std::thread::sleep(Duration::from_millis(milliseconds));
        call.kill();
        // Each image that is listed can be told in full and exported.
        for image in host.carboy(&["image", "ls", "--json"]).ok().stdout_json().as_array().unwrap()
        {
            let digest = text(image, "digest");
            details(&host, digest);
            host.carboy(&["image", "export", digest, "/dev/null"]).ok();
        }
        load(&host, &[], &path);
        host.carboy(&["image", "rm", "large"]).ok();
        assert_store_empty(&host);
    }
}
