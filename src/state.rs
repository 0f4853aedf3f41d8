//! What carboy remembers about its networks and bundles, and the locks around it.
//!
//! ```text
//! <state>/lock                        the host's lock: address claims and shared kernel objects
//! <state>/networks/<name>.lock        one network's lock
//! <state>/networks/<name>.json        its record
//! <state>/leases/<range>@<network>    a network's address range
//! <state>/ids/<first>@<container>     a bundle's ids, where it has some of its own
//! <state>/bundles/<container>.lock    one bundle's lock
//! <state>/bundles/<container>/        its record (record.json) and its run-time state (run/)
//! ```
//!
//! A record is written before the first change, so that whatever a crash leaves behind is known.
//! The state lives on tmpfs and goes with the kernel objects it describes. Locks are taken in the
//! order network, bundle, host.

mod categories;
mod ids;
mod leases;
mod shares;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Classify, ErrorKind};
use crate::fsutil::{self, LockFile, PathContext, PathError};
use crate::names::{ContainerName, NetworkName, Slug};
use crate::oci::spec::Container;
use crate::plan;
use crate::resource::Resource;
use crate::spec::NetworkSpec;

pub use self::leases::Lease;

/// The version of the records' form. A record of another version is not read.
const SCHEMA: u32 = 1;

/// The state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system refused.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A record that cannot be read: truncated, damaged or of another version.
    #[error("record {} cannot be read: {reason}", path.display())]
    Unreadable {
        /// The record.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Classify for StateError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Path(e) => e.kind(),
            Self::Unreadable { .. } => ErrorKind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Path(e) => e.hint(),
            Self::Unreadable { .. } => {
                Some("`carboy down SLUG` removes what is left of the bottle, and the record".into())
            }
        }
    }
}

/// How far the last call came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Changes were begun; any part of the resources may exist.
    Applying,
    /// All resources were in place.
    Done,
}

/// A network that exists, or is about to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// How far the last call came.
    pub phase: Phase,
    /// What was asked for.
    pub spec: NetworkSpec,
    /// Everything on the host that is the network's.
    pub resources: Vec<Resource>,
}

/// A bundle that exists, or is about to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleRecord {
    /// How far the last call came.
    pub phase: Phase,
    /// The bottle.
    pub slug: Slug,
    /// Its network.
    pub network: NetworkName,
    /// Everything on the host that is the bundle's; the container is the last.
    pub resources: Vec<Resource>,
}

