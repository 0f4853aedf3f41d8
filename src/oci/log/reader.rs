//! The side of a log that is read.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::{LogLine, file_path, generations};
use crate::fsutil::{PathContext, PathError};

/// Reads a log from its oldest line on, across rotations.
///
/// It holds the file that it reads, and with it all newer ones: nothing is lost to it unless it is
/// further behind than the log's surplus ([`super::SURPLUS`]).
#[derive(Debug)]
pub struct LogReader {
    dir: PathBuf,
    file: Option<OpenFile>,
    /// The one after it: `file` is complete, and is only to be read to its end.
    next: Option<OpenFile>,
    /// A line of which only a part has been read.
    pending: Vec<u8>,
    overtaken: bool,
}

/// A file of the log with a shared lock.
#[derive(Debug)]
struct OpenFile {
    reader: BufReader<File>,
    inode: u64,
}

impl OpenFile {
    /// `None` if it is not there, or was removed before the lock was taken.
    fn open(dir: &Path, generation: u32) -> Result<Option<Self>, PathError> {
        let path = file_path(dir, generation);
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.at("open", &path)?,
        };
        // The writer's own lock, a look before it removes a file, takes no time.
        while let Err(e) = flock(&file, FlockOperation::LockShared) {
            if e != rustix::io::Errno::INTR {
                return Err(e).at("lock", &path)?;
            }
        }
        let about = file.metadata().at("stat", &path)?;
        let inode = about.ino();
        Ok((about.nlink() > 0).then(|| Self { reader: BufReader::new(file), inode }))
    }
}

