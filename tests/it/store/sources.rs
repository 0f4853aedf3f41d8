//! Where images come from: skopeo's transports, and root file systems.

use super::*;

/// `carboy image load --json WORDS`, which must succeed.
#[track_caller]
fn load_place(host: &TestHost, words: &[&str]) -> Vec<Value> {
    let output = host.carboy(&[&["image", "load", "--json"], words].concat());
    output.ok().stdout_json().as_array().unwrap().clone()
}

fn skopeo(host: &TestHost, words: &[&str]) {
    // skopeo's scratch files.
    let scratch = format!("TMPDIR={}", host.dir().display());
    host.run([&["env", &scratch, "skopeo"], words].concat()).ok();
}

/// The digest skopeo gives an image.
#[track_caller]
fn digest(host: &TestHost, place: &str) -> String {
    let manifest = host.run(["skopeo", "inspect", "--raw", place]);
    let hash = Sha256::digest(manifest.ok().stdout().as_bytes());
    format!("sha256:{}", HEXLOWER.encode(&hash))
}

#[test]
fn each_transport_gives_the_same_image() {
    let mut host = TestHost::new();
    host.allow("/var/lib/containers");
    let image = images::busybox();
    let directory = host.dir().join("dir").display().to_string();
    let layout = format!("oci:{}:{}", image.layout.display(), image.name);
    skopeo(&host, &["copy", "-q", &layout, &format!("dir:{directory}")]);
    let want = digest(&host, &layout);
    let archive = format!("oci-archive:{}", image.oci_archive.display());
    for place in [
        layout.clone(),
        archive.clone(),
        format!("{archive}:{}", image.name),
        format!("dir:{directory}"),
        directory.clone(),
    ] {
        let loaded = load_place(&host, &[&place, "--name", "loaded"]);
        assert_eq!(text(&loaded[0], "digest"), want, "{place}");
        host.carboy(&["image", "rm", "loaded"]).ok();
        assert_store_empty(&host);
    }
    // Docker's form has no manifest to compare, but the same configuration.
    let docker = format!("docker-archive:{}", image.docker_archive.display());
    for place in [docker.clone(), format!("{docker}:test-busybox:latest")] {
        let loaded = load_place(&host, &[&place]);
        assert_eq!(loaded[0]["reference"], "docker.io/library/test-busybox:latest", "{place}");
        let config = host.json(["skopeo", "inspect", "--config", &layout]);
        let details = host.carboy(&["image", "inspect", "test-busybox"]).ok().stdout_json();
        assert_eq!(details["config"]["cmd"], config["config"]["Cmd"], "{place}");
        host.carboy(&["image", "rm", "test-busybox"]).ok();
    }
}

#[test]
fn a_reference_picks_one_of_several_images() {
    let mut host = TestHost::new();
    host.allow("/var/lib/containers");
    let layout = host.dir().join("several").display().to_string();
    for (image, name) in [(images::busybox(), "one"), (images::layered(), "example.org/two:2")] {
        let from = format!("oci:{}:{}", image.layout.display(), image.name);
        skopeo(&host, &["copy", "-q", &from, &format!("oci:{layout}:{name}")]);
    }
    let all = load_place(&host, &[&layout]);
    let names: Vec<_> = all.iter().map(|image| text(image, "reference")).collect();
    assert_eq!(names, ["one", "example.org/two:2"]);
    host.carboy(&["image", "rm", "one", "example.org/two:2"]).ok();

    let picked = load_place(&host, &[&format!("oci:{layout}:example.org/two:2"), "--name", "mine"]);
    assert_eq!(picked.len(), 1);
    assert_eq!(text(&picked[0], "reference"), "mine");
    assert_eq!(
        text(&picked[0], "digest"),
        digest(&host, &format!("oci:{layout}:example.org/two:2"))
    );
    let output = host.carboy(&["image", "load", "--json", &format!("oci:{layout}:three")]);
    let error = output.error(3, "not-found");
    assert!(text(&error, "message").contains("it has one, example.org/two:2"), "{error}");
}

#[test]
fn a_place_of_another_form_is_refused() {
    let host = TestHost::new();
    let image = images::busybox();
    let (layout, oci) = (image.layout.display(), image.oci_archive.display());
    let docker = image.docker_archive.display();
    for (place, exit, code) in [
        (format!("oci:{oci}"), 2, "invalid"),
        (format!("oci-archive:{layout}"), 2, "invalid"),
        (format!("oci-archive:{docker}"), 2, "invalid"),
        (format!("docker-archive:{oci}"), 2, "invalid"),
        (format!("dir:{layout}"), 2, "invalid"),
        ("dir:/nowhere".to_owned(), 3, "not-found"),
        ("oci:".to_owned(), 2, "invalid"),
        ("docker-daemon:t:1".to_owned(), 2, "invalid"),
        ("docker:t:1".to_owned(), 2, "invalid"),
    ] {
        host.carboy(&["image", "load", "--json", &place]).error(exit, code);
    }
    let layout = layout.to_string();
    host.carboy(&["image", "load", "--json", &layout, "--cmd", "x"]).error(2, "usage");
}

