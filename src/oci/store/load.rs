//! Bringing images in.

use std::os::fd::OwnedFd;

use serde::Serialize;

use super::layers::chain;
use super::{BLOBS, Image, LAYERS, LOCK, MANIFESTS, Store, files};
use crate::oci::digest::Digest;
use crate::oci::error::StoreError;
use crate::oci::layout::{self, Candidate};
use crate::oci::manifest::{Manifest, Platform};
use crate::oci::reference::{EMBEDDED, Reference};
use crate::oci::source::{Contents, Images, Source};

/// A name that was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// The name it can be started by.
    pub reference: String,
    /// The manifest's digest.
    pub digest: Digest,
    /// Whether this call changed the store.
    pub changed: bool,
    /// What the user should know: entries left out, names not taken.
    pub notes: Vec<String>,
}

impl Store {
    /// Loads all images of a source that are for this host, under the names the source gives
    /// them, or under `name` (then there must be one image). An image without a name gets its
    /// digest as one. Loading what is there already changes nothing and takes no lock.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of the image at fault is in the store then, images before it are.
    pub fn load(&self, source: &Source, name: Option<&str>) -> Result<Vec<Loaded>, StoreError> {
        let name = name.map(Reference::parse).transpose()?;
        if let Some(name) = name.as_ref().filter(|name| reserved(name) && !source.is_embedded()) {
            return Err(StoreError::Reserved { name: name.to_string() });
        }
        let Images { contents, images, notes } =
            source.images(&self.staging(), &Platform::host(), &self.limits)?;
        if name.is_some() && images.len() > 1 {
            let images = images.iter().map(label).collect();
            let file = contents.label().to_owned();
            return Err(StoreError::SeveralImages { file, images });
        }
        let mut loaded = Vec::new();
        for image in &images {
            loaded.extend(self.bring(
                &contents,
                image,
                Given { names: name.as_slice(), indexes: &[] },
            )?);
        }
        if let Some(first) = loaded.first_mut() {
            first.notes.splice(0..0, notes);
        }
        Ok(loaded)
    }

    /// Adds the image whose manifest is `manifest`, under `names`, or under its digest if there are
    /// none. Its configuration and its layers are in the store as blobs ([`Store::begin_blob`]); the
    /// layers that are missing are unpacked. The caller has checked the manifest's digest, and holds
    /// the store ([`Store::hold`]) since before its first blob. `origin` is what errors call the
    /// image. A name may pin the manifest, or one of the `indexes` that led the caller to it.
    ///
    /// # Errors
    /// [`StoreError`]; the blobs stay, nothing else of the image is in the store then.
    pub fn install(
        &self,
        manifest: &[u8],
        origin: &str,
        names: &[Reference],
        indexes: &[Digest],
    ) -> Result<Vec<Loaded>, StoreError> {
        if let Some(name) = names.iter().find(|name| reserved(name)) {
            return Err(StoreError::Reserved { name: name.to_string() });
        }
        // The store's blobs are where a layout's are.
        let contents = Contents::of_directory(files::open_directory(&self.root)?, origin);
        let digest = Digest::of(manifest);
        let image = layout::image_of(&contents, manifest, digest.as_str(), &Platform::host())?;
        self.bring(&contents, &image, Given { names, indexes })
    }

