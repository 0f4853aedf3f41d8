//! The helper that runs a command in a running container: a child of the caller, in whose place
//! it waits for the command and passes on its exit code.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;

use nix::sys::signal::Signal;
use rustix::stdio;

use super::detach::set_name;
use super::monitor::{environment, resolve_user, wait_code};
use super::protocol::{EXEC_NAME, ExecOrder, Failure, REPORT_FD, REQUEST_FD, Report};
use crate::error::Classify;
use crate::fsutil::PathContext;
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
    let (mut request, mut report) = unsafe {
        (File::from(OwnedFd::from_raw_fd(REQUEST_FD)), File::from(OwnedFd::from_raw_fd(REPORT_FD)))
    };
    // Without its caller a command has nobody to work for.
    if nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).is_err() {
        return OWN_FAULT;
    }
    let mut bytes = Vec::new();
    let order = match request.read_to_end(&mut bytes) {
        Ok(_) => serde_json::from_slice::<ExecOrder>(&bytes).ok(),
        Err(_) => None,
    };
    let Some(order) = order else { return OWN_FAULT };
    drop(request);
    let (answer, outcome) = match start(&order) {
        Ok(pid) => (Report::Running, Ok(pid)),
        Err(error) => {
            let mut failure = Failure::of(&error);
            failure.exit_code = error.exit_code();
            (Report::Failed(failure), Err(error.kind()))
        }
    };
    if serde_json::to_writer(&mut report, &answer).is_err() {
        return OWN_FAULT;
    }
    // The caller reads until this is closed.
    drop(report);
    outcome.map_or(OWN_FAULT, wait_code)
}

fn start(order: &ExecOrder) -> Result<i32, RuntimeError> {
    let ExecOrder { container, started, request } = order;
    let name = container.name.as_str();
    let not_running = || RuntimeError::NotRunning { container: name.to_owned() };
    let rootfs = Rootfs::of_process(started.init.pid)?;
    // The files of the right process: it was alive, and the one that is meant, after they were
    // opened.
    let alive = started.init.open().at("look at the process of", &container.state)?;
    alive.ok_or_else(not_running)?;
    let text = request.user.as_deref().unwrap_or(&container.process.user);
    let user = resolve_user(&rootfs, container, text)?;
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
