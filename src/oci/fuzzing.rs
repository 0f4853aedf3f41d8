//! The entrances that the fuzz targets in `fuzz/` use; no interface for anybody else. What they
//! must not do is panic, hang, eat memory or write outside of their directory.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use super::image_config;
use super::manifest::{Document, Platform, select};
use super::reference::Reference;
use super::source::Source;
use super::unpack::{Form, Limits, remove_tree, unpack};

const VICTIM: &str = "untouched";

/// Far below the defaults: a layer of the fuzzer is small, and each run must be short.
fn limits() -> Limits {
    Limits { bytes: 4 << 20, entries: 2_000, depth: 32, ratio: 50, ratio_floor: 1 << 20 }
}

/// Unpacks `data` as a layer into a directory of its own in `scratch`.
///
/// # Panics
/// If something beside that directory was changed, or `scratch` cannot be used.
#[allow(clippy::unwrap_used, reason = "a fuzz target tells by a panic")]
pub fn layer(data: &[u8], scratch: &Path) {
    let victim = scratch.join("victim");
    fs::write(&victim, VICTIM).unwrap();
    let into = scratch.join("layer");
    fs::create_dir(&into).unwrap();
    let directory = File::open(&into).unwrap();
    drop(unpack(data, directory.as_fd(), &[], Form::Rootless, &limits()));
    assert_eq!(fs::read_to_string(&victim).unwrap(), VICTIM, "the layer wrote outside");
    let beside = fs::read_dir(scratch).unwrap().count();
    assert_eq!(beside, 2, "the layer made something outside");
    remove_tree(File::open(scratch).unwrap().as_fd(), b"layer").unwrap();
}

/// Reads `data` as a manifest or index, and as an image's configuration.
pub fn document(data: &[u8]) {
    let host = Platform::host();
    for claimed in ["", "application/vnd.oci.image.index.v1+json"] {
        if let Ok(Document::Index(entries)) = Document::parse(data, claimed) {
            drop(select(&entries, &host));
        }
    }
    if let Ok(diff_ids) = image_config::check(data, "file", "name", &host) {
        image_config::chain_ids(&diff_ids);
    }
}

/// Reads `data` as an archive of images and opens what it names.
///
/// # Panics
/// If there is no memory for the file.
#[allow(clippy::unwrap_used, reason = "a fuzz target tells by a panic")]
pub fn archive(data: &[u8], scratch: &Path) {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::memfd_create("archive", flags).unwrap());
    file.write_all(data).unwrap();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let source = Source::open(Path::new(&path)).unwrap();
    let Ok(found) = source.images(scratch, &Platform::host(), &limits()) else { return };
    for layer in found.images.iter().flat_map(|image| &image.layers) {
        if let Ok(Some(section)) = found.contents.open(&layer.name) {
            drop(section.take(1 << 20).read_to_end(&mut Vec::new()));
        }
    }
}

/// Parses `data` as an image's name; a name's normal form must be a name of the same form.
///
/// # Panics
/// If it is not.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(name) = Reference::parse(text) else { return };
    match Reference::parse(name.normal()) {
        Ok(again) => assert_eq!(again.normal(), name.normal(), "{text:?}"),
        Err(error) => panic!("{text:?} has the normal form {:?}: {error}", name.normal()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the targets begin with, and what they once found, stays handled without them.
    #[test]
    fn all_seeds_are_handled() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
        for (target, least) in [("layer", 10), ("archive", 3), ("document", 4), ("reference", 5)] {
            let scratch = tempfile::tempdir().unwrap();
            let mut count = 0;
            for seed in fs::read_dir(seeds.join(target)).unwrap() {
                let data = fs::read(seed.unwrap().path()).unwrap();
                match target {
                    "layer" => layer(&data, scratch.path()),
                    "archive" => archive(&data, scratch.path()),
                    "document" => document(&data),
                    _ => reference(&data),
                }
                count += 1;
            }
            assert!(count >= least, "{target}: only {count} seeds");
        }
    }
}
