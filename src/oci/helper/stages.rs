//! A monitor's stages. It starts a container with libcontainer, then replaces itself by a fresh
//! run of the same program that only watches: the same process, with the same children, mounts and
//! lock, but with nothing in its memory of what the start needed. To start the container again it
//! replaces itself once more. A monitor that takes over from one that was killed begins by
//! watching, so that there is one way to do each.
#![allow(unsafe_code)]

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::io::FdFlags;

use super::protocol::MONITOR_NAME;
use crate::names::ContainerName;

/// What a monitor does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Watch the container that runs, or is about to be started again.
    Watch,
    /// Start the container again.
    StartAgain,
}

impl Stage {
    const ALL: [Self; 2] = [Self::Watch, Self::StartAgain];

    fn name(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::StartAgain => "start-again",
        }
    }
}

/// A stage that this process was told to enter.
pub(super) struct Entered {
    pub(super) stage: Stage,
    /// The container's directory on tmpfs.
    pub(super) state: PathBuf,
    /// The monitor's lock.
    pub(super) lock: OwnedFd,
}

/// Replaces this process; returns only if that fails.
pub(super) fn enter(
    stage: Stage,
    container: &ContainerName,
    state: &Path,
    lock: OwnedFd,
) -> io::Error {
    let replaced = (|| {
        rustix::io::fcntl_setfd(&lock, FdFlags::empty())?;
        let number = lock.as_raw_fd().to_string();
        let arguments: [&[u8]; 5] = [
            MONITOR_NAME.as_bytes(),
            container.as_str().as_bytes(),
            stage.name().as_bytes(),
            state.as_os_str().as_bytes(),
            number.as_bytes(),
        ];
        let arguments = arguments.map(CString::new).into_iter().collect::<Result<Vec<_>, _>>()?;
        // Through the sealed mount it was itself run from: see `binary.rs`.
        nix::unistd::execve(c"/proc/self/exe", &arguments, &[] as &[CString])?;
        Ok(())
    })();
    match replaced {
        Err(error) => error,
        Ok(()) => io::Error::other("execve returned"),
    }
}

/// The stage that this process was told to enter on its command line: the arguments after its own
/// name and the container's. Closes what the stage before left open.
pub(super) fn entered(mut arguments: impl Iterator<Item = OsString>) -> Option<Entered> {
    let name = arguments.next()?;
    let stage = Stage::ALL.into_iter().find(|stage| name == stage.name())?;
    let state = PathBuf::from(OsString::from_vec(arguments.next()?.into_vec()));
    let number: u32 = arguments.next()?.to_str()?.parse().ok()?;
    let lock = i32::try_from(number).ok().filter(|number| *number > 2)?;
    // SAFETY: nothing in this process owns a descriptor above its standard streams: it has just
    // begun. The lock's was left open for it by the stage before.
    let lock = unsafe {
        libc::close_range(3, number - 1, 0);
        libc::close_range(number + 1, libc::c_uint::MAX, 0);
        OwnedFd::from_raw_fd(lock)
    };
    rustix::io::fcntl_setfd(&lock, FdFlags::CLOEXEC).ok()?;
    Some(Entered { stage, state, lock })
}
