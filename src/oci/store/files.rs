//! The store's files: the marker, locks, durable writes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, IFlags, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{CONFIGS, LAYERS, LOCK, MANIFESTS, NAMES, REMOVAL, STAGING};
use crate::oci::error::StoreError;
use crate::oci::unpack::{Form, remove_tree};

const SCHEMA: &str = "schema";
const PRIVILEGED: &str = "carboy images 1 privileged\n";
const ROOTLESS: &str = "carboy images 1 rootless\n";

/// How a lock is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Exclusive,
    Shared,
}

/// Opens or makes the store's directories and returns the form of its layers.
pub(super) fn open_root(root: &Path) -> Result<Form, StoreError> {
    if let Some(form) = read_schema(root)? {
        return Ok(form);
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
        .map_err(StoreError::io("create", root))?;
    // The directory itself is the lock: before the marker there is nothing else.
    let lock = open_directory(root)?;
    flock(&lock, root, Kind::Exclusive)?;
    if let Some(form) = read_schema(root)? {
        return Ok(form);
    }
    let ours = [LOCK, REMOVAL, NAMES, MANIFESTS, CONFIGS, LAYERS, STAGING, "lost+found"];
    if let Some(foreign) = names(root)?.into_iter().find(|name| !ours.contains(&name.as_str())) {
        return Err(StoreError::Schema {
            root: root.to_owned(),
            found: format!("no marker, but {foreign}"),
            want: PRIVILEGED.trim().to_owned(),
        });
    }
    rustix::fs::fchmod(&lock, Mode::RWXU).map_err(StoreError::os("set the mode of", root))?;
    for name in [NAMES, MANIFESTS, CONFIGS, LAYERS, STAGING] {
        let path = root.join(name);
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(StoreError::io("create", &path))?,
        }
    }
    let staging = root.join(STAGING);
    spread(&staging)?;
    let form = probe(&staging)?;
    let text = if form == Form::Privileged { PRIVILEGED } else { ROOTLESS };
    write(&staging, root, SCHEMA, text.as_bytes())?;
    Ok(form)
}

pub(super) fn read_schema(root: &Path) -> Result<Option<Form>, StoreError> {
    let Some(text) = read(&root.join(SCHEMA))? else { return Ok(None) };
    match text.as_slice() {
        text if text == PRIVILEGED.as_bytes() => Ok(Some(Form::Privileged)),
        text if text == ROOTLESS.as_bytes() => Ok(Some(Form::Rootless)),
        other => Err(StoreError::Schema {
            root: root.to_owned(),
            found: String::from_utf8_lossy(&other[..other.len().min(100)]).trim().to_owned(),
            want: PRIVILEGED.trim().to_owned(),
        }),
    }
}

/// Asks ext4 to spread the layers over the disk (`chattr +T` on the directory they are made in):
/// making many files is several times slower where many were just removed. Other file systems
/// refuse.
fn spread(staging: &Path) -> Result<(), StoreError> {
    let directory = open_directory(staging)?;
    if let Ok(flags) = rustix::fs::ioctl_getflags(&directory) {
        // It is only faster; where it is not possible nothing is lost.
        rustix::fs::ioctl_setflags(&directory, flags | IFlags::TOPDIR).unwrap_or_default();
    }
    Ok(())
}

/// Whether the kernel lets us write what overlayfs reads: `trusted.*` needs CAP_SYS_ADMIN in the
/// first user namespace, and who has that has the other capabilities of root.
fn probe(directory: &Path) -> Result<Form, StoreError> {
    let opened = open_directory(directory)?;
    let name = "trusted.overlay.carboy";
    let failed = StoreError::os("set an extended attribute of", directory);
    match rustix::fs::fsetxattr(&opened, name, b"", XattrFlags::empty()) {
        Ok(()) => match rustix::fs::fremovexattr(&opened, name) {
            Ok(()) => Ok(Form::Privileged),
            Err(errno) => Err(failed(errno)),
        },
        // Root would lose the owners in the images without a word.
        Err(Errno::PERM) if rustix::process::geteuid().is_root() && !in_user_namespace() => {
            Err(failed(Errno::PERM))
        }
        Err(Errno::PERM) => Ok(Form::Rootless),
        Err(errno) => Err(failed(errno)),
    }
}

/// Whether root is not the host's: the first user namespace maps all ids to themselves
/// (`user_namespaces(7)`).
fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let all = ["0", "0", "4294967295"];
    !map.is_empty() && !map.split_whitespace().eq(all)
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

fn flock(file: &OwnedFd, path: &Path, kind: Kind) -> Result<(), StoreError> {
    let operation = match kind {
        Kind::Exclusive => FlockOperation::LockExclusive,
        Kind::Shared => FlockOperation::LockShared,
    };
    loop {
        match rustix::fs::flock(file, operation) {
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
