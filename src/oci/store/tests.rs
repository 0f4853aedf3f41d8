//! The store, with image files made here, as whoever runs the tests.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::error::{Classify, ErrorKind};
use crate::oci::fixture::{Layout, Tar, config, gzip};
use crate::oci::manifest::Platform;
use crate::oci::source::Source;

mod blobs;
mod durability;
mod transports;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn store(&self) -> Store {
        Store::open(&self.0.path().join("store")).unwrap()
    }

    fn file(&self, bytes: &[u8]) -> Source {
        let path = self.0.path().join("image.tar");
        fs::write(&path, bytes).unwrap();
        Source::open(&path).unwrap()
    }

    fn directory(&self, layout: &Layout) -> PathBuf {
        let directory = self.0.path().join("layout");
        for (name, bytes) in &layout.files {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        directory
    }
}

fn layer(name: &str) -> Vec<u8> {
    Tar::default().file(name, b"content").end()
}

fn image(name: Option<&str>) -> Layout {
    Layout::new(&[layer("base"), layer(name.unwrap_or("none"))], name)
}

fn references(store: &Store) -> Vec<Vec<String>> {
    store.list().unwrap().into_iter().map(|image| image.references).collect()
}

#[test]
fn every_form_of_an_image_loads_and_resolves() {
    let layout = image(Some("t:1"));
    let archive = layout.archive();
    type Form = fn(&Place, &Layout, &[u8]) -> Source;
    let forms: [Form; 4] = [
        |place, _, archive| place.file(archive),
        |place, _, archive| place.file(&gzip(archive)),
        |place, layout, _| Source::open(&place.directory(layout)).unwrap(),
        |_, _, archive| Source::from_bytes(archive.to_vec().leak()),
    ];
    for form in forms {
        let place = Place::new();
        let (store, source) = (place.store(), form(&place, &layout, &archive));
        let loaded = store.load(&source, None).unwrap();
        assert_eq!((loaded[0].reference.as_str(), loaded[0].changed), ("t:1", true));
        assert_eq!(loaded[0].digest, layout.manifest);
        let again = store.load(&source, None).unwrap();
        assert!(!again[0].changed);
        for name in ["t:1", "docker.io/library/t:1", "docker.io/t:1", layout.manifest.as_str()] {
            let image = store.resolve(name).unwrap();
            assert_eq!(image.digest, layout.manifest, "{name}");
            assert_eq!(image.layers.len(), 2);
            assert!(image.layers[0].join("base").exists() && image.layers[1].join("t:1").exists());
            assert_eq!(image.config.config().as_ref().unwrap().cmd().as_ref().unwrap()[0], "/x");
        }
        let list = store.list().unwrap();
        assert_eq!(list[0].references, ["t:1"]);
        assert_eq!(list[0].size, 2 * layer("base").len() as u64);
        assert_eq!(list[0].created.as_deref(), Some("2026-01-02T03:04:05Z"));
        assert!(fs::read_dir(store.staging()).unwrap().next().is_none());
    }
}

#[test]
fn dockers_old_archives_load() {
    let place = Place::new();
    let store = place.store();
    let layers = [layer("a"), layer("b")];
    let config = config(&layers, &Platform::host().architecture);
    let name = format!("{}.json", Digest::of(&config).hex());
    let list = format!(
        r#"[{{"Config":"{name}","RepoTags":["t:1","u:2"],"Layers":["x/layer.tar","y/layer.tar"]}}]"#
    );
    let archive = Tar::default()
        .file(&name, &config)
        .file("blob.tar", &layers[0])
        .symlink("x/layer.tar", "../blob.tar")
        .file("y/layer.tar", &layers[1])
        .file("manifest.json", list.as_bytes())
        .end();
    let loaded = store.load(&place.file(&archive), None).unwrap();
    let names: Vec<_> = loaded.iter().map(|loaded| loaded.reference.as_str()).collect();
    assert_eq!(names, ["t:1", "u:2"]);
    assert_eq!(store.resolve("u:2").unwrap().digest, loaded[0].digest);
    let again = store.load(&place.file(&archive), None).unwrap();
    assert!(again.iter().all(|loaded| !loaded.changed), "{again:?}");
    assert_eq!(again[0].digest, loaded[0].digest);
}

