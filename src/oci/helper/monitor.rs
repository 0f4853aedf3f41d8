//! A bundle's monitor: makes the root file system (`prepare.rs`), has libcontainer start the container,
//! and then watches it (`watch.rs`), in a stage of its own (`stages.rs`).
//!
//! It is the parent of the container's first process and outlives whoever called it. It runs one
//! thread. If it is killed the container lives on, and its output waits for a reader: the next verb
//! that acts on it has another monitor take over. Only the exit code of that run is lost then, for the process is
//! nobody's child any more, and the part of a line that was read and had no end yet.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::wait::{WaitStatus, waitpid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountPropagationFlags, mount_change};

use super::detach::{Side, detach, set_name};
use super::output;
use super::prepare::{self, Prepared};
use super::protocol::{Failure, MONITOR_NAME, Order, Report, StartRequest, receive, send};
use super::stages::{self, Entered, Stage};
use super::watch;
use crate::fsutil::{LockFile, PathContext};
use crate::oci::events::{Event, EventKind, EventLog};
use crate::oci::feed::Feed;
use crate::oci::identity::ProcessIdentity;
use crate::oci::log::Stream;
use crate::oci::restart::Restarts;
use crate::oci::rootfs::Rootfs;
use crate::oci::runtime::{self, Streams};
use crate::oci::runtime_error::RuntimeError;
use crate::oci::selinux::attribute;
use crate::oci::spec::Container;
use crate::oci::status::{self, Ended, FileIdentity, Started};
use crate::oci::{cgroup, life, secrets, staging, usage};

/// The file a monitor holds locked for its whole life.
pub(crate) const LOCK_FILE: &str = "monitor.lock";

/// The exit code of a run that could not begin, as Docker's.
const NOT_STARTED: i32 = 125;

/// The monitor's `main`.
pub(super) fn main() -> i32 {
    // After its own name and the container's.
    match stages::entered(std::env::args_os().skip(2)) {
        Some(Entered { stage: Stage::Watch, state, lock, kept }) => {
            set_name(MONITOR_NAME);
            watch::main(&state, lock, kept)
        }
        Some(Entered { stage: Stage::StartAgain, state, lock, .. }) => {
            set_name(MONITOR_NAME);
            start_again(&state, lock)
        }
        None => begin(),
    }
}

/// What a monitor begins with: it leaves its caller, and waits to be told what to do.
fn begin() -> i32 {
    match detach(MONITOR_NAME) {
        Err(_) => 1,
        Ok(Side::Starter) => 0,
        Ok(Side::Monitor) => {
            stay_warm();
            // Without a request the caller thought better of it, or died.
            match receive::<Order>(&mut io::stdin().lock()) {
                Some(Order::Start(request)) => run(&request),
                Some(Order::TakeOver { state }) => take_over(&state),
                None => 0,
            }
        }
    }
}

/// Until the request comes, and beside what the caller does meanwhile: spares the container the
/// kernel's wait.
fn stay_warm() {
    const INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 4_000_000 };
    // A caller that takes longer than this pays the wait after all.
    const ROUNDS: u32 = 500;
    let warmth = cgroup::Warmth::begin();
    for _ in 0..ROUNDS {
        let stdin = rustix::stdio::stdin();
        let asked = poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&INTERVAL));
        if asked != Ok(0) || !warmth.keep() {
            return;
        }
    }
}

fn run(request: &StartRequest) -> i32 {
    let container = &request.container;
    // For this process' whole life. Without it nothing of the container is its own to touch.
    let lock = match lock_for(request) {
        Ok(lock) => lock,
        Err(error) => {
            report(&Report::Failed(Failure::of(&error)));
            return 1;
        }
    };
    let prepared = prepare_process(container);
    if prepared.is_ok() {
        tell(container, EventKind::Created, None);
    }
    match prepared.and_then(|()| start(request)) {
        Ok((started, held)) => {
            tell(container, EventKind::Started, None);
            report(&Report::Started(started));
            watch_from_now_on(container, lock, held)
        }
        Err(error) => {
            // What runs already must not outlive the failure; the caller removes the files.
            let leftover = cgroup::remove(&container.name).err();
            let mut failure = Failure::of(&error);
            failure.exit_code = error.exit_code();
            if let Some(leftover) = leftover {
                failure
                    .message
                    .push_str(&format!("; and then: {}", Failure::of(&leftover).message));
            }
            tell(container, EventKind::Removed, Some(&failure.message));
            report(&Report::Failed(failure));
            1
        }
    }
}

