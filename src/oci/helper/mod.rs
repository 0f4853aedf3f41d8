//! Helper processes: libcontainer runs in them and nowhere else.
//!
//! libcontainer clones the process it is called in and then allocates: in a threaded program that
//! deadlocks. So the library runs this executable again, as a small single-threaded program, and
//! talks to it over pipes. A program that embeds the library calls [`run_if_requested`] first
//! thing in its `main`, or names another executable that does.

mod binary;
mod caller;
pub(crate) mod check;
mod checks;
mod detach;
mod exec;
mod memory;
pub(crate) mod monitor;
mod output;
mod pipes;
mod prepare;
mod protocol;
mod relay;
pub(crate) mod session;
mod stages;
mod watch;

use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::binary::SealedBinary;
use self::protocol::{EXEC_NAME, MONITOR_NAME, Order, Report, receive, send};
pub use self::protocol::{ExecRequest, Failure, Terminal, WindowSize};
pub(crate) use self::protocol::{StartRequest, Surroundings};
pub use self::session::{ExecCode, ExecControl, ExecEnd, ExecSession, ExecStreams};
use super::runtime_error::RuntimeError;
use super::status::Started;
use crate::names::ContainerName;

/// Becomes a helper process if this process was started as one, and then never returns.
///
/// It changes nothing otherwise. Call it before anything else in `main`, in particular before any
/// thread is started.
pub fn run_if_requested() {
    let mut arguments = std::env::args_os();
    let main = match arguments.next().as_deref().and_then(|a| a.to_str()) {
        Some(MONITOR_NAME) => monitor::main,
        Some(EXEC_NAME) => exec::main,
        _ => return,
    };
    detach::expect_children();
    let code = main();
    std::process::exit(code)
}

/// The executable that helper processes run; the running one unless a path is given.
#[derive(Clone, Debug, Default)]
pub struct HelperBinary(pub Option<PathBuf>);

impl HelperBinary {
    fn command(
        &self,
        argv0: &str,
        container: &ContainerName,
    ) -> io::Result<(Command, SealedBinary)> {
        let sealed = SealedBinary::open(self.0.as_deref())?;
        let mut command = Command::new(sealed.path());
        command.arg0(argv0).arg(container.as_str()).env_clear().current_dir("/");
        Ok((command, sealed))
    }
}

/// A monitor that runs and waits to be told what to start. Dropped, it goes without a trace.
#[derive(Debug)]
pub(crate) struct PreparedMonitor {
    container: ContainerName,
    /// What is sent to it, and what it reports; taken by the start.
    pipes: Option<(File, BufReader<File>)>,
}

/// How long a monitor that is not needed may take to go.
const DISMISSAL_PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

impl Drop for PreparedMonitor {
    fn drop(&mut self) {
        let Some((request, report)) = self.pipes.take() else { return };
        drop(request);
        // Its end of the pipe closes when it ends: nothing of a refused call is left behind.
        let mut ended = [PollFd::new(report.get_ref(), PollFlags::IN)];
        let _ = poll(&mut ended, Some(&DISMISSAL_PATIENCE));
    }
}

impl PreparedMonitor {
    /// Starts the monitor process of `container`.
    ///
    /// # Errors
    /// [`RuntimeError::Spawn`].
    pub(crate) fn spawn(
        binary: &HelperBinary,
        container: &ContainerName,
    ) -> Result<Self, RuntimeError> {
        let spawned = (|| {
            let (mut command, _sealed) = binary.command(MONITOR_NAME, container)?;
            let (request_read, request) = io::pipe()?;
            let (report, report_write) = io::pipe()?;
            command.stdin(request_read).stdout(report_write).stderr(Stdio::null());
            let mut child = command.spawn()?;
            reap(&mut child)?;
            let report = BufReader::new(File::from(OwnedFd::from(report)));
            Ok((File::from(OwnedFd::from(request)), report))
        })();
        let pipes = spawned
            .map_err(|source| RuntimeError::Spawn { container: container.to_string(), source })?;
        Ok(Self { container: container.clone(), pipes: Some(pipes) })
    }

    /// Has it start the container, and waits until the container's program runs.
    ///
    /// # Errors
    /// What the monitor reported; nothing of the container runs then.
    pub(crate) fn start(self, request: StartRequest) -> Result<Started, RuntimeError> {
        self.order(&Order::Start(Box::new(request)))
    }

    /// Has it go on with the running container, whose directory on tmpfs is `state` and whose
    /// monitor was killed.
    ///
    /// # Errors
    /// What the monitor reported; the container runs on without one then.
    pub(crate) fn take_over(self, state: &Path) -> Result<Started, RuntimeError> {
        self.order(&Order::TakeOver { state: state.to_owned() })
    }

    fn order(mut self, order: &Order) -> Result<Started, RuntimeError> {
        let died = || RuntimeError::HelperDied { container: self.container.to_string() };
        let (mut to, mut from) = self.pipes.take().ok_or_else(died)?;
        send(&mut to, order).map_err(|_| died())?;
        match receive(&mut from) {
            Some(Report::Started(started)) => Ok(started),
            Some(Report::Failed(failure)) => Err(failure.into()),
            Some(Report::Running(_) | Report::Exited(_) | Report::Detached) | None => Err(died()),
        }
    }
}

/// Waits for a process that forked and left its child on its own.
///
/// A program that embeds the library may reap all its children itself: then the status is lost,
/// and that is fine, for the report comes over a pipe.
fn reap(child: &mut Child) -> io::Result<()> {
    match child.wait() {
        Err(e) if e.raw_os_error() == Some(libc::ECHILD) => Ok(()),
        other => other.map(drop),
    }
}
