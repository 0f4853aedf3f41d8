//! Names to digests. All names of one normal form share a file, so that a name is found by its
//! exact text first and by its normal form next with one read.

use serde::{Deserialize, Serialize};

use super::{LOCK, NAMES, Store, files};
use crate::oci::digest::Digest;
use crate::oci::error::StoreError;
use crate::oci::reference::{EMBEDDED, Reference};

/// A name as it was loaded, and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Name {
    pub(super) reference: String,
    pub(super) digest: Digest,
}

impl Store {
    /// What a name stands for: the same text, else the normal form's text, else the name of that
    /// normal form that was added last.
    pub(super) fn named(&self, reference: &Reference) -> Result<Option<Name>, StoreError> {
        let names = self.names_like(reference)?;
        let by_text = |text: &str| names.iter().find(|name| name.reference == text);
        Ok(by_text(reference.as_str())
            .or_else(|| by_text(reference.normal()))
            .or(names.last())
            .cloned())
    }

    /// All names, sorted.
    pub(super) fn names(&self) -> Result<Vec<Name>, StoreError> {
        let directory = self.root.join(NAMES);
        let mut all = Vec::new();
        for file in files::names(&directory)? {
            // One that is gone was removed meanwhile.
            let names: Option<Vec<Name>> = files::read_json(&directory.join(file))?;
            all.extend(names.unwrap_or_default());
        }
        all.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(all)
    }

    /// Makes a name stand for an image; returns whether it did not before. Needs the lock.
    pub(super) fn name(&self, reference: &Reference, digest: &Digest) -> Result<bool, StoreError> {
        let mut names = self.names_like(reference)?;
        let name = Name { reference: reference.as_str().to_owned(), digest: digest.clone() };
        if names.contains(&name) {
            return Ok(false);
        }
        names.retain(|other| other.reference != name.reference);
        names.push(name);
        self.write_names(reference, &names)?;
        Ok(true)
    }

    /// Gives an image a further name; one that stood for another image is taken from it. Returns
    /// the image's digest, and whether the name is new.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Reserved`] for the built-in image's name, and
    /// [`StoreError::PinnedDigest`] for one that pins another content.
    pub fn tag(&self, name: &str, new: &str) -> Result<(Digest, bool), StoreError> {
        let new = Reference::parse(new)?;
        if new.as_str() == EMBEDDED {
            return Err(StoreError::Reserved { name: new.to_string() });
        }
        let _lock = files::lock(&self.root.join(LOCK), files::Kind::Exclusive)?;
        let (found, digest) = self.find_or_abbreviated(name)?;
        if new.digest().is_some_and(|pinned| *pinned != digest) {
            let (file, name) = (found, new.to_string());
            return Err(StoreError::PinnedDigest { file, name, found: digest });
        }
        let changed = self.name(&new, &digest)?;
        Ok((digest, changed))
    }

    /// Takes a name away. Needs the lock.
    pub(super) fn unname(&self, reference: &Reference) -> Result<(), StoreError> {
        let mut names = self.names_like(reference)?;
        names.retain(|name| name.reference != reference.as_str());
        if !names.is_empty() {
            return self.write_names(reference, &names);
        }
        let directory = self.root.join(NAMES);
        files::remove_file(&directory.join(file_name(reference)))?;
        files::sync_directory(&directory)
    }

    fn names_like(&self, reference: &Reference) -> Result<Vec<Name>, StoreError> {
        let path = self.root.join(NAMES).join(file_name(reference));
        Ok(files::read_json(&path)?.unwrap_or_default())
    }

    fn write_names(&self, reference: &Reference, names: &[Name]) -> Result<(), StoreError> {
        let directory = self.root.join(NAMES);
        files::write(&self.staging(), &directory, &file_name(reference), &files::to_json(&names))
    }
}

/// A name may hold slashes and be longer than a file name; its hash is neither.
fn file_name(reference: &Reference) -> String {
    Digest::of(reference.normal().as_bytes()).hex().to_owned()
}
