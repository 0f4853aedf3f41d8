//! The helper that runs a command in a running container: the parent of the command, which passes
//! on its input, output and signals and reports its exit code.
//!
//! It is a child of the caller and dies with it, and the command too. A command that is detached
//! keeps its helper, without a caller: somebody has to hold its terminal, and to reap it.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::stdio;

use super::caller;
use super::detach::{close_from, leave_caller, set_name};
use super::monitor::wait_code;
use super::pipes;
use super::prepare::{environment, on_host, resolve_user};
use super::protocol::{
    Control, EXEC_NAME, ExecOrder, Failure, REPORT_FD, REQUEST_FD, Report, Terminal, receive, send,
};
use super::relay::{self, Controls, Lane, Stop, unblock};
use crate::fsutil::{PathContext, PathError};
use crate::oci::namespaces::Entrance;
use crate::oci::rootfs::Rootfs;
use crate::oci::runtime::{self, Bond, Streams};
use crate::oci::runtime_error::RuntimeError;
use crate::oci::user::ResolvedUser;
use crate::oci::{apparmor, cgroup, identity, process, runtime_spec, terminal};

/// The exit code for carboy's own fault, as Docker's.
const OWN_FAULT: i32 = 125;

/// What Docker tells a command on a terminal about it.
const TERM: (&str, &str) = ("TERM", "xterm");

/// The helper's `main`.
pub(super) fn main() -> i32 {
    set_name(EXEC_NAME);
    // SAFETY: whoever started this process gave it these two descriptors, and nothing here has
    // taken them yet. A caller that did not gave none: then reading fails.
    let (request, mut report) = unsafe {
        (File::from(OwnedFd::from_raw_fd(REQUEST_FD)), File::from(OwnedFd::from_raw_fd(REPORT_FD)))
    };
    let mut request = BufReader::new(request);
    if close_from(REPORT_FD.cast_unsigned() + 1).is_err() || caller::bind().is_err() {
        return OWN_FAULT;
    }
    let Some(order) = receive::<ExecOrder>(&mut request) else { return OWN_FAULT };
    if order.request.detached && leave_caller().is_err() {
        return OWN_FAULT;
    }
    let told = match start(&order) {
        Ok(command) => send(&mut report, &Report::Running(command.pid))
            .and_then(|()| command.attend(&order, request, &mut report)),
        Err(error) => {
            let mut failure = Failure::of(&error);
            failure.exit_code = error.exit_code();
            send(&mut report, &Report::Failed(failure))
        }
    };
    told.map_or(OWN_FAULT, |()| 0)
}

/// A command that runs.
struct Command {
    pid: i32,
    pidfd: OwnedFd,
    lanes: Vec<Lane>,
    /// The helper's side of its terminal.
    terminal: Option<Rc<OwnedFd>>,
}

fn start(order: &ExecOrder) -> Result<Command, RuntimeError> {
    let ExecOrder { container, started, request } = order;
    let mut container = container.clone();
    container.security.apparmor = apparmor::effective(container.security.apparmor.as_deref());
    let container = &container;
    let name = container.name.as_str();
    let not_running = || RuntimeError::NotRunning { container: name.to_owned() };
    let rootfs = Rootfs::of_process(started.init.pid)?;
    let entrance = container.userns.map(|_| Entrance::of(started.init.pid)).transpose()?;
    // The files of the right process: it was alive, and the one that is meant, after they were
    // opened.
    let alive = started.init.open().at("look at the process of", &container.state)?;
    alive.ok_or_else(not_running)?;
    let text = request.user.as_deref().unwrap_or(&container.process.user);
    let user = resolve_user(&rootfs, container, text)?;
    let on_host = on_host(container, &user)?;
    if let Some(cwd) = &request.cwd {
        rootfs.check_dir(Path::new(cwd))?;
    }
    let process =
        runtime_spec::exec_process(container, &user, &request.args, request.cwd.as_deref())
            .map_err(|e| RuntimeError::invalid(container, &e))?;
    let mut env = environment(container, &request.env, &user.home);
    if request.terminal.is_some() {
        process::complete(&mut env, &[TERM]);
    }
    let Plumbing { inside, lanes, terminal } = match &request.terminal {
        Some(wanted) => on_terminal(&rootfs, &on_host, wanted, order)?,
        None => on_pipes(&on_host, order)?,
    };
    cgroup::follow_monitor(&container.name, request.detached);
    let bond = Bond { dies_with_parent: !request.detached, terminal: request.terminal.is_some() };
    let pid = runtime::exec(container, env, &process, inside, bond, entrance.as_ref())?;
    let pidfd = open_child(pid).at("open the process of", Path::new(EXEC_NAME))?;
    Ok(Command { pid, pidfd, lanes, terminal })
}

/// The ends of a command's streams.
struct Plumbing {
    inside: Streams,
    lanes: Vec<Lane>,
    terminal: Option<Rc<OwnedFd>>,
}

