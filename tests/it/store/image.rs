//! An image of three layers with everything a layer may hold, made by GNU tar, umoci and skopeo.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use crate::common::TestHost;

/// One image in the forms it is loaded in.
pub(super) struct Forms {
    pub(super) layout: PathBuf,
    pub(super) oci_archive: PathBuf,
    pub(super) docker_archive: PathBuf,
    pub(super) zstd_layout: PathBuf,
}

/// Its name in all of them.
pub(super) const NAME: &str = "test-tree";

/// Some of what it has in the end, and what is said of it: a comparison of nothing with nothing
/// would be noticed.
pub(super) const THERE: [(&str, &str); 16] = [
    ("kept", "mode 100644 owner 0:0"),
    ("large", "size 300001"),
    ("holes-lower", "size 5242880"),
    ("holes-middle", "size 5242880"),
    ("holes-upper", "size 5242880"),
    ("opaque/new", ""),
    ("was-directory", "mode 100"),
    ("was-file/inside", ""),
    ("twice/new", ""),
    ("links/second", "first \"./links/second\""),
    ("names/third", "first \"./links/second\""),
    ("links/of-symlink", "owner 5:6"),
    ("names/\u{e4}\u{1f37a} \n\\x", ""),
    ("special/fifo", "mode 10640"),
    ("special/setuid", "mode 104755 owner 1000:70000"),
    ("special/capable", "security.capability=0100000200040000"),
];

/// What it must not have in the end.
pub(super) const GONE: [&str; 4] = ["gone", "gone-directory", "opaque/old", "twice/old"];

/// The devices of its second layer.
pub(super) const DEVICES: [&str; 2] = ["dev/null0", "dev/loop99"];

/// Makes the image below the host's directory.
pub(super) fn make(host: &TestHost) -> Forms {
    let path = |name: &str| host.dir().join(name);
    let forms = Forms {
        layout: path("tree.layout"),
        oci_archive: path("tree.oci.tar"),
        docker_archive: path("tree.docker.tar"),
        zstd_layout: path("tree.zstd"),
    };
    let layout = forms.layout.display().to_string();
    let image = format!("{layout}:{NAME}");
    host.run(["umoci", "init", "--layout", &layout]).ok();
    host.run(["umoci", "new", "--image", &image]).ok();
    // Each layer has a file with holes, in another of the pax forms.
    for (name, fill, sparse) in [
        ("lower", lower as fn(&Path), "--sparse-version=1.0"),
        ("middle", middle, "--sparse-version=0.1"),
        ("upper", upper, "--sparse-version=0.0"),
    ] {
        let directory = path(name);
        fs::create_dir(&directory).unwrap();
        fill(&directory);
        holes(&directory.join(format!("holes-{name}")));
        settle(&directory);
        let tar = path(&format!("{name}.tar")).display().to_string();
        let all = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "--format=posix"];
        let of = ["-C", &directory.display().to_string(), "-cf", &tar, "."];
        host.run([&["tar", "--sparse", sparse], &all[..], &of].concat()).ok();
        host.run(["umoci", "raw", "add-layer", "--image", &image, &tar]).ok();
    }
    let from = format!("oci:{image}");
    for to in [
        format!("oci-archive:{}:{NAME}", forms.oci_archive.display()),
        format!("docker-archive:{}:{NAME}:latest", forms.docker_archive.display()),
    ] {
        copy(host, &[&from, &to]);
    }
    let to = format!("oci:{}:{NAME}", forms.zstd_layout.display());
    copy(host, &["--dest-compress-format", "zstd", &from, &to]);
    forms
}

fn copy(host: &TestHost, words: &[&str]) {
    let scratch = format!("TMPDIR={}", host.dir().display());
    host.run([&["env", &scratch, "skopeo", "copy", "--quiet"], words].concat()).ok();
}

