//! Removing what nobody asks for any more.

use std::collections::BTreeSet;

use serde::Serialize;

use super::remove::users;
use super::{Exclusive, MANIFESTS, Removed, files};
use crate::oci::digest::Digest;
use crate::oci::error::StoreError;
use crate::oci::reference::Reference;

/// What was removed, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// The images; each one's `freed` is 0, for they may share what goes with them.
    pub images: Vec<Removed>,
    /// Bytes of all that is gone: images, blobs and layers no image has, what was left of loads and
    /// fetches that were cut short.
    pub freed: u64,
    /// Whether it is gone; not after a dry run.
    pub changed: bool,
}

impl Exclusive<'_> {
    /// Removes images that have no name any more and that nobody uses (with `all`: those with names,
    /// too), blobs and layers no image has, and what was left of blobs that were being fetched.
    ///
    /// # Errors
    /// [`StoreError::Io`]; what was removed until then is gone.
    pub fn prune(&self, in_use: &[(Digest, String)], all: bool) -> Result<Pruned, StoreError> {
        let images = self.prunable(in_use, all)?;
        let doomed: BTreeSet<Digest> = images.iter().map(|image| image.digest.clone()).collect();
        // Names first, then manifests: nothing ever points to what is gone.
        for reference in images.iter().flat_map(|image| &image.references) {
            self.store.unname(&Reference::parse(reference)?)?;
        }
        for digest in &doomed {
            files::remove_file(&self.store.manifest(digest))?;
        }
        files::sync_directory(&self.store.root.join(MANIFESTS))?;
        let swept = self.sweep(&self.garbage(&BTreeSet::new())?)?;
        let freed = swept + self.stale + self.store.stale_partials(true)?;
        Ok(Pruned { changed: freed > 0 || !images.is_empty(), images, freed })
    }

    /// What [`Exclusive::prune`] would remove.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn prune_dry(&self, in_use: &[(Digest, String)], all: bool) -> Result<Pruned, StoreError> {
        let images = self.prunable(in_use, all)?;
        let doomed: BTreeSet<Digest> = images.iter().map(|image| image.digest.clone()).collect();
        let swept = self.garbage(&doomed)?.bytes;
        let freed = swept + self.stale + self.store.stale_partials(false)?;
        Ok(Pruned { images, freed, changed: false })
    }

    fn prunable(&self, in_use: &[(Digest, String)], all: bool) -> Result<Vec<Removed>, StoreError> {
        let names = self.store.names()?;
        let mut images = Vec::new();
        for digest in self.store.manifests()? {
            let named = names.iter().filter(|name| name.digest == digest);
            let references: Vec<String> = named.map(|name| name.reference.clone()).collect();
            if (all || references.is_empty()) && users(in_use, &digest).is_empty() {
                images.push(Removed { references, digest, deleted: true, freed: 0 });
            }
        }
        Ok(images)
    }
}
