//! Who may know whom: the `use` lines of the library, checked against the layers.

use std::fs;
use std::path::{Path, PathBuf};

/// What both `net` and `oci` may know of the crate, besides their own.
const SHARED: [&str; 4] = ["names", "error", "presence", "fsutil"];

/// Modules that compute and nothing else: file stems, or directories, below `src`.
/// Files beside them whose names begin so (`ruleset_sets.rs`) are of them.
const PURE: [&str; 24] = [
    "names",
    "spec",
    "plan",
    "resource",
    "reconcile",
    "net/spec",
    "net/ruleset",
    "oci/spec",
    "oci/health",
    "oci/id_range",
    "oci/restart",
    "readiness",
    "oci/reference",
    "oci/registry/challenge",
    "oci/registry/config",
    "oci/registry/dns",
    "oci/registry/name",
    "oci/registry/retry",
    "oci/registry/url",
    "oci/transport",
    "oci/runtime_spec",
    "oci/selinux/context",
    "oci/selinux/mcs",
    "oci/selinux/places",
];

/// What a pure module may not name: everything that reaches the kernel or the disk.
const IMPURE: [&str; 17] = [
    "std::fs",
    "std::process",
    "std::os",
    "std::thread",
    "std::net::Tcp",
    "std::net::Udp",
    "std::net::{Tcp",
    "std::net::{Udp",
    "std::io",
    "std::env",
    "rtnetlink",
    "netlink_sys",
    "libcontainer",
    "tokio",
    "nix::",
    "rustix",
    "libc::",
];

#[test]
fn net_and_oci_import_neither_each_other_nor_upwards() {
    for own in ["net", "oci"] {
        for (path, code) in sources(&format!("{own}/")) {
            for (number, name) in crate_paths(&code) {
                assert!(
                    name == own || SHARED.contains(&name.as_str()),
                    "src/{path}:{number}: `{own}` may not know `crate::{name}`"
                );
            }
            // As many `super` as the module's path is long lead to the crate.
            let own_level = usize::from(!path.ends_with("/mod.rs"));
            let up = "super::".repeat(path.matches('/').count() + own_level);
            for (number, line) in code.lines().enumerate() {
                let above = line.trim_start().starts_with("use ") && line.contains(&up);
                assert!(!above, "src/{path}:{}: leads out of `{own}`", number + 1);
            }
        }
    }
}

#[test]
fn pure_modules_reach_neither_kernel_nor_disk() {
    for module in PURE {
        for (path, code) in sources(module) {
            for (number, line) in code.lines().enumerate() {
                if let Some(found) = IMPURE.iter().find(|name| line.contains(*name)) {
                    panic!("src/{path}:{}: a pure module names `{found}`", number + 1);
                }
            }
        }
    }
}

#[test]
fn grouped_imports_are_understood() {
    let code = "use crate::{\n    names::{A, B},\n    engine,\n};\nuse crate::net::X;\nlet y = crate::host::z();";
    let names: Vec<String> = crate_paths(code).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["names", "engine", "net", "host"]);
}

/// The files of a module and of those beside it whose names begin with its own (`src/NAME*.rs`,
/// `src/NAME*/`), without comments and unit tests. A module that is not there has none.
fn sources(module: &str) -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let start = src.join(module);
    let mut files = Vec::new();
    collect(start.parent().unwrap(), &mut files);
    files.retain(|file| file.to_string_lossy().starts_with(start.to_string_lossy().as_ref()));
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&src).unwrap().display().to_string();
        (name, code_of(&fs::read_to_string(&path).unwrap()))
    };
    files.into_iter().map(read).collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs")
            && path.file_stem().unwrap() != "tests"
        {
            files.push(path);
        }
    }
}

/// Blank lines for comments, so that line numbers stay; the unit tests stand at the end.
fn code_of(source: &str) -> String {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let blank = |line: &str| {
        if line.trim_start().starts_with("//") { String::new() } else { line.to_owned() }
    };
    code.lines().map(blank).collect::<Vec<_>>().join("\n")
}

/// The modules named right after `crate::`, single or in braces, with their line numbers.
fn crate_paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let number = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.push((number, identifier(rest))),
            Some(group) => {
                found.extend(heads(group).into_iter().map(|head| (number, head)));
            }
        }
    }
    found
}

/// The first identifiers of a brace group's members.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut found) = (0, true, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if start && (c.is_alphanumeric() || c == '_') => {
                found.push(identifier(&group[at..]));
                start = false;
            }
            _ => {}
        }
    }
    found
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}
