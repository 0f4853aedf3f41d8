//! A bundle's monitor: makes the root file system, has libcontainer start the container, then
//! writes its output to the log until it ends, and writes down how it ended.
//!
//! It is the parent of the container's first process and outlives whoever called it. It runs one
//! thread. If it is killed the container lives on, but its output has no reader any more and its
//! exit code is lost: the next `up` starts it anew.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libcontainer::oci_spec::runtime::Spec;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Uid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};

use super::detach::{Side, detach};
use super::protocol::{Failure, MONITOR_NAME, Report, StartRequest, receive, send};
use crate::fsutil::{LockFile, PathContext};
use crate::oci::feed::Listener;
use crate::oci::identity::{ProcessHandle, ProcessIdentity};
use crate::oci::log::{LineSplitter, LogWriter, Stream};
use crate::oci::rootfs::Rootfs;
use crate::oci::runtime::{self, Streams};
use crate::oci::runtime_error::RuntimeError;
use crate::oci::spec::Container;
use crate::oci::status::{self, Ended, FileIdentity, Started};
use crate::oci::{apparmor, cgroup, etc_files, process, runtime_spec, secrets, usage, user};

/// The file a monitor holds locked for its whole life.
pub(crate) const LOCK_FILE: &str = "monitor.lock";

/// A container has ended but somebody still holds its output open: no longer than this.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);

