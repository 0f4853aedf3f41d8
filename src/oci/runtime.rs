//! libcontainer's calls. They may be made in a helper process only: see [`super::helper`].

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::{Process, Spec};
use libcontainer::syscall::syscall::SyscallType;

use super::executor::{BundleExecutor, NOT_FOUND, StartBarrier, refused_label};
use super::namespaces::{self, Entrance, Visit};
use super::rootfs::Rootfs;
use super::runtime_error::RuntimeError;
use super::selinux::attribute;
use super::spec::Container;
use super::{cgroup, device_filter, hard_limits, runtime_spec, seccomp, tenant};
use crate::fsutil::{self, PathContext};

/// The runtime specification's name in the bundle directory (config.md of the OCI runtime spec).
pub(crate) const CONFIG_FILE: &str = "config.json";

/// Where libcontainer keeps a container's state.
const STATE_FILE: &str = "state.json";

fn runtime_root(container: &Container) -> PathBuf {
    container.state.join("runtime")
}

/// The streams a process in the container is given.
pub(crate) struct Streams {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// What binds a process in the container to the one that started it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bond {
    /// It dies with it.
    pub(crate) dies_with_parent: bool,
    /// Its streams are a terminal whose other side that one has.
    pub(crate) terminal: bool,
}

fn builder(
    container: &Container,
    root: &Path,
    streams: Streams,
) -> Result<ContainerBuilder, RuntimeError> {
    let name = container.name.as_str();
    let failed =
        |e: libcontainer::error::LibcontainerError| RuntimeError::libcontainer("prepare", name, &e);
    Ok(ContainerBuilder::new(name.to_owned(), SyscallType::default())
        .with_root_path(root)
        .map_err(failed)?
        .validate_id()
        .map_err(failed)?
        .with_stdin(streams.stdin)
        .with_stdout(streams.stdout)
        .with_stderr(streams.stderr))
}

fn executor(
    container: &Container,
    args: Vec<String>,
    env: Vec<String>,
    barrier: &StartBarrier,
    bond: Bond,
) -> Result<BundleExecutor, RuntimeError> {
    let security = &container.security;
    let filters = match security.seccomp_unconfined {
        true => Vec::new(),
        false => seccomp::program(&security.capabilities)
            .map_err(|e| RuntimeError::invalid(container, &e))?,
    };
    let Bond { dies_with_parent, terminal } = bond;
    let report = barrier.write_fd();
    // Within a user namespace libcontainer passes over a group of version 2 that it may not join.
    let in_own_group =
        container.userns.is_some() && cgroup::pure_v2_directory(&container.name)?.is_some();
    let label = container.selinux.as_ref().map(|labels| labels.process.clone());
    Ok(BundleExecutor {
        args,
        env,
        filters,
        dies_with_parent,
        terminal,
        in_own_group,
        label,
        report,
    })
}

/// Creates and starts the container; its first process is a child of this one. Returns its pid
/// when its program runs, and what the user should know.
///
/// # Errors
/// [`RuntimeError`]; nothing of the container runs then, its control group may be left.
pub(crate) fn start(
    container: &Container,
    env: Vec<String>,
    spec: &Spec,
    streams: Streams,
) -> Result<(i32, Option<String>), RuntimeError> {
    let name = container.name.as_str();
    let config = container.state.join(CONFIG_FILE);
    let json = serde_json::to_vec(spec).expect("a specification built from plain values encodes");
    fsutil::write_atomically(&config, &json)?;
    let program = container.process.args.first().cloned().unwrap_or_default();
    let barrier = StartBarrier::new().at("make a pipe for", &config)?;
    let executor =
        executor(container, container.process.args.clone(), env, &barrier, Bond::default())?;
    let built = builder(container, &runtime_root(container), streams)?
        .with_executor(executor)
        .as_init(&container.state)
        .with_systemd(false)
        .with_detach(true);
    if container.userns.is_some() {
        spec.process().iter().for_each(hard_limits::raise);
    }
    // From within its own user namespace a container could not enter the host's network namespaces:
    // it is born in the one that is meant.
    let visit = container.userns.map(|_| Visit::begin(&container.netns)).transpose()?;
    let built = built.build();
    visit.map(Visit::end).transpose()?;
    let mut created = built.map_err(|e| {
        let covered = container.userns.and_then(|_| namespaces::covered_proc());
        match (explain("create", container, &program, &e), covered) {
            (RuntimeError::Libcontainer { message, .. }, Some(path)) => {
                RuntimeError::CoveredProc { path, message }
            }
            (error, _) => error,
        }
    })?;
    // The group is there, the program does not run yet.
    forbid_swap(container)?;
    let note = deny_devices(container)?;
    if let Some(pid) = created.pid() {
        label_queues(container, pid.as_raw())?;
    }
    created.start().map_err(|e| explain("start", container, &program, &e))?;
    if let Some(reason) = barrier.wait().at("read the start pipe of", &config)? {
        return Err(not_runnable(container, &program, reason));
    }
    let pid = created.pid().map(|p| p.as_raw());
    let pid = pid.ok_or_else(|| RuntimeError::HelperDied { container: name.to_owned() })?;
    Ok((pid, note))
}

