//! Images made to do harm: each is refused with an error that says where, or let in without harm.
//! Nothing outside of the store is touched, and the store takes a good image afterwards.

mod image;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use self::image::{Parts, digest};
use crate::common::bottle::{WEB, assert_answers, down, text, up};
use crate::common::images::busybox;
use crate::common::{Output, TestHost};
use crate::store::archive::Tar;
use crate::store::tree;
use crate::verbs::configure;

/// A host with something that no image may reach.
struct Target {
    host: TestHost,
    before: tree::Tree,
    count: usize,
}

impl Target {
    fn new() -> Self {
        let host = TestHost::new();
        host.run(["mkdir", "-p", "-m", "700", "/run/canary/directory"]).ok();
        host.run(["sh", "-c", "echo safe >/run/canary/file"]).ok();
        let before = tree::read(&host.path("/run/canary"));
        Self { host, before, count: 0 }
    }

    /// Loads the image; checks what must not have changed.
    #[track_caller]
    fn load(&mut self, case: &str, parts: &Parts) -> Output {
        self.count += 1;
        let path = self.host.dir().join(format!("hostile-{}", self.count));
        parts.write(&path, "hostile");
        let output = self.host.carboy(&["image", "load", "--json", &path.display().to_string()]);
        self.assert_untouched(case);
        fs::remove_dir_all(path).unwrap();
        output
    }

    #[track_caller]
    fn assert_untouched(&self, case: &str) {
        let found = tree::read(&self.host.path("/run/canary"));
        tree::assert_same(&found, &self.before, case);
    }

    /// The image must be refused as invalid; the error says all of `words`.
    #[track_caller]
    fn refuses(&mut self, case: &str, parts: &Parts, words: &[&str]) {
        let output = self.load(case, parts);
        assert_eq!(output.exit_code(), Some(2), "{case}: {output}");
        let error = output.error(2, "invalid");
        // Names stand in it as Debug writes them: a newline does not break the line.
        let said = format!("{} {}", text(&error, "message"), error["causes"]);
        for word in words.iter().chain(&["hostile-"]) {
            assert!(said.contains(word), "{case}: {word:?} in {said}");
        }
        assert!(!said.contains(['\n', '\0']), "{case}: {said:?}");
        let all = self.host.carboy(&["image", "ls", "--json"]).ok().stdout_json();
        assert_eq!(all, json!([]), "{case}");
        let staging = self.host.path("/var/lib/carboy/images/staging");
        assert_eq!(fs::read_dir(staging).unwrap().count(), 0, "{case}: staging");
    }

    /// The image must be let in; its one layer's directory.
    #[track_caller]
    fn takes(&mut self, case: &str, layer: Tar) -> (Value, PathBuf) {
        let layer = layer.end();
        let output = self.load(case, &Parts::new(layer.clone()));
        assert_eq!(output.exit_code(), Some(0), "{case}: {output}");
        let directory = digest(&layer).replace("sha256:", "/var/lib/carboy/images/layers/");
        (output.stdout_json(), self.host.path(directory).join("diff"))
    }

    fn forget(&self) {
        self.host.carboy(&["image", "rm", "hostile"]).ok();
    }

    /// The store is sound: a good image is loaded and runs.
    fn end(self) {
        let host = &self.host;
        let path = busybox().oci_archive.display().to_string();
        host.carboy(&["image", "load", &path]).ok();
        assert_answers(host, &up(host, &["demo", "--image", "test-busybox"]), WEB);
        down(host, "demo");
        host.run(["rm", "-r", "/run/canary"]).ok();
    }
}

fn tar() -> Tar {
    Tar::default()
}

