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
    store: &'a Store,
    _locks: [OwnedFd; 2],
}

impl Store {
    /// Waits for loads, removals and holds to end and keeps others out.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn exclusive(&self) -> Result<Exclusive<'_>, StoreError> {
        // A look does not bring an older store to this version; a change does.
        schema::open_root(&self.root)?;
        let locks = [
            // In the order of a caller that holds and then loads.
            files::lock(&self.root.join(REMOVAL), files::Kind::Exclusive)?,
            files::lock(&self.root.join(LOCK), files::Kind::Exclusive)?,
        ];
        files::empty(&self.staging())?;
        Ok(Exclusive { store: self, _locks: locks })
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
        let (found, digest) = match self.store.find(name) {
            Err(absent @ StoreError::NotFound { .. }) => {
                let digest = self.store.abbreviated(name)?.ok_or(absent)?;
                (digest.to_string(), digest)
            }
            found => found?,
        };
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

    /// Removes images that have no name any more and that nobody uses, blobs and layers no image
    /// has, and what was left of blobs that were being fetched.
    ///
    /// # Errors
    /// [`StoreError::Io`]; what was removed until then is gone.
    pub fn prune(&self, in_use: &[(Digest, String)]) -> Result<Vec<Removed>, StoreError> {
        let named: BTreeSet<Digest> =
            self.store.names()?.into_iter().map(|name| name.digest).collect();
        let mut removed = Vec::new();
        for digest in self.store.manifests()? {
            if !named.contains(&digest) && users(in_use, &digest).is_empty() {
                let freed = self.delete(&digest)?;
                removed.push(Removed { references: Vec::new(), digest, deleted: true, freed });
            }
        }
        self.sweep()?;
        self.store.stale_partials(true)?;
        Ok(removed)
    }

    /// Removes an image without a name: manifest first, so that nothing points to what is gone.
    fn delete(&self, digest: &Digest) -> Result<u64, StoreError> {
        files::remove_file(&self.store.manifest(digest))?;
        files::sync_directory(&self.store.root.join(MANIFESTS))?;
        self.sweep()
    }

    /// Removes the blobs and layers that no manifest needs; returns their bytes, as the blobs
    /// have them and as the layers' tars had them.
    fn sweep(&self) -> Result<u64, StoreError> {
        let store = self.store;
        let (mut blobs, mut layers) = (BTreeSet::new(), BTreeSet::new());
        for digest in store.manifests()? {
            if let Some(manifest) = store.read_manifest(&digest)? {
                let all = std::iter::once(&manifest.config).chain(&manifest.layers);
                blobs.extend(all.map(|blob| blob.digest.hex().to_owned()));
            }
            if let Some(config) = store.config_of(&digest)? {
                let chain = store.chain_of(&config, &digest)?;
                layers.extend(chain.iter().map(|id| id.hex().to_owned()));
            }
        }
        let mut freed = 0;
        let directory = store.blobs();
        for name in files::names(&directory)?.iter().filter(|name| !blobs.contains(*name)) {
            let path = directory.join(name);
            freed += path.symlink_metadata().map_err(StoreError::io("read", &path))?.len();
            files::remove_file(&path)?;
        }
        let directory = store.root.join(LAYERS);
        let staging = files::open_directory(&store.staging())?;
        for name in files::names(&directory)?.iter().filter(|name| !layers.contains(*name)) {
            if let Ok(id) = format!("sha256:{name}").parse() {
                freed += store.layer_record(&id)?.map_or(0, |record| record.size);
            }
            // Renamed first: a layer is never seen half removed.
            files::rename(&directory.join(name), &store.staging().join(name))?;
            remove_tree(staging.as_fd(), name.as_bytes())
                .map_err(StoreError::os("remove", store.staging().join(name)))?;
        }
        Ok(freed)
    }
}

fn users(in_use: &[(Digest, String)], digest: &Digest) -> Vec<String> {
    in_use.iter().filter(|(used, _)| used == digest).map(|(_, who)| who.clone()).collect()
}
