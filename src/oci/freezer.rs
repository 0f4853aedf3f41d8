//! Stops a bundle's processes for a while: the control groups' freezer, version 1
//! (`cgroup-v1/freezer-subsystem.rst`) or 2 (`cgroup-v2.rst`, `cgroup.freeze`).
//!
//! Whether a bundle is paused stands nowhere else: the kernel is asked.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::cgroup;
use super::runtime_error::RuntimeError;
use crate::fsutil::{PathContext, PathError};
use crate::names::ContainerName;

/// How long processes may take to stop: those in a system call stop after it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The freezer of one group.
#[derive(Debug)]
struct Freezer {
    directory: PathBuf,
    unified: bool,
}

impl Freezer {
    fn of(name: &ContainerName) -> Result<Option<Self>, PathError> {
        let found = cgroup::freezer_directory(name)?;
        Ok(found.map(|(directory, unified)| Self { directory, unified }))
    }

    /// Whether it was told to stop its processes.
    fn is_told(&self) -> Result<bool, PathError> {
        let file = if self.unified { "cgroup.freeze" } else { "freezer.self_freezing" };
        Ok(self.read(file)?.is_some_and(|text| text.trim() == "1"))
    }

    /// Whether all of them have stopped.
    fn is_done(&self) -> Result<bool, PathError> {
        if self.unified {
            let events = self.read("cgroup.events")?;
            return Ok(events.is_some_and(|text| text.lines().any(|line| line == "frozen 1")));
        }
        Ok(self.read("freezer.state")?.is_some_and(|text| text.trim() == "FROZEN"))
    }

    fn tell(&self, freeze: bool) -> Result<(), PathError> {
        let (file, word) = match (self.unified, freeze) {
            (true, true) => ("cgroup.freeze", "1"),
            (true, false) => ("cgroup.freeze", "0"),
            (false, true) => ("freezer.state", "FROZEN"),
            (false, false) => ("freezer.state", "THAWED"),
        };
        let path = self.directory.join(file);
        fs::write(&path, word).at("write", &path)
    }

    /// A file of the group; `None` if the group is no more.
    fn read(&self, file: &str) -> Result<Option<String>, PathError> {
        let path = self.directory.join(file);
        match fs::read_to_string(&path) {
            Err(e) if is_gone(&e) => Ok(None),
            other => other.map(Some).at("read", Path::new(&path)),
        }
    }
}

/// A group that is removed meanwhile says ENOENT or ENODEV.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// Whether the container's processes are stopped, or about to be.
///
/// # Errors
/// What the file system said.
pub(crate) fn is_frozen(name: &ContainerName) -> Result<bool, PathError> {
    Freezer::of(name)?.map_or(Ok(false), |freezer| freezer.is_told())
}

/// Stops the container's processes; false if they were stopped already. When this returns none of
/// them runs.
///
/// # Errors
/// [`RuntimeError::NoFreezer`], [`RuntimeError::NotFrozen`] (they go on then), or what the file
/// system said.
pub(crate) fn freeze(name: &ContainerName) -> Result<bool, RuntimeError> {
    let container = || name.to_string();
    let Some(freezer) = Freezer::of(name)? else {
        return Err(RuntimeError::NoFreezer { container: container() });
    };
    if freezer.is_told()? && freezer.is_done()? {
        return Ok(false);
    }
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(100);
    loop {
        // Version 1 has to be told again where a process was just being forked.
        freezer.tell(true)?;
        if freezer.is_done()? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            freezer.tell(false)?;
            let seconds = PATIENCE.as_secs();
            return Err(RuntimeError::NotFrozen { container: container(), seconds });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Lets the container's processes go on; false if they were not stopped.
///
/// # Errors
/// What the file system said.
pub(crate) fn thaw(name: &ContainerName) -> Result<bool, PathError> {
    let Some(freezer) = Freezer::of(name)? else { return Ok(false) };
    if !freezer.is_told()? {
        return Ok(false);
    }
    freezer.tell(false).map(|()| true)
}