/// Makes sure that the container's directory is for this very start, and that nobody else is at it.
fn lock_for(request: &StartRequest) -> Result<LockFile, RuntimeError> {
    let container = &request.container;
    // Without making the directory: if it is gone, so is whoever wanted the container.
    match LockFile::attempt_now(&container.state.join(LOCK_FILE))? {
        Some(lock) if status::is_start(&container.state, &request.start_id)? => Ok(lock),
        _ => Err(RuntimeError::HelperDied { container: container.name.to_string() }),
    }
}

/// Goes on with a container whose monitor was killed.
fn take_over(state: &Path) -> i32 {
    let taken = (|| {
        let died = || RuntimeError::HelperDied { container: state.display().to_string() };
        let lock = LockFile::attempt_now(&state.join(LOCK_FILE))?.ok_or_else(died)?;
        let request = life::read_request(state)?.ok_or_else(died)?;
        let started = status::read_started(state)?.ok_or_else(died)?;
        prepare_process(&request.container)?;
        let mut container = request.container;
        if started.init.open().at("look at the process of", state)?.is_some() {
            // For a start that may come: they are in no other place this monitor can see.
            secrets::recall(&mut container, &started.init)?;
            let rootfs = Rootfs::of_process(started.init.pid)?;
            let user = prepare::resolve_user(&rootfs, &container, &container.process.user)?;
            secrets::mount(&container, &prepare::on_host(&container, &user)?)?;
        }
        Ok::<_, RuntimeError>((container, started, lock))
    })();
    match taken {
        Ok((container, started, lock)) => {
            report(&Report::Started(started));
            watch_from_now_on(&container, lock, Vec::new())
        }
        Err(error) => {
            report(&Report::Failed(Failure::of(&error)));
            1
        }
    }
}

/// The stage after a pause: starts the container again.
fn start_again(state: &Path, lock: OwnedFd) -> i32 {
    // Without the directory, or if it is to end, there is nothing to start.
    let Ok(Some(request)) = life::read_request(state) else { return 0 };
    if life::end_is_wanted(state) {
        return 0;
    }
    let container = &request.container;
    let again = clear_last_run(container).and_then(|()| start(&request));
    let mut held = Vec::new();
    match again {
        Ok((_, pipes)) => {
            held = pipes;
            tell(container, EventKind::Restarted, None);
        }
        Err(error) => {
            // As a run that has ended at once: the watch decides whether there is another attempt.
            let exit_code = error.exit_code().map_or(NOT_STARTED, i32::from);
            let oom_killed = usage::oom_killed(&container.name);
            // What of it cannot be removed is in the next attempt's way, which says so.
            let _ = cgroup::remove(&container.name);
            // Without the directory nobody asks how it ended.
            let _ =
                status::write_ended(state, &Ended { exit_code, finished_at: now(), oom_killed });
            tell(container, EventKind::Died, Some(&Failure::of(&error).message));
            let restarts = life::read_restarts(state).unwrap_or_default();
            let next = restarts.after(container.restart, Some(exit_code), Duration::ZERO);
            // One that is not tried again is no longer about to be.
            let settled = next.unwrap_or(Restarts { pending: false, ..restarts });
            if life::write_restarts(state, &settled).is_err() || next.is_none() {
                return 1;
            }
        }
    }
    let error = stages::enter(Stage::Watch, &container.name, state, lock, held);
    tell(container, EventKind::Died, Some(&format!("it cannot be watched: {error}")));
    1
}

/// Leaves nothing of the last run in the way but what it wrote.
fn clear_last_run(container: &Container) -> Result<(), RuntimeError> {
    cgroup::remove(&container.name)?;
    runtime::forget(container)?;
    staging::remove(container)?;
    Rootfs::release(container)
}

/// Makes this process fit to be a monitor: its groups, its mounts, its name on file.
fn prepare_process(container: &Container) -> Result<(), RuntimeError> {
    cgroup::join_monitor_group(&container.name);
    end_protection();
    status::write_monitor(
        &container.state,
        &identity(container, std::process::id().cast_signed())?,
    )?;
    enter_mount_namespace()
}

