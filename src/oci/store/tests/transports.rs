//! Places of images that other tools do not make, and what is read from a configuration.

use super::*;
use crate::oci::rootfs_image::RootfsConfig;
use crate::oci::transport::Transport;

fn source(place: &str) -> Source {
    match Transport::parse(place.as_ref()).unwrap() {
        Transport::File(file) => Source::of(&file, RootfsConfig::default()).unwrap(),
        Transport::Registry(name) => panic!("{name} is in a registry"),
    }
}

/// An archive of `docker save` with two images, the first with two names.
fn docker_archive(place: &Place) -> String {
    let layers = [layer("a"), layer("b")];
    let config =
        |layer: &Vec<u8>| config(std::slice::from_ref(layer), &Platform::host().architecture);
    let list = r#"[{"Config":"c0","RepoTags":["t:1","example.org/u:2"],"Layers":["l0"]},
                   {"Config":"c1","RepoTags":["other:1"],"Layers":["l1"]},
                   {"Config":"c0","RepoTags":null,"Layers":["l0"]}]"#;
    let archive = Tar::default()
        .file("manifest.json", list.as_bytes())
        .file("c0", &config(&layers[0]))
        .file("c1", &config(&layers[1]))
        .file("l0", &layers[0])
        .file("l1", &layers[1])
        .end();
    let path = place.0.path().join("docker.tar");
    fs::write(&path, archive).unwrap();
    path.display().to_string()
}

#[test]
fn a_reference_picks_from_a_docker_archive() {
    for (pick, want) in [
        ("t:1", Some("t:1")),
        ("docker.io/library/t:1", Some("t:1")),
        ("example.org/u:2", Some("example.org/u:2")),
        ("other:1", Some("other:1")),
        ("t:2", None),
        ("t", None),
    ] {
        let place = Place::new();
        let path = docker_archive(&place);
        let loaded = place.store().load(&source(&format!("docker-archive:{path}:{pick}")), None);
        match (loaded, want) {
            (Ok(loaded), Some(want)) => {
                let names: Vec<_> = loaded.iter().map(|image| image.reference.as_str()).collect();
                assert_eq!(names, [want], "{pick}");
            }
            (Err(error), None) => {
                assert_eq!(error.kind(), ErrorKind::NotFound, "{pick}: {error}");
                assert!(error.to_string().contains("t:1, example.org/u:2, other:1"), "{error}");
            }
            (loaded, want) => panic!("{pick}: {loaded:?}, not {want:?}"),
        }
    }
}

#[test]
fn a_root_file_system_beyond_the_limits_is_refused() {
    let place = Place::new();
    let tar = Tar::default().file("zeros", &[0; 50_000]).end();
    let path = place.0.path().join("rootfs.tar.gz");
    fs::write(&path, gzip(&tar)).unwrap();
    let limits = Limits { bytes: 20_000, ..Limits::default() };
    let store = place.store().with_limits(limits);
    let error = store.load(&source(&format!("rootfs:{}", path.display())), None).unwrap_err();
    // Its digest is made before anybody looks at its entries.
    assert!(error.to_string().contains("layer the root file system cannot be"), "{error}");
    assert!(crate::error::with_causes(&error).contains("more than 20000 bytes"), "{error}");
}

#[test]
fn a_directory_of_several_systems_gives_the_hosts() {
    let place = Place::new();
    let layout = image(None);
    let directory = place.0.path().join("dir");
    fs::create_dir(&directory).unwrap();
    let index = layout.files.iter().find(|(name, _)| name == "index.json").unwrap().1.clone();
    fs::write(directory.join("manifest.json"), index).unwrap();
    for (name, bytes) in layout.files.iter().filter(|(name, _)| name.starts_with(BLOBS)) {
        let hex = name.rsplit('/').next().unwrap();
        let name = if hex == layout.manifest.hex() {
            format!("{hex}.manifest.json")
        } else {
            hex.to_owned()
        };
        fs::write(directory.join(name), bytes).unwrap();
    }
    for place_of in [format!("dir:{}", directory.display()), directory.display().to_string()] {
        let loaded = place.store().load(&source(&place_of), Some("t")).unwrap();
        assert_eq!(loaded[0].digest, layout.manifest, "{place_of}");
    }
}

#[test]
fn the_health_check_is_kept() {
    let place = Place::new();
    let store = place.store();
    let layers = [layer("a")];
    let check = r#""config":{"Healthcheck":{"Test":["CMD","/check"],"Interval":1000000000},"#;
    let config = String::from_utf8(config(&layers, &Platform::host().architecture)).unwrap();
    let config = config.replace(r#""config":{"#, check);
    let archive = Tar::default()
        .file("manifest.json", br#"[{"Config":"c","RepoTags":["t:1"],"Layers":["l"]}]"#)
        .file("c", config.as_bytes())
        .file("l", &layers[0])
        .end();
    store.load(&place.file(&archive), None).unwrap();
    let check = store.resolve("t:1").unwrap().healthcheck.unwrap();
    assert_eq!(check.test, ["CMD", "/check"]);
    assert_eq!(check.interval, Some(std::time::Duration::from_secs(1)));
    assert_eq!(store.inspect("t:1").unwrap().config.healthcheck, Some(check));
    store.load(&place.file(&image(Some("u")).archive()), None).unwrap();
    assert_eq!(store.resolve("u").unwrap().healthcheck, None);
}