#[test]
fn damaged_sources_are_refused_and_leave_nothing() {
    type Damage = fn(&mut Layout);
    fn layer_of(layout: &mut Layout) -> usize {
        layout.files.iter().position(|(_, bytes)| bytes.starts_with(&[0x1f, 0x8b])).unwrap()
    }
    let cases: Vec<(Damage, ErrorKind, &str)> = vec![
        (
            |l| {
                let i = layer_of(l);
                l.files.remove(i);
            },
            ErrorKind::Invalid,
            "has no blobs/sha256/",
        ),
        (
            |l| {
                let i = layer_of(l);
                l.files[i].1.pop();
            },
            ErrorKind::Invalid,
            "bytes, its descriptor says",
        ),
        (
            |l| {
                let i = layer_of(l);
                let middle = l.files[i].1.len() / 2;
                l.files[i].1[middle] ^= 1;
            },
            ErrorKind::Invalid,
            "is damaged, its content has digest",
        ),
        (|l| l.files[0].1[5] ^= 1, ErrorKind::Invalid, "configuration"),
        (
            |l| l.files.retain(|(name, _)| name != "index.json"),
            ErrorKind::Invalid,
            "neither index.json",
        ),
        (
            |l| l.files.iter_mut().find(|(n, _)| n == "index.json").unwrap().1 = b"{}".to_vec(),
            ErrorKind::Invalid,
            "neither a manifest nor an index",
        ),
        (
            |l| l.files.iter_mut().find(|(n, _)| n == "index.json").unwrap().1 = b"[".to_vec(),
            ErrorKind::Invalid,
            "index.json cannot be read",
        ),
        (
            |l| {
                l.files.iter_mut().find(|(n, _)| n == "index.json").unwrap().1 = vec![b' '; 5 << 20]
            },
            ErrorKind::Invalid,
            "at most",
        ),
    ];
    for (damage, kind, text) in cases {
        let place = Place::new();
        let store = place.store();
        let mut layout = image(Some("t:1"));
        damage(&mut layout);
        let error = store.load(&place.file(&layout.archive()), None).expect_err(text);
        assert!(error.to_string().contains(text), "{error}, not {text}");
        assert_eq!(error.kind(), kind, "{error}");
        for directory in [NAMES, MANIFESTS, BLOBS, PARTIAL, LAYERS, STAGING] {
            let left = files::names(&store.root.join(directory)).unwrap();
            assert!(left.is_empty(), "{text}: {directory} has {left:?}");
        }
    }
}

