//! Blobs: written once, resumed, checked; and images installed from them.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn begin(store: &Store, bytes: &[u8]) -> Box<BlobWriter> {
    match store.begin_blob(&Digest::of(bytes), Some(bytes.len() as u64)).unwrap() {
        BlobStart::Partial(writer) => writer,
        BlobStart::Present(_) => panic!("the blob is there already"),
    }
}

fn put(store: &Store, bytes: &[u8]) {
    let mut writer = begin(store, bytes);
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap();
}

fn content(mut file: fs::File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// The files of a layout as blobs, but for the manifest, which is returned.
fn fetch(store: &Store, layout: &Layout) -> Vec<u8> {
    let mut manifest = Vec::new();
    for (name, bytes) in &layout.files {
        if name.ends_with(layout.manifest.hex()) {
            manifest = bytes.clone();
        } else if name.starts_with(BLOBS) {
            put(store, bytes);
        }
    }
    manifest
}

#[test]
fn a_blob_is_resumed_checked_and_published() {
    let place = Place::new();
    let store = place.store();
    let digest = Digest::of(b"hello world");
    assert!(store.blob(&digest).unwrap().is_none());
    let mut writer = begin(&store, b"hello world");
    assert_eq!(writer.resumed(), 0);
    writer.write_all(b"hello ").unwrap();
    drop(writer);
    assert!(store.blob(&digest).unwrap().is_none());

    let mut writer = begin(&store, b"hello world");
    assert_eq!(writer.resumed(), 6);
    assert!(writer.write_all(b"world and more").is_err(), "longer than announced");
    writer.write_all(b"world").unwrap();
    assert_eq!(content(writer.finish().unwrap()), b"hello world");
    assert_eq!(content(store.blob(&digest).unwrap().unwrap()), b"hello world");
    assert!(matches!(store.begin_blob(&digest, None).unwrap(), BlobStart::Present(_)));
    assert!(files::names(&store.root.join(PARTIAL)).unwrap().is_empty());
}

#[test]
fn a_short_blob_stays_and_a_wrong_one_goes() {
    let place = Place::new();
    let store = place.store();
    let mut writer = begin(&store, b"hello");
    writer.write_all(b"hel").unwrap();
    let error = writer.finish().expect_err("short");
    assert!(matches!(error, StoreError::BlobSize { want: 5, found: 3, .. }), "{error}");

    let mut writer = begin(&store, b"hello");
    assert_eq!(writer.resumed(), 3);
    writer.write_all(b"p!").unwrap();
    let error = writer.finish().expect_err("wrong");
    assert!(matches!(error, StoreError::BlobDigest { .. }), "{error}");

    let mut writer = begin(&store, b"hello");
    assert_eq!(writer.resumed(), 0);
    writer.write_all(b"junk").unwrap();
    writer.restart().unwrap();
    writer.write_all(b"hello").unwrap();
    writer.finish().unwrap();
    begin(&store, b"other").discard().unwrap();
    assert!(files::names(&store.root.join(PARTIAL)).unwrap().is_empty());
}

#[test]
fn what_is_left_of_another_size_is_begun_again() {
    let place = Place::new();
    let store = place.store();
    let digest = Digest::of(b"hello");
    fs::write(store.root.join(PARTIAL).join(digest.hex()), b"hello and more").unwrap();
    let mut writer = begin(&store, b"hello");
    assert_eq!(writer.resumed(), 0);
    writer.write_all(b"hello").unwrap();
    writer.finish().unwrap();
}

#[test]
fn of_writers_at_once_one_writes() {
    let place = Place::new();
    let store = place.store();
    let bytes = vec![b'x'; 1 << 20];
    let written = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                let file = match store.begin_blob(&Digest::of(&bytes), None).unwrap() {
                    BlobStart::Present(file) => file,
                    BlobStart::Partial(mut writer) => {
                        written.fetch_add(1, Ordering::SeqCst);
                        bytes.chunks(1000).for_each(|chunk| writer.write_all(chunk).unwrap());
                        writer.finish().unwrap()
                    }
                };
                assert_eq!(content(file), bytes);
            });
        }
    });
    assert_eq!(written.into_inner(), 1);
    assert!(files::names(&store.root.join(PARTIAL)).unwrap().is_empty());
}

#[test]
fn an_image_is_installed_from_blobs() {
    let place = Place::new();
    let store = place.store();
    let layout = image(Some("t:1"));
    let _hold = store.hold().unwrap();
    let manifest = fetch(&store, &layout);
    let name = Reference::parse("registry.example/t:1").unwrap();
    let installed =
        store.install(&manifest, name.as_str(), std::slice::from_ref(&name), &[]).unwrap();
    assert_eq!((installed[0].digest.clone(), installed[0].changed), (layout.manifest, true));
    let found = store.resolve(name.as_str()).unwrap();
    assert!(found.layers[1].join("t:1").exists());
    let again = store.install(&manifest, name.as_str(), std::slice::from_ref(&name), &[]).unwrap();
    assert!(!again[0].changed);
    let pinned = Reference::parse(&format!("t@{}", Digest::of(b"other"))).unwrap();
    let pins = std::slice::from_ref(&pinned);
    let error = store.install(&manifest, "t", pins, &[]).expect_err("another digest");
    assert!(matches!(error, StoreError::PinnedDigest { .. }), "{error}");
    // An index that led to the image may be pinned.
    store.install(&manifest, "t", pins, &[Digest::of(b"other")]).unwrap();
    assert_eq!(store.resolve(pinned.as_str()).unwrap().digest, found.digest);
}