#[test]
fn layers_that_reach_out_or_contradict_themselves_are_refused() {
    let mut target = Target::new();
    let long = "n".repeat(256);
    let deep = "d/".repeat(200);
    let endless = "d/".repeat(2_500);
    let at_root = format!("{}run/canary/file", "../".repeat(20));
    let cases: Vec<(&str, Tar, &str, &str)> = vec![
        ("..", tar().file("../file", b"x"), "../file", "upwards"),
        (".. to the root", tar().file(&at_root, b"x"), &at_root, "upwards"),
        ("pax ..", tar().pax("path", b"a/../../f").file("a", b"x"), "a/../../f", "upwards"),
        (
            "symbolic link, then through it",
            tar().symlink("l", "/run/canary").file("l/file", b"x"),
            "l/file",
            "no directory",
        ),
        (
            "symbolic link as a parent's parent",
            tar().symlink("l", "/run/canary").file("l/directory/file", b"x"),
            "l/directory/file",
            "no directory",
        ),
        ("hard link to the host", tar().hardlink("h", "/run/canary/file"), "h", "run/canary/file"),
        ("hard link with ..", tar().hardlink("h", &at_root), "h", "upwards"),
        (
            "hard link through a link",
            tar().symlink("l", "/run/canary").hardlink("h", "l/file"),
            "h",
            "l/file",
        ),
        ("whiteout of the root", tar().file("/.wh.", b""), "/.wh.", "whiteout"),
        ("whiteout of .", tar().file("a/.wh..", b""), "a/.wh..", "whiteout"),
        ("whiteout of ..", tar().file("a/.wh...", b""), "a/.wh...", "whiteout"),
        ("whiteout with files", tar().file(".wh.a/b", b""), ".wh.a/b", "whiteout"),
        ("the root as a link", tar().symlink("./", "/run/canary"), "./", "root"),
        ("NUL", tar().pax("path", b"a\0b").file("a", b"x"), r"a\0b", "NUL"),
        ("newline", tar().file("a\n/../b", b"x"), r"a\n/../b", "upwards"),
        ("not UTF-8", tar().entry(b'0', b"\xff/../b", "", b"x"), "/../b", "upwards"),
        ("long name", tar().pax("path", long.as_bytes()).file("a", b"x"), &long, "255"),
        ("deep path", tar().pax("path", deep.as_bytes()).directory("a"), &deep, "deep"),
        (
            "path of 5,000 bytes",
            tar().file("before", b"").pax("path", endless.as_bytes()).directory("a"),
            "before",
            "header",
        ),
        ("pax size beyond the end", tar().pax("size", b"99999").file("a", b"x"), "a", "truncated"),
        (
            "pax size of 2⁶⁴−1",
            tar().pax("size", b"18446744073709551615").file("a", b"x"),
            "a",
            "truncated",
        ),
        (
            "pax size that hides data",
            tar().pax("size", b"0").file("a", &[b'x'; 600]),
            "a",
            "header",
        ),
        ("pax size, negative", tar().pax("size", b"-1").file("a", b"x"), "a", "size"),
        ("owner", tar().pax("uid", b"4294967295").file("a", b"x"), "a", "owner"),
        ("link with data", tar().entry(b'2', "l", "t", b"data"), "l", "no file, yet has a size"),
        ("unknown type", tar().entry(b'Z', "z", "", b""), "z", "unknown"),
        (
            "sparse map that does not fit",
            tar().pax("GNU.sparse.map", b"0,9").file("s", b"x"),
            "s",
            "sparse",
        ),
    ];
    for (case, layer, entry, word) in cases {
        let layer = layer.end();
        let hex = digest(&layer).replace("sha256:", "");
        target.refuses(case, &Parts::new(layer), &[&hex, entry, word]);
    }
    target.end();
}