fn watch_from_now_on(container: &Container, lock: LockFile, held: Vec<OwnedFd>) -> i32 {
    let error =
        stages::enter(Stage::Watch, &container.name, &container.state, lock.into_fd(), held);
    tell(container, EventKind::Died, Some(&format!("it cannot be watched: {error}")));
    1
}

fn tell(container: &Container, kind: EventKind, detail: Option<&str>) {
    let event = Event::now(&container.slug, &container.name, kind);
    let event = detail.into_iter().fold(event, Event::with_detail);
    // A bundle does not depend on whether its events can be told.
    let _ = EventLog::of_container(container).append(&event);
}

/// Tells the caller, and closes the pipe: from here on the monitor is on its own.
fn report(report: &Report) {
    // If the caller is gone there is nobody to tell; the state on disk says the same.
    let _ = send(&mut io::stdout().lock(), report);
    if let Ok(null) = runtime::null() {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

/// The container runs then; the pipes of its output are held open until they are read.
fn start(request: &StartRequest) -> Result<(Started, Vec<OwnedFd>), RuntimeError> {
    let container = &request.container;
    let state = &container.state;
    let Prepared { spec, env, on_host } = prepare::prepare(request)?;
    let pipe = |stream| {
        let end = output::container_end(state, stream, on_host.uid, on_host.gid)?;
        if let Some(labels) = &container.selinux {
            attribute::label(&end, &labels.file).at("label the pipes in", state)?;
        }
        Ok::<_, RuntimeError>(end)
    };
    let streams = Streams {
        stdin: runtime::null()?,
        stdout: pipe(Stream::Stdout)?,
        stderr: pipe(Stream::Stderr)?,
    };
    let mut held = output::holders(state)?;
    // From the first packet on; whatever cannot be heard now is tried again by the watch.
    held.extend(request.surroundings.feed.as_ref().and_then(Feed::listen));
    life::write_request(state, request)?;
    let (init, note) = runtime::start(container, env, &spec, streams)?;
    let netns = FileIdentity::of(&container.netns)?;
    let notes = note.into_iter().collect();
    let started = Started { init: identity(container, init)?, started_at: now(), netns, notes };
    // How the last run was and how it ended says nothing about this one.
    status::forget_ended(state)?;
    life::forget_health(state)?;
    status::write_started(state, &started)?;
    let restarts = life::read_restarts(state)?;
    if restarts.pending {
        life::write_restarts(state, &Restarts { pending: false, ..restarts })?;
    }
    Ok((started, held))
}

/// The directory of a container's log.
pub(crate) fn log_dir(container: &Container) -> PathBuf {
    container.storage.join("log")
}

fn identity(container: &Container, pid: i32) -> Result<ProcessIdentity, RuntimeError> {
    ProcessIdentity::of(pid)
        .ok_or_else(|| RuntimeError::HelperDied { container: container.name.to_string() })
}

/// From here on this process' mounts are its own; the host's still arrive and go here too.
fn enter_mount_namespace() -> Result<(), RuntimeError> {
    let root = Path::new("/");
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)
        .at("make a mount namespace for", root)?;
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change(root, flags).at("change the propagation of", root)?;
    Ok(())
}

/// A service that is spared by the kernel when memory runs out must not pass that on to a bundle.
fn end_protection() {
    let path = "/proc/self/oom_score_adj";
    let protected = fs::read_to_string(path).is_ok_and(|score| score.trim_start().starts_with('-'));
    if protected {
        // Raising it is always allowed.
        let _ = fs::write(path, "0");
    }
}

/// The exit code of a child that has ended, or 128 + the signal that ended it; 255 if it was no
/// child.
pub(super) fn wait_code(pid: i32) -> i32 {
    try_wait_code(pid).unwrap_or(255)
}

/// The exit code of a child that has ended, or 128 + the signal that ended it; `None` for what is
/// no child of this process.
pub(super) fn try_wait_code(pid: i32) -> Option<i32> {
    loop {
        match waitpid(nix::unistd::Pid::from_raw(pid), None) {
            Ok(WaitStatus::Exited(_, code)) => return Some(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Some(128 + signal as i32),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

/// Now, in RFC 3339 with nanoseconds.
pub(super) fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}
