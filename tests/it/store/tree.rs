//! A file tree as text, entry by entry, so that two of them can be compared.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// What is at each path: type, mode, owner, time, size and content or target, attributes, and the
/// first path of the same file, which says all about hard links. (The link count does not: in an
/// overlay it counts names of lower layers that are hidden now.)
pub(crate) type Tree = BTreeMap<PathBuf, String>;

/// Reads the tree below `root`, which is `.` itself. Devices are left out: in an overlay they are
/// whiteouts already taken, and of the image's own none is to be there.
pub(crate) fn read(root: &Path) -> Tree {
    let mut found = Tree::new();
    let mut files = BTreeMap::new();
    walk(root, Path::new("."), &mut files, &mut found);
    found
}

/// How many names each file has, hidden ones included: only for trees that are no overlay.
pub(crate) fn link_counts(root: &Path) -> BTreeMap<PathBuf, u64> {
    let paths = read(root).into_keys().map(|path| (fs::symlink_metadata(root.join(&path)), path));
    let counts = paths.map(|(about, path)| (path, about.unwrap()));
    counts.filter(|(_, about)| !about.is_dir()).map(|(path, about)| (path, about.nlink())).collect()
}

/// Both trees must be the same; says each entry that is not.
#[track_caller]
pub(crate) fn assert_same(found: &Tree, want: &Tree, what: &str) {
    let mut wrong = Vec::new();
    for path in found.keys().chain(want.keys().filter(|path| !found.contains_key(*path))) {
        let (found, want) = (found.get(path), want.get(path));
        if found != want {
            wrong.push(format!("{path:?}\n  found {found:?}\n  want  {want:?}"));
        }
    }
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
}

/// The paths of the devices in a tree.
pub(crate) fn devices(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(devices(&entry.path()));
        } else if kind.is_char_device() || kind.is_block_device() {
            found.push(entry.path());
        }
    }
    found
}

fn walk(root: &Path, relative: &Path, files: &mut BTreeMap<(u64, u64), PathBuf>, found: &mut Tree) {
    let path = root.join(relative);
    let about = fs::symlink_metadata(&path).unwrap();
    let kind = about.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        return;
    }
    let mut line = format!(
        "mode {:o} owner {}:{} mtime {}.{:09}",
        about.mode(),
        about.uid(),
        about.gid(),
        about.mtime(),
        about.mtime_nsec()
    );
    if kind.is_file() {
        let digest = HEXLOWER.encode(&Sha256::digest(fs::read(&path).unwrap()));
        line.push_str(&format!(" size {} sha256 {digest}", about.size()));
    }
    if kind.is_symlink() {
        line.push_str(&format!(" -> {:?}", fs::read_link(&path).unwrap()));
    }
    if !kind.is_dir() {
        let first = files.entry((about.dev(), about.ino())).or_insert_with(|| relative.to_owned());
        line.push_str(&format!(" first {first:?}"));
    }
    for (name, value) in attributes(&path) {
        line.push_str(&format!(" {name}={}", HEXLOWER.encode(&value)));
    }
    found.insert(relative.to_owned(), line);
    if kind.is_dir() {
        let mut names: Vec<_> =
            fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            walk(root, &relative.join(name), files, found);
        }
    }
}

/// The extended attributes, but those of overlayfs itself.
fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let mut found = BTreeMap::new();
    for name in names[..length].split(|&b| b == 0).filter(|name| !name.is_empty()) {
        let name = std::ffi::OsStr::from_bytes(name);
        if !name.as_bytes().starts_with(b"trusted.overlay.") {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(length);
            found.insert(name.to_string_lossy().into_owned(), value);
        }
    }
    found
}
