//! Puts labels on: on the program a process is about to become, and on files.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, XattrFlags};
use rustix::io::Errno;

/// The attribute that has a file's label (xattr(7)).
const NAME: &str = "security.selinux";
/// `linux/magic.h`.
const PROC_MAGIC: u64 = 0x9fa0;

/// Has the kernel give this thread another label when it next executes a program.
///
/// # Errors
/// What the kernel said; [`io::ErrorKind::Other`] if `/proc` is not what it should be: what is
/// written would go elsewhere, and the program would run without its label.
pub(crate) fn set_for_exec(label: &str) -> io::Result<()> {
    open_own("exec", OFlags::WRONLY)?.write_all(label.as_bytes())
}

/// The label of this thread.
///
/// # Errors
/// As [`set_for_exec`].
pub(crate) fn own() -> io::Result<String> {
    let mut label = String::new();
    open_own("current", OFlags::RDONLY)?.read_to_string(&mut label)?;
    Ok(label.trim_end_matches(['\0', '\n']).to_owned())
}

/// A file of this thread's in `/proc`, and of nothing that is mounted over it.
fn open_own(name: &str, flags: OFlags) -> io::Result<File> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", directory, Mode::empty())?;
    if rustix::fs::fstatfs(&proc)?.f_type.cast_unsigned() != PROC_MAGIC {
        return Err(io::Error::other("something else is mounted on /proc"));
    }
    let path = format!("thread-self/attr/{name}");
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(&proc, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    Ok(File::from(file))
}

/// Labels what is open, a handle that can only be looked at (`O_PATH`) included. What has the label is not
/// written to, and what cannot have one is left as it is.
///
/// # Errors
/// What the kernel said.
pub(crate) fn label(fd: &impl AsFd, label: &str) -> io::Result<()> {
    // By way of `/proc`, for the calls that take a descriptor take no such handle. It leads to what is
    // open, and is not followed further if that is a symbolic link.
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let mut has = [0; 4096];
    match rustix::fs::getxattr(&path, NAME, &mut has) {
        Ok(length) if without_nul(&has[..length]) == label.as_bytes() => return Ok(()),
        Err(Errno::NOTSUP) => return Ok(()),
        // One without a label, or with one that is longer than any of ours.
        Ok(_) | Err(Errno::NODATA | Errno::RANGE) => {}
        Err(e) => return Err(e.into()),
    }
    let value = [label.as_bytes(), b"\0"].concat();
    match rustix::fs::setxattr(&path, NAME, &value, XattrFlags::empty()) {
        Ok(()) | Err(Errno::NOTSUP) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Labels are kept with or without a NUL at their end.
fn without_nul(label: &[u8]) -> &[u8] {
    label.strip_suffix(b"\0").unwrap_or(label)
}
