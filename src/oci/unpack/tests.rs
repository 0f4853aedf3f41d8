//! Layers, hostile and not, unpacked as whoever runs the tests.

mod chunks;
mod replaced;

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::*;
use crate::oci::fixture::{Header, Tar, gzip};

/// A directory with a file beside the layer that no layer may touch.
struct Place {
    directory: tempfile::TempDir,
    lower: Vec<OwnedFd>,
}

/// The pax header of a sparse file in form 1.0, whose map stands before its data.
const SPARSE_1: [(&str, &str); 3] =
    [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "9000")];

const VICTIM: &str = "untouched";

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("victim"), VICTIM).unwrap();
        Self { directory, lower: Vec::new() }
    }

    fn unpack_with(&self, name: &str, blob: &[u8], limits: &Limits) -> Result<Unpacked, Failure> {
        let into = self.path(name);
        fs::create_dir(&into).unwrap();
        let result = unpack(blob, open(&into).as_fd(), &self.lower, Form::Rootless, limits);
        assert_eq!(fs::read_to_string(self.directory.path().join("victim")).unwrap(), VICTIM);
        let beside = fs::read_dir(self.directory.path()).unwrap().count();
        assert_eq!(beside, 2 + self.lower.len(), "something was made beside the layer");
        result
    }

    fn unpack(&self, blob: &[u8]) -> Result<Unpacked, Failure> {
        self.unpack_with("layer", blob, &Limits::default())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Unpacks a layer on which the next one lies.
    fn base(&mut self, blob: &[u8]) {
        let name = format!("base{}", self.lower.len());
        self.unpack_with(&name, blob, &Limits::default()).unwrap();
        self.lower.insert(0, open(&self.path(&name)));
    }
}

