//! The store's marker: its version, and the form of its layers. What an older version made is brought
//! to this one.
//!
//! Version 1 kept configurations in `configs/` and no layers' blobs. Its images run as they are; the
//! blobs come with the next load of the same image.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{IFlags, Mode, XattrFlags};
use rustix::io::Errno;

use super::files::{self, Kind};
use super::{BLOBS, LAYERS, LOCK, MANIFESTS, NAMES, PARTIAL, REMOVAL, STAGING};
use crate::oci::digest::Digest;
use crate::oci::error::StoreError;
use crate::oci::unpack::Form;

const SCHEMA: &str = "schema";

/// Where version 1 kept configurations.
const OLD_CONFIGS: &str = "configs";

/// The version of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Without layers' blobs.
    One,
    /// This one.
    Two,
}

const MARKERS: [(&str, Version, Form); 4] = [
    ("carboy images 2 privileged\n", Version::Two, Form::Privileged),
    ("carboy images 2 rootless\n", Version::Two, Form::Rootless),
    ("carboy images 1 privileged\n", Version::One, Form::Privileged),
    ("carboy images 1 rootless\n", Version::One, Form::Rootless),
];

/// What this version writes.
fn marker(form: Form) -> &'static str {
    if form == Form::Privileged { MARKERS[0].0 } else { MARKERS[1].0 }
}

/// The marker's content; `None` if there is no store.
pub(super) fn read(root: &Path) -> Result<Option<(Version, Form)>, StoreError> {
    let Some(text) = files::read(&root.join(SCHEMA))? else { return Ok(None) };
    match MARKERS.iter().find(|(marker, ..)| text == marker.as_bytes()) {
        Some((_, version, form)) => Ok(Some((*version, *form))),
        None => Err(StoreError::Schema {
            root: root.to_owned(),
            found: String::from_utf8_lossy(&text[..text.len().min(100)]).trim().to_owned(),
            want: marker(Form::Privileged).trim().to_owned(),
        }),
    }
}

/// Where version 1 kept a configuration.
pub(super) fn old_config(root: &Path, digest: &Digest) -> PathBuf {
    root.join(OLD_CONFIGS).join(digest.hex())
}

/// Opens or makes the store's directories and returns the form of its layers.
pub(super) fn open_root(root: &Path) -> Result<Form, StoreError> {
    match read(root)? {
        Some((Version::Two, form)) => return Ok(form),
        Some((Version::One, form)) => return migrate(root, form),
        None => {}
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
        .map_err(StoreError::io("create", root))?;
    // The directory itself is the lock: before the marker there is nothing else.
    let lock = files::open_directory(root)?;
    files::flock(&lock, root, Kind::Exclusive)?;
    if let Some((_, form)) = read(root)? {
        return Ok(form);
    }
    let blobs = BLOBS.split('/').next().unwrap_or_default();
    let ours = [LOCK, REMOVAL, NAMES, MANIFESTS, blobs, PARTIAL, LAYERS, STAGING, "lost+found"];
    if let Some(foreign) =
        files::names(root)?.into_iter().find(|name| !ours.contains(&name.as_str()))
    {
        return Err(StoreError::Schema {
            root: root.to_owned(),
            found: format!("no marker, but {foreign}"),
            want: marker(Form::Privileged).trim().to_owned(),
        });
    }
    rustix::fs::fchmod(&lock, Mode::RWXU).map_err(StoreError::os("set the mode of", root))?;
    make_directories(root)?;
    let staging = root.join(STAGING);
    spread(&staging)?;
    let form = probe(&staging)?;
    files::write(&staging, root, SCHEMA, marker(form).as_bytes())?;
    Ok(form)
}

fn make_directories(root: &Path) -> Result<(), StoreError> {
    for name in [NAMES, MANIFESTS, BLOBS, PARTIAL, LAYERS, STAGING] {
        let path = root.join(name);
        // Of those only `blobs` has a parent to be made.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(StoreError::io("create", &path))?;
    }
    Ok(())
}

/// Brings a store of version 1 to this one: its configurations become blobs. Killed at any point, the
/// next call goes on; the marker is changed last.
fn migrate(root: &Path, form: Form) -> Result<Form, StoreError> {
    let _locks = [
        files::lock(&root.join(REMOVAL), Kind::Exclusive)?,
        files::lock(&root.join(LOCK), Kind::Exclusive)?,
    ];
    if let Some((Version::Two, form)) = read(root)? {
        return Ok(form);
    }
    make_directories(root)?;
    let (old, new) = (root.join(OLD_CONFIGS), root.join(BLOBS));
    if old.is_dir() {
        for name in files::names(&old)? {
            files::rename(&old.join(&name), &new.join(&name))?;
        }
        files::sync_directory(&new)?;
        fs::remove_dir(&old).map_err(StoreError::io("remove", &old))?;
    }
    files::write(&root.join(STAGING), root, SCHEMA, marker(form).as_bytes())?;
    Ok(form)
}

/// Asks ext4 to spread the layers over the disk (`chattr +T` on the directory they are made in):
/// making many files is several times slower where many were just removed. Other file systems
/// refuse.
fn spread(staging: &Path) -> Result<(), StoreError> {
    let directory = files::open_directory(staging)?;
    if let Ok(flags) = rustix::fs::ioctl_getflags(&directory) {
        // It is only faster; where it is not possible nothing is lost.
        rustix::fs::ioctl_setflags(&directory, flags | IFlags::TOPDIR).unwrap_or_default();
    }
    Ok(())
}

/// Whether the kernel lets us write what overlayfs reads: `trusted.*` needs CAP_SYS_ADMIN in the
/// first user namespace, and who has that has the other capabilities of root.
fn probe(directory: &Path) -> Result<Form, StoreError> {
    let opened = files::open_directory(directory)?;
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
