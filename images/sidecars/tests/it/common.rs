//! A bundle under test.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The program, with ports of the kernel's choice and no list of daemons.
pub(crate) fn sidecars() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidecars"));
    command
        .env_remove("CLAUDE_BOTTLE_SIDECAR_DAEMONS")
        .env("SIDECARS_HEALTH_LISTEN", "127.0.0.1:0")
        .env("SIDECARS_ECHO_LISTEN", "127.0.0.1:0")
        .env("CARBOY_SLUG", "test-1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Sends a signal to a process of the test's own.
pub(crate) fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.try_into().expect("a pid")), signal).expect("kill");
}

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum From {
    Stdout,
    Stderr,
}

/// A running program and the lines it has written. It is killed with the test.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<(From, String)>,
    seen: Vec<(From, String)>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("start");
        let (sender, lines) = channel();
        // What the test has put elsewhere is not read here.
        let stdout = child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>);
        let stderr = child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>);
        for (from, stream) in [(From::Stdout, stdout), (From::Stderr, stderr)] {
            let Some(stream) = stream else { continue };
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if sender.send((from, line)).is_err() {
                        return;
                    }
                }
            });
        }
        Self { child, lines, seen: Vec::new() }
    }

    /// A bundle of these daemons.
    pub(crate) fn bundle(list: &str) -> Self {
        let mut command = sidecars();
        command.env("CLAUDE_BOTTLE_SIDECAR_DAEMONS", list);
        Self::start(command)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line that begins with `start`, or takes one that was there; the rest of it.
    pub(crate) fn line(&mut self, start: &str) -> (From, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.seen.iter().find_map(|(from, line)| {
                line.strip_prefix(start).map(|rest| (*from, rest.to_owned()))
            });
            if let Some(found) = found {
                return found;
            }
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(_) => panic!("no line {start:?} among {:#?}", self.seen),
            }
        }
    }

    /// The address a daemon says it listens on.
    pub(crate) fn address(&mut self, daemon: &str) -> SocketAddr {
        let (from, address) = self.line(&format!("[{daemon}] listening on "));
        assert_eq!(from, From::Stdout);
        address.parse().expect("an address")
    }

    /// The pid the supervisor says a daemon has.
    pub(crate) fn daemon_pid(&mut self, daemon: &str) -> u32 {
        let (from, pid) = self.line(&format!("[sidecars] {daemon}: started, pid "));
        assert_eq!(from, From::Stderr);
        pid.parse().expect("a pid")
    }

    /// Waits for the end; the status and all lines.
    pub(crate) fn wait(mut self) -> (ExitStatus, Vec<(From, String)>) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("still running: {:#?}", self.seen),
            }
        }
        (self.child.wait().expect("wait"), std::mem::take(&mut self.seen))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail if it has been waited for, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
