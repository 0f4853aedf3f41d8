//! The sidecars image that is part of this program, so that a bottle needs no registry and no
//! image file. `build.rs` makes it from `images/sidecars`.

use oci_spec::image::ImageConfiguration;

use super::digest::Digest;

/// The image as an OCI archive: a tar of an OCI image layout (`image-layout.md`) with one manifest,
/// for the architecture of this program.
pub static ARCHIVE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sidecars.oci.tar"));

/// The image's configuration, as the archive has it too: what the image would run is known without
/// unpacking it.
pub static CONFIG: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sidecars.config.json"));

/// The manifest's digest: tells whether the store has this very image.
pub const DIGEST: &str = env!("CARBOY_SIDECARS_DIGEST");

/// The manifest's digest as a value.
pub fn digest() -> Digest {
    DIGEST.parse().expect("the build script made it of a hash")
}

/// The image's configuration as a value.
pub fn config() -> ImageConfiguration {
    serde_json::from_slice(CONFIG).expect("the build script's configuration is valid")
}

/// The name of the image, as its archive has it too (`org.opencontainers.image.ref.name`).
pub const REFERENCE: &str = "embedded:sidecars";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
    use tar_core::parse::{Limits, ParseEvent, Parser};

    use super::*;

    /// The entries of a tar archive: path, mode, content.
    fn entries(archive: &[u8]) -> BTreeMap<String, (u32, Vec<u8>)> {
        let mut parser = Parser::new(Limits::default());
        let mut entries = BTreeMap::new();
        let mut rest = archive;
        loop {
            match parser.parse(rest).expect("a tar archive") {
                ParseEvent::Entry { consumed, entry } => {
                    let size = usize::try_from(entry.size).expect("small");
                    let padded = usize::try_from(entry.padded_size()).expect("small");
                    let content = rest[consumed..consumed + size].to_vec();
                    assert_eq!((entry.uid, entry.gid, entry.mtime), (0, 0, 0));
                    let path = entry.path_lossy().into_owned();
                    let old = entries.insert(path, (entry.mode, content));
                    assert!(old.is_none(), "twice the same path");
                    rest = &rest[consumed + padded..];
                }
                ParseEvent::End { .. } => return entries,
                other => panic!("unexpected in a plain archive: {other:?}"),
            }
        }
    }

    fn blob(layout: &BTreeMap<String, (u32, Vec<u8>)>, descriptor: &Descriptor) -> Vec<u8> {
        let digest: Digest = descriptor.digest().as_ref().parse().expect("a sha256 digest");
        let (_, content) = &layout[&format!("blobs/sha256/{}", digest.hex())];
        assert_eq!(content.len() as u64, descriptor.size());
        assert_eq!(Digest::of(content), digest);
        content.clone()
    }

    #[test]
    fn the_archive_is_an_image_that_runs_sidecars() {
        let layout = entries(ARCHIVE);
        assert_eq!(layout["oci-layout"].1, br#"{"imageLayoutVersion":"1.0.0"}"#);

        let index: ImageIndex = serde_json::from_slice(&layout["index.json"].1).expect("an index");
        let [descriptor] = index.manifests().as_slice() else { panic!("one manifest") };
        let annotations = descriptor.annotations().as_ref().expect("annotations");
        assert_eq!(annotations["org.opencontainers.image.ref.name"], REFERENCE);

        let manifest: ImageManifest =
            serde_json::from_slice(&blob(&layout, descriptor)).expect("a manifest");
        let config: ImageConfiguration =
            serde_json::from_slice(&blob(&layout, manifest.config())).expect("a configuration");
        assert_eq!(blob(&layout, manifest.config()), CONFIG);
        let process = config.config().as_ref().expect("what to run");
        assert_eq!(process.entrypoint().as_deref(), Some(&["/sidecars".to_owned()][..]));
        assert_eq!(process.user().as_deref(), Some("65534:65534"));
        assert_eq!(process.stop_signal().as_deref(), Some("SIGTERM"));

        let [layer] = manifest.layers().as_slice() else { panic!("one layer") };
        assert_eq!(*layer.media_type(), MediaType::ImageLayer);
        assert_eq!(config.rootfs().diff_ids().as_slice(), [layer.digest().to_string()]);
        // Every blob is reachable: index, layout, two directories, three blobs.
        assert_eq!(layout.len(), 7);

        let root = entries(&blob(&layout, layer));
        let modes: Vec<(&str, u32)> =
            root.iter().map(|(path, (mode, _))| (path.as_str(), *mode)).collect();
        let want = [
            ("dev/", 0o755),
            ("etc/", 0o755),
            ("etc/group", 0o644),
            ("etc/passwd", 0o644),
            ("proc/", 0o755),
            ("run/", 0o755),
            ("sidecars", 0o755),
            ("sys/", 0o755),
            ("tmp/", 0o1777),
        ];
        assert_eq!(modes, want);
        assert!(root["sidecars"].1.starts_with(b"\x7fELF"));
    }
}
