//! A bundle's log on disk: written by its monitor, read by anybody.
//!
//! One line of output is one line here, in the form Kubernetes' container runtimes use (CRI):
//! `<RFC 3339 time> <stdout|stderr> <F|P> <bytes>`, where P marks a piece of a line that goes on.
//! The bytes are kept as they came. When a file reaches its size it becomes `.1`, what was `.1`
//! becomes `.2`, and the oldest goes: a bundle's log never takes more than
//! `MAX_SIZE × (ROTATED + 1)` bytes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::fsutil::{PathContext, PathError};

/// The newest file's name in the bundle's log directory.
pub const LOG_FILE: &str = "bundle.log";
/// A file that has reached this many bytes is rotated.
pub const MAX_SIZE: u64 = 10 << 20;
/// So many older files are kept.
pub const ROTATED: u32 = 2;
/// A line longer than this is written in pieces.
const MAX_LINE: usize = 16 << 10;

/// Which of the two output streams a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The file `generation` rotations ago.
fn file_path(dir: &Path, generation: u32) -> PathBuf {
    match generation {
        0 => dir.join(LOG_FILE),
        n => dir.join(format!("{LOG_FILE}.{n}")),
    }
}

/// Splits what a stream brings into log lines.
#[derive(Debug)]
pub struct LineSplitter {
    stream: Stream,
    rest: Vec<u8>,
}

impl LineSplitter {
    /// A splitter at the beginning of a line.
    pub fn new(stream: Stream) -> Self {
        Self { stream, rest: Vec::new() }
    }

    /// Takes bytes of the stream and appends every line that is complete, or too long, to `out`.
    pub fn push(&mut self, mut bytes: &[u8], time: &str, out: &mut Vec<u8>) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let (line, after) = bytes.split_at(end);
            self.rest.extend_from_slice(line);
            self.cut_long(time, out);
            self.emit(b'F', time, out);
            bytes = &after[1..];
        }
        self.rest.extend_from_slice(bytes);
        self.cut_long(time, out);
    }

    /// The stream has ended: what is left is a line without an end.
    pub fn finish(&mut self, time: &str, out: &mut Vec<u8>) {
        if !self.rest.is_empty() {
            self.emit(b'P', time, out);
        }
    }

    fn cut_long(&mut self, time: &str, out: &mut Vec<u8>) {
        while self.rest.len() > MAX_LINE {
            let rest = self.rest.split_off(MAX_LINE);
            self.emit(b'P', time, out);
            self.rest = rest;
        }
    }

    fn emit(&mut self, tag: u8, time: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(time.as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.stream.name().as_bytes());
        out.extend_from_slice(&[b' ', tag, b' ']);
        out.append(&mut self.rest);
        out.push(b'\n');
    }
}

/// Writes whole lines and rotates.
#[derive(Debug)]
pub struct LogWriter {
    dir: PathBuf,
    file: File,
    size: u64,
    max_size: u64,
}

impl LogWriter {
    /// Opens the log in `dir` and continues it.
    ///
    /// # Errors
    /// What the file system said.
    pub fn open(dir: &Path) -> Result<Self, PathError> {
        Self::with_size(dir, MAX_SIZE)
    }

    /// The same with another size of its files.
    pub(super) fn with_size(dir: &Path, max_size: u64) -> Result<Self, PathError> {
        let path = file_path(dir, 0);
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .at("open", &path)?;
        let size = file.metadata().at("stat", &path)?.len();
        Ok(Self { dir: dir.to_owned(), file, size, max_size })
    }

    /// Appends whole lines.
    ///
    /// # Errors
    /// What the file system said; the lines may then be written in part.
    pub fn write(&mut self, lines: &[u8]) -> Result<(), PathError> {
        if self.size > 0 && self.size + lines.len() as u64 > self.max_size {
            self.rotate()?;
        }
        self.file.write_all(lines).at("write", &file_path(&self.dir, 0))?;
        self.size += lines.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> Result<(), PathError> {
        for generation in (0..ROTATED).rev() {
            let from = file_path(&self.dir, generation);
            match fs::rename(&from, file_path(&self.dir, generation + 1)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other.at("rename", &from)?,
            }
        }
        *self = Self::with_size(&self.dir, self.max_size)?;
        Ok(())
    }
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was read from the bundle, in RFC 3339.
    pub time: String,
    /// Which stream it came from.
    pub stream: Stream,
    /// False where the line goes on in the next one of its stream.
    pub complete: bool,
    /// What was written, without the line's end.
    pub text: Vec<u8>,
}

impl LogLine {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let time = String::from_utf8(parts.next()?.to_vec()).ok()?;
        let stream = match parts.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let complete = parts.next()? == b"F";
        Some(Self { time, stream, complete, text: parts.next()?.to_vec() })
    }
}

