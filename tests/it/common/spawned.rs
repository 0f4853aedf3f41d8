//! A command that runs beside the test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::poll;

/// A command that runs inside; killed when dropped.
#[derive(Debug)]
pub(crate) struct Spawned {
    /// `nsenter`, whose only child is the command itself.
    child: Child,
    stdout: Option<ChildStdout>,
}

impl Spawned {
    /// Starts it, with nothing on stdin.
    pub(crate) fn new(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take();
        Self { child, stdout }
    }

    /// The command's process, as the machine counts; none once it has ended.
    pub(crate) fn pid(&self) -> Option<u32> {
        child_of(self.child.id())
    }

    /// Sends the command a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().unwrap().cast_signed()), signal).unwrap();
    }

    /// Lets a command go on that was sent SIGSTOP. `nsenter` stops when its child does.
    pub(crate) fn go_on(&self) {
        for pid in [self.pid().unwrap(), self.child.id()] {
            kill(Pid::from_raw(pid.cast_signed()), Signal::SIGCONT).unwrap();
        }
    }

    /// True once the command has ended.
    pub(crate) fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Kills the command with SIGKILL and waits for its end; true if it was still running.
    pub(crate) fn kill(&mut self) -> bool {
        let running = !self.ended();
        if let Some(pid) = self.pid() {
            // It may end by itself in between.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        drop(self.child.kill());
        drop(self.child.wait());
        running
    }

    /// Waits for the end; the exit code, if it was not a signal.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let ended = poll(Duration::from_secs(30), || self.ended());
        assert!(ended, "the spawned command still runs after 30 s");
        self.child.wait().unwrap().code()
    }

    /// The lines of its stdout as they come.
    pub(crate) fn lines(&mut self) -> impl Iterator<Item = String> + use<> {
        BufReader::new(self.stdout.take().unwrap()).lines().map_while(Result::ok)
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The only child of a process (proc_pid_task_children(5)).
pub(crate) fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
