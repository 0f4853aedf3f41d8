//! What happened to the bundles of an installation: a JSON line for each event, in
//! `ROOT/events/events.jsonl`.
//!
//! It belongs to the installation, as the image store does, and outlives the bundles it tells of.
//! Verbs and monitors append to it: one write(2) to a file opened for appending, under a lock on the
//! directory. A file that has reached its size becomes `.1`, and what was `.1` goes: both together
//! never take more than twice `MAX_SIZE`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::spec::Container;
use crate::fsutil::{PathContext, PathError};
use crate::names::{ContainerName, Slug};

const FILE: &str = "events.jsonl";
const OLDER_FILE: &str = "events.jsonl.1";
/// A file of this many bytes is rotated: some five thousand events.
const MAX_SIZE: u64 = 1 << 20;
/// Of what is told beside an event so many bytes are kept.
const DETAIL_MAX: usize = 1024;

/// What can happen to a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// It was made.
    Created,
    /// Its program runs.
    Started,
    /// All that `up` waits for holds.
    Ready,
    /// Its health check succeeds, for the first time or again.
    Healthy,
    /// Its health check has failed as often as it may.
    Unhealthy,
    /// Its program has ended.
    Died,
    /// Its program runs again.
    Restarted,
    /// It was ended by a verb.
    Stopped,
    /// It is gone.
    Removed,
    /// A verb found something other than planned, and put it right.
    Drift,
}

impl EventKind {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Started => "started",
            Self::Ready => "ready",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Died => "died",
            Self::Restarted => "restarted",
            Self::Stopped => "stopped",
            Self::Removed => "removed",
            Self::Drift => "drift",
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in RFC 3339.
    pub time: String,
    /// The bottle.
    pub slug: Slug,
    /// The bundle's container.
    pub container: ContainerName,
    /// What happened.
    pub event: EventKind,
    /// Of one that died: its exit code, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Of one that died: the kernel killed one of its processes because its memory ran out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oom_killed: bool,
    /// What there is to say besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Event {
    /// An event of this moment.
    pub fn now(slug: &Slug, container: &ContainerName, event: EventKind) -> Self {
        let time = format!("{:.9}", jiff::Timestamp::now());
        let (slug, container) = (slug.clone(), container.clone());
        Self { time, slug, container, event, exit_code: None, oom_killed: false, detail: None }
    }

    /// The same with something to say.
    #[must_use]
    pub fn with_detail(self, detail: &str) -> Self {
        let end = (0..=detail.len().min(DETAIL_MAX)).rfind(|&end| detail.is_char_boundary(end));
        Self { detail: Some(detail[..end.unwrap_or_default()].to_owned()), ..self }
    }
}

/// The events of an installation.
#[derive(Clone, Debug)]
pub struct EventLog {
    dir: PathBuf,
}

impl EventLog {
    /// The events of the installation with this root. Makes nothing.
    pub fn of_root(root: &Path) -> Self {
        Self { dir: root.join("events") }
    }

    /// The events of the installation that a container is of.
    pub(crate) fn of_container(container: &Container) -> Self {
        // Its storage is `ROOT/bundles/<name>`.
        Self::of_root(container.storage.parent().and_then(Path::parent).unwrap_or(Path::new("/")))
    }

    /// Appends an event. What happens to a bundle does not depend on whether it could be told.
    ///
    /// # Errors
    /// What the file system said.
    pub fn append(&self, event: &Event) -> Result<(), PathError> {
        let (dir, path) = (&self.dir, self.dir.join(FILE));
        match DirBuilder::new().recursive(true).mode(0o700).create(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e).at("create", dir)?,
            _ => {}
        }
        let lock = File::open(dir).at("open", dir)?;
        while let Err(e) = flock(&lock, FlockOperation::LockExclusive) {
            if e != rustix::io::Errno::INTR {
                return Err(e).at("lock", dir);
            }
        }
        if fs::metadata(&path).is_ok_and(|about| about.len() >= MAX_SIZE) {
            fs::rename(&path, dir.join(OLDER_FILE)).at("rename", &path)?;
        }
        let mut line = serde_json::to_vec(event).expect("text and numbers encode");
        line.push(b'\n');
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        file.at("open", &path)?.write_all(&line).at("write", &path)
    }

    /// A reader of all events that are kept, the oldest first.
    pub fn reader(&self) -> EventReader {
        EventReader { dir: self.dir.clone(), file: None, pending: Vec::new() }
    }
}

