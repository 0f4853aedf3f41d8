//! Files written so that a crash leaves the old or the new content, never half of one; and small
//! helpers that name the path in every error.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::{Classify, ErrorKind};

/// An error of the file system, with the path it is about.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}", path.display())]
pub struct PathError {
    /// What was tried: `open`, `write`, …
    pub action: &'static str,
    /// On which path.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl Classify for PathError {
    fn kind(&self) -> ErrorKind {
        match self.source.kind() {
            io::ErrorKind::PermissionDenied => ErrorKind::Permission,
            _ => ErrorKind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        (self.kind() == ErrorKind::Permission).then(|| {
            "run carboy as root, or move --state and --root to directories of yours".into()
        })
    }
}

/// Gives an [`io::Result`] the path it is about.
pub trait PathContext<T> {
    /// Wraps the error with what was tried and on which path.
    ///
    /// # Errors
    /// The same error, wrapped.
    fn at(self, action: &'static str, path: &Path) -> Result<T, PathError>;
}

impl<T> PathContext<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, PathError> {
        self.map_err(|source| PathError { action, path: path.to_owned(), source })
    }
}

impl<T> PathContext<T> for nix::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, PathError> {
        self.map_err(io::Error::from).at(action, path)
    }
}

impl<T> PathContext<T> for rustix::io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, PathError> {
        self.map_err(io::Error::from).at(action, path)
    }
}

/// Makes a directory and its parents, readable by the owner alone.
///
/// # Errors
/// What the kernel said; a directory that is there already is none.
pub fn create_private_dir(path: &Path) -> Result<(), PathError> {
    // It may be there and go between the standard library's two looks, when its last user removes
    // it. That does not happen often; a path that cannot be a directory stays what it is.
    const ATTEMPTS: u32 = 100;
    let make = || fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    for _ in 1..ATTEMPTS {
        match make() {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.at("create directory", path),
        }
    }
    make().at("create directory", path)
}

/// Where a file's new content is before it takes the file's place. It is always the same: what a
/// killed writer left is taken up by the next one, or found by who removes the file.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}

/// Replaces the file's content: a new file beside it (0600), synced, renamed over it. A file has
/// one writer at a time; that is the caller's to see to.
///
/// # Errors
/// What the kernel said; the old content is then still there.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<(), PathError> {
    let temporary = temporary(path);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .at("create", &temporary)?;
        file.write_all(content).at("write", &temporary)?;
        file.sync_all().at("sync", &temporary)?;
        fs::rename(&temporary, path).at("rename onto", path)
    })();
    if written.is_err() {
        // The first error is the one to tell; the leftover is swept with its directory.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Reads a file; `None` if it is not there.
///
/// # Errors
/// What the kernel said.
pub fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, PathError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).at("read", path),
    }
}

/// Removes a file; true if it was there.
///
/// # Errors
/// What the kernel said.
pub fn remove_file(path: &Path) -> Result<bool, PathError> {
    absent_is_fine(fs::remove_file(path)).at("remove", path)
}

/// Removes a directory and all in it; true if it was there. Symbolic links are not followed.
///
/// # Errors
/// What the kernel said.
pub fn remove_tree(path: &Path) -> Result<bool, PathError> {
    absent_is_fine(fs::remove_dir_all(path)).at("remove", path)
}

/// Removes a directory if it is there and empty.
pub fn remove_dir_if_empty(path: &Path) {
    // A directory that is in use stays, and that is all there is to say.
    let _ = fs::remove_dir(path);
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// A lock on a file that is removed when it is no longer needed.
#[derive(Debug)]
pub struct LockFile {
    path: PathBuf,
    file: File,
}

impl LockFile {
    /// Takes the exclusive lock, waiting for whoever has it; makes the directory if need be.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn acquire(path: &Path) -> Result<Self, PathError> {
        loop {
            if let Some(parent) = path.parent() {
                create_private_dir(parent)?;
            }
            match Self::attempt(path) {
                Ok(Some(lock)) => return Ok(lock),
                Ok(None) => {}
                Err(e) => {
                    // Nothing half-made stays: neither the directory nor those above it.
                    path.ancestors().skip(1).take(2).for_each(remove_dir_if_empty);
                    return Err(e);
                }
            }
        }
    }

    /// Takes the exclusive lock, waiting for whoever has it. `None` if the directory is not there,
    /// or went while this waited: then there is nothing left to guard.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn attempt(path: &Path) -> Result<Option<Self>, PathError> {
        Self::lock(path, FlockOperation::LockExclusive)
    }

    /// Takes the exclusive lock if nobody has it. `None` if somebody does, or if the directory is
    /// not there.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn attempt_now(path: &Path) -> Result<Option<Self>, PathError> {
        Self::lock(path, FlockOperation::NonBlockingLockExclusive)
    }

    fn lock(path: &Path, operation: FlockOperation) -> Result<Option<Self>, PathError> {
        let opened =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = match opened {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.at("open", path)?,
        };
        loop {
            match flock(&file, operation) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                other => break other.at("lock", path)?,
            }
        }
        // Whoever had it may have removed the file: then this lock guards nothing.
        Ok(same_file(&file, path)?.then(|| Self { path: path.to_owned(), file }))
    }

    /// Removes the file while the lock is held, so that nothing is left behind.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn remove(self) -> Result<(), PathError> {
        remove_file(&self.path).map(drop)
    }

    /// The descriptor that holds the lock: it is held as long as that, or a copy, is open.
    pub(crate) fn into_fd(self) -> std::os::fd::OwnedFd {
        self.file.into()
    }
}

impl std::os::fd::AsFd for LockFile {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn same_file(file: &File, path: &Path) -> Result<bool, PathError> {
    use std::os::unix::fs::MetadataExt;
    let ours = file.metadata().at("stat", path)?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).at("stat", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_replaces_and_leaves_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.json");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(read_optional(&path).unwrap().as_deref(), Some(b"two".as_slice()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn lock_waits_and_survives_the_removal_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/lock");
        let counter = std::sync::Arc::new(std::sync::Mutex::new(0));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (path, counter) = (path.clone(), counter.clone());
                std::thread::spawn(move || {
                    for _ in 0..50 {
                        let lock = LockFile::acquire(&path).unwrap();
                        let busy = counter.try_lock().expect("two threads hold the lock at once");
                        drop(busy);
                        lock.remove().unwrap();
                        remove_dir_if_empty(path.parent().unwrap());
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
    }

    #[test]
    fn absent_things_are_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none");
        assert!(read_optional(&path).unwrap().is_none());
        assert!(!remove_file(&path).unwrap());
        assert!(!remove_tree(&path).unwrap());
    }
}
