//! The library in a program of its own: threads, a reaper of all children, several bottles at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::common::{TestHost, poll};

/// How long all of it may take; more is a deadlock. A round takes about a second.
const LIMIT: Duration = Duration::from_secs(120);

/// The example `embed`, of this source and as this test was built: cargo builds examples for
/// `cargo test`, but not for `cargo test --test it`.
fn embed() -> PathBuf {
    let carboy = Path::new(env!("CARGO_BIN_EXE_carboy"));
    let directory = carboy.parent().unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--example", "embed"]);
    if directory.ends_with("release") {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success(), "the example does not build");
    let path = directory.join("examples/embed");
    assert!(path.exists(), "{} is not there", path.display());
    path
}

#[test]
fn a_busy_threaded_program_may_embed_it() {
    let host = TestHost::new();
    let embed = embed().display().to_string();
    let report = host.dir().join("report");
    let script = format!("umask 037; cd /tmp; exec {embed} 4 >{} 2>&1", report.display());
    let mut run = host.spawn(["env", "EMBEDDED=1", "bash", "-c", &script]);
    let ended = poll(LIMIT, || run.ended());
    let said = fs::read_to_string(&report).unwrap();
    assert!(ended, "it hangs; it said: {said}");
    let report: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
    assert_eq!(report["errors"], serde_json::json!([]));
    assert_eq!(run.wait(), Some(0), "{said}");
    assert_eq!(report["answered"], report["wanted"]);
    assert_eq!(report["answered"], 16);
    // That it saw what it says it saw.
    let before = &report["before"];
    assert_eq!(before["cwd"], "/tmp");
    assert_eq!(before["environment"]["EMBEDDED"], "1");
    assert_eq!(before["thread"]["status"]["Umask"], "0037");
    assert_eq!(before["threads"]["Threads"], "1");
    assert_eq!(before["children"], serde_json::json!([]));
    assert!(before["thread"]["namespaces"].as_object().unwrap().len() >= 8, "{before}");
    for (key, value) in before.as_object().unwrap() {
        assert_eq!(report["after"][key], *value, "{key} was changed");
    }
    host.assert_clean();
}