/// Reads events across rotations.
#[derive(Debug)]
pub struct EventReader {
    dir: PathBuf,
    file: Option<BufReader<File>>,
    /// A line of which only a part has been read.
    pending: Vec<u8>,
}

impl EventReader {
    /// The next event; `None` at the end, where more may come later.
    ///
    /// # Errors
    /// What the file system said.
    pub fn next_event(&mut self) -> Result<Option<Event>, PathError> {
        loop {
            if self.file.is_none() {
                self.file = match self.open(OLDER_FILE)? {
                    None => self.open(FILE)?,
                    older => older,
                };
            }
            let Some(file) = &mut self.file else { return Ok(None) };
            file.read_until(b'\n', &mut self.pending).at("read", &self.dir)?;
            if self.pending.last() == Some(&b'\n') {
                let event = serde_json::from_slice(&self.pending);
                self.pending.clear();
                // A line that is none was cut by a full disk, or is another version's.
                if let Ok(event) = event {
                    return Ok(Some(event));
                }
            } else if !self.advance()? {
                return Ok(None);
            }
        }
    }

    fn open(&self, name: &str) -> Result<Option<BufReader<File>>, PathError> {
        let path = self.dir.join(name);
        match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            other => Ok(Some(BufReader::new(other.at("open", &path)?))),
        }
    }

    /// At the end of a file: goes on with the newer one, if this is not it.
    fn advance(&mut self) -> Result<bool, PathError> {
        let Some(file) = &self.file else { return Ok(false) };
        let inode = file.get_ref().metadata().at("stat", &self.dir)?.ino();
        let newest = self.dir.join(FILE);
        match fs::metadata(&newest) {
            Ok(about) if about.ino() != inode => {
                self.pending.clear();
                self.file = self.open(FILE)?;
                Ok(self.file.is_some())
            }
            _ => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(detail: &str) -> Event {
        let slug = Slug::new("demo").unwrap();
        let name = ContainerName::new("demo").unwrap();
        Event::now(&slug, &name, EventKind::Drift).with_detail(detail)
    }

    #[test]
    fn a_reader_follows_across_rotations_and_the_size_is_bounded() {
        let root = tempfile::tempdir().unwrap();
        let log = EventLog::of_root(root.path());
        let mut reader = log.reader();
        assert_eq!(reader.next_event().unwrap(), None);
        let text = "x".repeat(2 * DETAIL_MAX);
        for n in 0..2500 {
            let told = event(&format!("{n} {text}"));
            log.append(&told).unwrap();
            assert_eq!(told.detail.as_ref().unwrap().len(), DETAIL_MAX);
            assert_eq!(reader.next_event().unwrap(), Some(told));
            assert_eq!(reader.next_event().unwrap(), None);
        }
        let files = fs::read_dir(root.path().join("events")).unwrap();
        let size: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(size < 2 * MAX_SIZE + 4096, "{size}");
        let mut late = log.reader();
        let mut count = 0;
        while late.next_event().unwrap().is_some() {
            count += 1;
        }
        assert!((500..2500).contains(&count), "{count}");
    }

    #[test]
    fn a_broken_line_is_passed_over_and_a_detail_is_cut_at_a_character() {
        let root = tempfile::tempdir().unwrap();
        let log = EventLog::of_root(root.path());
        log.append(&event("one")).unwrap();
        let path = root.path().join("events").join(FILE);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"time\n").unwrap();
        log.append(&event(&"é".repeat(DETAIL_MAX))).unwrap();
        let mut reader = log.reader();
        assert_eq!(reader.next_event().unwrap().unwrap().detail.as_deref(), Some("one"));
        let long = reader.next_event().unwrap().unwrap().detail.unwrap();
        assert_eq!(long.len(), DETAIL_MAX);
        assert_eq!(reader.next_event().unwrap(), None);
    }
}