fn on_terminal(
    rootfs: &Rootfs,
    user: &ResolvedUser,
    wanted: &Terminal,
    order: &ExecOrder,
) -> Result<Plumbing, RuntimeError> {
    let terminal::Pair { outer, inner } = terminal::open(rootfs, user.uid, wanted.size)?;
    let outer = Rc::new(outer);
    let mut lanes = vec![Lane::output(outer.clone(), take(stdio::stdout())?)];
    if order.request.stdin {
        let keys = wanted.detach_keys.clone();
        lanes.push(Lane::typed(take(stdio::stdin())?, outer.clone(), keys));
    }
    let inside = Streams { stdin: copy(&inner)?, stdout: copy(&inner)?, stderr: inner };
    Ok(Plumbing { inside, lanes, terminal: Some(outer) })
}

fn on_pipes(user: &ResolvedUser, order: &ExecOrder) -> Result<Plumbing, RuntimeError> {
    // Nobody is to see what a detached command writes; a pipe without a reader would end it.
    if order.request.detached {
        let inside =
            Streams { stdin: runtime::null()?, stdout: runtime::null()?, stderr: runtime::null()? };
        return Ok(Plumbing { inside, lanes: Vec::new(), terminal: None });
    }
    let mut lanes = Vec::new();
    let mut output = |stream: BorrowedFd<'_>| {
        let (ours, theirs) = pipes::new(&order.container)?;
        pipes::give(&theirs, user)?;
        unblock(&ours).at("prepare", Path::new("pipe"))?;
        lanes.push(Lane::output(Rc::new(ours), take(stream)?));
        Ok::<_, PathError>(theirs)
    };
    let (stdout, stderr) = (output(stdio::stdout())?, output(stdio::stderr())?);
    let stdin = if order.request.stdin {
        let (theirs, ours) = pipes::new(&order.container)?;
        pipes::give(&theirs, user)?;
        unblock(&ours).at("prepare", Path::new("pipe"))?;
        lanes.push(Lane::input(take(stdio::stdin())?, Rc::new(ours)));
        theirs
    } else {
        runtime::null()?
    };
    Ok(Plumbing { inside: Streams { stdin, stdout, stderr }, lanes, terminal: None })
}

fn copy(fd: &OwnedFd) -> Result<OwnedFd, PathError> {
    fd.try_clone().at("duplicate", Path::new("terminal"))
}

/// A standard stream of this process under another number.
fn take(stream: BorrowedFd<'_>) -> Result<OwnedFd, PathError> {
    stream.try_clone_to_owned().at("duplicate a stream of", Path::new(EXEC_NAME))
}

/// The pidfd of a child that is not reaped yet, and so has no stranger's number.
fn open_child(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

impl Command {
    /// Until it has ended, in whoever's service; tells the caller as long as there is one.
    fn attend(
        mut self,
        order: &ExecOrder,
        request: BufReader<File>,
        report: &mut File,
    ) -> io::Result<()> {
        if order.request.detached {
            drop(request);
            return self.keep(order);
        }
        let attended = caller::watch(self.pid)
            .map_err(io::Error::from)
            .and_then(|()| Controls::new(request))
            .and_then(|mut controls| self.pass_on(&mut controls));
        match attended {
            Ok(Stop::Ended) => {
                caller::forget();
                send(report, &Report::Exited(wait_code(self.pid)))
            }
            Ok(Stop::Detached) => {
                caller::let_go()?;
                send(report, &Report::Detached)?;
                // Only to be out of the caller's way; a helper may be a session leader already.
                let _ = nix::unistd::setsid();
                self.keep(order)
            }
            Ok(Stop::CallerGone) => {
                self.end();
                Ok(())
            }
            Err(error) => {
                self.end();
                Err(error)
            }
        }
    }

    fn pass_on(&mut self, controls: &mut Controls) -> io::Result<Stop> {
        let Self { pidfd, lanes, terminal, .. } = self;
        relay::run(lanes, pidfd.as_fd(), Some(controls), |control| match control {
            // Either fails if the command has just ended, and then it does not matter.
            Control::Resize(size) => {
                let _ = terminal.as_ref().map(|terminal| terminal::resize(terminal, size));
            }
            Control::Signal(number) => {
                let _ = identity::send_signal(pidfd.as_fd(), number);
            }
        })
    }

    /// Ends what nobody asks for any more.
    fn end(self) {
        caller::end_command();
        caller::forget();
        wait_code(self.pid);
    }

    /// Nobody sees what it writes any more; its terminal stays until it ends.
    fn keep(self, order: &ExecOrder) -> io::Result<()> {
        let Self { pid, pidfd, lanes, terminal } = self;
        drop(lanes);
        let null = File::options().read(true).write(true).open("/dev/null")?;
        stdio::dup2_stdin(&null)?;
        stdio::dup2_stdout(&null)?;
        stdio::dup2_stderr(&null)?;
        cgroup::follow_monitor(&order.container.name, true);
        if let Some(terminal) = terminal {
            relay::run(&mut [Lane::discard(terminal)], pidfd.as_fd(), None, |_| {})?;
        }
        wait_code(pid);
        Ok(())
    }
}
