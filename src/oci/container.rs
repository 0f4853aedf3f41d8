//! A bundle's container as a resource: created through a monitor, observed by its status files and
//! its process, removed with everything it has. Runs in the caller; libcontainer does not.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::cgroup;
use super::freezer;
use super::helper::Surroundings;
use super::helper::monitor::{LOCK_FILE, log_dir};
use super::helper::{HelperBinary, PreparedMonitor, StartRequest};
use super::identity::ProcessHandle;
use super::life;
use super::namespaces;
use super::restart::RestartPolicy;
use super::runtime_error::RuntimeError;
use super::secrets;
use super::spec::Container;
use super::status::{self, ContainerState, FileIdentity, Started};
use crate::fsutil::{self, PathContext};
use crate::presence::{Creation, Drift, Presence, Removal};

/// How long a killed process may take to end.
const KILL_PATIENCE: Duration = Duration::from_secs(10);
/// How long a monitor may take to write its last lines.
const MONITOR_PATIENCE: Duration = Duration::from_secs(3);

/// Creates and starts the container if its place is free. `prepared` is a monitor that waits
/// already; one is started if there is none.
///
/// # Errors
/// What the monitor reported. Nothing of the container remains then.
pub(crate) fn create(
    container: &Container,
    binary: &HelperBinary,
    prepared: Option<PreparedMonitor>,
    surroundings: &Surroundings,
) -> Result<Creation, RuntimeError> {
    if let Some(parent) = container.state.parent() {
        fsutil::create_private_dir(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(&container.state) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Ok(Creation::Exists),
        other => other.at("create directory", &container.state)?,
    }
    let had_log = log_dir(container).exists();
    let started = launch(container, binary, prepared, surroundings, Layer::New);
    if started.is_err() {
        // The first error is the one to tell; what is left here is found again by `remove`. A log
        // from before tells why it is started anew, and stays.
        let _ = match had_log {
            true => end(container, Duration::ZERO).map(drop),
            false => remove(container, Duration::ZERO).map(drop),
        };
    }
    started.map(|_| Creation::Created)
}

fn launch(
    container: &Container,
    binary: &HelperBinary,
    prepared: Option<PreparedMonitor>,
    surroundings: &Surroundings,
    layer: Layer,
) -> Result<Started, RuntimeError> {
    let secrets = secrets::contents(container)?;
    if layer == Layer::New {
        remove_writable_layer(container)?;
    }
    fsutil::create_private_dir(&log_dir(container))?;
    let monitor = match prepared {
        Some(monitor) => monitor,
        None => PreparedMonitor::spawn(binary, &container.name)?,
    };
    let start_id = status::write_start_id(&container.state)?;
    let (container, surroundings) = (container.clone(), surroundings.clone());
    monitor.start(StartRequest { container, surroundings, start_id, secrets })
}

/// The writable layer of a start; the log goes on in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    New,
    /// What the last run wrote is there again.
    Kept,
}

/// What a start before left there, perhaps before a reboot.
fn remove_writable_layer(container: &Container) -> Result<bool, RuntimeError> {
    let upper = fsutil::remove_tree(&container.storage.join("upper"))?;
    let work = fsutil::remove_tree(&container.storage.join("work"))?;
    Ok(upper || work)
}

/// Compares the container with the host.
///
/// # Errors
/// What the file system said.
pub(crate) fn observe(container: &Container) -> Result<Presence, RuntimeError> {
    let drift = |found: String| {
        Presence::Drifted(vec![Drift::new(
            format!("container {}", container.name),
            "running",
            found,
        )])
    };
    Ok(match settled(container)? {
        ContainerState::Running(started) if !same_network(container, &started) => {
            drift("running in another network namespace".to_owned())
        }
        ContainerState::Running(started)
            if !namespaces::has_ids(started.init.pid, container.userns) =>
        {
            drift("running with other ids than its user namespace is to have".to_owned())
        }
        ContainerState::Running(_) if !is_watched(container)? => {
            drift("running without its monitor".to_owned())
        }
        ContainerState::Running(_) if freezer::is_frozen(&container.name)? => {
            drift("paused".to_owned())
        }
        ContainerState::Running(_) => Presence::Present,
        ContainerState::Exited(..) if is_restarting(container)? => match is_watched(container)? {
            true => Presence::Present,
            false => drift("about to be started again, without its monitor".to_owned()),
        },
        ContainerState::Exited(_, Some(ended)) => drift(format!("exited ({})", ended.exit_code)),
        ContainerState::Exited(_, None) => drift("exited (its exit code is lost)".to_owned()),
        ContainerState::NotStarted if exists(container)? => drift("half made".to_owned()),
        ContainerState::NotStarted => Presence::Absent,
    })
}