    /// An image as [`Store::resolve`] finds it. Layers that are missing, or were lost with the power,
    /// are unpacked again from their blobs, and are on disk then.
    ///
    /// # Errors
    /// As [`Store::resolve`]: [`StoreError::Incomplete`] if a blob is missing, too.
    /// [`StoreError::DamagedBlob`]; that blob is removed, so that a load or a pull brings it again.
    pub fn restore(&self, name: &str) -> Result<Image, StoreError> {
        let incomplete = match self.resolve(name) {
            Err(error @ StoreError::Incomplete { .. }) => error,
            resolved => return resolved,
        };
        let (_, digest) = self.find(name)?;
        let contents = Contents::of_directory(files::open_directory(&self.root)?, name);
        let Some(manifest) = files::read(&self.manifest(&digest))? else { return Err(incomplete) };
        let image = layout::image_of(&contents, &manifest, digest.as_str(), &Platform::host())?;
        if !image.layers.iter().all(|layer| self.blob_path(layer.digest()).exists()) {
            return Err(incomplete);
        }
        let _lock = self.begin()?;
        match self.add_layers_or_none(&contents, &image, &mut Vec::new()) {
            Err(StoreError::DigestMismatch { want, found, .. }) => {
                let path = self.blob_path(&want);
                files::remove_file(&path)?;
                Err(StoreError::DamagedBlob { path, found })
            }
            added => added.and_then(|_| self.resolve(name)),
        }
    }

    /// The lock, and an empty place for what is being made.
    fn begin(&self) -> Result<OwnedFd, StoreError> {
        let lock = files::lock(&self.root.join(LOCK), files::Kind::Exclusive)?;
        files::empty(&self.staging())?;
        Ok(lock)
    }

    fn add_layers_or_none(
        &self,
        contents: &Contents,
        image: &Candidate,
        notes: &mut Vec<String>,
    ) -> Result<bool, StoreError> {
        let added = self.add_layers(contents, image, notes);
        if added.is_err() {
            // The next load would do it, too; the error at hand says more than one from here.
            files::empty(&self.staging()).unwrap_or_default();
        }
        added
    }

    fn bring(
        &self,
        contents: &Contents,
        image: &Candidate,
        names: Given<'_>,
    ) -> Result<Vec<Loaded>, StoreError> {
        match self.unchanged(contents, image, names)? {
            Some(unchanged) => Ok(unchanged),
            None => self.add(contents, image, names),
        }
    }

    /// What a load reports if the image and all its names are there already; `None` if not.
    fn unchanged(
        &self,
        contents: &Contents,
        image: &Candidate,
        names: Given<'_>,
    ) -> Result<Option<Vec<Loaded>>, StoreError> {
        let Some((digest, _)) = self.known(image)? else { return Ok(None) };
        let names = names_of(image, names, &digest, contents)?;
        if !self.present(image, &digest, &names.references)? {
            return Ok(None);
        }
        let loaded = names.references.iter().map(|reference| Loaded {
            reference: reference.to_string(),
            digest: digest.clone(),
            changed: false,
            notes: names.notes.clone(),
        });
        Ok(Some(loaded.collect()))
    }

    /// Adds an image under the lock. Another load may just have added it: what is there is not
    /// made again.
    fn add(
        &self,
        contents: &Contents,
        image: &Candidate,
        names: Given<'_>,
    ) -> Result<Vec<Loaded>, StoreError> {
        let _lock = self.begin()?;
        let mut notes = Vec::new();
        let mut changed = self.add_layers_or_none(contents, image, &mut notes)?;
        let Some((digest, manifest)) = self.known(image)? else {
            return Err(StoreError::Incomplete {
                name: label(image),
                path: self.root.join(LAYERS),
            });
        };
        let names = names_of(image, names, &digest, contents)?;
        notes.extend(names.notes);
        for (directory, digest, text) in [
            (BLOBS, &Digest::of(&image.config_text), &image.config_text),
            (MANIFESTS, &digest, &manifest),
        ] {
            let directory = self.root.join(directory);
            if !directory.join(digest.hex()).exists() {
                files::write(&self.staging(), &directory, digest.hex(), text)?;
                changed = true;
            }
        }
        let mut loaded = Vec::new();
        for reference in &names.references {
            let renamed = self.name(reference, &digest)?;
            loaded.push(Loaded {
                reference: reference.to_string(),
                digest: digest.clone(),
                changed: changed || renamed,
                notes: notes.clone(),
            });
        }
        Ok(loaded)
    }

