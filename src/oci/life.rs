//! What outlives one run of a container, beside its status: what it was started with, how often it
//! was started again, and whether its end is wanted. Written by its monitor and by whoever ends it;
//! read by the monitor that comes after, which may be another process.
//!
//! In the container's directory on tmpfs: it goes with it.

use std::fs::File;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::health::HealthState;
use super::helper::StartRequest;
use super::restart::Restarts;
use crate::fsutil::{self, PathContext, PathError};

const REQUEST_FILE: &str = "request.json";
const RESTARTS_FILE: &str = "restarts.json";
const HEALTH_FILE: &str = "health.json";
const END_FILE: &str = "end-wanted";

/// Keeps what the container was started with, but for its secrets: nothing of them lies in a file.
///
/// # Errors
/// What the file system said.
pub(crate) fn write_request(dir: &Path, request: &StartRequest) -> Result<(), PathError> {
    let (container, surroundings) = (request.container.clone(), request.surroundings.clone());
    let start_id = request.start_id.clone();
    let kept = StartRequest { container, surroundings, start_id, secrets: Vec::new() };
    write(&dir.join(REQUEST_FILE), &kept)
}

/// What the container was started with.
///
/// # Errors
/// What the file system said.
pub(crate) fn read_request(dir: &Path) -> Result<Option<StartRequest>, PathError> {
    read(&dir.join(REQUEST_FILE))
}

/// Writes down how often the container was started again.
///
/// # Errors
/// What the file system said.
pub(crate) fn write_restarts(dir: &Path, restarts: &Restarts) -> Result<(), PathError> {
    write(&dir.join(RESTARTS_FILE), restarts)
}

/// How often the container was started again.
///
/// # Errors
/// What the file system said.
pub(crate) fn read_restarts(dir: &Path) -> Result<Restarts, PathError> {
    Ok(read(&dir.join(RESTARTS_FILE))?.unwrap_or_default())
}

/// Writes down what the health checks of this run have said.
///
/// # Errors
/// What the file system said.
pub(crate) fn write_health(dir: &Path, health: &HealthState) -> Result<(), PathError> {
    write(&dir.join(HEALTH_FILE), health)
}

/// What the health checks of this run have said.
///
/// # Errors
/// What the file system said.
pub(crate) fn read_health(dir: &Path) -> Result<HealthState, PathError> {
    Ok(read(&dir.join(HEALTH_FILE))?.unwrap_or_default())
}

/// Forgets what the health checks said: it was about the run before.
///
/// # Errors
/// What the file system said.
pub(crate) fn forget_health(dir: &Path) -> Result<(), PathError> {
    fsutil::remove_file(&dir.join(HEALTH_FILE)).map(drop)
}

/// From here on the container is not started again, whatever its policy: somebody wants it to end.
///
/// # Errors
/// What the file system said.
pub(crate) fn want_end(dir: &Path) -> Result<(), PathError> {
    let path = dir.join(END_FILE);
    match File::create(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map(drop).at("create", &path),
    }
}

/// Whether somebody wants the container to end. A directory that is gone says so too.
pub(crate) fn end_is_wanted(dir: &Path) -> bool {
    !dir.is_dir() || dir.join(END_FILE).exists()
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), PathError> {
    let content = serde_json::to_vec(value).expect("plain structs of numbers and text encode");
    fsutil::write_atomically(path, &content)
}

/// A file that does not parse counts as absent, as in [`super::status`].
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, PathError> {
    Ok(fsutil::read_optional(path)?.and_then(|content| serde_json::from_slice(&content).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_wanted_once_somebody_says_so_or_the_directory_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!end_is_wanted(dir.path()));
        want_end(dir.path()).unwrap();
        assert!(end_is_wanted(dir.path()));
        let gone = dir.path().join("gone");
        want_end(&gone).unwrap();
        assert!(end_is_wanted(&gone) && !gone.exists());
    }

    #[test]
    fn restarts_are_none_until_they_are_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_restarts(dir.path()).unwrap(), Restarts::default());
        let restarts = Restarts { count: 3, pause_ms: 400, pending: true };
        write_restarts(dir.path(), &restarts).unwrap();
        assert_eq!(read_restarts(dir.path()).unwrap(), restarts);
    }
}
