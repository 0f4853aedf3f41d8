//! The helper that runs a command in a running container: a child of the caller, in whose place
//! it waits for the command and passes on its exit code.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::BufReader;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;

use nix::sys::signal::Signal;
use rustix::stdio;

use super::detach::set_name;
use super::monitor::{environment, resolve_user, wait_code};
use super::protocol::{
    EXEC_NAME, ExecOrder, Failure, REPORT_FD, REQUEST_FD, Report, receive, send,
};
use crate::fsutil::PathContext;
use crate::oci::apparmor;
use crate::oci::rootfs::Rootfs;
use crate::oci::runtime::{self, Streams};
use crate::oci::runtime_error::RuntimeError;
use crate::oci::runtime_spec;

/// The exit code for carboy's own fault, as Docker's.
const OWN_FAULT: i32 = 125;

/// The helper's `main`.
pub(super) fn main() -> i32 {
    set_name(EXEC_NAME);
    // SAFETY: whoever started this process gave it these two descriptors, and nothing here has
    // taken them yet. A caller that did not gave none: then reading fails.
    let (request, mut report) = unsafe {
        (File::from(OwnedFd::from_raw_fd(REQUEST_FD)), File::from(OwnedFd::from_raw_fd(REPORT_FD)))
    };
    let mut request = BufReader::new(request);
    // Without its caller a command has nobody to work for.
    if nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).is_err() {
        return OWN_FAULT;
    }
    let Some(order) = receive::<ExecOrder>(&mut request) else { return OWN_FAULT };
    drop(request);
    let told = match start(&order) {
        Ok(pid) => send(&mut report, &Report::Running)
            .and_then(|()| send(&mut report, &Report::Exited(wait_code(pid)))),
        Err(error) => {
            let mut failure = Failure::of(&error);
            failure.exit_code = error.exit_code();
            send(&mut report, &Report::Failed(failure))
        }
    };
    told.map_or(OWN_FAULT, |()| 0)
}

fn start(order: &ExecOrder) -> Result<i32, RuntimeError> {
    let ExecOrder { container, started, request } = order;
    let mut container = container.clone();
    container.security.apparmor = apparmor::effective(container.security.apparmor.as_deref());
    let container = &container;
    let name = container.name.as_str();
    let not_running = || RuntimeError::NotRunning { container: name.to_owned() };
    let rootfs = Rootfs::of_process(started.init.pid)?;
    // The files of the right process: it was alive, and the one that is meant, after they were
    // opened.
    let alive = started.init.open().at("look at the process of", &container.state)?;
    alive.ok_or_else(not_running)?;
    let text = request.user.as_deref().unwrap_or(&container.process.user);
    let user = resolve_user(&rootfs, container, text)?;
    if let Some(cwd) = &request.cwd {
        rootfs.check_dir(Path::new(cwd))?;
    }
    let process =
        runtime_spec::exec_process(container, &user, &request.args, request.cwd.as_deref())
            .map_err(|e| RuntimeError::invalid(container, &e))?;
    let env = environment(container, &request.env, &user.home);
    let duplicate = |fd: std::os::fd::BorrowedFd<'_>| {
        fd.try_clone_to_owned().at("duplicate a stream of", Path::new(EXEC_NAME))
    };
    let streams = Streams {
        stdin: duplicate(stdio::stdin())?,
        stdout: duplicate(stdio::stdout())?,
        stderr: duplicate(stdio::stderr())?,
    };
    runtime::exec(container, env, &process, streams)
}
