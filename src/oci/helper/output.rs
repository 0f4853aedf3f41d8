//! A container's output on its way to the log.
//!
//! Its standard streams are named pipes in the container's directory on tmpfs, and it has them open
//! for reading as well as for writing: so there is always a reader, nobody gets SIGPIPE when the
//! monitor is killed, and what is written meanwhile waits in the pipe for the next monitor, which
//! opens it by its name. A pipe that is full holds the writer up; it takes a megabyte.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};
use rustix::event::{PollFd, PollFlags};

use crate::fsutil::{PathContext, PathError};
use crate::oci::log::{LineSplitter, LogWriter, Stream};
use crate::oci::spec::LogLimits;

/// What a pipe holds while nobody reads: as much as every kernel gives (`pipe-max-size`, pipe(7)).
const PIPE_SIZE: usize = 1 << 20;
/// What is read at once.
const CHUNK: usize = 64 << 10;
/// How often a log that lost something looks for room to say so.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// So many chunks of a stream are read before the other stream and all else get their turn.
const CHUNKS_IN_A_ROW: usize = 16;

fn path(state: &Path, stream: Stream) -> PathBuf {
    state.join(match stream {
        Stream::Stdout => "stdout.pipe",
        Stream::Stderr => "stderr.pipe",
    })
}

/// How many [`holders`] there are.
pub(super) const HOLDERS: usize = 2;

/// Holds what a container writes until its monitor's next stage reads it: a pipe that nobody has
/// open forgets what is in it, and a run may be over before that stage begins.
///
/// # Errors
/// What the kernel said.
pub(super) fn holders(state: &Path) -> Result<Vec<OwnedFd>, PathError> {
    let open = |stream| Ok(open_for_reading(state, stream)?.into());
    [Stream::Stdout, Stream::Stderr].into_iter().map(open).collect()
}

fn open_for_reading(state: &Path, stream: Stream) -> Result<File, PathError> {
    let path = path(state, stream);
    // Not to wait for a writer: the container may have closed its end.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
    file.at("open", &path)
}

/// The container's end of a stream, which is made if it is not there. `/dev/stdout` is opened anew by
/// whoever writes to it: it is the user's.
///
/// # Errors
/// What the kernel said.
pub(super) fn container_end(
    state: &Path,
    stream: Stream,
    uid: u32,
    gid: u32,
) -> Result<OwnedFd, PathError> {
    let path = path(state, stream);
    match nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
        Err(e) => return Err(e).at("make pipe", &path),
    }
    let pipe = OpenOptions::new().read(true).write(true).open(&path).at("open", &path)?;
    // A smaller one does as well.
    let _ = rustix::pipe::fcntl_setpipe_size(&pipe, PIPE_SIZE);
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    nix::unistd::fchown(&pipe, Some(uid), Some(gid)).at("chown", &path)?;
    Ok(pipe.into())
}

/// The monitor's ends of both streams, and the log.
pub(super) struct Output {
    streams: [(Option<File>, LineSplitter); 2],
    log: LogWriter,
    buffer: Vec<u8>,
    lines: Vec<u8>,
}

impl Output {
    /// Opens the streams of the container whose directory on tmpfs is `state`, and its log.
    ///
    /// # Errors
    /// What the file system said.
    pub(super) fn open(state: &Path, log_dir: &Path, limits: LogLimits) -> Result<Self, PathError> {
        let open = |stream| {
            let file = open_for_reading(state, stream)?;
            Ok::<_, PathError>((Some(file), LineSplitter::new(stream)))
        };
        Ok(Self {
            streams: [open(Stream::Stdout)?, open(Stream::Stderr)?],
            log: LogWriter::open(log_dir, limits)?,
            buffer: vec![0; CHUNK],
            lines: Vec::new(),
        })
    }

    /// Whether anybody can still write.
    pub(super) fn is_open(&self) -> bool {
        self.streams.iter().any(|(file, _)| file.is_some())
    }

    /// What to wait for.
    pub(super) fn fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let files = self.streams.iter().filter_map(|(file, _)| file.as_ref());
        files.map(|file| PollFd::new(file, PollFlags::IN))
    }

    /// After how long to look whether there is room for what the log has to say of lost output.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.log.owes_a_notice().then_some(RETRY_INTERVAL)
    }

    /// Moves what is there to the log; `time` in RFC 3339.
    pub(super) fn pump(&mut self, time: &str) {
        self.log.tell(time);
        for (file, splitter) in &mut self.streams {
            for _ in 0..CHUNKS_IN_A_ROW {
                let Some(open) = file else { break };
                match open.read(&mut self.buffer) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Ok(n) if n > 0 => splitter.push(&self.buffer[..n], time, &mut self.lines),
                    Ok(_) | Err(_) => {
                        splitter.finish(time, &mut self.lines);
                        *file = None;
                    }
                }
                write(&mut self.log, &mut self.lines, time);
            }
        }
    }

    /// Writes what is left of lines that have no end.
    pub(super) fn finish(mut self, time: &str) {
        for (file, splitter) in &mut self.streams {
            if file.take().is_some() {
                splitter.finish(time, &mut self.lines);
            }
        }
        write(&mut self.log, &mut self.lines, time);
        self.log.tell(time);
    }
}

fn write(log: &mut LogWriter, lines: &mut Vec<u8>, time: &str) {
    if !lines.is_empty() {
        log.write(lines, time);
        lines.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::oci::log::LogReader;

    #[test]
    fn what_is_written_while_nobody_reads_is_there_for_the_next_reader() {
        let dir = tempfile::tempdir().unwrap();
        let (uid, gid) = (Uid::effective().as_raw(), Gid::effective().as_raw());
        let mut ends = [Stream::Stdout, Stream::Stderr]
            .map(|stream| File::from(container_end(dir.path(), stream, uid, gid).unwrap()));
        let time = "2026-01-02T03:04:05Z";
        let mut first = Output::open(dir.path(), dir.path(), LogLimits::default()).unwrap();
        ends[0].write_all(b"one\n").unwrap();
        first.pump(time);
        drop(first);
        // No SIGPIPE, no EPIPE; more than a pipe holds by default.
        let much = [b'x'; 999];
        for _ in 0..200 {
            ends[0].write_all(&much).unwrap();
            ends[0].write_all(b"\n").unwrap();
        }
        ends[1].write_all(b"no end").unwrap();
        let mut second = Output::open(dir.path(), dir.path(), LogLimits::default()).unwrap();
        drop(ends);
        while second.is_open() {
            second.pump(time);
        }
        second.finish(time);
        let mut reader = LogReader::new(dir.path());
        let mut lines = Vec::new();
        while let Some(line) = reader.next_line().unwrap() {
            lines.push(line.text);
        }
        assert_eq!((lines.len(), lines[0].as_slice()), (202, b"one".as_slice()));
        assert!(lines[1..201].iter().all(|line| line == &much));
        assert_eq!(lines[201], b"no end");
    }
}
