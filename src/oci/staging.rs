//! Where a container with a user namespace of its own finds what is mounted for it.
//!
//! libcontainer mounts by path, as root of the new user namespace, which is nobody on the host: the
//! way to carboy's own directories is closed to it, and so may be the way to a volume's source. So
//! the monitor makes copies of these mounts in a place whose every directory can be passed, a file
//! system in memory that covers the first closed directory on the way, in the monitor's own mount
//! namespace alone. What the monitor itself needs of the covered directory is there again under the
//! same path.
//!
//! A new sysfs shows the devices of a network namespace, and only who owns that may mount it. It is
//! the host's, so this is mounted here too.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, unmount,
};

use super::mount_attr::{self, Depth};
use super::namespaces::Visit;
use super::rootfs::Rootfs;
use super::runtime_error::RuntimeError;
use super::spec::{Container, Volume};
use super::user_namespace::Mapping;
use crate::fsutil::{PathContext, PathError};

/// What volumes are whatever their file system says.
const VOLUME_ATTRIBUTES: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;

/// Tells the cover from what is on the host.
const MARKER: &str = ".carboy-staging";

/// The paths that the container's specification has.
#[derive(Debug)]
pub(crate) struct Staged {
    /// Its root file system.
    pub(crate) rootfs: PathBuf,
    /// A read-only sysfs of its network namespace.
    pub(crate) sysfs: PathBuf,
}

/// The container's directory of its own among those that carboy has for all.
fn directory(container: &Container) -> &Path {
    container.state.parent().unwrap_or(&container.state)
}

/// Makes the place, and has the volumes' sources be there.
///
/// # Errors
/// What the kernel said; [`RuntimeError::IdMap`] for a volume whose file system cannot map ids.
pub(crate) fn build(container: &mut Container, mapping: &Mapping) -> Result<Staged, RuntimeError> {
    let sysfs = sysfs(&container.netns)?;
    let root = copy(&Rootfs::mount_point(container), Depth::All)?;
    let sources = container.volumes.iter().map(|volume| source(volume, mapping));
    let sources = sources.collect::<Result<Vec<_>, _>>()?;
    let cover = closed(directory(container));
    // The monitor goes on to use these: its own directory, the one with the log and the events, and
    // the network namespace.
    let root_of_all = container.storage.ancestors().nth(2);
    let needed = [Some(container.state.as_path()), root_of_all, Some(&container.netns)];
    let covered = needed.into_iter().flatten().filter(|path| path.starts_with(&cover));
    let kept = covered.map(|path| Ok((path, copy(path, Depth::All)?)));
    let kept = kept.collect::<Result<Vec<_>, PathError>>()?;
    let memory = of_kernel("tmpfs").at("make a tmpfs for", &cover)?;
    mount_attr::attach(memory, &cover).at("mount on", &cover)?;
    let marker = cover.join(MARKER);
    File::create(&marker).at("create", &marker)?;
    for (path, mount) in kept {
        place(mount, path)?;
    }
    let staged = Staged {
        rootfs: directory(container).join("rootfs"),
        sysfs: directory(container).join("sys"),
    };
    place(root, &staged.rootfs)?;
    place(sysfs, &staged.sysfs)?;
    let volumes = directory(container).join("volumes");
    for (number, (volume, mount)) in container.volumes.iter_mut().zip(sources).enumerate() {
        volume.source = volumes.join(number.to_string());
        place(mount, &volume.source)?;
    }
    Ok(staged)
}

/// Takes the place away, so that the next start can make it anew. A monitor that took over from
/// another has made none.
///
/// # Errors
/// What the kernel said.
pub(crate) fn remove(container: &Container) -> Result<(), PathError> {
    let cover = directory(container).ancestors().find(|path| path.join(MARKER).exists());
    match cover {
        Some(cover) => unmount(cover, UnmountFlags::DETACH).at("unmount", cover),
        None => Ok(()),
    }
}

/// The first directory on the way to this one that not everybody may pass.
fn closed(directory: &Path) -> PathBuf {
    // One that cannot be looked at is not open.
    let is_open =
        |path: &Path| fs::metadata(path).is_ok_and(|about| about.permissions().mode() & 0o001 != 0);
    let way: Vec<&Path> = directory.ancestors().collect();
    let first = way.into_iter().rev().find(|path| !is_open(path));
    first.unwrap_or(directory).to_owned()
}

fn copy(path: &Path, depth: Depth) -> Result<OwnedFd, PathError> {
    mount_attr::copy(path, depth).at("copy the mount of", path)
}

/// A volume's source with all that is mounted below it, protected already: what is locked in a user
/// namespace cannot be changed there.
fn source(volume: &Volume, mapping: &Mapping) -> Result<OwnedFd, RuntimeError> {
    let mount = copy(&volume.source, Depth::All)?;
    if volume.idmap {
        mount_attr::map_ids(mount.as_fd(), mapping.namespace(), Depth::All)
            .map_err(|e| RuntimeError::id_map(&volume.source, e))?;
    }
    let read_only = if volume.read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    mount_attr::set(mount.as_fd(), VOLUME_ATTRIBUTES | read_only, Depth::All)
        .at("protect the mount of", &volume.source)?;
    Ok(mount)
}

/// Attaches a mount at a path that is made for it.
fn place(mount: OwnedFd, path: &Path) -> Result<(), PathError> {
    let about = rustix::fs::fstat(&mount).at("stat what is mounted on", path)?;
    let is_directory = FileType::from_raw_mode(about.st_mode) == FileType::Directory;
    let directory = if is_directory { Some(path) } else { path.parent() };
    if let Some(directory) = directory {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .at("create directory", directory)?;
    }
    if !is_directory {
        File::create(path).at("create", path)?;
    }
    mount_attr::attach(mount, path).at("mount on", path)
}

/// A new file system of the kernel's, attached nowhere.
fn of_kernel(kind: &str) -> io::Result<OwnedFd> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    if kind == "tmpfs" {
        fsconfig_set_string(&fs, "mode", "0755")?;
    }
    fsconfig_create(&fs)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A sysfs of the network namespace at this path, not to be written.
fn sysfs(netns: &Path) -> Result<OwnedFd, PathError> {
    let visit = Visit::begin(netns)?;
    let mount = of_kernel("sysfs").at("make a sysfs of", netns)?;
    visit.end()?;
    mount_attr::set(mount.as_fd(), libc::MOUNT_ATTR_RDONLY, Depth::Top)
        .at("protect the sysfs of", netns)?;
    Ok(mount)
}
