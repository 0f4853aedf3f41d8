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
    /// What else the stage before keeps open.
    pub(super) kept: Vec<OwnedFd>,
}

/// Replaces this process; what is in `kept` stays open. Returns only if that fails.
pub(super) fn enter(
    stage: Stage,
    container: &ContainerName,
    state: &Path,
    lock: OwnedFd,
    kept: Vec<OwnedFd>,
) -> io::Error {
    let replaced = (|| {
        let mut numbers = Vec::new();
        for fd in std::iter::once(&lock).chain(&kept) {
            rustix::io::fcntl_setfd(fd, FdFlags::empty())?;
            numbers.push(fd.as_raw_fd().to_string());
        }
        let numbers = numbers.join(",");
        let arguments: [&[u8]; 5] = [
            MONITOR_NAME.as_bytes(),
            container.as_str().as_bytes(),
            stage.name().as_bytes(),
            state.as_os_str().as_bytes(),
            numbers.as_bytes(),
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
    let numbers = arguments.next()?.into_string().ok()?;
    let numbers = numbers.split(',').map(str::parse::<i32>).collect::<Result<Vec<_>, _>>().ok()?;
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    // Each once, and none of the standard streams.
    if sorted.first().is_none_or(|first| *first < 3) || sorted.windows(2).any(|w| w[0] == w[1]) {
        return None;
    }
    let mut next = 3;
    let mut gaps = Vec::new();
    for number in sorted {
        let number = number.cast_unsigned();
        gaps.push((next, number - 1));
        next = number + 1;
    }
    gaps.push((next, libc::c_uint::MAX));
    for (first, last) in gaps.into_iter().filter(|(first, last)| first <= last) {
        // SAFETY: nothing in this process owns a descriptor above its standard streams: it has just
        // begun.
        unsafe { libc::close_range(first, last, 0) };
    }
    let mut open = Vec::new();
    for number in numbers {
        // SAFETY: the stage before left this one open, for this process alone, and each is named
        // once.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC).ok()?;
        open.push(fd);
    }
    let kept = open.split_off(1);
    Some(Entered { stage, state, lock: open.pop()?, kept })
}