fn lower(root: &Path) {
    for directory in
        ["gone-directory", "opaque", "was-directory", "twice", "links", "names", "special", "dev"]
    {
        fs::create_dir(root.join(directory)).unwrap();
    }
    for file in ["kept", "gone", "gone-directory/x", "opaque/old", "was-directory/x", "was-file"] {
        fs::write(root.join(file), format!("{file}, lower")).unwrap();
    }
    fs::write(root.join("twice/old"), "lower").unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("large"), vec![7; 300_001]).unwrap();

    let links = root.join("links");
    fs::write(links.join("first"), "linked").unwrap();
    fs::hard_link(links.join("first"), links.join("second")).unwrap();
    fs::hard_link(links.join("first"), root.join("names/third")).unwrap();
    symlink("../kept", links.join("relative")).unwrap();
    symlink("/etc/passwd", links.join("absolute")).unwrap();
    symlink("no/such/file", links.join("dangling")).unwrap();
    lchown(links.join("dangling"), Some(5), Some(6)).unwrap();
    fs::hard_link(links.join("dangling"), links.join("of-symlink")).unwrap();

    for name in ["\u{e4}\u{1f37a} \n\\x", " lead", ".hidden", "-dash", "...", &"n".repeat(255)] {
        fs::write(root.join("names").join(name), "odd").unwrap();
    }
    let long = root.join("names").join(["d".repeat(120), "e".repeat(120)].join("/"));
    fs::create_dir_all(&long).unwrap();
    fs::write(long.join("f".repeat(120)), "a path longer than ustar's").unwrap();

    let special = root.join("special");
    rustix::fs::mknodat(CWD, special.join("fifo"), FileType::Fifo, Mode::from(0o640), 0).unwrap();
    for (file, mode) in [("setuid", 0o4755), ("replaced", 0o4755), ("unreadable", 0)] {
        fs::write(special.join(file), file).unwrap();
        chown(special.join(file), Some(1000), Some(70_000)).unwrap();
        fs::set_permissions(special.join(file), Permissions::from_mode(mode)).unwrap();
    }
    fs::create_dir(special.join("sticky")).unwrap();
    fs::set_permissions(special.join("sticky"), Permissions::from_mode(0o1777)).unwrap();
    chown(special.join("sticky"), Some(3_000_000_000), Some(7)).unwrap();
    fs::write(special.join("capable"), "capable").unwrap();
    let mut capability = [0; 20];
    // VFS_CAP_REVISION_2, effective; permitted: CAP_NET_BIND_SERVICE, number 10 (capability.h).
    capability[..4].copy_from_slice(&0x0200_0001_u32.to_le_bytes());
    capability[4..8].copy_from_slice(&(1_u32 << 10).to_le_bytes());
    attribute(&special.join("capable"), "security.capability", &capability);
    attribute(&special.join("capable"), "user.text", b"some text");
    attribute(&special.join("sticky"), "user.binary", &[0, 0xff, b'=', b'\n', 1]);
}

fn middle(root: &Path) {
    for directory in ["opaque", "was-file", "twice", "dev"] {
        fs::create_dir(root.join(directory)).unwrap();
    }
    fs::write(root.join(".wh.gone"), "").unwrap();
    fs::write(root.join(".wh.gone-directory"), "").unwrap();
    fs::write(root.join("opaque/.wh..wh..opq"), "").unwrap();
    fs::write(root.join("opaque/new"), "middle").unwrap();
    fs::write(root.join("was-directory"), "now a file").unwrap();
    fs::write(root.join("was-file/inside"), "now in a directory").unwrap();
    // A directory that goes here and comes back in the next layer, empty of what it had.
    fs::remove_dir(root.join("twice")).unwrap();
    fs::write(root.join("twice"), "a file for one layer").unwrap();
    let device = |name: &str, kind, major, minor| {
        let number = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(CWD, root.join(name), kind, Mode::from(0o600), number).unwrap();
    };
    device(DEVICES[0], FileType::CharacterDevice, 1, 3);
    device(DEVICES[1], FileType::BlockDevice, 7, 99);
}

fn upper(root: &Path) {
    fs::create_dir(root.join("twice")).unwrap();
    fs::write(root.join("twice/new"), "upper").unwrap();
    fs::create_dir(root.join("special")).unwrap();
    fs::set_permissions(root.join("special"), Permissions::from_mode(0o2711)).unwrap();
    fs::write(root.join("special/replaced"), "in the upper layer").unwrap();
    // Its other names stay what they were.
    fs::create_dir(root.join("links")).unwrap();
    fs::write(root.join("links/.wh.first"), "").unwrap();
}

/// A file with holes at its start, between data and at its end.
fn holes(path: &Path) {
    let file = fs::File::create(path).unwrap();
    for (offset, data) in [(1 << 20, &b"first"[..]), (3 << 20, b"second")] {
        file.write_all_at(data, offset).unwrap();
    }
    file.set_len(5 << 20).unwrap();
}

fn attribute(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty())
        .unwrap_or_else(|e| panic!("{name} on {}: {e}", path.display()));
}

/// Gives each entry a time of its own, the directories after what is in them.
fn settle(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            settle(&entry.path());
        } else {
            set_time(&entry.path());
        }
    }
    set_time(directory);
}

fn set_time(path: &Path) {
    let length = i64::try_from(path.as_os_str().len()).unwrap();
    let time = Timespec { tv_sec: 1_000_000_000 + length * 1000, tv_nsec: 123_456_789 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}
