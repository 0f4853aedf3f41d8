//! Secrets on their way into a container: over the pipe to its monitor, and onto a file system in
//! memory that only the monitor and the container see.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::identity::ProcessIdentity;
use super::rootfs::Rootfs;
use super::runtime_error::RuntimeError;
use super::secret::{DIRECTORY, SIZE_MAX, Secret};
use super::spec::{Container, Volume};
use super::user::ResolvedUser;
use crate::fsutil::{self, PathContext};

/// The contents as a monitor is sent them.
///
/// # Errors
/// [`RuntimeError::SecretsUnknown`] if the container is known from a record alone.
pub(crate) fn contents(container: &Container) -> Result<Vec<String>, RuntimeError> {
    let encoded = container.secrets.iter().map(|secret| {
        let content = secret.content.bytes();
        content
            .map(|bytes| BASE64.encode(bytes))
            .ok_or_else(|| RuntimeError::SecretsUnknown { container: container.name.to_string() })
    });
    encoded.collect()
}

/// Gives a container that is known from a record alone the secrets that its running process has.
///
/// # Errors
/// What the kernel said; [`RuntimeError::SecretsUnknown`] if the process ends meanwhile.
pub(crate) fn recall(
    container: &mut Container,
    process: &ProcessIdentity,
) -> Result<(), RuntimeError> {
    if container.secrets.is_empty() {
        return Ok(());
    }
    // The container cannot write there, nor mount over it without CAP_SYS_ADMIN.
    let rootfs = Rootfs::of_process(process.pid)?;
    for secret in &mut container.secrets {
        let content = rootfs.read(&Path::new(DIRECTORY).join(&secret.name), SIZE_MAX)?;
        secret.fill(content);
    }
    // The files of the right process: they go with it.
    let alive = process.open().at("look at the process of", &container.state)?;
    alive
        .map(drop)
        .ok_or_else(|| RuntimeError::SecretsUnknown { container: container.name.to_string() })
}

/// Gives a container that came over the pipe its secrets back.
///
/// # Errors
/// [`RuntimeError::SecretsUnknown`] if they did not come with it.
fn fill(container: &mut Container, contents: &[String]) -> Result<(), RuntimeError> {
    let unknown = || RuntimeError::SecretsUnknown { container: container.name.to_string() };
    let decoded: Option<Vec<Vec<u8>>> =
        contents.iter().map(|text| BASE64.decode(text.as_bytes()).ok()).collect();
    let decoded = decoded.filter(|all| all.len() == container.secrets.len()).ok_or_else(unknown)?;
    for (secret, content) in container.secrets.iter_mut().zip(decoded) {
        secret.fill(content);
    }
    Ok(())
}

/// Where the container is to see its secrets. The first start is sent their contents; the next ones
/// of the same monitor find them where the first one put them.
///
/// # Errors
/// [`RuntimeError::SecretsUnknown`] if they are in neither place, or what the kernel said.
///
/// The user is given by the host's ids.
pub(crate) fn provide(
    container: &mut Container,
    contents: &[String],
    user: &ResolvedUser,
) -> Result<Option<Volume>, RuntimeError> {
    let directory = directory(container);
    let there = |secret: &Secret| directory.join(&secret.name).exists();
    // On the host's side of the mount namespace the directory is empty.
    if !container.secrets.is_empty() && container.secrets.iter().all(there) {
        return Ok(Some(volume(directory)));
    }
    fill(container, contents)?;
    mount(container, user)
}

fn directory(container: &Container) -> PathBuf {
    container.state.join("secrets")
}

fn volume(source: PathBuf) -> Volume {
    Volume {
        source,
        destination: PathBuf::from(DIRECTORY),
        read_only: true,
        idmap: false,
        relabel: None,
    }
}

/// Puts the secrets into a file system of their own and says where the container is to see it:
/// read-only, each file readable by the container's user alone. Runs in the monitor, whose mount
/// namespace is its own.
///
/// # Errors
/// What the kernel said.
pub(crate) fn mount(
    container: &Container,
    user: &ResolvedUser,
) -> Result<Option<Volume>, RuntimeError> {
    if container.secrets.is_empty() {
        return Ok(None);
    }
    let directory = directory(container);
    fsutil::create_private_dir(&directory)?;
    // Memory is swapped to disk; Linux 6.4 and later can be told not to.
    let label = container.selinux.as_ref().map(|labels| labels.file.as_str());
    match mount_memory(&directory, true, label) {
        Err(Errno::INVAL) => mount_memory(&directory, false, label),
        other => other,
    }
    .at("mount a tmpfs on", &directory)?;
    for secret in &container.secrets {
        let path = directory.join(&secret.name);
        let content = secret.content.bytes().unwrap_or_default();
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(&path)
            .at("create", &path)?;
        file.write_all(content).at("write", &path)?;
        give(&file, user).at("chown", &path)?;
    }
    let top = File::open(&directory).at("open", &directory)?;
    give(&top, user).at("chown", &directory)?;
    Ok(Some(volume(directory)))
}

fn give(file: &impl AsFd, user: &ResolvedUser) -> std::io::Result<()> {
    fchown(file, Some(user.uid), Some(user.gid))
}

fn mount_memory(directory: &Path, no_swap: bool, label: Option<&str>) -> Result<(), Errno> {
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "mode", "0500")?;
    if no_swap {
        fsconfig_set_flag(&fs, "noswap")?;
    }
    if let Some(label) = label {
        fsconfig_set_string(&fs, "context", label)?;
    }
    fsconfig_create(&fs)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    move_mount(mount, "", CWD, directory, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}