    /// The image's digest and manifest, if they can be told without unpacking.
    fn known(&self, image: &Candidate) -> Result<Option<(Digest, Vec<u8>)>, StoreError> {
        if let Some(text) = &image.manifest {
            return Ok(Some((Digest::of(text), text.clone())));
        }
        let Some(sizes) = self.known_layers(image)? else { return Ok(None) };
        let text = files::to_json(&Manifest::synthetic(&image.config_text, &sizes));
        Ok(Some((Digest::of(&text), text)))
    }

    /// The image's layers with their sizes, if all can be used.
    fn known_layers(&self, image: &Candidate) -> Result<Option<Vec<(Digest, u64)>>, StoreError> {
        let mut layers = Vec::new();
        for id in chain(image) {
            match self.whole_layer(&id)? {
                Some(record) => layers.push((record.diff_id, record.size)),
                None => return Ok(None),
            }
        }
        Ok(Some(layers))
    }

    /// Whether the image and all its names are there already.
    fn present(
        &self,
        image: &Candidate,
        digest: &Digest,
        references: &[Reference],
    ) -> Result<bool, StoreError> {
        let there = self.manifest(digest).exists()
            && self.blob_path(&Digest::of(&image.config_text)).exists()
            && image.layers.iter().all(|layer| self.blob_path(layer.digest()).exists())
            && self.known_layers(image)?.is_some();
        if !there {
            return Ok(false);
        }
        for reference in references {
            let named = self.named(reference)?;
            let same = named
                .is_some_and(|name| name.reference == reference.as_str() && name.digest == *digest);
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What to call an image in an error.
fn label(image: &Candidate) -> String {
    match image.names.first() {
        Some(name) => name.clone(),
        None => Digest::of(image.manifest.as_ref().unwrap_or(&image.config_text)).to_string(),
    }
}

/// The names an image gets, and what is to be said about the others.
struct Names {
    references: Vec<Reference>,
    notes: Vec<String>,
}

/// The names a caller gives an image.
#[derive(Clone, Copy)]
struct Given<'a> {
    names: &'a [Reference],
    /// The indexes that lead to the image, which the store does not keep; a name may pin one.
    indexes: &'a [Digest],
}

fn names_of(
    image: &Candidate,
    given: Given<'_>,
    digest: &Digest,
    contents: &Contents,
) -> Result<Names, StoreError> {
    let pins_other = |name: &Reference| name.digest().is_some_and(|pinned| pinned != digest);
    let mut names = Names { references: Vec::new(), notes: Vec::new() };
    let Given { names: given, indexes } = given;
    let pins_index = |name: &Reference| name.digest().is_some_and(|d| indexes.contains(d));
    if let Some(name) = given.iter().find(|name| pins_other(name) && !pins_index(name)) {
        return Err(StoreError::PinnedDigest {
            file: contents.label().to_owned(),
            name: name.to_string(),
            found: digest.clone(),
        });
    }
    if !given.is_empty() {
        names.references.extend_from_slice(given);
        return Ok(names);
    }
    for text in &image.names {
        match Reference::parse(text) {
            Err(error) => names.notes.push(format!("name not taken: {error}")),
            Ok(name) if reserved(&name) => {
                names.notes.push(format!("name not taken: {name} is the built-in image"));
            }
            Ok(name) if pins_other(&name) => {
                names.notes.push(format!("name not taken: {name} pins another digest"));
            }
            Ok(name) if names.references.contains(&name) => {}
            Ok(name) => names.references.push(name),
        }
    }
    if names.references.is_empty() {
        names.notes.push(format!("the image has no name; its digest is used: {digest}"));
        names.references.push(Reference::from(digest));
    }
    Ok(names)
}

/// Only what is built in may have that name, or any archive could take its place.
fn reserved(name: &Reference) -> bool {
    name.as_str() == EMBEDDED
}