#[test]
fn an_image_is_not_installed_without_its_blobs() {
    let place = Place::new();
    let store = place.store();
    let layout = image(Some("t:1"));
    let manifest = fetch(&store, &layout);
    let (_, layer) = layout.files.iter().find(|(_, b)| b.starts_with(&[0x1f, 0x8b])).unwrap();
    fs::remove_file(store.blob_path(&Digest::of(layer))).unwrap();
    let error = store.install(&manifest, "t", &[], &[]).expect_err("no layer");
    assert!(matches!(error, StoreError::MissingBlob { .. }), "{error}");
    for directory in [NAMES, MANIFESTS, LAYERS, STAGING] {
        assert!(files::names(&store.root.join(directory)).unwrap().is_empty(), "{directory}");
    }
}

#[test]
fn loaded_layers_are_kept_as_they_came() {
    let place = Place::new();
    let store = place.store();
    let layout = image(Some("t:1"));
    store.load(&place.file(&layout.archive()), None).unwrap();
    for (name, bytes) in layout.files.iter().filter(|(name, _)| name.starts_with(BLOBS)) {
        let digest = Digest::of(bytes);
        if digest != layout.manifest {
            assert_eq!(content(store.blob(&digest).unwrap().expect(name)), *bytes);
        }
    }
    assert_eq!(fs::read(store.manifest(&layout.manifest)).unwrap(), {
        layout.files.iter().find(|(n, _)| n.ends_with(layout.manifest.hex())).unwrap().1.clone()
    });
}

#[test]
fn compressed_layers_of_dockers_archives_are_kept_plain() {
    let place = Place::new();
    let store = place.store();
    let layers = [layer("a")];
    let config = config(&layers, &Platform::host().architecture);
    let archive = Tar::default()
        .file("manifest.json", br#"[{"Config":"c","RepoTags":["t:1"],"Layers":["l"]}]"#)
        .file("c", &config)
        .file("l", &gzip(&layers[0]))
        .end();
    store.load(&place.file(&archive), None).unwrap();
    let blob = store.blob(&Digest::of(&layers[0])).unwrap().unwrap();
    assert_eq!(content(blob), layers[0]);
    let again = store.load(&place.file(&archive), None).unwrap();
    assert!(!again[0].changed);
}

/// Makes a store of version 1 out of one of this version.
fn age(store: &Store) {
    let configs = store.root.join("configs");
    fs::create_dir(&configs).unwrap();
    for digest in store.manifests().unwrap() {
        let manifest = store.read_manifest(&digest).unwrap().unwrap();
        let config = &manifest.config.digest;
        fs::rename(store.blob_path(config), configs.join(config.hex())).unwrap();
    }
    fs::remove_dir_all(store.root.join("blobs")).unwrap();
    fs::remove_dir(store.root.join(PARTIAL)).unwrap();
    fs::write(
        store.root.join("schema"),
        match store.form() {
            Form::Privileged => "carboy images 1 privileged\n",
            Form::Rootless => "carboy images 1 rootless\n",
        },
    )
    .unwrap();
}

#[test]
fn a_store_of_the_older_schema_is_migrated() {
    let place = Place::new();
    let store = place.store();
    let layout = image(Some("t:1"));
    let source = place.file(&layout.archive());
    store.load(&source, None).unwrap();
    age(&store);
    // A look changes nothing, and finds the image.
    let look = Store::look(store.root()).unwrap().unwrap();
    assert_eq!(look.resolve("t:1").unwrap().digest, layout.manifest);
    assert!(store.root.join("configs").exists() && !store.root.join("blobs").exists());

    let opened = Store::open(store.root()).unwrap();
    assert_eq!(opened.form(), store.form());
    assert!(!store.root.join("configs").exists());
    assert_eq!(opened.resolve("t:1").unwrap().digest, layout.manifest);
    assert_eq!(opened.list().unwrap().len(), 1);
    // The blobs come with the next load; the layers are there.
    let inode = |store: &Store| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(&store.resolve("t:1").unwrap().layers[0]).unwrap().ino()
    };
    let before = inode(&opened);
    assert!(opened.load(&source, None).unwrap()[0].changed);
    assert_eq!(inode(&opened), before, "the layer was unpacked again");
    let (_, layer) = layout.files.iter().find(|(_, b)| b.starts_with(&[0x1f, 0x8b])).unwrap();
    assert!(opened.blob(&Digest::of(layer)).unwrap().is_some());
    assert!(!opened.load(&source, None).unwrap()[0].changed);
}

#[test]
fn a_migration_that_was_cut_short_goes_on() {
    let place = Place::new();
    let store = place.store();
    let layouts = [image(Some("a")), image(Some("b"))];
    for layout in &layouts {
        store.load(&place.file(&layout.archive()), None).unwrap();
    }
    age(&store);
    // As if killed after the first of the two.
    fs::create_dir_all(store.blobs()).unwrap();
    let name = files::names(&store.root.join("configs")).unwrap().remove(0);
    fs::rename(store.root.join("configs").join(&name), store.blobs().join(&name)).unwrap();
    let opened = Store::open(store.root()).unwrap();
    assert!(opened.resolve("a").is_ok() && opened.resolve("b").is_ok());
}

#[test]
fn prune_removes_what_a_killed_fetch_left_and_no_other() {
    let place = Place::new();
    let store = place.store();
    begin(&store, b"left").write_all(b"lef").unwrap();
    let mut alive = begin(&store, b"alive");
    alive.write_all(b"ali").unwrap();
    assert_eq!(store.exclusive_look().unwrap().prune_dry(&[], false).unwrap().freed, 3);
    let pruned = store.exclusive().unwrap().prune(&[], false).unwrap();
    assert_eq!((pruned.freed, pruned.changed), (3, true));
    alive.write_all(b"ve").unwrap();
    assert_eq!(content(alive.finish().unwrap()), b"alive");
}
