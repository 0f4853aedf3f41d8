//! The store's files: locks, durable writes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::oci::error::StoreError;
use crate::oci::unpack::remove_tree;

/// How a lock is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Exclusive,
    Shared,
}

/// Takes a lock; it is free again when the result is dropped, or the process dies.
pub(super) fn lock(path: &Path, kind: Kind) -> Result<OwnedFd, StoreError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(StoreError::io("open", path))?;
    let file = OwnedFd::from(file);
    flock(&file, path, kind)?;
    Ok(file)
}

pub(super) fn flock(file: impl AsFd, path: &Path, kind: Kind) -> Result<(), StoreError> {
    let operation = match kind {
        Kind::Exclusive => FlockOperation::LockExclusive,
        Kind::Shared => FlockOperation::LockShared,
    };
    loop {
        match rustix::fs::flock(&file, operation) {
            Err(Errno::INTR) => {}
            done => return done.map_err(StoreError::os("lock", path)),
        }
    }
}

/// Opens a directory for reading, never through a symbolic link in its last place.
pub(super) fn open_directory(path: &Path) -> Result<OwnedFd, StoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(StoreError::os("open", path))
}

/// The names in a directory.
pub(super) fn names(directory: &Path) -> Result<Vec<String>, StoreError> {
    let failed = || StoreError::io("read", directory);
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed())? {
        names.push(entry.map_err(failed())?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// A whole file; `None` if it is not there.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::io("read", path)(source)),
    }
}

/// A JSON file; `None` if it is not there.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let Some(text) = read(path)? else { return Ok(None) };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| StoreError::Damaged { path: path.to_owned(), source })
}

/// A value as JSON.
pub(super) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value)
        .expect("the store's records are strings and numbers, with string keys")
}

/// Writes a file so that it is there whole or not at all, also after a power cut. The caller
/// holds the lock that goes with `staging`.
pub(super) fn write(
    staging: &Path,
    directory: &Path,
    name: &str,
    bytes: &[u8],
) -> Result<(), StoreError> {
    let temporary = staging.join(format!("{name}.tmp"));
    let write = || {
        let options = || {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            options
        };
        let mut file: File = options().open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(StoreError::io("write", &temporary))?;
    rename(&temporary, &directory.join(name))?;
    sync_directory(directory)
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(StoreError::io("rename to", to))
}

pub(super) fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(StoreError::io("remove", path)),
    }
}

/// Makes a rename or removal in `directory` last.
pub(super) fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    let opened = open_directory(directory)?;
    rustix::fs::fsync(&opened).map_err(StoreError::os("sync", directory))
}

/// Bytes of all files below a directory.
pub(super) fn size(directory: &Path) -> Result<u64, StoreError> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory).map_err(StoreError::io("read", directory))? {
        let entry = entry.map_err(StoreError::io("read", directory))?;
        let about = entry.metadata().map_err(StoreError::io("read", entry.path()))?;
        bytes += if about.is_dir() { size(&entry.path())? } else { about.len() };
    }
    Ok(bytes)
}

/// Removes all that is in a directory.
pub(super) fn empty(directory: &Path) -> Result<(), StoreError> {
    let entries = fs::read_dir(directory).map_err(StoreError::io("read", directory))?;
    let opened = open_directory(directory)?;
    for entry in entries {
        let name = entry.map_err(StoreError::io("read", directory))?.file_name();
        remove_tree(opened.as_fd(), name.as_bytes())
            .map_err(StoreError::os("remove", directory.join(&name)))?;
    }
    Ok(())
}
