//! A command in a container that nobody waits for idly: a check of its health, or of whether it is
//! ready. Its output is kept in part, and it can be given up.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;

use super::HelperBinary;
use super::protocol::{
    EXEC_NAME, ExecOrder, ExecRequest, REPORT_FD, REQUEST_FD, Report, receive, send,
};
use crate::oci::spec::Container;
use crate::oci::status::Started;

/// What is kept of its output, as Docker.
const OUTPUT_MAX: usize = 4096;
/// What a helper reports takes less.
const REPORT_MAX: usize = 64 << 10;

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckEnd {
    /// Its exit code, or 128 + the signal that ended it; `None` if it could not be run or was given
    /// up.
    pub(crate) exit_code: Option<i32>,
    /// The first of its output, or why it could not be run.
    pub(crate) output: String,
}

/// A command that runs. Dropped, it is killed.
pub(crate) struct Check {
    helper: Child,
    /// Open as long as somebody waits for the command.
    _request: File,
    report: Drain,
    output: Drain,
}

/// The end of a pipe that is read as it fills, and kept in part.
struct Drain {
    pipe: Option<File>,
    kept: Vec<u8>,
    most: usize,
}

impl Drain {
    fn new(pipe: OwnedFd, most: usize) -> io::Result<Self> {
        rustix::fs::fcntl_setfl(&pipe, rustix::fs::fcntl_getfl(&pipe)? | OFlags::NONBLOCK)?;
        Ok(Self { pipe: Some(pipe.into()), kept: Vec::new(), most })
    }

    fn pump(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Ok(n) if n > 0 => {
                    let room = self.most.saturating_sub(self.kept.len());
                    self.kept.extend_from_slice(&buffer[..n.min(room)]);
                }
                Ok(_) | Err(_) => self.pipe = None,
            }
        }
    }
}

impl Check {
    /// Runs `args` in the container as its own user, in its own directory and environment.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn begin(
        binary: &HelperBinary,
        container: &Container,
        started: &Started,
        args: Vec<String>,
    ) -> io::Result<Self> {
        let (mut command, _sealed) = binary.command(EXEC_NAME, &container.name)?;
        Self::spawn(&mut command, container, started, args)
    }

    /// The same for a helper process, which runs what itself runs.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn begin_in_helper(
        container: &Container,
        started: &Started,
        args: Vec<String>,
    ) -> io::Result<Self> {
        use std::os::unix::process::CommandExt;
        // Through the sealed mount: see `binary.rs`.
        let mut command = Command::new("/proc/self/exe");
        command.arg0(EXEC_NAME).arg(container.name.as_str()).env_clear().current_dir("/");
        Self::spawn(&mut command, container, started, args)
    }

    fn spawn(
        command: &mut Command,
        container: &Container,
        started: &Started,
        args: Vec<String>,
    ) -> io::Result<Self> {
        let (request_read, request_write) = io::pipe()?;
        let (report_read, report_write) = io::pipe()?;
        let (output_read, output_write) = io::pipe()?;
        command.stdin(Stdio::null()).stdout(output_write.try_clone()?).stderr(output_write);
        command
            .fd_mappings(vec![
                FdMapping { parent_fd: request_read.into(), child_fd: REQUEST_FD },
                FdMapping { parent_fd: report_write.into(), child_fd: REPORT_FD },
            ])
            .map_err(io::Error::other)?;
        let helper = command.spawn()?;
        let mut check = Self {
            helper,
            _request: File::from(OwnedFd::from(request_write)),
            report: Drain::new(report_read.into(), REPORT_MAX)?,
            output: Drain::new(output_read.into(), OUTPUT_MAX)?,
        };
        let request = ExecRequest { args, ..ExecRequest::default() };
        let order = ExecOrder { container: container.clone(), started: started.clone(), request };
        send(&mut check._request, &order)?;
        Ok(check)
    }

    /// What to wait for.
    pub(crate) fn fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        let pipes = [&self.report.pipe, &self.output.pipe].into_iter().flatten();
        pipes.map(|pipe| PollFd::new(pipe, PollFlags::IN))
    }

    /// Takes in what is there; true once the command has ended.
    pub(crate) fn pump(&mut self) -> bool {
        self.report.pump();
        self.output.pump();
        self.report.pipe.is_none()
    }

    /// How it ended. Called after [`Check::pump`] said so, or else it is given up.
    pub(crate) fn end(mut self) -> CheckEnd {
        let mut reports = self.report.kept.as_slice();
        let mut end = CheckEnd {
            exit_code: None,
            output: String::from_utf8_lossy(&std::mem::take(&mut self.output.kept)).into_owned(),
        };
        while let Some(report) = receive::<Report>(&mut reports) {
            match report {
                Report::Exited(code) => end.exit_code = Some(code),
                Report::Failed(failure) => end.output = failure.message,
                _ => {}
            }
        }
        end
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        // The command goes with its helper. A program that embeds the library may have reaped it.
        let _ = self.helper.kill();
        let _ = self.helper.wait();
    }
}