#[test]
fn odd_layers_are_let_in_without_harm() {
    let mut target = Target::new();
    let (loaded, at) = target.takes("devices", tar().entry(b'3', "c", "", b"").file("f", b"x"));
    assert!(loaded[0]["notes"].to_string().contains("device 1:3"), "{loaded}");
    assert_eq!(names(&at), ["f"]);
    target.forget();

    let setuid = tar().pax("mode", b"ignored").file("f", b"x");
    let (_, at) = target.takes("attributes", {
        setuid.pax("SCHILY.xattr.trusted.overlay.opaque", b"y").directory("d")
    });
    let store = fs::metadata(target.host.path("/var/lib/carboy/images")).unwrap();
    assert_eq!(store.permissions().mode() & 0o7777, 0o700);
    let mut value = [0; 8];
    rustix::fs::lgetxattr(at.join("d"), "trusted.overlay.opaque", &mut value[..]).unwrap_err();
    target.forget();

    let again = tar().file("f", b"first").file("f", b"second").directory("d").file("d/x", b"");
    let again = again.file("d", b"now a file").file("g", b"").directory("g").file("g/y", b"");
    let (_, at) = target.takes("the same name again", again);
    assert_eq!(names(&at), ["d", "f", "g"]);
    assert_eq!(fs::read(at.join("f")).unwrap(), b"second");
    assert_eq!(fs::read(at.join("d")).unwrap(), b"now a file");
    assert_eq!(names(&at.join("g")), ["y"]);
    target.forget();

    let odd = tar().file("a\nb", b"").entry(b'0', b"\xff\xfe", "", b"").file(" ", b"");
    let (_, at) = target.takes("odd names", odd);
    assert_eq!(fs::read_dir(at).unwrap().count(), 3);
    target.forget();

    let links = tar().symlink("l", "/run/canary/directory").directory("l").file("l/new", b"x");
    let links = links.symlink("file", "/run/canary/file").file("file", b"x");
    let links = links.symlink("in", "d").directory("d").file("in/f", b"x");
    let links = links.file("/run/canary/file", b"absolute");
    let (_, at) = target.takes("links that are replaced, or lead inside", links);
    assert_eq!(fs::read(at.join("d/f")).unwrap(), b"x");
    assert_eq!(fs::read(at.join("run/canary/file")).unwrap(), b"absolute");
    target.forget();

    let (_, at) = target.takes("whiteouts", tar().file(".wh..wh..opq", b"").file(".wh.a", b""));
    assert!(fs::read_dir(at).unwrap().all(|e| e.unwrap().metadata().unwrap().rdev() == 0));
    target.forget();
    target.end();
}

fn names(directory: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.unwrap().file_name().to_string_lossy().into_owned()
    };
    let mut names: Vec<_> = fs::read_dir(directory).unwrap().map(name).collect();
    names.sort();
    names
}

/// What GNU gzip makes of `bytes`.
fn gzip(bytes: Vec<u8>) -> Vec<u8> {
    let mut command = Command::new("gzip");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.stdout
}

#[test]
fn bombs_and_damaged_blobs_are_refused() {
    let mut target = Target::new();
    let bomb = tar().file("zeros", &vec![0; 258 << 20]).end();
    let blob = gzip(bomb.clone());
    assert!(blob.len() < 1 << 20);
    let parts = Parts { layers: vec![(blob, bomb)], ..Parts::new(Vec::new()) };
    target.refuses("gzip bomb", &parts, &["zeros", "200 times"]);

    let limits = "layer_max_bytes = 100000\nlayer_max_entries = 50\n";
    configure(&target.host, limits);
    let many = (0..60).fold(tar(), |tar, n| tar.file(&format!("file{n}"), b""));
    target.refuses("many files", &Parts::new(many.end()), &["file50", "more than 50 entries"]);
    let large = tar().file("large", &[b'x'; 120_000]).end();
    target.refuses("many bytes", &Parts::new(large), &["large", "more than 100000 bytes"]);
    let sparse = [("GNU.sparse.map", "0,1"), ("GNU.sparse.size", "1000000")];
    let sparse = tar().paxes(&sparse.map(|(key, value)| (key, value.as_bytes()))).file("s", b"x");
    target.refuses("a large hole", &Parts::new(sparse.end()), &["s", "100000 bytes"]);
    target.host.run(["umount", "--lazy", "/etc"]).ok();
    target.host.run(["rm", "-r", "/run/etc"]).ok();

    let layer = tar().file("file", &[b'x'; 5_000]).end();
    let cut = gzip(layer.clone());
    let cut = cut[..cut.len() - 20].to_vec();
    let parts = Parts { layers: vec![(cut, layer.clone())], ..Parts::new(Vec::new()) };
    target.refuses("cut gzip", &parts, &["file", "truncated"]);
    let cut = layer[..3_000].to_vec();
    target.refuses("cut tar", &Parts::new(cut), &["file", "truncated"]);

    let other = tar().file("other", b"").end();
    let parts = Parts { layers: vec![(layer.clone(), other.clone())], ..Parts::new(Vec::new()) };
    target.refuses("diff_id", &parts, &[&digest(&layer), &digest(&other), "configuration"]);
    let parts = Parts {
        manifest: |manifest| manifest["layers"][0]["size"] = json!(7),
        ..Parts::new(layer.clone())
    };
    target.refuses("size", &parts, &["7", &layer.len().to_string()]);
    let parts = Parts {
        manifest: |manifest| {
            let config = manifest["config"].clone();
            manifest["layers"][0]["digest"] = config["digest"].clone();
            manifest["layers"][0]["size"] = config["size"].clone();
        },
        ..Parts::new(layer)
    };
    target.refuses("the configuration as a layer", &parts, &["layer"]);
    target.end();
}

