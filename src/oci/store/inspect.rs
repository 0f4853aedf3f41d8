//! All that is known of one image.

use std::collections::BTreeMap;

use oci_spec::image::Config;
use serde::Serialize;

use super::Store;
use crate::oci::digest::Digest;
use crate::oci::error::StoreError;
use crate::oci::healthcheck::Healthcheck;

/// An image in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageDetails {
    /// The name it was found under.
    pub reference: String,
    /// All its names, sorted.
    pub references: Vec<String>,
    /// The manifest's digest.
    pub digest: Digest,
    /// The configuration's digest: what Docker calls the image's id.
    pub config_digest: Digest,
    /// `linux`.
    pub os: String,
    /// In Go's words: `amd64`, `arm64`.
    pub architecture: String,
    /// When it was made, RFC 3339, as its configuration says.
    pub created: Option<String>,
    /// Bytes of its uncompressed layers.
    pub size: u64,
    /// The lowest first.
    pub layers: Vec<LayerDetails>,
    /// How it is started.
    pub config: ConfigDetails,
}

/// One of an image's layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerDetails {
    /// The blob's digest, as the manifest has it.
    pub digest: Digest,
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The digest of all layers up to this one: the unpacked layer's name in the store.
    pub chain_id: Digest,
    /// The blob's bytes.
    pub size: u64,
    /// The uncompressed tar's bytes.
    pub unpacked_size: u64,
    /// The manifest's word for its form.
    pub media_type: String,
}

/// How an image is started, as its configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConfigDetails {
    /// The program, and arguments it always has.
    pub entrypoint: Vec<String>,
    /// The command, or further arguments.
    pub cmd: Vec<String>,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    /// Empty is `/`.
    pub working_dir: String,
    /// Empty is root.
    pub user: String,
    /// `port/protocol`, sorted. For information: a bundle's address has all ports.
    pub exposed_ports: Vec<String>,
    /// Directories that get a file system of their own, sorted.
    pub volumes: Vec<String>,
    /// By name or number; SIGTERM if there is none.
    pub stop_signal: Option<String>,
    /// Free text.
    pub labels: BTreeMap<String, String>,
    /// How its health is checked.
    pub healthcheck: Option<Healthcheck>,
}

impl ConfigDetails {
    fn new(config: Option<&Config>, healthcheck: Option<Healthcheck>) -> Self {
        let Some(config) = config else { return Self { healthcheck, ..Self::default() } };
        let sorted = |words: &Option<Vec<String>>| {
            let mut words = words.clone().unwrap_or_default();
            words.sort();
            words
        };
        Self {
            entrypoint: config.entrypoint().clone().unwrap_or_default(),
            cmd: config.cmd().clone().unwrap_or_default(),
            env: config.env().clone().unwrap_or_default(),
            working_dir: config.working_dir().clone().unwrap_or_default(),
            user: config.user().clone().unwrap_or_default(),
            exposed_ports: sorted(config.exposed_ports()),
            volumes: sorted(config.volumes()),
            stop_signal: config.stop_signal().clone(),
            labels: config.labels().clone().unwrap_or_default().into_iter().collect(),
            healthcheck,
        }
    }
}

impl Store {
    /// Everything about an image. Takes no lock.
    ///
    /// # Errors
    /// As [`Store::documented`].
    pub fn inspect(&self, name: &str) -> Result<ImageDetails, StoreError> {
        let (reference, digest) = self.find_or_abbreviated(name)?;
        let incomplete =
            || StoreError::Incomplete { name: name.to_owned(), path: self.manifest(&digest) };
        let manifest = self.read_manifest(&digest)?.ok_or_else(incomplete)?;
        let (config, healthcheck) = self.config_of(&digest)?.ok_or_else(incomplete)?;
        let chain = self.chain_of(&config, &digest)?;
        let diff_ids = config.rootfs().diff_ids();
        let mut layers = Vec::new();
        for ((blob, chain_id), diff_id) in manifest.layers.iter().zip(chain).zip(diff_ids) {
            let record = self.layer_record(&chain_id)?;
            layers.push(LayerDetails {
                digest: blob.digest.clone(),
                diff_id: diff_id.parse().map_err(|_| incomplete())?,
                chain_id,
                size: blob.size,
                unpacked_size: record.map_or(0, |record| record.size),
                media_type: blob.media_type.clone(),
            });
        }
        let names = self.names()?;
        let references = names.into_iter().filter(|other| other.digest == digest);
        Ok(ImageDetails {
            reference,
            references: references.map(|name| name.reference).collect(),
            digest,
            config_digest: manifest.config.digest,
            os: config.os().to_string(),
            architecture: config.architecture().to_string(),
            created: config.created().clone(),
            size: layers.iter().map(|layer| layer.unpacked_size).sum(),
            layers,
            config: ConfigDetails::new(config.config().as_ref(), healthcheck),
        })
    }

    /// As [`Store::find`]; the first digits of a digest are enough.
    pub(super) fn find_or_abbreviated(&self, name: &str) -> Result<(String, Digest), StoreError> {
        match self.find(name) {
            Err(absent @ StoreError::NotFound { .. }) => {
                let digest = self.abbreviated(name)?.ok_or(absent)?;
                Ok((digest.to_string(), digest))
            }
            found => found,
        }
    }
}
