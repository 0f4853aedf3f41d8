//! Copies of mounts with other attributes: `open_tree(2)`, `mount_setattr(2)`, `move_mount(2)`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

/// Whether what is mounted below is meant as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// The topmost mount alone.
    Top,
    /// Everything.
    All,
}

/// A copy of the mount of `path`, from there on, attached nowhere.
///
/// Needs CAP_SYS_ADMIN.
///
/// # Errors
/// What the kernel said.
pub(crate) fn copy(path: &Path, depth: Depth) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let below = match depth {
        Depth::Top => OpenTreeFlags::empty(),
        Depth::All => OpenTreeFlags::AT_RECURSIVE,
    };
    Ok(open_tree(CWD, path, flags | below)?)
}

/// Attaches what [`copy`] made.
///
/// # Errors
/// What the kernel said.
pub(crate) fn attach(mount: impl AsFd, target: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(mount, "", CWD, target, flags)?)
}

/// Sets attributes (`MOUNT_ATTR_…` of `linux/mount.h`) on a copy, which stays attached nowhere.
///
/// Needs Linux 5.12.
///
/// # Errors
/// What the kernel said.
pub(crate) fn set(mount: BorrowedFd<'_>, attributes: u64, depth: Depth) -> io::Result<()> {
    change(mount, attributes, 0, depth)
}

/// Has the copy show its files with other owners: an id on disk is seen as the host's id that it has
/// in the user namespace (`mount_setattr(2)`, "ID-mapped mounts").
///
/// # Errors
/// EINVAL if the file system cannot, or is mapped already.
pub(crate) fn map_ids(
    mount: BorrowedFd<'_>,
    user_namespace: BorrowedFd<'_>,
    depth: Depth,
) -> io::Result<()> {
    let namespace = u64::from(user_namespace.as_raw_fd().unsigned_abs());
    change(mount, libc::MOUNT_ATTR_IDMAP, namespace, depth)
}

fn change(mount: BorrowedFd<'_>, attr_set: u64, userns_fd: u64, depth: Depth) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set, attr_clr: 0, propagation: 0, userns_fd };
    let below = if depth == Depth::All { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the descriptors are open, the path is a NUL-terminated empty string, and the structure
    // is passed by a valid pointer with its own size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | below,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
