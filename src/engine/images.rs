//! Images: find, load, list, remove.

use std::path::{Path, PathBuf};

use super::{Engine, Error};
use crate::oci::digest::Digest;
use crate::oci::reference::Reference;
use crate::oci::source::Source;
use crate::oci::spec::Container;
use crate::oci::store::{Hold, Image, ImageSummary, Loaded, Removed, Store};
use crate::oci::{StoreError, embedded};

/// What becomes of the embedded image if the store does not have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Embedded {
    /// It is unpacked.
    Unpack,
    /// It is told as it would be, and nothing is written.
    Foresee,
}

impl Engine {
    fn store_root(&self) -> PathBuf {
        self.config.root.join("images")
    }

    fn store(&self) -> Result<Store, Error> {
        Ok(Store::open(&self.store_root())?)
    }

    /// The store as it is, to look for `name`: one that is absent has no image, and is not made.
    fn store_with(&self, name: &str) -> Result<Store, Error> {
        let root = self.store_root();
        if let Some(store) = Store::look(&root)? {
            return Ok(store);
        }
        Reference::parse(name).map_err(StoreError::from)?;
        Err(StoreError::NotFound { name: name.to_owned(), root, there: Vec::new() }.into())
    }

    /// Keeps all images from being removed until it is dropped: held from the finding of an image
    /// to the writing of the record that says who uses it.
    pub(super) fn hold_images(&self) -> Result<Hold, Error> {
        Ok(self.store()?.hold()?)
    }

    /// The image of that name. The embedded one is unpacked when it is asked for the first time,
    /// and again by a carboy that has another one.
    pub(super) fn find_image(&self, name: &str, embedded: Embedded) -> Result<Image, Error> {
        if name != embedded::REFERENCE {
            return Ok(self.store_with(name)?.resolve(name)?);
        }
        if embedded == Embedded::Foresee {
            let root = self.store_root();
            // A directory that is no store is found now as well as later.
            Store::look(&root)?;
            let (digest, config) = (embedded::digest(), embedded::config());
            return Ok(Store::foresee(&root, name, digest, config)?);
        }
        let store = self.store()?;
        match store.resolve(name) {
            Ok(image) if image.digest.as_str() == embedded::DIGEST => return Ok(image),
            // Absent, of another version, or damaged: the one at hand is as good as new.
            Ok(_) | Err(_) => {}
        }
        store.load(&Source::from_bytes(embedded::ARCHIVE), Some(embedded::REFERENCE))?;
        Ok(store.resolve(name)?)
    }

    /// The very image that a container was made of.
    pub(super) fn find_image_of(&self, container: &Container) -> Result<Image, Error> {
        let digest = container.image.digest.as_str();
        Ok(self.store_with(digest)?.resolve(digest)?)
    }

    /// The program that `--init` puts into a container: the embedded image's own.
    pub(super) fn init_program(&self, embedded: Embedded) -> Result<PathBuf, Error> {
        let image = self.find_image(embedded::REFERENCE, embedded)?;
        // It has one layer.
        Ok(image.layers.last().map(|layer| layer.join("sidecars")).unwrap_or_default())
    }

    /// Loads the images of a docker-archive, an OCI archive or an OCI layout directory, under the
    /// names it gives them or under `name`.
    ///
    /// # Errors
    /// The file is not there, is no image, is damaged or is for another kind of machine. Nothing
    /// of the image at fault is kept.
    pub fn load_image(&self, path: &Path, name: Option<&str>) -> Result<Vec<Loaded>, Error> {
        Ok(self.store()?.load(&Source::open(path)?, name)?)
    }

    /// All images.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn images(&self) -> Result<Vec<ImageSummary>, Error> {
        let store = Store::look(&self.store_root())?;
        Ok(store.map(|store| store.list()).transpose()?.unwrap_or_default())
    }

    /// Takes a name away; the image goes with its last one.
    ///
    /// # Errors
    /// There is no such image, or a bundle uses it.
    pub fn remove_image(&self, name: &str) -> Result<Removed, Error> {
        let store = self.store_with(name)?;
        let exclusive = store.exclusive()?;
        let users = self.state.bundles()?;
        let in_use: Vec<(Digest, String)> = users
            .iter()
            .filter_map(|(name, record)| {
                Some((record.container()?.image.digest.clone(), name.to_string()))
            })
            .collect();
        Ok(exclusive.remove(name, &in_use)?)
    }
}