/// No swap where none is wanted: libcontainer takes version 2's limit of 0 for none at all.
fn forbid_swap(container: &Container) -> Result<(), RuntimeError> {
    let Some(group) = cgroup::pure_v2_directory(&container.name)? else { return Ok(()) };
    if container.limits.allows_swap() {
        return Ok(());
    }
    let file = group.join("memory.swap.max");
    match std::fs::write(&file, "0") {
        // A kernel without swap.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        written => Ok(written.at("write", &file)?),
    }
}

/// The device rules where libcontainer sets none, and what the user should know if the kernel
/// takes none: the container starts all the same, for it has neither device nodes nor the right to
/// make any that could be opened.
fn deny_devices(container: &Container) -> Result<Option<String>, RuntimeError> {
    let Some(group) = cgroup::pure_v2_directory(&container.name)? else { return Ok(None) };
    let attached = device_filter::attach(&group, &runtime_spec::allowed_devices());
    Ok(attached.err().map(|e| format!("the kernel takes no device rules: {e}")))
}

/// Labels the directory of the container's message queues, where it has labels: the kernel made the
/// file system with the namespace, and takes no label for it when it is mounted.
fn label_queues(container: &Container, pid: i32) -> Result<(), RuntimeError> {
    let Some(labels) = &container.selinux else { return Ok(()) };
    let place = Path::new("/dev/mqueue");
    let queues = Rootfs::of_process(pid)?.find(place)?;
    attribute::label(&queues, &labels.file).at("label", place)?;
    Ok(())
}

/// Removes what the runtime keeps of a container that has ended, so that it can be started again.
///
/// # Errors
/// What the file system said.
pub(crate) fn forget(container: &Container) -> Result<(), RuntimeError> {
    fsutil::remove_tree(&runtime_root(container))?;
    Ok(())
}

/// Runs a command in the running container; it is a child of this process. Returns its pid when
/// its program runs. With an `entrance` to a user namespace this process is in there afterwards.
///
/// # Errors
/// [`RuntimeError`]; nothing of the command runs then.
pub(crate) fn exec(
    container: &Container,
    env: Vec<String>,
    process: &Process,
    streams: Streams,
    bond: Bond,
    entrance: Option<&Entrance>,
) -> Result<i32, RuntimeError> {
    let name = container.name.as_str();
    let args = process.args().clone().unwrap_or_default();
    let program = args.first().cloned().unwrap_or_default();
    // libcontainer leaves a socket behind in the directory of the container's state: it is given a
    // copy of that directory, which goes when the command runs.
    let root = container.state.join(format!("exec-{}", std::process::id()));
    let copy = root.join(name);
    fsutil::create_private_dir(&copy)?;
    let state = runtime_root(container).join(name).join(STATE_FILE);
    match entrance {
        None => drop(std::fs::copy(&state, copy.join(STATE_FILE)).at("copy", &state)?),
        Some(_) => tenant::write(container, &state, &copy.join(STATE_FILE), &root)?,
    }
    let file = root.join("process.json");
    let json = serde_json::to_vec(process).expect("a process built from plain values encodes");
    fsutil::write_atomically(&file, &json)?;
    let barrier = StartBarrier::new().at("make a pipe for", &file)?;
    let executor = executor(container, args, env, &barrier, bond);
    if let Some(entrance) = entrance {
        hard_limits::raise(process);
        entrance.pass().at("enter the namespaces of", &container.state)?;
    }
    let built = executor.and_then(|executor| {
        builder(container, &root, streams)?
            .with_executor(executor)
            .as_tenant()
            .with_detach(true)
            .with_process(Some(&file))
            .build()
            .map_err(|e| explain("exec in", container, &program, &e))
    });
    fsutil::remove_tree(&root)?;
    // First what the executor said: it knows better than libcontainer why there is no process.
    if let Some(reason) = barrier.wait().at("read the start pipe of", &file)? {
        return Err(not_runnable(container, &program, reason));
    }
    built.map(|pid| pid.as_raw())
}

/// Finds our own words in libcontainer's error.
fn explain(
    step: &'static str,
    container: &Container,
    program: &str,
    error: &libcontainer::error::LibcontainerError,
) -> RuntimeError {
    let error = RuntimeError::libcontainer(step, container.name.as_str(), error);
    match error {
        RuntimeError::Libcontainer { message, .. } if message.contains(NOT_FOUND) => {
            not_runnable(container, program, NOT_FOUND.to_owned())
        }
        other => other,
    }
}

fn not_runnable(container: &Container, program: &str, reason: String) -> RuntimeError {
    let (program, name) = (program.to_owned(), container.name.to_string());
    match (refused_label(&reason), &container.selinux) {
        (Some((source, own)), Some(labels)) => RuntimeError::NotLabelled {
            program,
            container: name,
            label: labels.process.clone(),
            own: own.to_owned(),
            source,
        },
        _ if reason == NOT_FOUND => RuntimeError::ProgramNotFound { program, container: name },
        _ => RuntimeError::ProgramNotRunnable { program, container: name, reason },
    }
}

/// `/dev/null`, as a descriptor that libcontainer may close.
pub(crate) fn null() -> Result<OwnedFd, RuntimeError> {
    let path = Path::new("/dev/null");
    Ok(File::options().read(true).write(true).open(path).at("open", path)?.into())
}

/// The container's group, as the specification has it.
///
/// # Errors
/// If the mount table cannot be read.
pub(crate) fn cgroups_path(container: &Container) -> Result<String, RuntimeError> {
    Ok(cgroup::container_path(&container.name)?.display().to_string())
}