#[test]
fn a_root_file_system_keeps_all_that_it_has() {
    let mut host = TestHost::new();
    host.allow("/var/lib/containers");
    let image = image::make(&host);
    let bundle = host.dir().join("reference");
    let source = format!("{}:{}", image.layout.display(), image::NAME);
    let path = bundle.display().to_string();
    host.run(["umoci", "unpack", "--image", &source, &path]).ok();
    let rootfs = bundle.join("rootfs");
    let want = tree::read(&rootfs);
    let path = rootfs.display().to_string();
    let archive = host.dir().join("rootfs.tar.gz").display().to_string();
    let all = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "--format=posix"];
    host.run([&["tar", "-C", &path], &all[..], &["-czf", &archive, "."]].concat()).ok();
    for place in [format!("rootfs:{path}"), format!("rootfs:{archive}")] {
        let root = host.dir().join("root").display().to_string();
        let words = ["--root", &root, "image", "load", "--json", &place, "--name", "t"];
        let first = host.carboy(&words).ok().stdout_json();
        let again = host.carboy(&words).ok().stdout_json();
        assert_eq!(first[0]["digest"], again[0]["digest"], "{place}");
        assert_eq!(again[0]["changed"], false, "{place}");
        for device in image::DEVICES {
            assert!(first[0]["notes"].to_string().contains(device), "{place}: {device}");
        }
        let layers = Path::new(&root).join("images/layers");
        let layer = fs::read_dir(layers).unwrap().next().unwrap().unwrap().path().join("diff");
        tree::assert_same(&tree::read(&layer), &want, &place);
        fs::remove_dir_all(&root).unwrap();
    }
}

#[test]
fn a_root_file_system_runs_as_it_was_told() {
    let host = TestHost::new();
    let rootfs = host.dir().join("rootfs");
    for directory in ["bin", "etc"] {
        fs::create_dir_all(rootfs.join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
    fs::write(rootfs.join("etc/passwd"), "app:x:7:8::/home:/bin/sh\n").unwrap();
    let place = format!("rootfs:{}", rootfs.display());
    let script = "/bin/busybox id; /bin/busybox pwd; echo $A; exec /bin/busybox sleep 1000";
    load_place(
        &host,
        &[
            &place,
            "--name",
            "mine:1",
            "--entrypoint",
            "/bin/busybox",
            "--entrypoint",
            "sh",
            "--cmd",
            "-c",
            "--cmd",
            script,
            "-e",
            "A=from the image",
            "-w",
            "/work",
            "-u",
            "app",
            "--label",
            "k=v",
            "--stop-signal",
            "KILL",
        ],
    );
    let details = host.carboy(&["image", "inspect", "--json", "mine:1"]).ok().stdout_json();
    assert_eq!(details["config"]["labels"]["k"], "v");
    assert_eq!(details["config"]["stop_signal"], "KILL");
    crate::common::bottle::up(&host, &["demo", "--image", "mine:1"]);
    let said = || host.carboy(&["logs", "demo"]).ok().stdout();
    assert!(poll(Duration::from_secs(10), || said().contains("from the image")), "{}", said());
    assert_eq!(said(), "uid=7(app) gid=8 groups=8\n/work\nfrom the image\n");
    crate::common::bottle::down(&host, "demo");

    for (option, value) in [("-e", "NOVALUE"), ("-w", "relative"), ("--stop-signal", "NONE")] {
        host.carboy(&["image", "load", "--json", &place, option, value]).error(2, "invalid");
    }
    fs::write(rootfs.join(".wh.x"), "").unwrap();
    host.carboy(&["image", "load", "--json", &place]).error(2, "invalid");
}

#[test]
fn a_bottle_runs_the_image_of_a_place() {
    let host = TestHost::new();
    let place = format!("oci-archive:{}", images::busybox().oci_archive.display());
    for changed in [true, false] {
        let bottle = crate::common::bottle::up(&host, &["demo", "--image", &place]);
        assert_eq!(bottle["changed"], changed);
        assert_eq!(bottle["image"]["reference"], "test-busybox");
    }
    crate::common::bottle::down(&host, "demo");
}