/// The state once its monitor has written down what comes after an end: the exit code, and whether
/// the container is started again.
///
/// # Errors
/// What the file system said.
pub(crate) fn settled(container: &Container) -> Result<ContainerState, RuntimeError> {
    let deadline = Instant::now() + MONITOR_PATIENCE;
    loop {
        let state = ContainerState::read(&container.state)?;
        let unsettled = matches!(state, ContainerState::Exited(_, None))
            && is_watched(container)?
            && !is_restarting(container)?;
        if !unsettled || Instant::now() >= deadline {
            return Ok(state);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether the container has ended and is to be started again, by its policy.
///
/// # Errors
/// What the file system said.
pub(crate) fn is_restarting(container: &Container) -> Result<bool, RuntimeError> {
    Ok(life::read_restarts(&container.state)?.pending && !life::end_is_wanted(&container.state))
}

/// Whether its monitor lives.
///
/// # Errors
/// What the file system said.
pub(crate) fn is_watched(container: &Container) -> Result<bool, RuntimeError> {
    is_locked(&container.state.join(LOCK_FILE))
}

/// Whether the container runs, or is about to be started again, and its monitor was killed.
///
/// # Errors
/// What the file system said.
pub(crate) fn is_orphaned(container: &Container) -> Result<bool, RuntimeError> {
    let alive = match ContainerState::read(&container.state)? {
        ContainerState::Running(_) => true,
        ContainerState::Exited(..) => is_restarting(container)?,
        ContainerState::NotStarted => false,
    };
    // One that was started by a version that did not keep it cannot be taken over.
    let known = alive && life::read_request(&container.state)?.is_some();
    Ok(known && !is_watched(container)?)
}

/// Whether the container was started in the namespace that has its name: that may have been made
/// anew. A namespace that cannot be looked at, or is not mounted, is not another one.
fn same_network(container: &Container, started: &Started) -> bool {
    match FileIdentity::of(&container.netns) {
        Ok(there) => there == started.netns || !there.is_of_one_kind_with(started.netns),
        Err(_) => !container.netns.exists(),
    }
}

/// Whether anything of the container is there.
fn exists(container: &Container) -> Result<bool, RuntimeError> {
    Ok(container.state.exists() || cgroup::exists(&container.name)?)
}

/// Lets a paused container go on. Gives a running one whose monitor was killed another one. Starts it
/// anew where it has ended or is half made, or is in another network namespace; its log goes on.
///
/// # Errors
/// As [`create`]. The log is kept then, everything else is gone.
pub(crate) fn repair(
    container: &Container,
    binary: &HelperBinary,
    prepared: Option<PreparedMonitor>,
    surroundings: &Surroundings,
) -> Result<(), RuntimeError> {
    if freezer::thaw(&container.name)? && observe(container)? == Presence::Present {
        return Ok(());
    }
    let same_network = status::read_started(&container.state)?
        .is_some_and(|started| same_network(container, &started));
    if same_network && is_orphaned(container)? {
        return take_over(container, binary, prepared);
    }
    // Before anything ends that could not be started again.
    secrets::contents(container)?;
    end(container, Duration::ZERO)?;
    match create(container, binary, prepared, surroundings)? {
        Creation::Created => Ok(()),
        Creation::Exists => Err(RuntimeError::Libcontainer {
            step: "replace",
            container: container.name.to_string(),
            message: "somebody else starts it at the same time".to_owned(),
        }),
    }
}

/// Gives a container whose monitor was killed another one.
///
/// # Errors
/// What the new monitor reported. The container goes on as before.
pub(crate) fn take_over(
    container: &Container,
    binary: &HelperBinary,
    prepared: Option<PreparedMonitor>,
) -> Result<(), RuntimeError> {
    let monitor = match prepared {
        Some(monitor) => monitor,
        None => PreparedMonitor::spawn(binary, &container.name)?,
    };
    monitor.take_over(&container.state).map(drop)
}

/// Ends the container, its stop signal first and SIGKILL after `grace`, and starts it again with
/// its writable layer and its log; it runs when this returns.
///
/// # Errors
/// What could not be ended, or what the monitor reported. Nothing of the container runs then.
pub(crate) fn restart(
    container: &Container,
    binary: &HelperBinary,
    surroundings: &Surroundings,
    grace: Duration,
) -> Result<Started, RuntimeError> {
    let mut container = container.clone();
    if let ContainerState::Running(started) = ContainerState::read(&container.state)? {
        secrets::recall(&mut container, &started.init)?;
    }
    // Before anything ends that could not be started again.
    secrets::contents(&container)?;
    let container = &container;
    end_run(container, grace)?;
    DirBuilder::new()
        .mode(0o700)
        .create(&container.state)
        .at("create directory", &container.state)?;
    let started = launch(container, binary, None, surroundings, Layer::Kept);
    if started.is_err() {
        // The first error is the one to tell; what is left here is found again by `remove`.
        let _ = end_run(container, Duration::ZERO);
    }
    started
}

/// Stops the container, its stop signal first and SIGKILL after `grace`, and removes all it has:
/// processes, control groups, run-time state, writable layer and log.
///
/// # Errors
/// What remains, and why. A second attempt may follow.
pub(crate) fn remove(container: &Container, grace: Duration) -> Result<Removal, RuntimeError> {
    let had_state = end(container, grace)?;
    let had_storage = fsutil::remove_tree(&container.storage)?;
    if let Some(parent) = container.storage.parent() {
        fsutil::remove_dir_if_empty(parent);
    }
    Ok(if had_state || had_storage { Removal::Removed } else { Removal::Absent })
}

/// Ends all processes of the container and removes everything but its log; true if there was
/// anything.
fn end(container: &Container, grace: Duration) -> Result<bool, RuntimeError> {
    let had_run = end_run(container, grace)?;
    Ok(remove_writable_layer(container)? || had_run)
}

/// The same, but for the writable layer as well.
fn end_run(container: &Container, grace: Duration) -> Result<bool, RuntimeError> {
    let mut had_group = false;
    let lock = container.state.join(LOCK_FILE);
    let deadline = Instant::now() + MONITOR_PATIENCE;
    let mut pause = Duration::from_micros(100);
    if life::want_end(&container.state).is_err() && container.restart != RestartPolicy::No {
        // A full tmpfs must not keep it alive: then nobody is left to start it again.
        end_monitor(container)?;
    }
    // In rounds: a monitor whose caller died may be in the middle of the start, and what it starts
    // meanwhile has to be ended too.
    loop {
        if let ContainerState::Running(started) = ContainerState::read(&container.state)? {
            stop(container, &started, grace)?;
        }
        had_group |= cgroup::remove(&container.name)?;
        // A monitor writes its container's exit code, then ends and leaves its lock.
        if !is_locked(&lock)? {
            break;
        }
        if Instant::now() >= deadline {
            end_monitor(container)?;
            break;
        }
        if life::read_restarts(&container.state)?.pending {
            // It waits for the time to start the container again: it is to look whether it shall.
            wake_monitor(container)?;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
    had_group |= cgroup::remove_monitor_group(&container.name)?;
    Ok(fsutil::remove_tree(&container.state)? || had_group)
}

fn process_error(
    action: &'static str,
    container: &Container,
    pid: i32,
) -> impl FnOnce(std::io::Error) -> RuntimeError {
    let container = container.name.to_string();
    move |source| RuntimeError::Process { action, container, pid, source }
}

fn stop(container: &Container, started: &Started, grace: Duration) -> Result<(), RuntimeError> {
    let pid = started.init.pid;
    let opened = started.init.open().map_err(process_error("open", container, pid))?;
    let Some(process) = opened else { return Ok(()) };
    let wait = |process: &ProcessHandle, patience| {
        process.wait(Some(patience)).map_err(process_error("wait for", container, pid))
    };
    let asked = !grace.is_zero()
        && notices(pid, container.stop_signal)
        // A signal that cannot be sent is no reason not to kill.
        && process.signal(container.stop_signal).unwrap_or(false);
    // Paused processes take a signal when they go on, SIGKILL included (version 1).
    if !asked {
        process.signal(libc::SIGKILL).map_err(process_error("kill", container, pid))?;
    }
    freezer::thaw(&container.name)?;
    if asked && wait(&process, grace)? {
        return Ok(());
    }
    process.signal(libc::SIGKILL).map_err(process_error("kill", container, pid))?;
    if wait(&process, KILL_PATIENCE)? {
        return Ok(());
    }
    Err(RuntimeError::Survivor { container: container.name.to_string(), pid })
}

/// Whether the process can notice the signal: it has a handler for it, or has blocked it to take it
/// with `sigwait(3)` or a signalfd. For the first process of a PID namespace the kernel drops any
/// other signal (`pid_namespaces(7)`), and waiting for it to end of itself would be in vain.
fn notices(pid: i32, signal: i32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return true };
    let in_mask = |name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_none_or(|mask| mask & (1 << (signal - 1)) != 0)
    };
    in_mask("SigCgt:") || in_mask("SigBlk:")
}

fn is_locked(path: &Path) -> Result<bool, RuntimeError> {
    let file = match fs::File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        other => other.at("open", path)?,
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(e) => Err(e).at("lock", path)?,
    }
}

/// Has a monitor that waits look at what is wanted.
fn wake_monitor(container: &Container) -> Result<(), RuntimeError> {
    let Some(identity) = status::read_monitor(&container.state)? else { return Ok(()) };
    let opened = identity.open().map_err(process_error("open", container, identity.pid))?;
    let sent = opened.map_or(Ok(false), |process| process.signal(libc::SIGTERM));
    sent.map(drop).map_err(process_error("signal", container, identity.pid))
}

/// Kills a monitor that does not end though its container has.
fn end_monitor(container: &Container) -> Result<(), RuntimeError> {
    let Some(identity) = status::read_monitor(&container.state)? else { return Ok(()) };
    let pid = identity.pid;
    let opened = identity.open().map_err(process_error("open", container, pid))?;
    let Some(process) = opened else { return Ok(()) };
    process.signal(libc::SIGKILL).map_err(process_error("kill", container, pid))?;
    match process.wait(Some(KILL_PATIENCE)).map_err(process_error("wait for", container, pid))? {
        true => Ok(()),
        false => Err(RuntimeError::Survivor { container: container.name.to_string(), pid }),
    }
}
