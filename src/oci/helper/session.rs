//! A command in a container, from the side of the program that asked for it.

use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;

use command_fds::{CommandFdExt, FdMapping};

use super::HelperBinary;
use super::protocol::{
    Control, EXEC_NAME, ExecOrder, ExecRequest, REPORT_FD, REQUEST_FD, Report, WindowSize, receive,
    send,
};
use super::reap;
use crate::oci::runtime_error::RuntimeError;
use crate::oci::spec::Container;
use crate::oci::status::Started;

/// What a command in a container reads from and writes to. It is given none of these itself, but
/// pipes or a terminal, and a helper process passes the bytes on: what is inside cannot reach a
/// terminal or a file of the host.
#[derive(Debug)]
pub struct ExecStreams {
    /// Its input.
    pub stdin: Stdio,
    /// Its output.
    pub stdout: Stdio,
    /// Its error output.
    pub stderr: Stdio,
}

impl ExecStreams {
    /// Nothing to read, and nobody who reads.
    pub fn null() -> Self {
        Self { stdin: Stdio::null(), stdout: Stdio::null(), stderr: Stdio::null() }
    }
}

/// How a command in a container ended: its exit code, or 128 + the signal that ended it.
pub type ExecCode = i32;

/// How the wait for a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecEnd {
    /// The command has ended.
    Exited(ExecCode),
    /// It goes on without its caller, who typed the detach keys or asked for it.
    Detached,
}

/// A command that runs in a container.
///
/// Unless it was started detached it dies with the program that started it, and with the thread
/// that did (`PR_SET_PDEATHSIG` of prctl(2)). Dropping the session ends it as well.
#[derive(Debug)]
pub struct ExecSession {
    container: String,
    pid: i32,
    child: Child,
    reports: BufReader<File>,
    control: Option<Arc<File>>,
}

/// Tells a command in a container something while another thread waits for its end.
#[derive(Clone, Debug)]
pub struct ExecControl {
    pipe: Arc<File>,
}

impl ExecControl {
    /// Sends the command a signal, by number. One that has ended is none the wiser.
    ///
    /// # Errors
    /// What the kernel said, if nobody listens any more.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        send(&mut &*self.pipe, &Control::Signal(signal))
    }

    /// Tells the command's terminal how large it is now.
    ///
    /// # Errors
    /// As [`ExecControl::signal`].
    pub fn resize(&self, size: WindowSize) -> io::Result<()> {
        send(&mut &*self.pipe, &Control::Resize(size))
    }
}

/// Starts a command in a running container; it runs when this returns.
///
/// # Errors
/// [`RuntimeError::ProgramNotFound`] and the like, as [`RuntimeError::Reported`].
pub(crate) fn start(
    binary: &HelperBinary,
    container: &Container,
    started: &Started,
    request: ExecRequest,
    streams: ExecStreams,
) -> Result<ExecSession, RuntimeError> {
    let name = &container.name;
    let detached = request.detached;
    let order = ExecOrder { container: container.clone(), started: started.clone(), request };
    let failed = |source| RuntimeError::Spawn { container: name.to_string(), source };
    let (mut command, sealed) = binary.command(EXEC_NAME, name).map_err(failed)?;
    let (request_read, request_write) = io::pipe().map_err(failed)?;
    let (report_read, report_write) = io::pipe().map_err(failed)?;
    command.stdin(streams.stdin).stdout(streams.stdout).stderr(streams.stderr);
    command
        .fd_mappings(vec![
            FdMapping { parent_fd: request_read.into(), child_fd: REQUEST_FD },
            FdMapping { parent_fd: report_write.into(), child_fd: REPORT_FD },
        ])
        .map_err(|e| failed(io::Error::other(e)))?;
    let mut child = command.spawn().map_err(failed)?;
    // The command holds our copies of the child's ends.
    drop((command, sealed));
    let died = || RuntimeError::HelperDied { container: name.to_string() };
    let control = File::from(OwnedFd::from(request_write));
    let mut reports = BufReader::new(File::from(OwnedFd::from(report_read)));
    let first = send(&mut &control, &order).ok().and_then(|()| receive(&mut reports));
    if detached || !matches!(first, Some(Report::Running(_))) {
        // A detached command is another process' child by now; a failed one is nobody's.
        reap(&mut child).map_err(failed)?;
    }
    let pid = match first {
        Some(Report::Running(pid)) => pid,
        Some(Report::Failed(failure)) => return Err(failure.into()),
        _ => return Err(died()),
    };
    let control = (!detached).then(|| Arc::new(control));
    Ok(ExecSession { container: name.to_string(), pid, child, reports, control })
}

impl ExecSession {
    /// The command's process, as the host counts.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A way to reach the command from other threads; `None` for one that was started detached.
    pub fn control(&self) -> Option<ExecControl> {
        self.control.clone().map(|pipe| ExecControl { pipe })
    }

    /// Waits until the command has ended and all it wrote is passed on, or until it is detached.
    ///
    /// # Errors
    /// [`RuntimeError::HelperDied`] if nobody knows how it ended.
    pub fn wait(mut self) -> Result<ExecEnd, RuntimeError> {
        if self.control.is_none() {
            return Ok(ExecEnd::Detached);
        }
        let last = receive(&mut self.reports);
        if let Some(Report::Detached) = last {
            return Ok(ExecEnd::Detached);
        }
        // Only to reap: a program that embeds the library may have done so itself.
        let status = self.child.wait();
        match last {
            Some(Report::Exited(code)) => Ok(ExecEnd::Exited(code)),
            // The helper was killed, and the command with it.
            None => Ok(ExecEnd::Exited(status.map_or(128 + libc::SIGKILL, code))),
            Some(_) => Err(RuntimeError::HelperDied { container: self.container }),
        }
    }
}

fn code(status: ExitStatus) -> ExecCode {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(255)
}
