//! Taking names and images away.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use serde::Serialize;

use super::{LAYERS, LOCK, MANIFESTS, REMOVAL, Store, files, schema};
use crate::oci::digest::Digest;
use crate::oci::error::StoreError;
use crate::oci::reference::Reference;
use crate::oci::unpack::remove_tree;

/// What a removal did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// The names that are gone.
    pub references: Vec<String>,
    /// The image they stood for.
    pub digest: Digest,
    /// Whether the image is gone, too; it stays while it has other names.
    pub deleted: bool,
    /// Bytes that went with it: blobs, and layers as large as their tars were.
    pub freed: u64,
}

/// The right to remove: as long as it lives nobody else adds, removes or [holds](Store::hold).
/// Who uses which image is gathered after this was taken, so that no use begins in between.
#[derive(Debug)]
pub struct Exclusive<'a> {
    pub(super) store: &'a Store,
    _locks: [OwnedFd; 2],
    /// Bytes of stale staging that were found.
    pub(super) stale: u64,
}

impl Store {
    /// Waits for loads, removals and holds to end and keeps others out. What a load that was killed
    /// left is removed.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn exclusive(&self) -> Result<Exclusive<'_>, StoreError> {
        let exclusive = self.exclusive_look()?;
        files::empty(&self.staging())?;
        Ok(exclusive)
    }

    /// As [`Store::exclusive`], to look only: nothing stale is removed.
    ///
    /// # Errors
    /// As there.
    pub fn exclusive_look(&self) -> Result<Exclusive<'_>, StoreError> {
        // A store of the older schema has other directories.
        schema::open_root(&self.root)?;
        let locks = [
            // In the order of a caller that holds and then loads.
            files::lock(&self.root.join(REMOVAL), files::Kind::Exclusive)?,
            files::lock(&self.root.join(LOCK), files::Kind::Exclusive)?,
        ];
        Ok(Exclusive { store: self, _locks: locks, stale: files::size(&self.staging())? })
    }

    /// Takes a name away; the image goes with its last one. A digest, or the first 12 or more of
    /// its digits if no other image has them, takes all names away.
    /// `in_use` says which images are used, and by whom. A caller who can meet a container that
    /// is just starting uses [`Store::exclusive`].
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::InUse`] if that was the last name of an image in
    /// use.
    pub fn remove(&self, name: &str, in_use: &[(Digest, String)]) -> Result<Removed, StoreError> {
        self.exclusive()?.remove(name, in_use)
    }
}

impl Exclusive<'_> {
    /// As [`Store::remove`].
    ///
    /// # Errors
    /// As there.
    pub fn remove(&self, name: &str, in_use: &[(Digest, String)]) -> Result<Removed, StoreError> {
        let (found, digest) = self.store.find_or_abbreviated(name)?;
        let all: Vec<String> = self
            .store
            .names()?
            .into_iter()
            .filter(|other| other.digest == digest)
            .map(|other| other.reference)
            .collect();
        let by_digest = Reference::parse(&found)?.digest().is_some();
        let (references, left): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|reference| by_digest || *reference == found);
        let deleted = left.is_empty();
        if deleted {
            let by: Vec<String> = users(in_use, &digest);
            if !by.is_empty() {
                return Err(StoreError::InUse { name: name.to_owned(), by });
            }
        }
        for reference in &references {
            self.store.unname(&Reference::parse(reference)?)?;
        }
        let freed = if deleted { self.delete(&digest)? } else { 0 };
        Ok(Removed { references, digest, deleted, freed })
    }

    /// Removes an image without a name: manifest first, so that nothing points to what is gone.
    fn delete(&self, digest: &Digest) -> Result<u64, StoreError> {
        files::remove_file(&self.store.manifest(digest))?;
        files::sync_directory(&self.store.root.join(MANIFESTS))?;
        self.sweep(&self.garbage(&BTreeSet::new())?)
    }

    /// The blobs and layers that no manifest needs, but for those of the images `doomed`.
    pub(super) fn garbage(&self, doomed: &BTreeSet<Digest>) -> Result<Garbage, StoreError> {
        let store = self.store;
        let (mut blobs, mut layers) = (BTreeSet::new(), BTreeSet::new());
        for digest in store.manifests()?.iter().filter(|digest| !doomed.contains(digest)) {
            if let Some(manifest) = store.read_manifest(digest)? {
                let all = std::iter::once(&manifest.config).chain(&manifest.layers);
                blobs.extend(all.map(|blob| blob.digest.hex().to_owned()));
            }
            if let Some((config, _)) = store.config_of(digest)? {
                let chain = store.chain_of(&config, digest)?;
                layers.extend(chain.iter().map(|id| id.hex().to_owned()));
            }
        }
        let mut garbage = Garbage::default();
        let directory = store.blobs();
        for name in files::names(&directory)?.into_iter().filter(|name| !blobs.contains(name)) {
            let path = directory.join(&name);
            garbage.bytes += path.symlink_metadata().map_err(StoreError::io("read", &path))?.len();
            garbage.blobs.push(name);
        }
        let directory = store.root.join(LAYERS);
        for name in files::names(&directory)?.into_iter().filter(|name| !layers.contains(name)) {
            if let Ok(id) = format!("sha256:{name}").parse() {
                garbage.bytes += store.layer_record(&id)?.map_or(0, |record| record.size);
            }
            garbage.layers.push(name);
        }
        Ok(garbage)
    }

    /// Removes what nobody needs; returns its bytes.
    pub(super) fn sweep(&self, garbage: &Garbage) -> Result<u64, StoreError> {
        let store = self.store;
        for name in &garbage.blobs {
            files::remove_file(&store.blobs().join(name))?;
        }
        let staging = files::open_directory(&store.staging())?;
        for name in &garbage.layers {
            // Renamed first: a layer is never seen half removed.
            let path = store.staging().join(name);
            files::rename(&store.root.join(LAYERS).join(name), &path)?;
            remove_tree(staging.as_fd(), name.as_bytes())
                .map_err(StoreError::os("remove", path))?;
        }
        Ok(garbage.bytes)
    }
}

/// What no image needs.
#[derive(Debug, Default)]
pub(super) struct Garbage {
    blobs: Vec<String>,
    layers: Vec<String>,
    /// Of the blobs as they are, of the layers as their tars were.
    pub(super) bytes: u64,
}

pub(super) fn users(in_use: &[(Digest, String)], digest: &Digest) -> Vec<String> {
    in_use.iter().filter(|(used, _)| used == digest).map(|(_, who)| who.clone()).collect()
}
