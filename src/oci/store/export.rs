//! An image as an archive: with the very blobs it came with, so that its digest is the same
//! wherever it goes; or in the form of `docker save`.

use std::collections::BTreeSet;
use std::io::{self, BufReader, BufWriter, Read, Write};

use serde_json::json;
use tar_core::EntryType;
use tar_core::builder::EntryBuilder;

use super::Store;
use crate::oci::digest::Digest;
use crate::oci::error::StoreError;
use crate::oci::manifest::{Descriptor, MANIFEST, Manifest};
use crate::oci::reference::Reference;
use crate::oci::unpack::{Compression, Hashed};

/// The form of an exported archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// A tar of an OCI image layout (`image-layout.md`), the blobs as they came.
    Oci,
    /// As `docker save` writes it, the layers uncompressed. Docker's form has no manifest: the
    /// image's digest is another one where it is loaded.
    Docker,
}

impl Store {
    /// Writes an image as an archive. Every blob is checked on its way; an archive whose export
    /// failed is not whole. The caller [holds](Store::hold) the store.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::NoBlob`] if an older carboy loaded the image;
    /// [`StoreError::DamagedBlob`]; [`StoreError::Io`].
    pub fn export(
        &self,
        name: &str,
        format: ArchiveFormat,
        to: impl Write,
    ) -> Result<(), StoreError> {
        let (reference, digest) = self.find_or_abbreviated(name)?;
        let incomplete =
            || StoreError::Incomplete { name: name.to_owned(), path: self.manifest(&digest) };
        let manifest = self.read_manifest(&digest)?.ok_or_else(incomplete)?;
        for blob in &manifest.layers {
            if !self.blob_path(&blob.digest).exists() {
                let (name, digest) = (name.to_owned(), blob.digest.clone());
                return Err(StoreError::NoBlob { name, digest });
            }
        }
        let reference = Reference::parse(&reference)?;
        let mut archive = Archive { store: self, out: BufWriter::with_capacity(256 << 10, to) };
        match format {
            ArchiveFormat::Oci => archive.oci(&reference, &digest, &manifest)?,
            ArchiveFormat::Docker => archive.docker(&reference, &digest, &manifest)?,
        }
        let end = |out: &mut BufWriter<_>| {
            out.write_all(&[0; 1024])?;
            out.flush()
        };
        end(&mut archive.out).map_err(written())
    }
}

/// The error of writing the archive, whose path only the caller knows.
fn written() -> impl FnOnce(io::Error) -> StoreError {
    StoreError::io("write", "the archive")
}

struct Archive<'a, W: Write> {
    store: &'a Store,
    out: BufWriter<W>,
}

impl<W: Write> Archive<'_, W> {
    fn oci(
        &mut self,
        reference: &Reference,
        digest: &Digest,
        manifest: &Manifest,
    ) -> Result<(), StoreError> {
        let path = self.store.manifest(digest);
        let text = std::fs::read(&path).map_err(StoreError::io("read", &path))?;
        let mut entry = json!({
            "mediaType": manifest.media_type.as_deref().unwrap_or(MANIFEST),
            "digest": digest,
            "size": text.len(),
        });
        // An image that is known by its digest alone has no name to give.
        if reference.digest().is_none() {
            entry["annotations"] =
                json!({ "org.opencontainers.image.ref.name": reference.as_str() });
        }
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        });
        self.bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        self.bytes("index.json", index.to_string().as_bytes())?;
        self.bytes(&layout_name(digest), &text)?;
        let mut there = BTreeSet::new();
        for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
            // One layer may stand in an image twice.
            if there.insert(&blob.digest) {
                self.blob(&layout_name(&blob.digest), blob)?;
            }
        }
        Ok(())
    }

    fn docker(
        &mut self,
        reference: &Reference,
        digest: &Digest,
        manifest: &Manifest,
    ) -> Result<(), StoreError> {
        let config = format!("{}.json", manifest.config.digest.hex());
        self.blob(&config, &manifest.config)?;
        let incomplete = || StoreError::Incomplete {
            name: reference.to_string(),
            path: self.store.manifest(digest),
        };
        let (parsed, _) = self.store.config_of(digest)?.ok_or_else(incomplete)?;
        let chain = self.store.chain_of(&parsed, digest)?;
        let mut names = Vec::new();
        for (blob, chain_id) in manifest.layers.iter().zip(chain) {
            let record = self.store.layer_record(&chain_id)?.ok_or_else(|| {
                let path = self.store.layer(&chain_id);
                StoreError::Incomplete { name: reference.to_string(), path }
            })?;
            let name = format!("{}.tar", record.diff_id.hex());
            if !names.contains(&name) {
                let file = self.open(&blob.digest)?;
                let mut input = BufReader::with_capacity(256 << 10, file);
                let head = io::BufRead::fill_buf(&mut input).map_err(written())?;
                let compression = Compression::of(&head[..head.len().min(Compression::MAGIC)]);
                let tar = compression.decoder(input).map_err(|source| StoreError::Layer {
                    file: reference.to_string(),
                    layer: blob.digest.to_string(),
                    entry: String::new(),
                    source,
                })?;
                self.checked(&name, record.size, tar, &record.diff_id, &blob.digest)?;
            }
            names.push(name);
        }
        let tags: Vec<&str> =
            reference.digest().is_none().then(|| reference.normal()).into_iter().collect();
        let list = json!([{ "Config": config, "RepoTags": tags, "Layers": names }]);
        self.bytes("manifest.json", list.to_string().as_bytes())
    }

    fn open(&self, digest: &Digest) -> Result<std::fs::File, StoreError> {
        let path = self.store.blob_path(digest);
        std::fs::File::open(&path).map_err(StoreError::io("open", &path))
    }

    fn blob(&mut self, name: &str, blob: &Descriptor) -> Result<(), StoreError> {
        let file = self.open(&blob.digest)?;
        self.checked(name, blob.size, file, &blob.digest, &blob.digest)
    }

    /// An entry of `size` bytes out of `blob`, whose digest must be `want`.
    fn checked(
        &mut self,
        name: &str,
        size: u64,
        content: impl Read,
        want: &Digest,
        blob: &Digest,
    ) -> Result<(), StoreError> {
        self.header(name, size)?;
        let mut content = Hashed::new(content.take(size));
        let copied = io::copy(&mut content, &mut self.out).map_err(written())?;
        let (found, _) = content.finish();
        if copied != size || found != *want {
            return Err(StoreError::DamagedBlob { path: self.store.blob_path(blob), found });
        }
        self.pad(size)
    }

    fn bytes(&mut self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        self.header(name, content.len() as u64)?;
        self.out.write_all(content).map_err(written())?;
        self.pad(content.len() as u64)
    }

    fn header(&mut self, name: &str, size: u64) -> Result<(), StoreError> {
        let mut entry = EntryBuilder::new_ustar();
        entry.entry_type(EntryType::Regular).path(name);
        let numbers = entry.mode(0o644).and_then(|entry| entry.size(size));
        numbers.expect("a mode fits, and a size that does not becomes an extended header");
        self.out.write_all(&entry.finish_bytes()).map_err(written())
    }

    fn pad(&mut self, size: u64) -> Result<(), StoreError> {
        let padding = usize::try_from(size.next_multiple_of(512) - size).unwrap_or_default();
        self.out.write_all(&[0; 512][..padding]).map_err(written())
    }
}

fn layout_name(digest: &Digest) -> String {
    format!("{}/{}", super::BLOBS, digest.hex())
}
