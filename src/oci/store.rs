//! The image store: images by name, their documents, their unpacked layers.
//!
//! # On disk
//!
//! ```text
//! ROOT/                    0700, as everything in it: layers hold set-user-id files
//!   schema                 the marker: version and form; written last
//!   lock                   flock, exclusive: whoever adds or removes
//!   removal                flock, exclusive: whoever removes; shared: Store::hold
//!   names/<sha256>         JSON [{reference, digest}]: all names of one normal form, whose hash it is
//!   manifests/<digest>     an image: its manifest as it came, or one made for what came without
//!   blobs/sha256/<digest>  configurations and layers as they came, as an OCI layout has them
//!   partial/<digest>       a blob that is being fetched; flock, exclusive: whoever writes it
//!   layers/<chain id>/diff        the unpacked layer in overlayfs form
//!   layers/<chain id>/layer.json  {diff_id, size, unsettled: a boot's id, if it was not waited for}
//!   staging/               what is being made or removed; whatever a lock's new owner finds is stale
//! ```
//!
//! # Order
//!
//! A thing appears under its name only when it is complete, checked and on disk, in the order
//! blobs and layers, manifest, name; it disappears in the reverse order, by rename. So readers need
//! no lock, and a process killed at any point leaves at most stale staging, partial blobs, and blobs
//! and layers nobody names, which the next load uses or the next removal sweeps. Only unpacked layers
//! need not be on disk: after a loss of power they are unpacked again (`durability.rs`).
//!
//! # Locks
//!
//! They go with their process. `removal` is taken before `lock`, and a partial blob's before neither:
//! who fetches blobs has a [`Store::hold`] from the first of them until [`Store::install`] is done, and
//! takes `lock` there, when all of its blobs are published. Loading from a file, and installing,
//! are serialised by `lock`: of two loads of one image the second finds all there.
//!
//! # What stays
//!
//! The roots are the names, and the images that containers use (the caller says which). A root
//! keeps its manifest; a manifest keeps its configuration, its layers' blobs and its unpacked layers.
//! An image that lost its last name to another one stays until it is removed or pruned. Blobs and
//! layers no manifest needs are swept by every removal, partial blobs by `prune`.

mod blobs;
mod durability;
mod export;
mod files;
mod inspect;
mod layers;
mod load;
mod names;
mod prune;
mod remove;
mod schema;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

pub use self::blobs::{BlobStart, BlobWriter};
pub use self::export::ArchiveFormat;
pub use self::inspect::{ConfigDetails, ImageDetails, LayerDetails};
pub use self::load::Loaded;
pub use self::prune::Pruned;
pub use self::remove::{Exclusive, Removed};
use super::digest::Digest;
use super::error::StoreError;
use super::healthcheck::Healthcheck;
use super::image_config;
use super::manifest::Manifest;
use super::reference::Reference;
use super::unpack::{Form, Limits};

/// An image store, open.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    form: Form,
    limits: Limits,
}

/// An image that can be started.
#[derive(Clone, Debug)]
pub struct Image {
    /// The name it was found under, as it was loaded.
    pub reference: String,
    /// The manifest's digest.
    pub digest: Digest,
    /// How it wants to be started.
    pub config: ImageConfiguration,
    /// How its health is checked, if its configuration says so: Docker's field, which is none of the
    /// OCI's configuration.
    pub healthcheck: Option<Healthcheck>,
    /// Its unpacked layers in overlayfs form, the lowest first.
    pub layers: Vec<PathBuf>,
}

/// An image as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageSummary {
    /// Its names, as they were loaded, sorted; none if another image took the last one.
    pub references: Vec<String>,
    /// The manifest's digest.
    pub digest: Digest,
    /// Bytes of its uncompressed layers, those it shares with others included.
    pub size: u64,
    /// When it was made, RFC 3339, as its configuration says.
    pub created: Option<String>,
    /// How many layers it has.
    pub layers: usize,
}

/// Keeps images from being removed while it lives.
#[derive(Debug)]
pub struct Hold {
    _lock: OwnedFd,
}

/// What is known of an unpacked layer (`layer.json`).
#[derive(Clone, Debug, Deserialize, Serialize)]
struct LayerRecord {
    diff_id: Digest,
    /// Bytes of the uncompressed tar.
    size: u64,
    /// The boot that unpacked it, while its files may be in memory only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unsettled: Option<String>,
}

