//! One daemon's process, as the supervisor sees it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStdin, Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::daemons::Daemon;
use crate::prefix::Prefixer;
use crate::signals::wait;
use crate::state::{Ending, State};
use crate::sys;

/// Bytes read from a daemon at once.
const CHUNK: usize = 8 * 1024;

/// This program: the same file, whatever its name is or has become.
const SELF: &str = "/proc/self/exe";

/// One of a daemon's output streams.
struct Stream {
    /// `None` after its end.
    pipe: Option<File>,
    lines: Prefixer,
}

/// A daemon that was to be started.
pub(crate) struct Child {
    name: &'static str,
    pid: u32,
    state: State,
    streams: [Stream; 2],
    /// Where it is told the states, if it asked for them.
    states: Option<ChildStdin>,
}

/// Names one of a daemon's output streams.
#[derive(Clone, Copy)]
pub(crate) enum Which {
    Stdout,
    Stderr,
}

impl Child {
    /// Both streams, in the order of file descriptors.
    pub(crate) const STREAMS: [Which; 2] = [Which::Stdout, Which::Stderr];

    /// Starts a daemon.
    ///
    /// # Errors
    /// No process or no pipe can be made, or `/proc` is not mounted.
    pub(crate) fn start(daemon: &'static Daemon) -> io::Result<Self> {
        let mut child = Command::new(SELF)
            .arg0("sidecars")
            .args(["daemon", daemon.name])
            // Never /dev/null: the bundle shall start whatever its /dev holds.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stream = |pipe: Option<OwnedFd>| Stream {
            pipe: pipe.map(File::from),
            lines: Prefixer::new(daemon.name),
        };
        Ok(Self {
            name: daemon.name,
            pid: child.id(),
            state: State::Running,
            streams: [
                stream(child.stdout.take().map(OwnedFd::from)),
                stream(child.stderr.take().map(OwnedFd::from)),
            ],
            states: child.stdin.take().filter(|_| daemon.reads_states),
        })
    }

    /// Stands for a daemon that could not be started: it ended as a shell would say it.
    pub(crate) fn not_started(daemon: &'static Daemon) -> Self {
        let stream = || Stream { pipe: None, lines: Prefixer::new(daemon.name) };
        Self {
            name: daemon.name,
            pid: 0,
            state: State::Ended(Ending::Exited(126)),
            streams: [stream(), stream()],
            states: None,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Remembers how it ended, after it has been reaped.
    pub(crate) fn ended(&mut self, ending: Ending) {
        self.state = State::Ended(ending);
        self.states = None;
    }

    /// Sends it a signal, if it still runs.
    pub(crate) fn signal(&self, number: i32) -> io::Result<()> {
        match self.state {
            State::Running => sys::send(self.pid, number),
            State::Ended(_) => Ok(()),
        }
    }

    /// The stream to poll, unless it has ended.
    pub(crate) fn pipe(&self, which: Which) -> Option<&File> {
        self.streams[which as usize].pipe.as_ref()
    }

    /// Reads once from a stream that is ready, and appends the lines that are complete to `out`.
    pub(crate) fn read_once(&mut self, which: Which, out: &mut Vec<u8>) {
        let stream = &mut self.streams[which as usize];
        let Some(pipe) = &mut stream.pipe else { return };
        let mut chunk = [0; CHUNK];
        match pipe.read(&mut chunk) {
            Ok(0) => {
                stream.pipe = None;
                stream.lines.finish(out);
            }
            Ok(count) => stream.lines.push(&chunk[..count], out),
            // It comes again, or ends with the next read.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => stream.pipe = None,
        }
    }

    /// Passes on an unfinished line: nobody will read the stream again.
    pub(crate) fn finish(&mut self, which: Which, out: &mut Vec<u8>) {
        self.streams[which as usize].lines.finish(out);
    }

    /// Tells it the states, if it asked for them and reads them. A table that does not fit is left
    /// out: each one is complete, and the next makes good for it.
    pub(crate) fn tell(&mut self, table: &str) {
        let Some(pipe) = &mut self.states else { return };
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)];
        let has_room = wait(&mut fds, PollTimeout::ZERO).is_ok()
            && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLOUT));
        if has_room && pipe.write_all(table.as_bytes()).is_err() {
            self.states = None;
        }
    }
}
