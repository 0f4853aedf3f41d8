//! The pipes between a command in a container and its helper.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};
use rustix::fs::OFlags;

use crate::fsutil::{self, PathContext, PathError};
use crate::oci::selinux::attribute;
use crate::oci::spec::Container;
use crate::oci::user::ResolvedUser;

/// A pipe: the end to read from, the end to write to.
///
/// Where the container has SELinux labels the pipe has one, too. A pipe without a name has the label of
/// its maker, and policies let nobody change that: so this one has a name, until both ends are open.
///
/// # Errors
/// What the kernel said.
pub(super) fn new(container: &Container) -> Result<(OwnedFd, OwnedFd), PathError> {
    match &container.selinux {
        None => {
            let (read, write) = io::pipe().at("make", Path::new("pipe"))?;
            Ok((read.into(), write.into()))
        }
        Some(labels) => {
            let path = container.state.join(format!("exec-{}.pipe", std::process::id()));
            // What a process of that number may have left.
            fsutil::remove_file(&path)?;
            nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).at("make pipe", &path)?;
            let ends = open(&path);
            fsutil::remove_file(&path)?;
            let (read, write) = ends.at("open", &path)?;
            attribute::label(&read, &labels.file).at("label", &path)?;
            Ok((read, write))
        }
    }
}

fn open(path: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
    // Not to wait for who writes.
    let read = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let write: File = OpenOptions::new().write(true).open(path)?;
    rustix::fs::fcntl_setfl(&read, rustix::fs::fcntl_getfl(&read)? - OFlags::NONBLOCK)?;
    Ok((read.into(), write.into()))
}

/// Makes a stream the user's: `/dev/stdout` is opened anew by whoever writes to it.
///
/// # Errors
/// What the kernel said.
pub(super) fn give(stream: &OwnedFd, user: &ResolvedUser) -> Result<(), PathError> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    nix::unistd::fchown(stream, Some(uid), Some(gid)).at("chown", Path::new("pipe"))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_pipe_with_a_name_is_as_one_without() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let (read, write) = open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (mut read, mut write) = (File::from(read), File::from(write));
        write.write_all(b"through").unwrap();
        drop(write);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }
}