const LOCK: &str = "lock";
const REMOVAL: &str = "removal";
const NAMES: &str = "names";
const MANIFESTS: &str = "manifests";
const BLOBS: &str = "blobs/sha256";
const PARTIAL: &str = "partial";
const LAYERS: &str = "layers";
const STAGING: &str = "staging";
const DIFF: &str = "diff";
const LAYER_RECORD: &str = "layer.json";

impl Store {
    /// Opens the store at `root`, and makes it if there is none, or brings it to this version's
    /// schema if an older one made it. Whether layers are kept with
    /// owners or in the form for users without privileges ([`Form`]) is settled then, by what
    /// the kernel allows the one who makes it.
    ///
    /// # Errors
    /// [`StoreError::Schema`] if something else is there, [`StoreError::Io`].
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        // The layers' paths go to other processes, which may have another working directory.
        let root = std::path::absolute(root).map_err(StoreError::io("find", root))?;
        let form = schema::open_root(&root)?;
        Ok(Self { root, form, limits: Limits::default() })
    }

    /// Opens the store at `root`; `None` if there is none. Makes nothing.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn look(root: &Path) -> Result<Option<Self>, StoreError> {
        let root = std::path::absolute(root).map_err(StoreError::io("find", root))?;
        let schema = schema::read(&root)?;
        Ok(schema.map(|(_, form)| Self { root, form, limits: Limits::default() }))
    }

    /// Sets what a layer may have when it is unpacked.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// An image as it is, or will be, in the store at `root`, by what its documents say. Reads
    /// nothing, and so knows no health check.
    ///
    /// # Errors
    /// [`StoreError::Document`] if the configuration has no valid layers.
    pub fn foresee(
        root: &Path,
        reference: &str,
        digest: Digest,
        config: ImageConfiguration,
    ) -> Result<Image, StoreError> {
        let root = std::path::absolute(root).map_err(StoreError::io("find", root))?;
        let chain = chain_of(&root, &config, &digest)?;
        let layers = chain.iter().map(|id| layer(&root, id).join(DIFF)).collect();
        let reference = reference.to_owned();
        Ok(Image { reference, digest, config, healthcheck: None, layers })
    }

    /// How its layers are written; `Form::Rootless` ones are mounted with `userxattr`.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The directory it is in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Finds an image under exactly the name it was loaded with, then under Docker's normal form
    /// of it, or by its digest. Takes no lock and reads a few small files.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] with the names there are; [`StoreError::Reference`];
    /// [`StoreError::Incomplete`] if a layer is not there, or was lost with the power:
    /// [`Store::restore`] helps.
    pub fn resolve(&self, name: &str) -> Result<Image, StoreError> {
        let image = self.documented(name)?;
        for diff in &image.layers {
            if diff.parent().map(whole).transpose()?.flatten().is_none() {
                let (name, path) = (name.to_owned(), diff.clone());
                return Err(StoreError::Incomplete { name, path });
            }
        }
        Ok(image)
    }

    /// The image that [`Store::resolve`] would find, by what its documents say: its layers may be
    /// missing.
    ///
    /// # Errors
    /// As there.
    pub fn documented(&self, name: &str) -> Result<Image, StoreError> {
        let (reference, digest) = self.find(name)?;
        let (config, healthcheck) = self.config_of(&digest)?.ok_or_else(|| {
            StoreError::Incomplete { name: name.to_owned(), path: self.manifest(&digest) }
        })?;
        let layers =
            self.chain_of(&config, &digest)?.iter().map(|id| self.layer(id).join(DIFF)).collect();
        Ok(Image { reference, digest, config, healthcheck, layers })
    }

    /// All images, sorted by name; takes no lock.
    ///
    /// # Errors
    /// [`StoreError::Io`], or [`StoreError::Damaged`].
    pub fn list(&self) -> Result<Vec<ImageSummary>, StoreError> {
        let names = self.names()?;
        let mut images = Vec::new();
        for digest in self.manifests()? {
            // Somebody may have removed it since.
            let Some((config, _)) = self.config_of(&digest)? else { continue };
            let chain = self.chain_of(&config, &digest)?;
            let mut size = 0;
            for id in &chain {
                size += self.layer_record(id)?.map_or(0, |record| record.size);
            }
            let named = names.iter().filter(|name| name.digest == digest);
            let mut references: Vec<String> = named.map(|name| name.reference.clone()).collect();
            references.sort();
            let (created, layers) = (config.created().clone(), chain.len());
            images.push(ImageSummary { references, digest, size, created, layers });
        }
        images.sort_by(|a, b| (&a.references, &a.digest).cmp(&(&b.references, &b.digest)));
        Ok(images)
    }

    /// Keeps every image from being removed until the result is dropped: held from
    /// [`Store::resolve`] until the image's use is on record. Loading goes on meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn hold(&self) -> Result<Hold, StoreError> {
        Ok(Hold { _lock: files::lock(&self.root.join(REMOVAL), files::Kind::Shared)? })
    }

    /// The name and digest `name` stands for.
    fn find(&self, name: &str) -> Result<(String, Digest), StoreError> {
        let reference = Reference::parse(name)?;
        let found = match reference.digest() {
            // The digest says it all, whatever the name before it.
            Some(digest) if self.manifest(digest).exists() => {
                Some((name.to_owned(), digest.clone()))
            }
            // It may pin an index, of which one image was pulled under this name.
            _ => self.named(&reference)?.map(|found| (found.reference, found.digest)),
        };
        match found {
            Some(found) => Ok(found),
            None => Err(StoreError::NotFound {
                name: name.to_owned(),
                root: self.root.clone(),
                there: self.names()?.into_iter().map(|name| name.reference).collect(),
            }),
        }
    }

    /// The one image whose digest begins like that: with 12 hexadecimal digits at least.
    fn abbreviated(&self, name: &str) -> Result<Option<Digest>, StoreError> {
        if name.len() < Digest::SHORT || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let mut found = self.manifests()?;
        found.retain(|digest| digest.hex().starts_with(name));
        Ok(if found.len() == 1 { found.pop() } else { None })
    }

    fn manifest(&self, digest: &Digest) -> PathBuf {
        self.root.join(MANIFESTS).join(digest.hex())
    }

    fn layer(&self, chain_id: &Digest) -> PathBuf {
        layer(&self.root, chain_id)
    }

    fn staging(&self) -> PathBuf {
        self.root.join(STAGING)
    }

    /// The digests of all manifests.
    fn manifests(&self) -> Result<Vec<Digest>, StoreError> {
        let names = files::names(&self.root.join(MANIFESTS))?;
        Ok(names.iter().filter_map(|name| format!("sha256:{name}").parse().ok()).collect())
    }

    /// An image's manifest; `None` if it is not there.
    fn read_manifest(&self, digest: &Digest) -> Result<Option<Manifest>, StoreError> {
        files::read_json(&self.manifest(digest))
    }

    /// An image's configuration, and the health check in it; `None` if the image is not there.
    fn config_of(
        &self,
        digest: &Digest,
    ) -> Result<Option<(ImageConfiguration, Option<Healthcheck>)>, StoreError> {
        let Some(manifest) = self.read_manifest(digest)? else { return Ok(None) };
        let config = &manifest.config.digest;
        let mut path = self.blob_path(config);
        let mut text = files::read(&path)?;
        if text.is_none() {
            // A store of the older schema that nobody has changed since.
            path = schema::old_config(&self.root, config);
            text = files::read(&path)?;
        }
        let Some(text) = text else { return Ok(None) };
        let parsed =
            serde_json::from_slice(&text).map_err(|source| StoreError::Damaged { path, source })?;
        Ok(Some((parsed, Healthcheck::of_config(&text))))
    }

    /// The names of an image's layers, the lowest first.
    fn chain_of(
        &self,
        config: &ImageConfiguration,
        digest: &Digest,
    ) -> Result<Vec<Digest>, StoreError> {
        chain_of(&self.root, config, digest)
    }

    /// What is known of a layer; `None` if it is not there.
    fn layer_record(&self, chain_id: &Digest) -> Result<Option<LayerRecord>, StoreError> {
        durability::read(&self.layer(chain_id))
    }

    /// The same, if the layer can be used.
    fn whole_layer(&self, chain_id: &Digest) -> Result<Option<LayerRecord>, StoreError> {
        whole(&self.layer(chain_id))
    }
}

/// What is known of the layer in this directory, if it can be used.
fn whole(layer: &Path) -> Result<Option<LayerRecord>, StoreError> {
    let record = durability::read(layer)?.filter(LayerRecord::is_whole);
    Ok(record.filter(|_| layer.join(DIFF).is_dir()))
}

fn layer(root: &Path, chain_id: &Digest) -> PathBuf {
    root.join(LAYERS).join(chain_id.hex())
}

fn chain_of(
    root: &Path,
    config: &ImageConfiguration,
    digest: &Digest,
) -> Result<Vec<Digest>, StoreError> {
    let diff_ids = image_config::diff_ids(config).map_err(|reason| StoreError::Document {
        file: root.display().to_string(),
        what: "configuration",
        name: digest.to_string(),
        reason,
    })?;
    Ok(image_config::chain_ids(&diff_ids))
}
