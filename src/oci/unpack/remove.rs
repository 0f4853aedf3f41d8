//! Removal of an unpacked layer, whose directories may be unwritable for their owner.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{self, AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

/// Removes `name` in `parent` and all beneath; no error if it is not there. Follows no symbolic
/// link. Recursion is bounded by the depth that unpacking allows.
pub(in crate::oci) fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Linux says EISDIR; POSIX allows EPERM.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match fs::openat(parent, name, flags, Mode::empty()) {
        // Without root an image's mode can lock us out. Nobody else writes here, so what was
        // just found to be a directory still is.
        Err(Errno::ACCESS) => {
            fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            fs::openat(parent, name, flags, Mode::empty())?
        }
        opened => opened?,
    };
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let child = entry.file_name().to_bytes();
        if child == b"." || child == b".." {
            continue;
        }
        match remove_tree(directory.as_fd(), child) {
            Err(Errno::ACCESS) => {
                fs::fchmod(&directory, Mode::RWXU)?;
                remove_tree(directory.as_fd(), child)?;
            }
            removed => removed?,
        }
    }
    fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}