/// Reads a log from its oldest line on, across rotations.
#[derive(Debug)]
pub struct LogReader {
    dir: PathBuf,
    file: Option<BufReader<File>>,
    /// A line of which only a part has been read.
    pending: Vec<u8>,
}

impl LogReader {
    /// A reader of the log in `dir`, which may not be there yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), file: None, pending: Vec::new() }
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
            file.read_until(b'\n', &mut self.pending).at("read", &self.dir)?;
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

    fn open(&self, generation: u32) -> Result<Option<BufReader<File>>, PathError> {
        let path = file_path(&self.dir, generation);
        match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            other => Ok(Some(BufReader::new(other.at("open", &path)?))),
        }
    }

    fn open_oldest(&self) -> Result<Option<BufReader<File>>, PathError> {
        for generation in (0..=ROTATED).rev() {
            if let Some(file) = self.open(generation)? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// At the end of a file: goes on with the next newer one, if there is one.
    fn advance(&mut self) -> Result<bool, PathError> {
        let Some(file) = &self.file else { return Ok(false) };
        let inode = file.get_ref().metadata().at("stat", &self.dir)?.ino();
        for generation in 0..=ROTATED {
            let path = file_path(&self.dir, generation);
            let is_ours = fs::metadata(&path).is_ok_and(|m| m.ino() == inode);
            if !is_ours {
                continue;
            }
            if generation == 0 {
                return Ok(false);
            }
            if let Some(next) = self.open(generation - 1)? {
                self.file = Some(next);
                return Ok(true);
            }
            return Ok(false);
        }
        // The file was rotated away while it was read: go on with what there is.
        self.pending.clear();
        self.file = self.open_oldest()?;
        Ok(self.file.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-01-02T03:04:05.000000006Z";

    fn split(chunks: &[&[u8]]) -> Vec<LogLine> {
        let mut splitter = LineSplitter::new(Stream::Stdout);
        let mut out = Vec::new();
        chunks.iter().for_each(|c| splitter.push(c, TIME, &mut out));
        splitter.finish(TIME, &mut out);
        out.split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| LogLine::parse(l).unwrap())
            .collect()
    }

    #[test]
    fn lines_are_kept_byte_for_byte() {
        let lines = split(&[b"one\ntw", b"o\n\n\xff\x00 three", b" end"]);
        let texts: Vec<&[u8]> = lines.iter().map(|l| l.text.as_slice()).collect();
        assert_eq!(texts, [b"one".as_slice(), b"two", b"", b"\xff\x00 three end"]);
        assert_eq!(lines.iter().map(|l| l.complete).collect::<Vec<_>>(), [true, true, true, false]);
        assert_eq!(lines[0].time, TIME);
    }

    #[test]
    fn a_long_line_comes_in_pieces_and_whole() {
        let long = vec![b'x'; 3 * MAX_LINE + 7];
        let lines = split(&[&long, b"\n"]);
        assert_eq!(lines.len(), 4);
        assert!(lines[3].complete && !lines[0].complete);
        assert_eq!(lines.iter().map(|l| l.text.len()).sum::<usize>(), long.len());
    }

    fn numbered(n: u32) -> Vec<u8> {
        format!("{TIME} stdout F line {n}\n").into_bytes()
    }

    #[test]
    fn rotation_bounds_the_log_and_a_reader_follows_across_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::with_size(dir.path(), 200).unwrap();
        let mut reader = LogReader::new(dir.path());
        assert!(reader.next_line().unwrap().is_none());
        for n in 0..100 {
            writer.write(&numbered(n)).unwrap();
            let line = reader.next_line().unwrap().unwrap();
            assert_eq!(line.text, format!("line {n}").into_bytes());
            assert!(reader.next_line().unwrap().is_none());
        }
        let total: u64 =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert!(total <= 200 * u64::from(ROTATED + 1), "{total}");
        let mut late = LogReader::new(dir.path());
        let first = late.next_line().unwrap().unwrap().text;
        let mut count = 1;
        while late.next_line().unwrap().is_some() {
            count += 1;
        }
        assert_eq!(first, format!("line {}", 100 - count).into_bytes());
    }

    #[test]
    fn a_line_cut_by_a_crash_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(file_path(dir.path(), 0), b"2026-01-0\n").unwrap();
        LogWriter::open(dir.path()).unwrap().write(&numbered(1)).unwrap();
        assert_eq!(LogReader::new(dir.path()).next_line().unwrap().unwrap().text, b"line 1");
    }
}