fn open(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

fn tar() -> Tar {
    Tar::default()
}

fn mode(path: PathBuf) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn is_whiteout(path: PathBuf) -> bool {
    let metadata = fs::symlink_metadata(path).unwrap();
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn opaque(path: PathBuf) -> bool {
    super::lower::is_opaque(&open(&path))
}

#[test]
fn hostile_layers_stay_inside() {
    let outside = "../victim";
    let huge = Header { kind: b'0', name: "a", link: "", mode: 0o644, size: 0o77777777777 };
    let sized = Header { kind: b'1', name: "a", link: "b", mode: 0o644, size: 512 };
    let deep = "d/".repeat(45);
    type Refused = fn(&LayerFault) -> bool;
    let cases: Vec<(&str, Vec<u8>, Refused)> = vec![
        ("..", tar().file(outside, b"x").end(), |f| matches!(f, LayerFault::DotDot)),
        ("inner ..", tar().file("a/../../victim", b"x").end(), |f| matches!(f, LayerFault::DotDot)),
        ("pax ..", tar().pax("path", outside).file("a", b"x").end(), |f| {
            matches!(f, LayerFault::DotDot)
        }),
        ("pax NUL", tar().pax("path", "a\0b").file("a", b"x").end(), |f| {
            matches!(f, LayerFault::Nul)
        }),
        ("hard link out", tar().hardlink("a", outside).end(), |f| matches!(f, LayerFault::DotDot)),
        ("hard link to nothing", tar().hardlink("a", "/etc/passwd").end(), |f| {
            matches!(f, LayerFault::LinkTarget { .. })
        }),
        ("hard link to itself", tar().file("a", b"x").hardlink("a", "a").end(), |f| {
            matches!(f, LayerFault::LinkTarget { .. })
        }),
        ("hard link to a directory", tar().directory("a", 0o755).hardlink("b", "a").end(), |f| {
            matches!(f, LayerFault::LinkTarget { .. })
        }),
        (
            "hard link through a link",
            tar().symlink("l", "..").hardlink("b", "l/victim").end(),
            |f| matches!(f, LayerFault::LinkTarget { .. }),
        ),
        ("whiteout of ..", tar().file(".wh...", b"").end(), |f| matches!(f, LayerFault::Whiteout)),
        ("whiteout of .", tar().file("a/.wh..", b"").end(), |f| matches!(f, LayerFault::Whiteout)),
        ("whiteout of nothing", tar().file(".wh.", b"").end(), |f| {
            matches!(f, LayerFault::Whiteout)
        }),
        ("whiteout link", tar().symlink(".wh.a", "b").end(), |f| matches!(f, LayerFault::Whiteout)),
        ("root as a file", tar().file("./", b"x").end(), |f| matches!(f, LayerFault::Root)),
        ("root as a link", tar().symlink("/", "/").end(), |f| matches!(f, LayerFault::Root)),
        ("file as a parent", tar().file("a", b"x").file("a/b", b"x").end(), |f| {
            matches!(f, LayerFault::Parent { .. })
        }),
        ("link with a size", tar().header(&sized).end(), |f| matches!(f, LayerFault::Sized)),
        ("size beyond the end", tar().header(&huge).end(), |f| matches!(f, LayerFault::Truncated)),
        ("pax size", tar().pax("size", &u64::MAX.to_string()).file("a", b"x").end(), |f| {
            matches!(f, LayerFault::Truncated)
        }),
        ("pax size, no number", tar().pax("size", "-1").file("a", b"x").end(), |f| {
            matches!(f, LayerFault::Pax { .. })
        }),
        ("owner", tar().pax("uid", "4294967295").file("a", b"x").end(), |f| {
            matches!(f, LayerFault::Owner { .. })
        }),
        ("sparse, short", tar().pax("GNU.sparse.map", "0,1").file("a", b"xy").end(), |f| {
            matches!(f, LayerFault::Sparse { .. })
        }),
        (
            "sparse, of another form",
            { tar().pax("GNU.sparse.major", "2").file("a", b"x").end() },
            |f| matches!(f, LayerFault::Sparse { .. }),
        ),
        (
            "sparse, two sizes",
            {
                let tar = tar().paxes(&[SPARSE_1[0], SPARSE_1[1], SPARSE_1[2], ("size", "512")]);
                tar.file("a", &[&b"1\n0\n0\n"[..], &[0; 506]].concat()).end()
            },
            |f| matches!(f, LayerFault::Sparse { .. }),
        ),
        ("sparse link", { tar().pax("GNU.sparse.map", "0,0").symlink("a", "b").end() }, |f| {
            matches!(f, LayerFault::Sparse { .. })
        }),
        ("GNU sparse without a map", tar().kind(b'S', "a").end(), |f| {
            matches!(f, LayerFault::Header(_) | LayerFault::Sparse { .. })
        }),
        (
            "GNU sparse without an end",
            {
                // Each block says that another one follows.
                let more = [&[0; 504][..], &[1], &[0; 7]].concat();
                tar().gnu_sparse("a", (0, 9), &[], true).raw(&more.repeat(10_000)).end()
            },
            |f| matches!(f, LayerFault::Header(ParseError::MetadataTooLarge { .. })),
        ),
        (
            "sparse map without a line end",
            { tar().paxes(&SPARSE_1).file("a", &[b'1'; 5 << 20]).end() },
            |f| matches!(f, LayerFault::Header(ParseError::MetadataTooLarge { .. })),
        ),
        (
            "sparse beyond its end",
            { tar().gnu_sparse("a", (1, 9), &[(9, 1)], false).raw(&[b'x'; 512]).end() },
            |f| matches!(f, LayerFault::Sparse { .. }),
        ),
        ("sparse whiteout", tar().gnu_sparse(".wh.a", (0, 9), &[], false).end(), |f| {
            matches!(f, LayerFault::Whiteout)
        }),
        ("two pax headers", tar().pax("a", "b").pax("c", "d").file("a", b"").end(), |f| {
            matches!(f, LayerFault::Header(_))
        }),
        ("unknown kind", tar().kind(b'Z', "a").end(), |f| matches!(f, LayerFault::Kind { .. })),
        ("too deep", tar().pax("path", &deep.repeat(3)).directory("a", 0o755).end(), |f| {
            matches!(f, LayerFault::Depth { .. })
        }),
        ("no tar", vec![b'x'; 1024], |f| matches!(f, LayerFault::Header(_))),
        ("cut in a header", tar().file("a", b"x").cut()[..300].to_vec(), |f| {
            matches!(f, LayerFault::Truncated)
        }),
        ("cut in a file", tar().file("a", &[b'x'; 999]).cut()[..800].to_vec(), |f| {
            matches!(f, LayerFault::Truncated)
        }),
        ("xz", b"\xfd7zXZ\0rest".to_vec(), |f| matches!(f, LayerFault::Compression { .. })),
        ("cut gzip", gzip(&tar().file("a", &[b'x'; 999]).end())[..60].to_vec(), |f| {
            matches!(f, LayerFault::Stream(_))
        }),
    ];
    for (what, blob, refused) in cases {
        let place = Place::new();
        match place.unpack(&blob) {
            Ok(_) => panic!("{what}: was let in"),
            Err(failure) => {
                assert!(refused(&failure.fault), "{what}: {}", failure.fault);
                assert_eq!(failure.blob, Some(Digest::of(&blob)), "{what}");
            }
        }
    }
}

#[test]
fn links_lead_nowhere_but_into_the_layer() {
    let place = Place::new();
    let layer = tar()
        .symlink("up", "../..")
        .file("up/victim", b"x")
        .symlink("root", "/")
        .directory("root/tmp", 0o700)
        .file("root/tmp/f", b"y")
        .symlink("proc", "/proc/self/cwd")
        .symlink("file", "../victim")
        .file("file", b"z")
        .file("/absolute", b"a")
        .end();
    place.unpack(&layer).unwrap();
    let read = |path: &str| fs::read_to_string(place.path("layer").join(path)).unwrap();
    assert_eq!(read("victim"), "x");
    assert_eq!(read("tmp/f"), "y");
    assert_eq!(mode(place.path("layer/tmp")), 0o700);
    assert_eq!(read("file"), "z");
    assert_eq!(read("absolute"), "a");
}

#[test]
fn files_are_as_the_archive_says() {
    let place = Place::new();
    let layer = tar()
        .directory("./", 0o711)
        .directory("d/", 0o555)
        .file("d/f", b"data")
        .hardlink("d/g", "d/f")
        .symlink("d/l", "nowhere")
        .hardlink("d/m", "d/l")
        .kind(b'6', "d/fifo")
        .kind(b'3', "d/null")
        .pax("SCHILY.xattr.trusted.overlay.opaque", "y")
        .directory("t", 0o755)
        .pax("mtime", "-86400.5")
        .file("old", b"")
        .file("f", b"first")
        .file("f", b"second")
        .directory("x", 0o755)
        .file("x/y", b"")
        .symlink("x", "d")
        .end();
    // Padding after the end marker counts for the digest.
    let layer = [layer, vec![0; 4096]].concat();
    let unpacked = place.unpack(&gzip(&layer)).unwrap();
    assert_eq!(unpacked.diff_id, Digest::of(&layer));
    assert_eq!(unpacked.blob, Digest::of(&gzip(&layer)));
    assert_eq!(unpacked.tar_size, layer.len() as u64);
    assert_eq!(unpacked.notes.len(), 2, "{:?}", unpacked.notes);
    let at = |path: &str| place.path("layer").join(path);
    assert_eq!((mode(at("")), mode(at("d")), mode(at("d/f"))), (0o711, 0o555, 0o644));
    assert_eq!(fs::metadata(at("d/f")).unwrap().nlink(), 2);
    assert_eq!(fs::read_link(at("d/m")).unwrap(), Path::new("nowhere"));
    assert!(fs::metadata(at("d/fifo")).unwrap().file_type().is_fifo());
    assert!(!at("d/null").exists());
    assert!(!opaque(at("t")));
    assert_eq!(fs::metadata(at("d")).unwrap().mtime(), 0o144);
    let old = fs::metadata(at("old")).unwrap();
    assert_eq!((old.mtime(), old.mtime_nsec()), (-86_401, 500_000_000));
    assert_eq!(fs::read_to_string(at("f")).unwrap(), "second");
    assert_eq!(fs::read_link(at("x")).unwrap(), Path::new("d"));
    // Unwritable for its owner, yet it must be possible to remove it.
    remove_tree(open(place.directory.path()).as_fd(), b"layer").unwrap();
    assert!(!at("").exists());
}

#[test]
fn whiteouts_take_overlayfs_form() {
    let place = Place::new();
    let layer = tar()
        .file("a/.wh.gone", b"")
        .file("o/.wh..wh..opq", b"")
        .file("o/.wh.x", b"")
        .file("o/kept", b"")
        .file(".wh.before", b"")
        .directory("before", 0o755)
        .directory("after", 0o755)
        .file(".wh.after", b"")
        .file(".wh.parent", b"")
        .file("parent/f", b"")
        .file("same", b"x")
        .file(".wh.same", b"")
        .file(".wh.then", b"")
        .file("then", b"x")
        .directory("etc", 0o755)
        .file("etc/f", b"")
        .symlink("link", "etc")
        .file("link/.wh.f", b"")
        .file("link/.wh..wh..opq", b"")
        .end();
    place.unpack(&layer).unwrap();
    let at = |path: &str| place.path("layer").join(path);
    assert!(is_whiteout(at("a/gone")));
    for directory in ["o", "before", "after", "parent"] {
        assert!(opaque(at(directory)), "{directory}");
    }
    assert!(!opaque(at("a")) && !opaque(at("etc")));
    // In an opaque directory a whiteout would only show as a broken name.
    assert!(fs::symlink_metadata(at("o/x")).is_err());
    for file in ["o/kept", "parent/f", "same", "then", "etc/f"] {
        assert!(fs::symlink_metadata(at(file)).unwrap().is_file(), "{file}");
    }
}

#[test]
fn an_opaque_root_hides_each_name_below() {
    let mut place = Place::new();
    place.base(&tar().directory("d", 0o755).file("d/f", b"").file("g", b"").end());
    place.unpack(&tar().file(".wh..wh..opq", b"").directory("d", 0o755).end()).unwrap();
    assert!(opaque(place.path("layer/d")));
    assert!(is_whiteout(place.path("layer/g")));
}

#[test]
fn parents_nobody_describes_are_as_below() {
    let mut place = Place::new();
    place.base(&tar().directory("./", 0o700).directory("d", 0o1777).directory("e", 0o700).end());
    place.base(&tar().file(".wh.e", b"").end());
    place.unpack(&tar().file("d/f", b"").file("e/f", b"").file("new/f", b"").end()).unwrap();
    let modes = ["", "d", "e", "new"].map(|path| mode(place.path("layer").join(path)));
    assert_eq!(modes, [0o700, 0o1777, 0o755, 0o755]);
}

/// Words from which hostile paths are made.
const WORDS: [&str; 10] = ["a", "b", "..", ".", "", ".wh.a", ".wh...", ".wh..wh..opq", "/", "proc"];

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]

    #[test]
    fn no_sequence_of_entries_leads_out(
        entries in proptest::collection::vec(
            (0..7usize, proptest::collection::vec(0..WORDS.len(), 1..4),
             proptest::collection::vec(0..WORDS.len(), 1..4)),
            1..12,
        ),
    ) {
        let path = |words: &[usize]| words.iter().map(|&i| WORDS[i]).collect::<Vec<_>>().join("/");
        // `..` in most names would end most layers early.
        let name = |words: &[usize]| path(words).replace("..", "c");
        let layer = entries.iter().fold(tar(), |tar, (kind, at, to)| match kind {
            0 => tar.file(&name(at), b"x"),
            1 => tar.directory(&name(at), 0o755),
            2 => tar.symlink(&name(at), &format!("{}/victim", path(to))),
            3 => tar.symlink(&name(at), &path(to)),
            4 => tar.hardlink(&name(at), &name(to)),
            5 => tar.file(&format!("{}/.wh.{}", name(at), WORDS[to[0]]), b""),
            _ => tar.file(&path(at), b"x"),
        });
        let mut place = Place::new();
        place.base(&tar().directory("a", 0o700).symlink("b", "../..").end());
        // `Place` looks at what is beside the layer, whether it was let in or not.
        drop(place.unpack(&layer.end()));
    }
}

