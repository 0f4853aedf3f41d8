//! Images: find, load, list, tell, export, remove.

use std::io::Write;
use std::path::PathBuf;

use super::{Engine, Error};
use crate::oci::digest::Digest;
use crate::oci::reference::Reference;
use crate::oci::rootfs_image::RootfsConfig;
use crate::oci::source::Source;
use crate::oci::spec::Container;
use crate::oci::store::{
    ArchiveFormat, Hold, Image, ImageDetails, ImageSummary, Loaded, Pruned, Removed, Store,
};
use crate::oci::transport::Transport;
use crate::oci::{StoreError, embedded, registry};

/// What becomes of layers that the store does not have, but could: those of the embedded image, and
/// those whose blobs it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layers {
    /// They are unpacked.
    Unpack,
    /// They are told as they would be, and nothing is written.
    Foresee,
}

impl Engine {
    fn store_root(&self) -> PathBuf {
        self.config.root.join("images")
    }

    pub(super) fn store(&self) -> Result<Store, Error> {
        Ok(self.with_limits(Store::open(&self.store_root())?))
    }

    fn with_limits(&self, store: Store) -> Store {
        store.with_limits(self.config.layer_limits.clone())
    }

    /// The store as it is, to look for `name`: one that is absent has no image, and is not made.
    pub(super) fn store_with(&self, name: &str) -> Result<Store, Error> {
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
    pub(super) fn find_image(&self, name: &str, layers: Layers) -> Result<Image, Error> {
        let name = registry::without_transport(name);
        if name != embedded::REFERENCE {
            let store = self.store_with(name)?;
            return Ok(match layers {
                Layers::Unpack => self.with_limits(store).restore(name)?,
                Layers::Foresee => store.documented(name)?,
            });
        }
        if layers == Layers::Foresee {
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

    /// The very image that a container was made of, by its documents.
    pub(super) fn find_image_of(&self, container: &Container) -> Result<Image, Error> {
        let digest = container.image.digest.as_str();
        Ok(self.store_with(digest)?.documented(digest)?)
    }

    /// The program that `--init` puts into a container: the embedded image's own.
    pub(super) fn init_program(&self, layers: Layers) -> Result<PathBuf, Error> {
        let image = self.find_image(embedded::REFERENCE, layers)?;
        // It has one layer.
        let path = image.layers.last().map(|layer| layer.join("sidecars")).unwrap_or_default();
        // As a volume's source it has no links; a program that is not unpacked yet is not started.
        Ok(std::fs::canonicalize(&path).unwrap_or(path))
    }

    /// Loads the images of a file or directory, under the names it gives them or under `name`.
    /// `config` is for a root file system, which has none of its own.
    ///
    /// # Errors
    /// The file is not there, is no image, is damaged or is for another kind of machine. Nothing
    /// of the image at fault is kept. Or the transport is a registry's.
    pub fn load_image(
        &self,
        transport: &Transport,
        config: RootfsConfig,
        name: Option<&str>,
    ) -> Result<Vec<Loaded>, Error> {
        match transport {
            Transport::File(file) => Ok(self.store()?.load(&Source::of(file, config)?, name)?),
            Transport::Registry(name) => {
                Err(StoreError::InRegistry { name: name.to_string() }.into())
            }
        }
    }

    /// All images.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn images(&self) -> Result<Vec<ImageSummary>, Error> {
        let store = Store::look(&self.store_root())?;
        Ok(store.map(|store| store.list()).transpose()?.unwrap_or_default())
    }

    /// Everything about one image.
    ///
    /// # Errors
    /// There is no such image.
    pub fn inspect_image(&self, name: &str) -> Result<ImageDetails, Error> {
        Ok(self.store_with(name)?.inspect(name)?)
    }

    /// Gives an image a further name; returns its digest, and whether that changed anything.
    ///
    /// # Errors
    /// There is no such image, or the new name cannot be one of it.
    pub fn tag_image(&self, name: &str, new: &str) -> Result<(Digest, bool), Error> {
        let store = self.store_with(name)?;
        let _hold = store.hold()?;
        Ok(store.tag(name, new)?)
    }

    /// Writes an image as an archive.
    ///
    /// # Errors
    /// There is no such image, its blobs are not there, or it cannot be written: what was written
    /// then is not whole.
    pub fn export_image(
        &self,
        name: &str,
        format: ArchiveFormat,
        to: impl Write,
    ) -> Result<(), Error> {
        if name == embedded::REFERENCE {
            // It is always at hand, and perhaps not in the store with all of its blobs.
            let source = Source::from_bytes(embedded::ARCHIVE);
            self.store()?.load(&source, Some(embedded::REFERENCE))?;
        }
        let store = self.store_with(name)?;
        let _hold = store.hold()?;
        Ok(store.export(name, format, to)?)
    }

    /// Takes a name away; the image goes with its last one.
    ///
    /// # Errors
    /// There is no such image, or a bundle uses it.
    pub fn remove_image(&self, name: &str) -> Result<Removed, Error> {
        let store = self.store_with(name)?;
        let exclusive = store.exclusive()?;
        Ok(exclusive.remove(name, &self.images_in_use()?)?)
    }

    /// Removes images without a name that no bundle uses (with `all`: those with names, too), and
    /// whatever no image needs. With `dry_run` nothing is removed, only told.
    ///
    /// # Errors
    /// If the store cannot be read or changed.
    pub fn prune_images(&self, all: bool, dry_run: bool) -> Result<Pruned, Error> {
        let Some(store) = Store::look(&self.store_root())? else {
            return Ok(Pruned { images: Vec::new(), freed: 0, changed: false });
        };
        if dry_run {
            let exclusive = store.exclusive_look()?;
            return Ok(exclusive.prune_dry(&self.images_in_use()?, all)?);
        }
        let exclusive = store.exclusive()?;
        Ok(exclusive.prune(&self.images_in_use()?, all)?)
    }

    /// Which images the bundles use, running or not. Asked for only while nobody else may begin to.
    fn images_in_use(&self) -> Result<Vec<(Digest, String)>, Error> {
        let mut in_use = Vec::new();
        for (name, record) in &self.state.bundles()? {
            let Some(container) = record.container() else { continue };
            in_use.push((container.image.digest.clone(), name.to_string()));
            if container.init {
                in_use.push((embedded::digest(), name.to_string()));
            }
        }
        Ok(in_use)
    }
}
