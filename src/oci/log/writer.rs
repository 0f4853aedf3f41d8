//! The side of a log that is written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::{LogLimits, file_path, generations, surplus_files};
use crate::fsutil::{PathContext, PathError};

/// Writes whole lines and rotates. Where the file system refuses, lines are lost and counted: a
/// full disk does not hold the bundle up. As soon as there is room again the log says how much.
#[derive(Debug)]
pub struct LogWriter {
    dir: PathBuf,
    file: File,
    size: u64,
    limits: LogLimits,
    lost: Lost,
}

/// Output that could not be written down, and was not told of yet.
#[derive(Debug, Default)]
struct Lost {
    bytes: u64,
    reason: String,
}

impl LogWriter {
    /// Opens the log in `dir` and continues it.
    ///
    /// # Errors
    /// What the file system said.
    pub fn open(dir: &Path, limits: LogLimits) -> Result<Self, PathError> {
        let (file, size) = open_newest(dir)?;
        Ok(Self { dir: dir.to_owned(), file, size, limits, lost: Lost::default() })
    }

    /// Appends whole lines. `time` is now, in RFC 3339, for what the log has to say itself.
    pub fn write(&mut self, lines: &[u8], time: &str) {
        self.tell(time);
        let mut rest = lines;
        while !rest.is_empty() {
            // Not a line here and there, but all of it until there is room for the notice.
            if self.lost.bytes > 0 {
                self.lost.bytes += output_bytes(rest);
                return;
            }
            let fitting = self.fitting(rest);
            let (now, later) = rest.split_at(fitting);
            let done = if now.is_empty() { self.rotate() } else { self.append(now) };
            if let Err(error) = done {
                self.lost = Lost { bytes: output_bytes(rest), reason: error.source.to_string() };
                return;
            }
            rest = later;
        }
    }

    /// Whether something was lost that the log does not tell of yet.
    pub fn owes_a_notice(&self) -> bool {
        self.lost.bytes > 0
    }

    /// Tells of what was lost, if there is room for it now.
    pub fn tell(&mut self, time: &str) {
        let Lost { bytes, reason } = &self.lost;
        if *bytes == 0 {
            return;
        }
        let notice =
            format!("{time} stderr F carboy: {bytes} bytes of output were lost: {reason}\n");
        let fits = self.fitting(notice.as_bytes()) > 0;
        let room = if fits { Ok(()) } else { self.rotate() };
        // If there is none the loss stays, to be told later.
        if room.and_then(|()| self.append(notice.as_bytes())).is_ok() {
            self.lost = Lost::default();
        }
    }

    /// How many bytes of `lines`, in whole lines, the file still takes; one line at least, if the
    /// file is empty.
    fn fitting(&self, lines: &[u8]) -> usize {
        let room = self.limits.max_size.saturating_sub(self.size);
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(lines.len());
        let last_end = lines[..room].iter().rposition(|b| *b == b'\n').map(|end| end + 1);
        match last_end {
            Some(end) => end,
            None if self.size > 0 => 0,
            None => lines.iter().position(|b| *b == b'\n').map_or(lines.len(), |end| end + 1),
        }
    }

    fn append(&mut self, lines: &[u8]) -> Result<(), PathError> {
        match self.file.write_all(lines) {
            Ok(()) => {
                self.size += lines.len() as u64;
                Ok(())
            }
            Err(error) => {
                // No half a line; if that fails as well a reader passes over it.
                let _ = self.file.set_len(self.size);
                Err(error).at("write", &file_path(&self.dir, 0))
            }
        }
    }

    fn rotate(&mut self) -> Result<(), PathError> {
        self.prune()?;
        // What lies beyond a gap, which a killed rotation left, need not move.
        let there = generations(&self.dir);
        let moving = there.iter().zip(0..).take_while(|((generation, _), n)| generation == n);
        for generation in (0..moving.count()).rev() {
            let generation = u32::try_from(generation).unwrap_or(u32::MAX);
            let from = file_path(&self.dir, generation);
            fs::rename(&from, file_path(&self.dir, generation + 1)).at("rename", &from)?;
        }
        (self.file, self.size) = open_newest(&self.dir)?;
        Ok(())
    }

    /// Removes the files that are too many once a new one is there, the oldest first.
    fn prune(&self) -> Result<(), PathError> {
        let LogLimits { max_files, .. } = self.limits;
        let most = max_files.saturating_add(surplus_files(self.limits));
        for (generation, _) in generations(&self.dir).into_iter().rev() {
            let path = file_path(&self.dir, generation);
            let number = generation + 1;
            if number < max_files || (number < most && is_read(&path)) {
                break;
            }
            fs::remove_file(&path).at("remove", &path)?;
        }
        Ok(())
    }
}

/// The newest file, or a new one, and its size.
fn open_newest(dir: &Path) -> Result<(File, u64), PathError> {
    let path = file_path(dir, 0);
    let mut options = OpenOptions::new();
    let file = options.append(true).create(true).mode(0o600).open(&path).at("open", &path)?;
    let size = file.metadata().at("stat", &path)?.len();
    Ok((file, size))
}

/// Whether a reader has a lock on the file. One that cannot be looked at is read by nobody.
fn is_read(path: &Path) -> bool {
    let attempt = || -> io::Result<()> {
        Ok(flock(File::open(path)?, FlockOperation::NonBlockingLockExclusive)?)
    };
    attempt().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
}

/// How many bytes of the bundle's output these lines stand for.
fn output_bytes(lines: &[u8]) -> u64 {
    let of_line = |line: &[u8]| {
        // Time, stream and tag, of which F stands for the line's end.
        let mut parts = line.splitn(4, |b| *b == b' ');
        let tag = parts.nth(2).unwrap_or_default();
        parts.next().map_or(0, |text| text.len() as u64) + u64::from(tag == b"F")
    };
    lines.strip_suffix(b"\n").unwrap_or(lines).split(|b| *b == b'\n').map(of_line).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_output_is_counted_as_it_was_written() {
        let lines = b"T stdout F one two\nT stderr P part\nT stdout F \n";
        assert_eq!(output_bytes(lines), 8 + 4 + 1);
    }

    #[test]
    fn a_file_holds_whole_lines_up_to_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let limits = LogLimits { max_size: 30, max_files: 9 };
        let mut writer = LogWriter::open(dir.path(), limits).unwrap();
        let long = format!("T stdout F {}\n", "x".repeat(50));
        let lines = ["T stdout F one\n", "T stdout F two\n", "T stdout F three\n", &long, "T\n"];
        writer.write(lines.concat().as_bytes(), "T");
        let read = |n| fs::read_to_string(file_path(dir.path(), n)).unwrap();
        assert_eq!(read(3), "T stdout F one\nT stdout F two\n");
        assert_eq!(read(2), "T stdout F three\n");
        assert_eq!(read(1), long);
        assert_eq!(read(0), "T\n");
    }

    #[test]
    fn a_gap_that_a_crash_left_is_filled() {
        let dir = tempfile::tempdir().unwrap();
        let limits = LogLimits { max_size: 4, max_files: 5 };
        for (generation, text) in [(0, "new\n"), (2, "old\n")] {
            fs::write(file_path(dir.path(), generation), text).unwrap();
        }
        LogWriter::open(dir.path(), limits).unwrap().write(b"abc\n", "T");
        let read = |n| fs::read_to_string(file_path(dir.path(), n)).unwrap();
        assert_eq!([read(0), read(1), read(2)], ["abc\n", "new\n", "old\n"]);
    }
}
