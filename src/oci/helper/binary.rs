//! The program a helper process runs: this very executable, through a mount of its own that
//! cannot be written.
//!
//! A helper that enters a container can be looked at from inside (`/proc/<pid>/exe`). Opened for
//! writing there, the host's binary could be replaced: CVE-2019-5736. The helper's executable is
//! therefore a read-only clone of the mount it lies on, attached nowhere: writing fails with
//! EROFS, and no path leads there. Unlike a sealed copy in memory it costs microseconds.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::oci::mount_attr::{self, Depth};

/// The handle's number is no smaller: the child is given descriptors of fixed small numbers
/// before it runs this.
const LOWEST_FD: i32 = 16;

/// A read-only handle of an executable file.
#[derive(Debug)]
pub(crate) struct SealedBinary {
    fd: OwnedFd,
}

impl SealedBinary {
    /// Clones the mount of `path`, or of the running executable.
    ///
    /// Needs Linux 5.12 (`mount_setattr(2)`) and CAP_SYS_ADMIN.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Self> {
        let path = path.unwrap_or(Path::new("/proc/self/exe"));
        // Above the numbers that are given away to the helper.
        let copy = mount_attr::copy(path, Depth::Top)?;
        let fd = rustix::io::fcntl_dupfd_cloexec(copy, LOWEST_FD)?;
        mount_attr::set(fd.as_fd(), libc::MOUNT_ATTR_RDONLY, Depth::Top)?;
        Ok(Self { fd })
    }

    /// A path that leads to it as long as this handle lives.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }
}
