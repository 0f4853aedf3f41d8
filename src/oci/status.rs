//! What a monitor writes down about its container, for later calls to read: one file when it has
//! started, one when it has ended. Both are written whole or not at all.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::identity::ProcessIdentity;
use crate::fsutil::{self, PathContext, PathError};

const START_ID_FILE: &str = "start-id";
const MONITOR_FILE: &str = "monitor.json";
const STARTED_FILE: &str = "started.json";
const ENDED_FILE: &str = "ended.json";

/// A container that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// PID 1 of the container.
    pub init: ProcessIdentity,
    /// When, in RFC 3339.
    pub started_at: String,
    /// The network namespace it was started in.
    pub netns: FileIdentity,
    /// What the user should know of this start.
    #[serde(default)]
    pub notes: Vec<String>,
}

impl Started {
    /// The network namespace it was started in, for as long as its first process is there. (A
    /// process that has taken its number is in another one.)
    pub fn open_netns(&self) -> Option<File> {
        let file = File::open(format!("/proc/{}/ns/net", self.init.pid)).ok()?;
        let metadata = file.metadata().ok()?;
        (FileIdentity::from(&metadata) == self.netns).then_some(file)
    }
}

impl Started {
    /// How long ago it was, by the clock on the wall; no time at all if that was turned back.
    pub(crate) fn ran(&self) -> Duration {
        let began = self.started_at.parse::<jiff::Timestamp>();
        let ran = began.map(|began| jiff::Timestamp::now().duration_since(began));
        ran.ok().and_then(|ran| Duration::try_from(ran).ok()).unwrap_or_default()
    }
}

/// A file, told apart from every other: device and inode numbers. A namespace's file is the
/// namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// The identity of what is at `path`.
    ///
    /// # Errors
    /// What the file system said.
    pub fn of(path: &Path) -> Result<Self, PathError> {
        Ok(Self::from(&fs::metadata(path).at("stat", path)?))
    }

    /// Whether both are of one file system, as all namespaces are.
    pub fn is_of_one_kind_with(self, other: Self) -> bool {
        self.device == other.device
    }
}

impl From<&Metadata> for FileIdentity {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// A container that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Its exit code, or 128 + the signal that ended it.
    pub exit_code: i32,
    /// When, in RFC 3339.
    pub finished_at: String,
    /// The kernel killed one of its processes because its memory ran out.
    #[serde(default)]
    pub oom_killed: bool,
}

/// How a container stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Nothing of it was started, or its start was cut short.
    NotStarted,
    /// It runs.
    Running(Started),
    /// It has ended; without its monitor's last word the exit code is lost.
    Exited(Started, Option<Ended>),
}

impl ContainerState {
    /// Reads the state of the container whose run-time directory is `dir`.
    ///
    /// # Errors
    /// What the file system said.
    pub fn read(dir: &Path) -> Result<Self, PathError> {
        let Some(started) = read::<Started>(&dir.join(STARTED_FILE))? else {
            return Ok(Self::NotStarted);
        };
        // A process that cannot be looked at is taken as running: the safe side for every caller.
        if !matches!(started.init.open(), Ok(None)) {
            return Ok(Self::Running(started));
        }
        let ended = read::<Ended>(&dir.join(ENDED_FILE))?;
        Ok(Self::Exited(started, ended))
    }
}

/// Writes down which start the directory is for, and returns it: a monitor whose caller was killed
/// must not take a later start's directory for its own.
///
/// # Errors
/// What the file system said.
pub fn write_start_id(dir: &Path) -> Result<String, PathError> {
    let source = Path::new("/proc/sys/kernel/random/uuid");
    let id = fs::read_to_string(source).at("read", source)?.trim().to_owned();
    fsutil::write_atomically(&dir.join(START_ID_FILE), id.as_bytes())?;
    Ok(id)
}

/// Whether the directory is for this start.
///
/// # Errors
/// What the file system said.
pub fn is_start(dir: &Path, id: &str) -> Result<bool, PathError> {
    Ok(fsutil::read_optional(&dir.join(START_ID_FILE))?.as_deref() == Some(id.as_bytes()))
}

/// Writes down which process is about to start the container, and will watch it.
///
/// # Errors
/// What the file system said.
pub fn write_monitor(dir: &Path, monitor: &ProcessIdentity) -> Result<(), PathError> {
    write(&dir.join(MONITOR_FILE), monitor)
}

/// The process that starts or watches the container, if one ever began to.
///
/// # Errors
/// What the file system said.
pub fn read_monitor(dir: &Path) -> Result<Option<ProcessIdentity>, PathError> {
    read(&dir.join(MONITOR_FILE))
}

/// Writes down that the container was started.
///
/// # Errors
/// What the file system said.
pub fn write_started(dir: &Path, started: &Started) -> Result<(), PathError> {
    write(&dir.join(STARTED_FILE), started)
}

/// What was written down when the container was started last.
///
/// # Errors
/// What the file system said.
pub fn read_started(dir: &Path) -> Result<Option<Started>, PathError> {
    read(&dir.join(STARTED_FILE))
}

/// Forgets how the container ended: it is started again.
///
/// # Errors
/// What the file system said.
pub fn forget_ended(dir: &Path) -> Result<(), PathError> {
    fsutil::remove_file(&dir.join(ENDED_FILE)).map(drop)
}

/// Writes down that the container has ended.
///
/// # Errors
/// What the file system said.
pub fn write_ended(dir: &Path, ended: &Ended) -> Result<(), PathError> {
    write(&dir.join(ENDED_FILE), ended)
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), PathError> {
    let content = serde_json::to_vec(value).expect("plain structs of numbers and text encode");
    fsutil::write_atomically(path, &content)
}

/// A file that does not parse counts as absent: it is of another version, and the processes it
/// speaks of are found through the cgroup.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, PathError> {
    Ok(fsutil::read_optional(path)?.and_then(|content| serde_json::from_slice(&content).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_follows_the_process_and_the_files() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ContainerState::read(dir.path()).unwrap(), ContainerState::NotStarted);
        let me = ProcessIdentity::of(std::process::id().cast_signed()).unwrap();
        let netns = FileIdentity::of(Path::new("/proc/self/ns/net")).unwrap();
        let mut started = Started { init: me, started_at: String::new(), netns, notes: vec![] };
        write_started(dir.path(), &started).unwrap();
        assert!(matches!(ContainerState::read(dir.path()).unwrap(), ContainerState::Running(_)));
        started.init.start_time += 1;
        write_started(dir.path(), &started).unwrap();
        let lost = ContainerState::read(dir.path()).unwrap();
        assert_eq!(lost, ContainerState::Exited(started.clone(), None));
        let ended = Ended { exit_code: 143, finished_at: String::new(), oom_killed: true };
        write_ended(dir.path(), &ended).unwrap();
        let told = ContainerState::read(dir.path()).unwrap();
        assert_eq!(told, ContainerState::Exited(started, Some(ended)));
    }
}
