//! The supervisor's own stdout or stderr. A reader that has stopped reading must not stop the
//! supervisor, which has signals to answer; so bytes wait here until the stream takes them.

use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};

use crate::signals::{is_ready, until, wait};

/// A pipe that polls as writable takes this many bytes at once without waiting (PIPE_BUF, pipe(7)).
const ATOMIC: usize = 4096;

/// With this many bytes waiting, no more are read from the daemons.
const ENOUGH: usize = 64 * 1024;

/// A stream and what waits to be written to it.
pub(crate) struct Output<W> {
    stream: W,
    waiting: Vec<u8>,
    written: usize,
}

impl<W: Write + AsFd> Output<W> {
    /// `stream` must not buffer.
    pub(crate) fn new(stream: W) -> Self {
        Self { stream, waiting: Vec::new(), written: 0 }
    }

    /// The place to append whole lines to.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.waiting
    }

    /// False while so much waits that the daemons have to wait too.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < ENOUGH
    }

    /// True if there is something to write.
    pub(crate) fn wants_to_write(&self) -> bool {
        self.written < self.waiting.len()
    }

    /// Writes once; to be called when the stream polls as writable. If it fails (the reader is gone,
    /// the disk full), what waits is dropped: the daemons' work does not depend on a log.
    pub(crate) fn write_once(&mut self) {
        let chunk = next_chunk(&self.waiting[self.written..]);
        match self.stream.write(chunk) {
            Ok(count) => self.written += count,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => {}
                _ => self.written = self.waiting.len(),
            },
        }
        if self.written == self.waiting.len() {
            self.waiting.clear();
            self.written = 0;
        } else if self.written >= ENOUGH {
            self.waiting.drain(..self.written);
            self.written = 0;
        }
    }

    /// Writes what waits, as far as the stream takes it in `patience`.
    pub(crate) fn flush(&mut self, patience: Duration) {
        let deadline = Some(Instant::now() + patience);
        while self.wants_to_write() {
            let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLOUT)];
            if wait(&mut fds, until(deadline)).is_err() || !is_ready(&fds[0]) {
                return;
            }
            self.write_once();
        }
    }
}

impl<W: AsFd> AsFd for Output<W> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// The bytes for one write: whole lines as far as they fit, so that lines do not mix where stdout
/// and stderr are one file.
fn next_chunk(waiting: &[u8]) -> &[u8] {
    let window = &waiting[..waiting.len().min(ATOMIC)];
    match window.iter().rposition(|&byte| byte == b'\n') {
        Some(end) => &window[..=end],
        None => window,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn chunks_end_with_a_line() {
        let long = [b'x'; 2 * ATOMIC];
        for (waiting, want) in [
            (&b""[..], 0),
            (b"one\ntwo\n", 8),
            (b"one\ntw", 4),
            (b"tw", 2),
            (&long, ATOMIC),
            (&[&b"one\n"[..], &long].concat(), 4),
        ] {
            assert_eq!(next_chunk(waiting).len(), want);
        }
    }

    #[test]
    fn a_reader_that_waits_stops_nothing_and_loses_nothing() {
        let (mut reader, writer) = std::io::pipe().expect("pipe");
        let mut output = Output::new(writer);
        let line = [&[b'x'; 99][..], b"\n"].concat();
        let lines = 3000;
        for _ in 0..lines {
            output.buffer().extend_from_slice(&line);
        }
        // More than a pipe holds: this returns although nobody reads.
        output.flush(Duration::from_millis(1));
        assert!(output.wants_to_write() && !output.has_room());

        let all = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        });
        output.flush(Duration::from_secs(10));
        drop(output);
        let all = all.join().expect("no panic").expect("read");
        assert!(all == line.repeat(lines));
    }

    #[test]
    fn a_reader_that_is_gone_stops_nothing() {
        let (reader, writer) = std::io::pipe().expect("pipe");
        drop(reader);
        let mut output = Output::new(writer);
        for _ in 0..2 {
            output.buffer().extend_from_slice(b"line\n");
            output.flush(Duration::from_secs(10));
            assert!(!output.wants_to_write());
        }
    }
}