impl BundleRecord {
    /// The container among the resources.
    pub fn container(&self) -> Option<&Container> {
        self.resources.iter().find_map(|r| match r {
            Resource::Container(c) => Some(&**c),
            _ => None,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    schema: u32,
    record: T,
}

/// The records and locks of one installation.
#[derive(Clone, Debug)]
pub struct State {
    root: PathBuf,
}

impl State {
    /// The state below `root`. Nothing is made until something is locked.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Takes the host's lock: address claims and shared kernel objects are serialised by it.
    ///
    /// # Errors
    /// What the file system said.
    pub fn lock_host(&self) -> Result<LockFile, StateError> {
        Ok(LockFile::acquire(&self.root.join("lock"))?)
    }

    /// Takes a network's lock.
    ///
    /// # Errors
    /// What the file system said.
    pub fn lock_network(&self, name: &NetworkName) -> Result<LockFile, StateError> {
        Ok(LockFile::acquire(&self.networks_dir().join(format!("{name}.lock")))?)
    }

    /// Takes a bundle's lock.
    ///
    /// # Errors
    /// What the file system said.
    pub fn lock_bundle(&self, name: &ContainerName) -> Result<LockFile, StateError> {
        Ok(LockFile::acquire(&self.bundles_dir().join(format!("{name}.lock")))?)
    }

    /// Reads a network's record.
    ///
    /// # Errors
    /// [`StateError::Unreadable`] if it is damaged, or what the file system said.
    pub fn network(&self, name: &NetworkName) -> Result<Option<NetworkRecord>, StateError> {
        read(&self.network_path(name))
    }

    /// Reads a bundle's record.
    ///
    /// # Errors
    /// [`StateError::Unreadable`] if it is damaged, or what the file system said.
    pub fn bundle(&self, name: &ContainerName) -> Result<Option<BundleRecord>, StateError> {
        read(&self.bundle_path(name))
    }

    /// Whether the network has a record, readable or not.
    pub fn has_network(&self, name: &NetworkName) -> bool {
        self.network_path(name).exists()
    }

    /// Whether the bundle has a record, readable or not.
    pub fn has_bundle(&self, name: &ContainerName) -> bool {
        self.bundle_path(name).exists()
    }

    /// Writes a network's record.
    ///
    /// # Errors
    /// What the file system said; the old record is then still there.
    pub fn write_network(&self, record: &NetworkRecord) -> Result<(), StateError> {
        write(&self.network_path(&record.spec.name), record)
    }

    /// Writes a bundle's record.
    ///
    /// # Errors
    /// What the file system said; the old record is then still there.
    pub fn write_bundle(
        &self,
        name: &ContainerName,
        record: &BundleRecord,
    ) -> Result<(), StateError> {
        fsutil::create_private_dir(&self.bundle_dir(name))?;
        write(&self.bundle_path(name), record)
    }

    /// Forgets a network and its leases; the lock is the caller's to remove.
    ///
    /// # Errors
    /// What the file system said.
    pub fn forget_network(&self, name: &NetworkName) -> Result<(), StateError> {
        self.forget_leases(name)?;
        let path = self.network_path(name);
        fsutil::remove_file(&path)?;
        // A process that was killed while it wrote the record leaves the new one unfinished.
        fsutil::remove_file(&fsutil::temporary(&path))?;
        Ok(())
    }

    /// Forgets a bundle and its run-time state; the lock is the caller's to remove.
    ///
    /// # Errors
    /// What the file system said.
    pub fn forget_bundle(&self, name: &ContainerName) -> Result<(), StateError> {
        self.forget_ids(name)?;
        self.forget_categories(name)?;
        // The record goes first: a directory without one is rubbish that anyone may remove.
        fsutil::remove_file(&self.bundle_path(name))?;
        fsutil::remove_tree(&self.bundle_dir(name))?;
        Ok(())
    }

    /// Removes the directories that nothing uses any more, and with the last of them the host's
    /// lock and the state directory itself. The caller does not hold the host's lock.
    ///
    /// # Errors
    /// What the file system said.
    pub fn tidy(&self) -> Result<(), StateError> {
        let dirs = [
            self.networks_dir(),
            self.leases_dir(),
            self.ids_dir(),
            self.categories_dir(),
            self.bundles_dir(),
        ];
        dirs.iter().for_each(|dir| fsutil::remove_dir_if_empty(dir));
        if dirs.iter().any(|dir| dir.exists()) {
            return Ok(());
        }
        // Whoever waits for the lock meanwhile makes it anew.
        self.lock_host()?.remove()?;
        fsutil::remove_dir_if_empty(&self.root);
        Ok(())
    }

    /// The names of all networks that have a record, sorted.
    ///
    /// # Errors
    /// What the file system said.
    pub fn network_names(&self) -> Result<Vec<NetworkName>, StateError> {
        let mut names = Vec::new();
        for name in entries(&self.networks_dir())? {
            let name = name.strip_suffix(".json").and_then(|n| NetworkName::new(n).ok());
            names.extend(name);
        }
        names.sort();
        Ok(names)
    }

    /// The names of all bundles that have a record, sorted.
    ///
    /// # Errors
    /// What the file system said.
    pub fn bundle_names(&self) -> Result<Vec<ContainerName>, StateError> {
        let mut names = Vec::new();
        for name in entries(&self.bundles_dir())? {
            let Ok(name) = ContainerName::new(name) else { continue };
            if self.bundle_path(&name).exists() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// All bundles with a readable record.
    ///
    /// # Errors
    /// What the file system said.
    pub fn bundles(&self) -> Result<Vec<(ContainerName, BundleRecord)>, StateError> {
        let mut bundles = Vec::new();
        for name in self.bundle_names()? {
            match self.bundle(&name) {
                Ok(Some(record)) => bundles.push((name, record)),
                // Gone since, or damaged: `down` deals with it by name.
                Ok(None) | Err(StateError::Unreadable { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(bundles)
    }

    fn networks_dir(&self) -> PathBuf {
        self.root.join("networks")
    }

    fn bundles_dir(&self) -> PathBuf {
        self.root.join("bundles")
    }

    fn network_path(&self, name: &NetworkName) -> PathBuf {
        self.networks_dir().join(format!("{name}.json"))
    }

    fn bundle_dir(&self, name: &ContainerName) -> PathBuf {
        plan::bundle_dir(&self.root, name)
    }

    fn bundle_path(&self, name: &ContainerName) -> PathBuf {
        self.bundle_dir(name).join("record.json")
    }
}

fn entries(dir: &Path) -> Result<Vec<String>, StateError> {
    let listing = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.at("list", dir)?,
    };
    let mut names = Vec::new();
    for entry in listing {
        // Names that are not UTF-8 are none of ours.
        names.extend(entry.at("list", dir)?.file_name().into_string());
    }
    Ok(names)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    let Some(content) = fsutil::read_optional(path)? else { return Ok(None) };
    let unreadable = |reason: String| StateError::Unreadable { path: path.to_owned(), reason };
    #[derive(Deserialize)]
    struct Version {
        schema: u32,
    }
    let Version { schema } =
        serde_json::from_slice(&content).map_err(|e| unreadable(e.to_string()))?;
    if schema != SCHEMA {
        return Err(unreadable(format!("its version is {schema}, this carboy reads {SCHEMA}")));
    }
    let envelope: Envelope<T> =
        serde_json::from_slice(&content).map_err(|e| unreadable(e.to_string()))?;
    Ok(Some(envelope.record))
}

fn write<T: Serialize>(path: &Path, record: &T) -> Result<(), StateError> {
    let content = serde_json::to_vec(&Envelope { schema: SCHEMA, record })
        .map_err(io::Error::from)
        .at("encode", path)?;
    Ok(fsutil::write_atomically(path, &content)?)
}