#[test]
fn holes_stay_holes() {
    let place = Place::new();
    let data = |text: &str| [text.as_bytes(), &[0; 512][text.len()..]].concat();
    let more = [b"00000050000\x0000000000002\0".as_slice(), &[0; 488]].concat();
    let layer = tar()
        .gnu_sparse("gnu", (7, 30_000), &[(0, 2), (4_096, 3), (8_192, 0), (9_000, 0)], true)
        .raw(&more)
        .raw(&data("abcdeYZ"))
        .paxes(&[("GNU.sparse.size", "9000"), ("GNU.sparse.offset", "5000")])
        .file("no-map", b"")
        .end();
    // An offset without a length is no map, so this is no file of a known form.
    let fault = place.unpack_with("bad", &layer, &Limits::default()).expect_err("no map").fault;
    assert!(matches!(fault, LayerFault::Sparse { .. }), "{fault}");

    let place = Place::new();
    let layer = tar()
        .gnu_sparse("gnu", (7, 30_000), &[(0, 2), (4_096, 3), (8_192, 0), (9_000, 0)], true)
        .raw(&more)
        .raw(&data("abcdeYZ"))
        .paxes(&[
            ("GNU.sparse.size", "9000"),
            ("GNU.sparse.numblocks", "2"),
            ("GNU.sparse.offset", "5000"),
            ("GNU.sparse.numbytes", "1"),
            ("GNU.sparse.offset", "6000"),
            ("GNU.sparse.numbytes", "2"),
        ])
        .file("0.0", b"xyz")
        .paxes(&[
            ("GNU.sparse.name", "0.1"),
            ("GNU.sparse.size", "9000"),
            ("GNU.sparse.map", "5000,1,6000,2"),
        ])
        .file("other", b"xyz")
        .paxes(&[SPARSE_1[0], SPARSE_1[1], SPARSE_1[2], ("GNU.sparse.name", "1.0")])
        .file("other", &[data("2\n5000\n1\n6000\n2\n"), b"xyz".to_vec()].concat())
        .gnu_sparse("hole", (0, 1 << 32), &[(1 << 32, 0)], false)
        .end();
    let fault = place
        .unpack_with("big", &layer, &Limits { bytes: 1 << 31, ..Limits::default() })
        .expect_err("too big")
        .fault;
    assert!(matches!(fault, LayerFault::Bytes { .. }), "{fault}");

    let place = Place::new();
    place.unpack(&layer).unwrap();
    let at = |path: &str| place.path("layer").join(path);
    let at_offsets = |size: usize, parts: &[(usize, &[u8])]| {
        let mut bytes = vec![0; size];
        for (at, part) in parts {
            bytes[*at..at + part.len()].copy_from_slice(part);
        }
        bytes
    };
    let gnu = at_offsets(30_000, &[(0, b"ab"), (4_096, b"cde"), (0o50000, b"YZ")]);
    assert_eq!(fs::read(at("gnu")).unwrap(), gnu);
    for form in ["0.0", "0.1", "1.0"] {
        let want = at_offsets(9_000, &[(5_000, b"x"), (6_000, b"yz")]);
        assert_eq!(fs::read(at(form)).unwrap(), want, "{form}");
    }
    let hole = fs::metadata(at("hole")).unwrap();
    assert_eq!((hole.len(), hole.blocks()), (1 << 32, 0));
}

#[test]
fn limits_hold() {
    let zeros = gzip(&tar().file("a", &[0; 100_000]).end());
    let many = (0..9).fold(tar(), |tar, i| tar.file(&i.to_string(), b"")).end();
    let bytes = Limits { bytes: 50_000, ..Limits::default() };
    let ratio = Limits { ratio: 10, ratio_floor: 1_000, ..Limits::default() };
    let entries = Limits { entries: 8, ..Limits::default() };
    let fault = |blob: &[u8], limits: &Limits| {
        Place::new().unpack_with("layer", blob, limits).expect_err("over a limit").fault
    };
    assert!(matches!(fault(&zeros, &bytes), LayerFault::Bytes { max: 50_000 }));
    assert!(matches!(fault(&zeros, &ratio), LayerFault::Ratio { max: 10 }));
    assert!(matches!(fault(&many, &entries), LayerFault::Entries { max: 8 }));
}
