//! A bundle's log on disk: written by its monitor, read by anybody.
//!
//! One line of output is one line here, in the form Kubernetes' container runtimes use (CRI):
//! `<RFC 3339 time> <stdout|stderr> <F|P> <bytes>`, where P marks a piece of a line that goes on.
//! The bytes are kept as they came. When a file reaches its size it becomes `.1`, what was `.1`
//! becomes `.2`, and the oldest goes, unless somebody is reading it: a reader has a shared lock
//! (flock(2)) on its file, and what it has not read yet stays for a while. So a log takes no more
//! than [`LogLimits::max_size`] times [`LogLimits::max_files`] bytes, and while it is read no more
//! than that and [`SURPLUS`], or as much again if that is more.

mod reader;
mod writer;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub use self::reader::LogReader;
pub use self::writer::LogWriter;
pub use super::spec::LogLimits;

/// The newest file's name in the bundle's log directory.
pub const LOG_FILE: &str = "bundle.log";
/// How many bytes beyond its bounds a log may keep for somebody who reads it.
pub const SURPLUS: u64 = 16 << 20;
/// The same as a number of files, for very small ones.
const SURPLUS_FILES: u64 = 100;
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

/// The files that are there, the newest first: how many rotations ago, and the inode.
///
/// A rotation may be under way. It only ever moves a file on by one, the oldest first: looked at
/// in this order none is overlooked, though one may be seen twice.
fn generations(dir: &Path) -> Vec<(u32, u64)> {
    // A rotation in progress leaves one gap, and one that was killed another.
    const GAPS: u32 = 3;
    let (mut found, mut gaps) = (Vec::new(), 0);
    for generation in 0.. {
        match fs::metadata(file_path(dir, generation)) {
            Ok(file) => found.push((generation, file.ino())),
            Err(_) if gaps == GAPS => break,
            Err(_) => gaps += 1,
        }
    }
    found
}

/// How many older files may stay for somebody who reads them, beyond those that always do.
fn surplus_files(limits: LogLimits) -> u32 {
    let files = (SURPLUS / limits.max_size.max(1)).min(SURPLUS_FILES);
    limits.max_files.max(u32::try_from(files).unwrap_or(u32::MAX))
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
}