#[test]
fn foreign_and_truncated_files_are_refused() {
    let place = Place::new();
    let store = place.store();
    let archive = image(Some("t:1")).archive();
    let foreign = Tar::default().file("etc/passwd", b"x").end();
    let cases = [
        (b"hello".to_vec(), "neither a tar archive"),
        (Vec::new(), "neither a tar archive"),
        (foreign, "neither index.json nor manifest.json"),
        (archive[..archive.len() / 2].to_vec(), "is damaged after entry"),
        (gzip(&archive)[..200].to_vec(), "is damaged"),
        (b"BZh9xxxx".to_vec(), "compression is not known"),
    ];
    for (bytes, text) in cases {
        let error = store.load(&place.file(&bytes), None).expect_err(text);
        assert!(error.to_string().contains(text), "{error}, not {text}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    let error = Source::open(Path::new("/nonexistent/a.tar")).expect_err("absent");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn documents_in_a_directory_do_not_lead_out() {
    let place = Place::new();
    let directory = place.0.path().join("unpacked");
    fs::create_dir(&directory).unwrap();
    fs::write(place.0.path().join("secret"), "{}").unwrap();
    let secret = place.0.path().join("secret").display().to_string();
    for name in ["../secret", secret.as_str()] {
        let list = format!(r#"[{{"Config":"{name}","Layers":[]}}]"#);
        fs::write(directory.join("manifest.json"), list).unwrap();
        let error = place.store().load(&Source::open(&directory).unwrap(), None).expect_err(name);
        assert!(matches!(error, StoreError::MissingBlob { .. }), "{error}");
    }
}

#[test]
fn a_layer_that_is_not_what_the_configuration_says_is_refused() {
    let place = Place::new();
    let layers = [layer("a")];
    let config = config(&[layer("b")], &Platform::host().architecture);
    let list = r#"[{"Config":"c","Layers":["l"]}]"#;
    let archive = Tar::default()
        .file("manifest.json", list.as_bytes())
        .file("c", &config)
        .file("l", &layers[0]);
    let error = place.store().load(&place.file(&archive.end()), None).expect_err("diff_id");
    assert!(matches!(error, StoreError::DiffIdMismatch { .. }), "{error}");
}

#[test]
fn images_for_other_systems_are_refused() {
    let place = Place::new();
    let layers = [layer("a")];
    let list = r#"[{"Config":"c","Layers":["l"]}]"#;
    let archive = Tar::default()
        .file("manifest.json", list.as_bytes())
        .file("c", &config(&layers, "mips"))
        .file("l", &layers[0])
        .end();
    let error = place.store().load(&place.file(&archive), None).expect_err("mips");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let text = error.to_string();
    assert!(text.contains("linux/mips") && text.contains(&Platform::host().to_string()), "{text}");
}

#[test]
fn system_directories_must_not_be_links() {
    let links = |name: &str| Tar::default().symlink(name, "tmp").end();
    let mended = Tar::default().directory("dev", 0o755).end();
    for (layers, refused) in [
        (vec![links("dev")], true),
        (vec![layer("a"), links("proc")], true),
        (vec![links("sys"), layer("a")], true),
        (vec![links("dev"), mended], false),
        (vec![links("tmp")], false),
    ] {
        let place = Place::new();
        let archive = Layout::new(&layers, Some("t:1")).archive();
        let loaded = place.store().load(&place.file(&archive), None);
        assert_eq!(matches!(loaded, Err(StoreError::UnsafeRoot { .. })), refused);
    }
}

#[test]
fn names_are_found_exactly_first() {
    let place = Place::new();
    let store = place.store();
    let (short, long) = (image(Some("t:1")), image(Some("docker.io/library/t:1")));
    for layout in [&short, &long] {
        store.load(&place.file(&layout.archive()), None).unwrap();
    }
    assert_eq!(store.resolve("t:1").unwrap().digest, short.manifest);
    assert_eq!(store.resolve("docker.io/library/t:1").unwrap().digest, long.manifest);
    assert_eq!(store.resolve("docker.io/t:1").unwrap().digest, long.manifest);
    let error = store.resolve("other").expect_err("absent");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.hint().unwrap().contains("docker.io/library/t:1, t:1"), "{:?}", error.hint());
    assert_eq!(store.resolve("No Name").expect_err("bad").kind(), ErrorKind::Invalid);
}

#[test]
fn a_name_of_ones_own_replaces_the_archives() {
    let place = Place::new();
    let store = place.store();
    let unnamed = image(None);
    let loaded = store.load(&place.file(&unnamed.archive()), None).unwrap();
    assert_eq!(loaded[0].reference, unnamed.manifest.as_str());
    assert!(loaded[0].notes[0].contains("no name"), "{:?}", loaded[0].notes);
    let loaded = store.load(&place.file(&unnamed.archive()), Some("mine")).unwrap();
    assert!(loaded[0].changed && loaded[0].notes.is_empty());
    assert_eq!(store.resolve("mine:latest").unwrap().digest, unnamed.manifest);
    let other = format!("mine@{}", Digest::of(b"other"));
    let pinned = store.load(&place.file(&unnamed.archive()), Some(&other));
    assert!(matches!(pinned, Err(StoreError::PinnedDigest { .. })));
}

#[test]
fn only_the_built_in_image_has_its_name() {
    let place = Place::new();
    let store = place.store();
    let foreign = image(Some("embedded:sidecars")).archive();
    let loaded = store.load(&place.file(&foreign), None).unwrap();
    assert!(loaded[0].reference.starts_with("sha256:"));
    let given = store.load(&place.file(&foreign), Some("embedded:sidecars"));
    assert!(matches!(given, Err(StoreError::Reserved { .. })));
    let built_in = Source::from_bytes(image(None).archive().leak());
    let loaded = store.load(&built_in, Some("embedded:sidecars")).unwrap();
    assert_eq!(store.resolve("embedded:sidecars").unwrap().digest, loaded[0].digest);
}

#[test]
fn removal_keeps_what_others_need() {
    let place = Place::new();
    let store = place.store();
    let (a, b) = (image(Some("a")), image(Some("b")));
    for layout in [&a, &b] {
        store.load(&place.file(&layout.archive()), None).unwrap();
    }
    store.load(&place.file(&a.archive()), Some("a2")).unwrap();
    let in_use = [(a.manifest.clone(), "bottle demo".to_owned())];
    let removed = store.remove("a2", &in_use).unwrap();
    assert!(!removed.deleted && removed.references == ["a2"]);
    let error = store.remove("a", &in_use).expect_err("in use");
    assert_eq!(error.kind(), ErrorKind::InUse);
    assert!(error.to_string().contains("bottle demo"), "{error}");
    let removed = store.remove("docker.io/library/a", &[]).unwrap();
    assert!(removed.deleted);
    assert!(removed.freed > layer("a").len() as u64, "the layer and its blobs: {}", removed.freed);
    assert!(store.resolve("b").is_ok() && store.resolve("a").is_err());
    let removed = store.remove(b.manifest.as_str(), &[]).unwrap();
    assert_eq!(removed.references, ["b"]);
    for directory in [NAMES, MANIFESTS, BLOBS, PARTIAL, LAYERS, STAGING] {
        assert!(files::names(&store.root.join(directory)).unwrap().is_empty(), "{directory}");
    }
}

#[test]
fn prune_takes_images_that_lost_their_name() {
    let place = Place::new();
    let store = place.store();
    let (old, new) = (image(Some("a")), image(Some("b")));
    store.load(&place.file(&old.archive()), Some("t")).unwrap();
    store.load(&place.file(&new.archive()), Some("t")).unwrap();
    assert_eq!(references(&store), [vec![], vec!["t".to_owned()]]);
    let in_use = [(old.manifest.clone(), "demo".to_owned())];
    assert!(!store.exclusive().unwrap().prune(&in_use, false).unwrap().changed);
    let removed = store.exclusive().unwrap().prune(&[], false).unwrap();
    assert_eq!(removed.images[0].digest, old.manifest);
    assert_eq!(references(&store), [vec!["t".to_owned()]]);
}

#[test]
fn a_hold_keeps_images_but_not_loads_waiting() {
    let place = Place::new();
    let store = place.store();
    store.load(&place.file(&image(Some("a")).archive()), None).unwrap();
    std::thread::scope(|scope| {
        let hold = store.hold().unwrap();
        store.load(&place.file(&image(Some("b")).archive()), None).unwrap();
        let (done, is_done) = std::sync::mpsc::channel();
        let store = &store;
        scope.spawn(move || done.send(store.remove("a", &[]).unwrap().deleted));
        let waiting = is_done.recv_timeout(std::time::Duration::from_millis(50));
        assert!(waiting.is_err() && store.resolve("a").is_ok());
        drop(hold);
        assert_eq!(is_done.recv(), Ok(true));
    });
}

#[test]
fn loads_at_once_do_the_work_once() {
    let place = Place::new();
    let (store, source) = (place.store(), place.file(&image(Some("t")).archive()));
    let changed = std::thread::scope(|scope| {
        let load = || store.load(&source, None).unwrap()[0].changed;
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap().then_some(())).count()
    });
    assert_eq!(changed, 1);
}

#[test]
fn what_a_killed_load_left_is_swept() {
    let place = Place::new();
    let store = place.store();
    let stale = store.staging().join("stale/diff");
    fs::create_dir_all(stale.join("d")).unwrap();
    store.load(&place.file(&image(Some("t")).archive()), None).unwrap();
    assert!(!stale.exists());
}

#[test]
fn loading_again_mends_a_damaged_store() {
    let place = Place::new();
    let store = place.store();
    let source = place.file(&image(Some("t")).archive());
    store.load(&source, None).unwrap();
    let layer = store.resolve("t").unwrap().layers[0].parent().unwrap().to_owned();
    fs::remove_file(layer.join(LAYER_RECORD)).unwrap();
    assert!(store.load(&source, None).unwrap()[0].changed);
    fs::remove_dir_all(&layer).unwrap();
    let error = store.resolve("t").expect_err("incomplete");
    assert!(matches!(error, StoreError::Incomplete { .. }), "{error}");
    assert!(store.load(&source, None).unwrap()[0].changed);
    assert!(store.resolve("t").is_ok());
}

#[test]
fn a_store_of_another_kind_is_refused() {
    let place = Place::new();
    let store = place.store();
    assert_eq!(Store::open(store.root()).unwrap().form(), store.form());
    fs::write(store.root().join("schema"), "carboy images 3 privileged\n").unwrap();
    let error = Store::open(store.root()).expect_err("newer");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let other = place.0.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("file"), "").unwrap();
    assert!(matches!(Store::open(&other), Err(StoreError::Schema { .. })));
}
