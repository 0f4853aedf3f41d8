//! Bringing images in.

use std::fs::DirBuilder;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::FileType;
use serde::Serialize;

use super::{CONFIGS, DIFF, LAYER_RECORD, LAYERS, LOCK, LayerRecord, MANIFESTS, Store, files};
use crate::oci::digest::Digest;
use crate::oci::error::StoreError;
use crate::oci::image_config::chain_ids;
use crate::oci::layout::{self, Candidate, LayerFile};
use crate::oci::manifest::{Manifest, Platform};
use crate::oci::reference::{EMBEDDED, Reference};
use crate::oci::source::{Contents, Source};
use crate::oci::unpack::{Lower, lookup, unpack};

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
        let contents = source.contents(&self.staging())?;
        if let Some(name) = name.as_ref().filter(|name| reserved(name) && !source.is_embedded()) {
            return Err(StoreError::Reserved { name: name.to_string() });
        }
        let images = layout::images(&contents, &Platform::host())?;
        if name.is_some() && images.len() > 1 {
            let images = images.iter().map(label).collect();
            let file = contents.label().to_owned();
            return Err(StoreError::SeveralImages { file, images });
        }
        let mut loaded = Vec::new();
        for image in &images {
            match self.unchanged(&contents, image, name.as_ref())? {
                Some(unchanged) => loaded.extend(unchanged),
                None => loaded.extend(self.add(&contents, image, name.as_ref())?),
            }
        }
        Ok(loaded)
    }

    /// What a load reports if the image and all its names are there already; `None` if not.
    fn unchanged(
        &self,
        contents: &Contents,
        image: &Candidate,
        name: Option<&Reference>,
    ) -> Result<Option<Vec<Loaded>>, StoreError> {
        let Some((digest, _)) = self.known(image)? else { return Ok(None) };
        let names = names_of(image, name, &digest, contents)?;
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
        name: Option<&Reference>,
    ) -> Result<Vec<Loaded>, StoreError> {
        let _lock = files::lock(&self.root.join(LOCK), files::Kind::Exclusive)?;
        files::empty(&self.staging())?;
        let mut notes = Vec::new();
        let added = self.add_layers(contents, image, &mut notes);
        if added.is_err() {
            // The next load would do it, too; the error at hand says more than one from here.
            files::empty(&self.staging()).unwrap_or_default();
        }
        let mut changed = added?;
        let Some((digest, manifest)) = self.known(image)? else {
            return Err(StoreError::Incomplete {
                name: label(image),
                path: self.root.join(LAYERS),
            });
        };
        let names = names_of(image, name, &digest, contents)?;
        notes.extend(names.notes);
        for (directory, digest, text) in [
            (CONFIGS, &Digest::of(&image.config_text), &image.config_text),
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

    /// The image's layers with their sizes, if all are there.
    fn known_layers(&self, image: &Candidate) -> Result<Option<Vec<(Digest, u64)>>, StoreError> {
        let mut layers = Vec::new();
        for id in chain(image) {
            match self.layer_record(&id)? {
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
            && self.config(&Digest::of(&image.config_text)).exists()
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

    /// Unpacks the layers that are missing; returns whether any was. All of them are checked and
    /// on disk before the first is given its name.
    fn add_layers(
        &self,
        contents: &Contents,
        image: &Candidate,
        notes: &mut Vec<String>,
    ) -> Result<bool, StoreError> {
        let mut staged = Vec::new();
        // The topmost first, as a path is looked up.
        let mut below: Vec<OwnedFd> = Vec::new();
        for (layer, id) in image.layers.iter().zip(chain(image)) {
            let mut diff = self.layer(&id).join(DIFF);
            if self.layer_record(&id)?.is_none() {
                let path = self.staging().join(fresh(&id));
                diff = path.join(DIFF);
                self.stage(contents, layer, &path, &below, notes)?;
                staged.push((path, self.layer(&id)));
            }
            below.insert(0, files::open_directory(&diff)?);
        }
        check_root(&below, contents)?;
        if staged.is_empty() {
            return Ok(false);
        }
        let staging = self.staging();
        rustix::fs::syncfs(files::open_directory(&staging)?.as_fd())
            .map_err(StoreError::os("sync", &staging))?;
        for (from, to) in &staged {
            // Only a directory that somebody emptied by hand can be there.
            if to.exists() {
                files::rename(to, &self.staging().join(fresh(&Digest::of(b"old"))))?;
            }
            files::rename(from, to)?;
        }
        files::sync_directory(&self.root.join(LAYERS))?;
        Ok(true)
    }

    /// Unpacks one layer into staging and checks both of its digests.
    fn stage(
        &self,
        contents: &Contents,
        layer: &LayerFile,
        path: &Path,
        below: &[OwnedFd],
        notes: &mut Vec<String>,
    ) -> Result<(), StoreError> {
        const WHAT: &str = "layer";
        let blob =
            contents.open(&layer.name)?.ok_or_else(|| contents.missing(WHAT, &layer.name))?;
        if let Some((_, size)) = &layer.blob {
            contents.check_size(WHAT, &layer.name, *size, blob.length())?;
        }
        let diff = path.join(DIFF);
        for directory in [path, &diff] {
            DirBuilder::new()
                .mode(0o700)
                .create(directory)
                .map_err(StoreError::io("create", directory))?;
        }
        let directory = files::open_directory(&diff)?;
        let unpacked = unpack(blob, directory.as_fd(), below, self.form, &self.limits);
        let blob = match &unpacked {
            Ok(unpacked) => Some(&unpacked.blob),
            Err(failure) => failure.blob.as_ref(),
        };
        // A damaged blob explains whatever went wrong with its content.
        if let (Some((want, _)), Some(found)) = (&layer.blob, blob) {
            contents.check_digest(WHAT, want, found.clone())?;
        }
        let unpacked = unpacked.map_err(|failure| StoreError::Layer {
            file: contents.label().to_owned(),
            layer: layer.name.clone(),
            entry: failure.entry,
            source: failure.fault,
        })?;
        if unpacked.diff_id != layer.diff_id {
            return Err(StoreError::DiffIdMismatch {
                file: contents.label().to_owned(),
                layer: layer.name.clone(),
                want: layer.diff_id.clone(),
                found: unpacked.diff_id,
            });
        }
        notes.extend(unpacked.notes);
        let record = LayerRecord { diff_id: unpacked.diff_id, size: unpacked.tar_size };
        let path = path.join(LAYER_RECORD);
        std::fs::write(&path, files::to_json(&record)).map_err(StoreError::io("write", &path))
    }
}

/// A name for a layer in staging. ext4 places a directory by a hash of its name, and is slow
/// where inodes were just freed: a layer that is loaded again must not get its old place.
fn fresh(chain_id: &Digest) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{}", chain_id.hex(), now.as_nanos())
}

fn chain(image: &Candidate) -> Vec<Digest> {
    let diff_ids: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
    chain_ids(&diff_ids)
}

/// A container runtime mounts on these; were one a symbolic link, it would lead the mount, or
/// what is written there, elsewhere.
fn check_root(layers: &[OwnedFd], contents: &Contents) -> Result<(), StoreError> {
    for path in ["/dev", "/proc", "/sys"] {
        if let Lower::Found(stat) = lookup(layers, &path.as_bytes()[1..])
            && FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
        {
            return Err(StoreError::UnsafeRoot { file: contents.label().to_owned(), path });
        }
    }
    Ok(())
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

fn names_of(
    image: &Candidate,
    given: Option<&Reference>,
    digest: &Digest,
    contents: &Contents,
) -> Result<Names, StoreError> {
    let pins_other = |name: &Reference| name.digest().is_some_and(|pinned| pinned != digest);
    let mut names = Names { references: Vec::new(), notes: Vec::new() };
    if let Some(name) = given {
        if pins_other(name) {
            return Err(StoreError::PinnedDigest {
                file: contents.label().to_owned(),
                name: name.to_string(),
                found: digest.clone(),
            });
        }
        names.references.push(name.clone());
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
