//! The integration tests: one binary, a file per subject, each test in a throwaway host of its own.
//!
//! They need root, the real kernel and the Debian packages that `.ci/run` installs. A test that
//! lacks something fails and says what; none is skipped.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

mod allocation;
mod apparmor;
mod bad_input;
mod crash;
mod denied;
mod differential;
mod docker;
mod drift;
mod dual_stack;
mod exec_life;
mod exec_logs;
mod exec_terminal;
mod firewalld;
mod foreground;
mod guest;
mod hardship;
mod harness;
mod hostile;
mod idempotency;
mod image_config;
mod images;
mod inside;
mod layering;
mod library;
mod lifecycle;
mod logs;
mod mtu;
mod network;
mod port_lookup;
mod promises;
mod readiness;
mod registry;
mod reload;
mod restart;
mod specification;
mod start_stop;
mod store;
mod up_down;
mod uplink;
mod uplink6;
mod userns;
mod verbs;

use std::path::Path;

/// A file that is not named above would be compiled nowhere and pass in silence.
#[test]
fn no_test_file_is_forgotten() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    assert_modules_named(&dir.join("main.rs"), &dir, "main");
    assert_modules_named(&dir.join("common/mod.rs"), &dir.join("common"), "mod");
}

/// Every `*.rs` and directory of `dir` must be a `mod` line of `root`.
fn assert_modules_named(root: &Path, dir: &Path, root_stem: &str) {
    let source = std::fs::read_to_string(root).unwrap();
    let named: Vec<&str> = source
        .lines()
        .filter_map(|line| line.trim_start_matches("pub(crate) ").strip_prefix("mod "))
        .filter_map(|rest| rest.strip_suffix(';'))
        .collect();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_dir() && path.extension().is_none_or(|e| e != "rs") {
            continue;
        }
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(
            stem == root_stem || named.contains(&stem.as_str()),
            "{} is not a module of {}",
            path.display(),
            root.display()
        );
    }
}
