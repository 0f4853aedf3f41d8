//! What the host tells about a bundle over a netlink socket, kept beside the bundle's log.
//!
//! The monitor holds the socket for as long as the bundle runs, and writes down what comes. It
//! knows nothing of what it says: the caller gives the protocol and the messages that ask for it.
//! A datagram becomes a line of a log as the bundle's own output does, in hexadecimal, in a
//! directory of its own.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use serde::{Deserialize, Serialize};

use super::log::{LogReader, LogWriter};
use super::spec::LogLimits;
use crate::fsutil::{self, PathError};

/// A file of it that has reached this many bytes is rotated.
const LIMITS: LogLimits = LogLimits { max_size: 256 << 10, max_files: 3 };

/// A datagram longer than this is none that is waited for.
const MAX_DATAGRAM: usize = 4 << 10;

/// So many datagrams are read in one go: a flood must not hold up the bundle's output.
const AT_ONCE: usize = 64;

/// How long after a refusal it is asked again: the monitor of the bundle that was before may still
/// hold what is asked for.
const PATIENCE: Duration = Duration::from_millis(200);

/// How often it is asked again.
const ATTEMPTS: u32 = 50;

/// What is listened to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feed {
    /// The netlink protocol.
    pub protocol: i32,
    /// The messages, each with its header, that ask for what is to come. The kernel acknowledges
    /// each of them.
    pub setup: Vec<Vec<u8>>,
}

impl Feed {
    /// Begins to listen. What comes waits in the socket until a [`Listener`] reads it. `None` if
    /// it cannot be heard now.
    pub(super) fn listen(&self) -> Option<OwnedFd> {
        listen(self).ok()
    }
}

/// The directory of what was heard, below that of the bundle's log.
fn directory(log: &Path) -> PathBuf {
    log.join("feed")
}

/// Listens and writes down.
#[derive(Debug)]
pub(super) struct Listener {
    feed: Feed,
    socket: Option<OwnedFd>,
    attempts: u32,
    log: LogWriter,
}

impl Listener {
    /// Goes on with a socket that listens already, or begins to listen; what is written goes below
    /// the directory of the bundle's log.
    ///
    /// # Errors
    /// What the file system said.
    pub(super) fn new(feed: &Feed, log: &Path, socket: Option<OwnedFd>) -> Result<Self, PathError> {
        let directory = directory(log);
        fsutil::create_private_dir(&directory)?;
        let log = LogWriter::open(&directory, LIMITS)?;
        let mut listener = Self { feed: feed.clone(), socket, attempts: ATTEMPTS, log };
        listener.try_again();
        Ok(listener)
    }

    /// What becomes readable when something comes; none while it does not listen.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// After how long to try again, if it does not listen yet.
    pub(super) fn patience(&self) -> Option<Duration> {
        (self.socket.is_none() && self.attempts > 0).then_some(PATIENCE)
    }

    /// Tries to listen, unless it does already.
    pub(super) fn try_again(&mut self) {
        if self.socket.is_none() && self.attempts > 0 {
            self.attempts -= 1;
            // What cannot be heard is not kept: the bundle runs all the same.
            self.socket = listen(&self.feed).ok();
        }
    }

    /// Writes down what has come.
    pub(super) fn read(&mut self, time: &str) {
        let Some(socket) = &self.socket else { return };
        let mut lines = Vec::new();
        let mut buffer = [0; MAX_DATAGRAM + 1];
        for _ in 0..AT_ONCE {
            match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) if length <= MAX_DATAGRAM => {
                    let text = HEXLOWER.encode(&buffer[..length]);
                    lines.extend_from_slice(format!("{time} stdout F {text}\n").as_bytes());
                }
                // Some were lost, or one is none of ours: what comes next is read all the same.
                Ok(_) => {}
                Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        if !lines.is_empty() {
            self.log.write(&lines, time);
        }
    }
}

fn listen(feed: &Feed) -> io::Result<OwnedFd> {
    let protocol = isize::try_from(feed.protocol).unwrap_or(isize::MAX);
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_non_blocking(true)?;
    for message in &feed.setup {
        socket.send(message, 0)?;
        // The kernel answers inside sendmsg(2).
        let (answer, _) = socket.recv_from_full()?;
        if let Some(errno) = refusal(&answer) {
            return Err(io::Error::from_raw_os_error(errno));
        }
    }
    socket.as_fd().try_clone_to_owned()
}

/// The errno of an answer that is an error: it stands behind a header of 16 bytes (netlink(7)).
fn refusal(answer: &[u8]) -> Option<i32> {
    const NLMSG_ERROR: u16 = 2;
    let is_error = answer.get(4..6) == Some(&NLMSG_ERROR.to_ne_bytes());
    let code = answer.get(16..)?.first_chunk().map(|b| i32::from_ne_bytes(*b))?;
    (is_error && code != 0).then_some(-code)
}

/// Reads what was heard from the oldest on.
#[derive(Debug)]
pub struct FeedReader(LogReader);

impl FeedReader {
    /// A reader of what is below the directory of a bundle's log; it may not be there yet.
    pub fn new(log: &Path) -> Self {
        Self(LogReader::new(directory(log)))
    }

    /// The next datagram and when it came, in RFC 3339; `None` at the end, where more may come
    /// later.
    ///
    /// # Errors
    /// What the file system said.
    pub fn next_datagram(&mut self) -> Result<Option<(String, Vec<u8>)>, PathError> {
        while let Some(line) = self.0.next_line()? {
            // A line that is none was cut by a crash.
            if let Ok(datagram) = HEXLOWER.decode(&line.text) {
                return Ok(Some((line.time, datagram)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_is_no_refusal() {
        let answer = |kind: u16, code: i32| {
            let mut bytes = vec![0; 20];
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes[16..20].copy_from_slice(&code.to_ne_bytes());
            bytes
        };
        assert_eq!(refusal(&answer(2, 0)), None);
        assert_eq!(refusal(&answer(2, -libc::EPERM)), Some(libc::EPERM));
        assert_eq!(refusal(&answer(3, -1)), None);
        assert_eq!(refusal(&[]), None);
    }

    #[test]
    fn what_was_heard_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        fs_log(dir.path(), "t1 stdout F 00ff\nt2 stdout F 0\nt3 stdout F \n");
        let mut reader = FeedReader::new(dir.path());
        assert_eq!(reader.next_datagram().unwrap(), Some(("t1".to_owned(), vec![0, 255])));
        assert_eq!(reader.next_datagram().unwrap(), Some(("t3".to_owned(), Vec::new())));
        assert_eq!(reader.next_datagram().unwrap(), None);
    }

    fn fs_log(log: &Path, content: &str) {
        std::fs::create_dir_all(directory(log)).unwrap();
        std::fs::write(directory(log).join(super::super::log::LOG_FILE), content).unwrap();
    }
}