/// How often a log that lost something looks for room to say so.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The monitor's `main`.
pub(super) fn main() -> i32 {
    match detach(MONITOR_NAME) {
        Err(_) => 1,
        Ok(Side::Starter) => 0,
        Ok(Side::Monitor) => {
            stay_warm();
            // Without a request the caller thought better of it, or died.
            receive::<StartRequest>(&mut io::stdin().lock()).map_or(0, |request| run(&request))
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
    let _lock = match take_over(request) {
        Ok(lock) => lock,
        Err(error) => {
            report(&Report::Failed(Failure::of(&error)));
            return 1;
        }
    };
    match start(request) {
        Ok(running) => {
            report(&Report::Started(running.started.clone()));
            running.watch(container)
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
            report(&Report::Failed(failure));
            1
        }
    }
}

/// Makes sure that the container's directory is for this very start, and that nobody else is at it.
fn take_over(request: &StartRequest) -> Result<LockFile, RuntimeError> {
    let container = &request.container;
    // Without making the directory: if it is gone, so is whoever wanted the container.
    match LockFile::attempt_now(&container.state.join(LOCK_FILE))? {
        Some(lock) if status::is_start(&container.state, &request.start_id)? => Ok(lock),
        _ => Err(RuntimeError::HelperDied { container: container.name.to_string() }),
    }
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

struct Running {
    started: Started,
    init: i32,
    stdout: File,
    stderr: File,
    log: LogWriter,
    feed: Option<Listener>,
}

fn start(request: &StartRequest) -> Result<Running, RuntimeError> {
    let container = &request.container;
    cgroup::join_monitor_group(&container.name);
    end_protection();
    status::write_monitor(
        &container.state,
        &identity(container, std::process::id().cast_signed())?,
    )?;
    enter_mount_namespace()?;
    let Prepared { spec, env, user } = prepare(request)?;
    let feed = request.surroundings.feed.as_ref();
    let feed = feed.map(|feed| Listener::new(feed, &log_dir(container))).transpose()?;
    let log = LogWriter::open(&log_dir(container), container.log)?;
    let (stdout, stdout_write) = pipe(container)?;
    let (stderr, stderr_write) = pipe(container)?;
    for stream in [&stdout_write, &stderr_write] {
        // `/dev/stdout` is opened anew by whoever writes to it: it must be the user's.
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        nix::unistd::fchown(stream, Some(uid), Some(gid))
            .at("chown a pipe for", &container.state)?;
    }
    let streams = Streams { stdin: runtime::null()?, stdout: stdout_write, stderr: stderr_write };
    let (init, note) = runtime::start(container, env, &spec, streams)?;
    let netns = FileIdentity::of(&container.netns)?;
    let notes = note.into_iter().collect();
    let started = Started { init: identity(container, init)?, started_at: now(), netns, notes };
    status::write_started(&container.state, &started)?;
    Ok(Running { started, init, stdout, stderr, log, feed })
}

/// The directory of a container's log.
pub(crate) fn log_dir(container: &Container) -> PathBuf {
    container.storage.join("log")
}

fn pipe(container: &Container) -> Result<(File, OwnedFd), RuntimeError> {
    let (read, write) = io::pipe().at("make a pipe for", &container.state)?;
    Ok((OwnedFd::from(read).into(), write.into()))
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

struct Prepared {
    spec: Spec,
    env: Vec<String>,
    user: user::ResolvedUser,
}

/// The root file system with everything carboy puts into it, the specification of what runs on it,
/// and its environment.
fn prepare(request: &StartRequest) -> Result<Prepared, RuntimeError> {
    let mut container = request.container.clone();
    let rootfs = Rootfs::mount(&container)?;
    rootfs.check_mount_points()?;
    for (path, content) in [
        ("/etc/hosts", etc_files::hosts(container.ip, container.ip6, &container.slug)),
        ("/etc/hostname", etc_files::hostname(&container.slug)),
        ("/etc/resolv.conf", request.surroundings.resolv_conf.clone()),
    ] {
        // The user's own file wins.
        if !container.volumes.iter().any(|v| v.destination == Path::new(path)) {
            rootfs.write(Path::new(path), &content)?;
        }
    }
    secrets::fill(&mut container, &request.secrets)?;
    let user = resolve_user(&rootfs, &container, &container.process.user)?;
    let secrets = secrets::mount(&container, &user)?;
    container.volumes.extend(secrets);
    rootfs.place_mounts(&mut container)?;
    let cwd = rootfs.make_working_dir(Path::new(&container.process.cwd))?;
    container.process.cwd = cwd.to_string_lossy().into_owned();
    container.security.apparmor = apparmor::effective(container.security.apparmor.as_deref());
    // After all that is made in the root file system: nothing of it is hidden.
    let mut tmpfs = Vec::new();
    for inside in &container.image_volumes {
        tmpfs.extend(rootfs.tmpfs_place(inside)?);
    }
    let cgroup = runtime::cgroups_path(&container);
    let mount_point = Rootfs::mount_point(&container);
    let mut spec = runtime_spec::build(&container, &user, &cgroup, &mount_point)
        .map_err(|e| RuntimeError::invalid(&container, &e))?;
    runtime_spec::add_tmpfs(&mut spec, &tmpfs, container.limits.memory);
    if let Ok(possible) = std::fs::read_to_string("/sys/devices/system/cpu/possible") {
        runtime_spec::mask_thermal_throttle(&mut spec, &possible);
    }
    drop_default_pids_limit(&container, &mut spec)?;
    let env = environment(&container, &[], &user.home);
    Ok(Prepared { spec, env, user })
}

/// Where the host has no controller for it the limit that nobody asked for is left out.
fn drop_default_pids_limit(container: &Container, spec: &mut Spec) -> Result<(), RuntimeError> {
    let there = cgroup::controllers()?.is_some_and(|all| all.contains("pids"));
    if !there && container.limits.pids.is_none() {
        let linux = spec.linux_mut().as_mut();
        if let Some(resources) = linux.and_then(|l| l.resources_mut().as_mut()) {
            resources.set_pids(None);
        }
    }
    Ok(())
}

/// The user that `text` means in the container's own files.
pub(super) fn resolve_user(
    rootfs: &Rootfs,
    container: &Container,
    text: &str,
) -> Result<user::ResolvedUser, RuntimeError> {
    let passwd = rootfs.read(Path::new("/etc/passwd"), user::FILE_MAX)?;
    let group = rootfs.read(Path::new("/etc/group"), user::FILE_MAX)?;
    user::resolve(text, &passwd, &group).map_err(|e| RuntimeError::invalid(container, &e))
}

/// The container's environment with `over` on top, and HOME as the user has it unless it is set.
pub(super) fn environment(container: &Container, over: &[String], home: &str) -> Vec<String> {
    let mut env = container.process.env.clone();
    over.iter().for_each(|entry| process::set(&mut env, entry));
    process::complete(&mut env, &[("HOME", home)]);
    env
}

impl Running {
    /// Until the container has ended and its output is written.
    fn watch(mut self, container: &Container) -> i32 {
        // The identity was read from a child that is not reaped yet: the pid is still its own.
        let handle = self.started.init.open().ok().flatten();
        self.copy_output(handle.as_ref());
        self.log.tell(&now());
        let exit_code = wait_code(self.init);
        let oom_killed = usage::oom_killed(&container.name);
        let ended = Ended { exit_code, finished_at: now(), oom_killed };
        match status::write_ended(&container.state, &ended) {
            Ok(()) => 0,
            // The directory went with `down`: nobody asks any more.
            Err(_) => 1,
        }
    }

    fn copy_output(&mut self, init: Option<&ProcessHandle>) {
        let mut streams = [
            (Some(&self.stdout), LineSplitter::new(Stream::Stdout)),
            (Some(&self.stderr), LineSplitter::new(Stream::Stderr)),
        ];
        let mut init = init.map(ProcessHandle::as_fd);
        let mut deadline: Option<Instant> = None;
        let mut buffer = vec![0; 64 << 10];
        let mut lines = Vec::new();
        while streams.iter().any(|(file, _)| file.is_some()) || init.is_some() {
            if deadline.is_some_and(|d| Instant::now() >= d) {
                break;
            }
            let mut fds = Vec::with_capacity(4);
            let files = streams.iter().filter_map(|(file, _)| *file);
            fds.extend(files.map(|file| PollFd::new(file, PollFlags::IN)));
            fds.extend(init.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
            let heard = self.feed.as_ref().and_then(Listener::fd);
            fds.extend(heard.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            let again = self.feed.as_ref().and_then(Listener::patience);
            let retry = self.log.owes_a_notice().then_some(RETRY_INTERVAL);
            let wait = [left, again, retry].into_iter().flatten().min();
            match poll(&mut fds, wait.map(timespec).as_ref()) {
                Err(Errno::INTR) => continue,
                // Out of patience with the output is told by the deadline.
                Ok(0) if again.is_some() || retry.is_some() => {
                    self.feed.iter_mut().for_each(Listener::try_again);
                    self.log.tell(&now());
                    continue;
                }
                // No event within the patience, or no memory: the rest of the output is lost.
                Err(_) | Ok(0) => break,
                Ok(_) => {}
            }
            let mut ready = fds.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<_>>();
            if heard.is_some() && ready.pop() == Some(true) {
                self.feed.iter_mut().for_each(|feed| feed.read(&now()));
            }
            if init.is_some() && ready.pop() == Some(true) {
                init = None;
                deadline = Some(Instant::now() + DRAIN_PATIENCE);
            }
            let mut ready = ready.into_iter();
            for (file, splitter) in &mut streams {
                let Some(mut open) = *file else { continue };
                if ready.next() != Some(true) {
                    continue;
                }
                match open.read(&mut buffer) {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Ok(n) if n > 0 => splitter.push(&buffer[..n], &now(), &mut lines),
                    Ok(_) | Err(_) => {
                        splitter.finish(&now(), &mut lines);
                        *file = None;
                    }
                }
            }
            if !lines.is_empty() {
                self.log.write(&lines, &now());
                lines.clear();
            }
        }
    }
}

fn timespec(d: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: d.subsec_nanos().into(),
    }
}

/// The exit code of a child that has ended, or 128 + the signal that ended it.
pub(super) fn wait_code(pid: i32) -> i32 {
    loop {
        match waitpid(nix::unistd::Pid::from_raw(pid), None) {
            Ok(WaitStatus::Exited(_, code)) => return code,
            Ok(WaitStatus::Signaled(_, signal, _)) => return 128 + signal as i32,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return 255,
        }
    }
}

/// Now, in RFC 3339 with nanoseconds.
fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}