impl LogReader {
    /// A reader of the log in `dir`, which may not be there yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        Self { dir, file: None, next: None, pending: Vec::new(), overtaken: false }
    }

    /// The next line; `None` at the end, where more may come later.
    ///
    /// # Errors
    /// What the file system said.
    pub fn next_line(&mut self) -> Result<Option<LogLine>, PathError> {
        loop {
            if self.file.is_none() {
                self.file = self.open_oldest()?;
            }
            let Some(file) = &mut self.file else { return Ok(None) };
            file.reader.read_until(b'\n', &mut self.pending).at("read", &self.dir)?;
            if self.pending.last() == Some(&b'\n') {
                self.pending.pop();
                let line = LogLine::parse(&self.pending);
                self.pending.clear();
                // A line that is none was cut by a crash: the next one is whole again.
                if line.is_some() {
                    return Ok(line);
                }
            } else if !self.advance()? {
                return Ok(None);
            }
        }
    }

    /// True once if lines were removed before they were read.
    pub fn was_overtaken(&mut self) -> bool {
        std::mem::take(&mut self.overtaken)
    }

    fn open_oldest(&self) -> Result<Option<OpenFile>, PathError> {
        while let Some((generation, inode)) = generations(&self.dir).last().copied() {
            if let Some(file) = OpenFile::open(&self.dir, generation)?
                && file.inode == inode
            {
                return Ok(Some(file));
            }
            // It was moved or removed at this moment: look again.
        }
        Ok(None)
    }

    /// At the end of what a file has now: true if there is more to read somewhere.
    fn advance(&mut self) -> Result<bool, PathError> {
        if let Some(next) = self.next.take() {
            self.pending.clear();
            self.file = Some(next);
            return Ok(true);
        }
        let Some(inode) = self.file.as_ref().map(|file| file.inode) else { return Ok(false) };
        loop {
            let there = generations(&self.dir);
            match there.iter().position(|(_, other)| *other == inode) {
                Some(0) => return Ok(false),
                Some(at) => {
                    let (generation, newer) = there[at - 1];
                    self.next =
                        OpenFile::open(&self.dir, generation)?.filter(|next| next.inode == newer);
                    // What was written before the rotation and after the last read comes first.
                    if self.next.is_some() {
                        return Ok(true);
                    }
                }
                // The log was removed with its bundle.
                None if there.is_empty() => return Ok(false),
                None => {
                    self.overtaken = true;
                    self.pending.clear();
                    self.file = self.open_oldest()?;
                    return Ok(self.file.is_some());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{LOG_FILE, LogLimits, LogWriter, surplus_files};
    use super::*;

    const TIME: &str = "2026-01-02T03:04:05.000000006Z";
    const SMALL: LogLimits = LogLimits { max_size: 200, max_files: 3 };

    fn write(writer: &mut LogWriter, n: usize) {
        writer.write(format!("{TIME} stdout F line {n}\n").as_bytes(), TIME);
    }

    /// The numbers of all lines up to the end.
    fn numbers(reader: &mut LogReader) -> Vec<usize> {
        let mut all = Vec::new();
        while let Some(line) = reader.next_line().unwrap() {
            let text = String::from_utf8(line.text).unwrap();
            all.push(text.strip_prefix("line ").unwrap().parse().unwrap());
        }
        all
    }

    fn files(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn rotation_bounds_the_log_and_a_reader_follows_across_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::open(dir.path(), SMALL).unwrap();
        let mut reader = LogReader::new(dir.path());
        for n in 0..100 {
            write(&mut writer, n);
            assert_eq!(numbers(&mut reader), [n]);
        }
        let size = |e: io::Result<fs::DirEntry>| e.unwrap().metadata().unwrap().len();
        let total: u64 = fs::read_dir(dir.path()).unwrap().map(size).sum();
        assert!(total <= SMALL.max_size * u64::from(SMALL.max_files), "{total}");
        let late = numbers(&mut LogReader::new(dir.path()));
        assert_eq!(late, (100 - late.len()..100).collect::<Vec<_>>());
        assert!(!reader.was_overtaken());
    }

    #[test]
    fn a_reader_keeps_what_it_has_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::open(dir.path(), SMALL).unwrap();
        write(&mut writer, 0);
        let mut reader = LogReader::new(dir.path());
        assert_eq!(numbers(&mut reader), [0]);
        // Many times as much as the log keeps, between two looks.
        (1..300).for_each(|n| write(&mut writer, n));
        assert_eq!(numbers(&mut reader), (1..300).collect::<Vec<_>>());
        assert!(files(dir.path()) > 3);
        drop(reader);
        (300..304).for_each(|n| write(&mut writer, n));
        assert_eq!(files(dir.path()), 3, "the surplus goes with its reader");
    }

    #[test]
    fn a_reader_that_is_too_slow_is_overtaken_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let limits = LogLimits { max_size: 1, max_files: 1 };
        let mut writer = LogWriter::open(dir.path(), limits).unwrap();
        let mut reader = LogReader::new(dir.path());
        write(&mut writer, 0);
        assert_eq!(numbers(&mut reader), [0]);
        let most = 1 + surplus_files(limits) as usize;
        (1..=2 * most).for_each(|n| write(&mut writer, n));
        assert!(files(dir.path()) <= most);
        let rest = numbers(&mut reader);
        assert_eq!(rest, (2 * most + 1 - rest.len()..=2 * most).collect::<Vec<_>>());
        assert!(reader.was_overtaken() && !reader.was_overtaken());
    }

    #[test]
    fn nothing_is_lost_between_two_threads() {
        const LINES: usize = 20_000;
        let dir = tempfile::tempdir().unwrap();
        let limits = LogLimits { max_size: 16 << 10, max_files: 2 };
        let mut writer = LogWriter::open(dir.path(), limits).unwrap();
        let mut reader = LogReader::new(dir.path());
        write(&mut writer, 0);
        assert_eq!(numbers(&mut reader), [0]);
        std::thread::scope(|scope| {
            scope.spawn(|| (1..LINES).for_each(|n| write(&mut writer, n)));
            let mut expected = 1;
            while expected < LINES {
                for n in numbers(&mut reader) {
                    assert_eq!(n, expected);
                    expected += 1;
                }
            }
        });
        assert!(!reader.was_overtaken());
    }

    #[test]
    fn a_line_cut_by_a_crash_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LOG_FILE), b"2026-01-0\n").unwrap();
        write(&mut LogWriter::open(dir.path(), SMALL).unwrap(), 1);
        assert_eq!(numbers(&mut LogReader::new(dir.path())), [1]);
    }
}
