//! What a loss of power leaves of unpacked layers.

use super::*;

/// A store with the image `t`, and where it came from.
fn loaded() -> (Place, Store, Source) {
    let place = Place::new();
    let store = place.store();
    let source = place.file(&image(Some("t")).archive());
    store.load(&source, None).unwrap();
    (place, store, source)
}

/// The blob of its lowest layer.
fn blob(store: &Store) -> PathBuf {
    let digest = store.find("t").unwrap().1;
    let manifest = store.read_manifest(&digest).unwrap().unwrap();
    store.blob_path(&manifest.layers[0].digest)
}

/// The records of an image's layers, the lowest first.
fn records(store: &Store, name: &str) -> Vec<PathBuf> {
    let image = store.documented(name).unwrap();
    image.layers.iter().map(|diff| diff.with_file_name(LAYER_RECORD)).collect()
}

fn mark(record: &Path) -> Option<String> {
    let text = fs::read(record).unwrap();
    serde_json::from_slice::<LayerRecord>(&text).unwrap().unsettled
}

/// The layer as another boot finds it that was not written to disk in time.
fn lose_power(record: &Path) {
    let text = fs::read(record).unwrap();
    let mut changed: LayerRecord = serde_json::from_slice(&text).unwrap();
    changed.unsettled = Some("another boot".to_owned());
    fs::write(record, files::to_json(&changed)).unwrap();
    let diff = record.with_file_name(DIFF);
    for name in files::names(&diff).unwrap() {
        fs::write(diff.join(name), "").unwrap();
    }
}

#[test]
fn what_was_lost_with_the_power_is_unpacked_again() {
    let (_place, store, _) = loaded();
    let records = records(&store, "t");
    assert!(records.iter().all(|record| mark(record).is_some()), "a load waited for the disk");
    lose_power(&records[1]);
    assert!(matches!(store.resolve("t"), Err(StoreError::Incomplete { .. })));
    let found = store.restore("t").unwrap();
    assert_eq!(fs::read(found.layers[1].join("t")).unwrap(), b"content");
    assert_eq!(mark(&records[1]), None);
    assert!(mark(&records[0]).is_some(), "a whole layer was unpacked again");
    assert!(store.resolve("t").is_ok());
    assert!(files::names(&store.staging()).unwrap().is_empty(), "what was lost was kept");
}

#[test]
fn a_record_that_was_lost_is_one_that_is_not_there() {
    let (_place, store, _) = loaded();
    let records = records(&store, "t");
    fs::write(&records[0], "").unwrap();
    fs::write(&records[1], [0; 64]).unwrap();
    assert_eq!(references(&store), [["t"]]);
    store.inspect("t").unwrap();
    assert_eq!(store.restore("t").unwrap().layers.len(), 2);
}

#[test]
fn a_layer_without_its_files_is_not_there() {
    let (_place, store, _) = loaded();
    fs::remove_dir_all(records(&store, "t")[1].with_file_name(DIFF)).unwrap();
    assert!(matches!(store.resolve("t"), Err(StoreError::Incomplete { .. })));
    store.restore("t").unwrap();
}

#[test]
fn a_load_mends_what_was_lost() {
    let (_place, store, source) = loaded();
    lose_power(&records(&store, "t")[0]);
    assert!(store.load(&source, None).unwrap()[0].changed);
    assert!(store.resolve("t").is_ok());
    assert_eq!(mark(&records(&store, "t")[0]), None, "the next boot would lose it again");
}

#[test]
fn without_its_blob_a_lost_layer_stays_lost() {
    let (_place, store, _) = loaded();
    lose_power(&records(&store, "t")[0]);
    fs::remove_file(blob(&store)).unwrap();
    assert!(matches!(store.restore("t"), Err(StoreError::Incomplete { .. })));
}

#[test]
fn a_damaged_blob_is_not_unpacked_again() {
    let (_place, store, source) = loaded();
    lose_power(&records(&store, "t")[0]);
    let blob = blob(&store);
    let length = fs::metadata(&blob).unwrap().len();
    fs::write(&blob, vec![0; usize::try_from(length).unwrap()]).unwrap();
    assert!(matches!(store.restore("t"), Err(StoreError::DamagedBlob { .. })));
    assert!(matches!(store.restore("t"), Err(StoreError::Incomplete { .. })));
    store.load(&source, None).unwrap();
    lose_power(&records(&store, "t")[0]);
    store.restore("t").unwrap();
}