#[test]
fn documents_that_lie_are_refused() {
    let mut target = Target::new();
    let layer = tar().file("file", b"x").end();
    let sound = || Parts::new(layer.clone());
    target.refuses("indexes", &Parts { indexes: 6, ..sound() }, &["indexes point to each other"]);
    target.refuses("large manifest", &Parts { padding: 5 << 20, ..sound() }, &["at most 4194304"]);
    let config = json!({"Cmd": ["/x"], "Env": [format!("A={}", "x".repeat(10_000_000))]});
    target.refuses("environment of 10 MB", &Parts { config, ..sound() }, &["configuration"]);
    let config = json!({"Cmd": ["/x"], "Env": [format!("A={}", "x".repeat(200_000))]});
    target.refuses("variable of 200 kB", &Parts { config, ..sound() }, &["environment"]);
    let config = json!({"Cmd": ["/x\0"]});
    target.refuses("NUL in the command", &Parts { config, ..sound() }, &["NUL"]);
    for (case, manifest, word) in [
        ("both kinds", (|m| m["manifests"] = json!([])) as fn(&mut Value), "at once"),
        ("more layers", |m| m["layers"] = json!([m["layers"][0], m["layers"][0]]), "layers"),
        ("no layers", |m| m["layers"] = json!([]), "layers"),
        ("a path as digest", |m| m["config"]["digest"] = json!("sha256:../../etc"), "manifest"),
        ("negative size", |m| m["layers"][0]["size"] = json!(-1), "manifest"),
        (
            "missing blob",
            |m| {
                m["layers"][0]["digest"] = json!(format!("sha256:{}", "0".repeat(64)));
            },
            "0000",
        ),
    ] {
        target.refuses(case, &Parts { manifest, ..sound() }, &[word]);
    }
    target.end();
}

#[test]
fn a_configuration_that_cannot_be_started_leaves_nothing() {
    let mut target = Target::new();
    let layer = tar().directory("dev").directory("proc").directory("sys").directory("etc");
    let layer = layer.file("etc/passwd", b"known:x:1:1::/:\n").file("etc/group", b"group:x:1:\n");
    let layer = layer.end();
    for (case, config, exit, code, word) in [
        // As Docker takes it: from the root, and made there.
        (
            "directory",
            json!({"Cmd": ["/x"], "WorkingDir": "../../run/canary/new"}),
            3,
            "not-found",
            "/x",
        ),
        ("user", json!({"Cmd": ["/x"], "User": "nobody-knows"}), 3, "not-found", "nobody-knows"),
        ("group", json!({"Cmd": ["/x"], "User": "known:no-group"}), 3, "not-found", "no-group"),
        ("number", json!({"Cmd": ["/x"], "User": "4294967295"}), 2, "invalid", "4294967295"),
        ("nothing", json!({"User": "0"}), 2, "invalid", "nothing to run"),
        ("absent", json!({"Cmd": ["/no/such/program"]}), 3, "not-found", "/no/such/program"),
    ] {
        let output = target.load(case, &Parts { config, ..Parts::new(layer.clone()) });
        assert_eq!(output.exit_code(), Some(0), "{case}: {output}");
        let output = target.host.carboy(&["up", "--json", "demo", "--image", "hostile"]);
        assert_eq!(output.exit_code(), Some(exit), "{case}: {output}");
        let error = output.error(exit, code);
        assert!(error.to_string().contains(word), "{case}: {error}");
        assert_eq!(target.host.carboy(&["ps", "--json"]).ok().stdout_json(), json!([]), "{case}");
        target.assert_untouched(case);
        target.forget();
    }
    target.end();
}
