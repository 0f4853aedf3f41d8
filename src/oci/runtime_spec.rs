//! From a container as a value to the OCI runtime specification (`config.md`, `config-linux.md`).
//! Pure.
//!
//! Two things are not in it: the environment, which may be secret or no UTF-8 and is set by the
//! program that execs the container's, and the system-call filter ([`super::seccomp`]), which that
//! program installs as well. Every field is set here, to nothing where nothing is wanted: the
//! defaults of the `oci-spec` crate are those of an example container.

mod defaults;
mod userns;

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime as oci;

use self::defaults::{
    DEVICES, MASKED_PATHS, MOUNTS, NAMESPACES, READONLY_PATHS, SYSCTLS, VOLUME_OPTIONS,
};
pub use self::userns::in_user_namespace;
use super::spec::{Container, DeviceRate, Limits};
use super::ulimit::{self, Ulimit};
use super::user::ResolvedUser;
use crate::error::{Classify, ErrorKind};

/// Processes and threads of a container for which no limit was asked: enough for any sidecar, and
/// too few to use up the host's.
pub const DEFAULT_PIDS: u32 = 256;

/// The period in which the processor quota counts, in microseconds; the kernel's own default.
const CPU_PERIOD: u64 = 100_000;

/// Why there is no specification.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeSpecError {
    /// A cgroup path that could be somebody else's. An empty or relative one means the caller's own
    /// cgroup to the runtime, whose every process is killed with the container.
    #[error("{path:?} is no absolute cgroup path of a container's own")]
    CgroupsPath {
        /// The path.
        path: String,
    },
    /// A relative path where an absolute one is needed.
    #[error("the {what} {} is no absolute path", .path.display())]
    Relative {
        /// `root file system`, `network namespace`.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// No program.
    #[error("there is nothing to run")]
    NothingToRun,
}

impl Classify for RuntimeSpecError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// The specification of `container`, run as `user` on the mounted `rootfs`, in the cgroup
/// `cgroups_path`, such as `/carboy.<container>`.
///
/// # Errors
/// [`RuntimeSpecError`] if a path is not absolute or there is no program: the runtime would take
/// such a specification and do something else than was meant.
pub fn build(
    container: &Container,
    user: &ResolvedUser,
    cgroups_path: &str,
    rootfs: &Path,
) -> Result<oci::Spec, RuntimeSpecError> {
    check_cgroups_path(cgroups_path)?;
    for (what, path) in [("root file system", rootfs), ("network namespace", &container.netns)] {
        if !path.is_absolute() {
            return Err(RuntimeSpecError::Relative { what, path: path.to_owned() });
        }
    }
    let mut root = oci::Root::default();
    root.set_path(rootfs.to_owned()).set_readonly(Some(container.read_only));
    let process = process(user, container, &container.process.args, &container.process.cwd)?;
    let mut spec = oci::Spec::default();
    spec.set_version("1.0.2".to_owned())
        .set_root(Some(root))
        .set_mounts(Some(mounts(container)))
        .set_process(Some(process))
        .set_hostname(Some(container.slug.to_string()))
        .set_domainname(None)
        .set_hooks(None)
        .set_annotations(None)
        .set_linux(Some(linux(container, cgroups_path)));
    Ok(spec)
}

/// The process that `exec` runs beside a container's own: the same capabilities, limits and
/// no_new_privs.
///
/// # Errors
/// [`RuntimeSpecError`] if there is no program or `cwd` is not absolute.
pub fn exec_process(
    container: &Container,
    user: &ResolvedUser,
    args: &[String],
    cwd: Option<&str>,
) -> Result<oci::Process, RuntimeSpecError> {
    process(user, container, args, cwd.unwrap_or(&container.process.cwd))
}

/// The numbers of the character devices that a container may use.
pub(crate) fn allowed_devices() -> Vec<(i32, Option<i32>)> {
    let number = |n: i64| i32::try_from(n).ok();
    let all = DEVICES.iter();
    all.filter_map(|(_, major, minor)| Some((number(*major)?, minor.and_then(number)))).collect()
}

/// A directory that gets an empty file system in memory, with the owner and mode that the image's
/// directory has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TmpfsPlace {
    /// Where it really is, in the root file system.
    pub destination: PathBuf,
    /// Permission bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// Bytes of a file system in memory if the container has no limit on memory; else it is that limit.
const TMPFS_SIZE: u64 = 512 << 20;

/// Mounts the image's own volumes. None of them lies in another mount.
pub fn add_tmpfs(spec: &mut oci::Spec, places: &[TmpfsPlace], container: &Container) {
    let Some(mounts) = spec.mounts_mut() else { return };
    let size = format!("size={}", container.limits.memory.unwrap_or(TMPFS_SIZE));
    mounts.extend(places.iter().map(|place| {
        let (mode, uid, gid) = (place.mode, place.uid, place.gid);
        let owner = [format!("mode={mode:o}"), format!("uid={uid}"), format!("gid={gid}")];
        let mut options = vec!["nosuid".to_owned(), "nodev".to_owned(), size.clone()];
        options.extend(owner);
        options.extend(label_option(container));
        mount(&place.destination, "tmpfs", Path::new("tmpfs"), options)
    }));
}

/// Hides the processors' thermal throttling counters, which tell of what other machines' users do
/// (GHSA-6fw5-f8r9-fgfm). `possible` is the text of `/sys/devices/system/cpu/possible`; the paths
/// depend on it, and a mask knows no patterns.
pub fn mask_thermal_throttle(spec: &mut oci::Spec, possible: &str) {
    let masked = spec.linux_mut().as_mut().and_then(|linux| linux.masked_paths_mut().as_mut());
    if let Some(masked) = masked {
        masked.extend(
            cpus(possible).map(|n| format!("/sys/devices/system/cpu/cpu{n}/thermal_throttle")),
        );
    }
}

/// A list of processors, `0-3,8` (cpuset(7), "List format"); the kernel has at most 8192.
fn cpus(list: &str) -> impl Iterator<Item = u32> {
    list.trim().split(',').flat_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.parse::<u32>(), last.parse::<u32>()) {
            (Ok(first), Ok(last)) => first..last.saturating_add(1).min(8192),
            _ => 0..0,
        }
    })
}

fn check_cgroups_path(path: &str) -> Result<(), RuntimeSpecError> {
    let mut components = Path::new(path).components();
    let absolute = components.next() == Some(Component::RootDir);
    let named = components.clone().count() > 0;
    if absolute && named && components.all(|c| matches!(c, Component::Normal(_))) {
        Ok(())
    } else {
        Err(RuntimeSpecError::CgroupsPath { path: path.to_owned() })
    }
}

fn process(
    user: &ResolvedUser,
    container: &Container,
    args: &[String],
    cwd: &str,
) -> Result<oci::Process, RuntimeSpecError> {
    if args.is_empty() {
        return Err(RuntimeSpecError::NothingToRun);
    }
    if !cwd.starts_with('/') {
        return Err(RuntimeSpecError::Relative { what: "working directory", path: cwd.into() });
    }
    let security = &container.security;
    let mut process = oci::Process::default();
    process
        .set_terminal(Some(false))
        .set_user(spec_user(user))
        .set_args(Some(args.to_vec()))
        .set_env(Some(Vec::new()))
        .set_cwd(cwd.into())
        .set_capabilities(Some(security.capabilities.sets(user.uid)))
        .set_rlimits(Some(rlimits(&security.ulimits)))
        .set_apparmor_profile(security.apparmor.clone())
        // libcontainer passes it over; the program that execs the container's heeds it.
        .set_selinux_label(container.selinux.as_ref().map(|labels| labels.process.clone()))
        .set_no_new_privileges(Some(true))
        .set_oom_score_adj(None);
    Ok(process)
}

fn spec_user(user: &ResolvedUser) -> oci::User {
    // The primary group stands first among the supplementary ones, as Docker does: a process that
    // changes its primary group must not escape a file's "not for this group" (CVE-2022-36109).
    // It also keeps the list from being empty: libcontainer then leaves the caller's groups as
    // they are.
    let mut groups = vec![user.gid];
    groups.extend(user.groups.iter().filter(|&&gid| gid != user.gid));
    let mut spec = oci::User::default();
    spec.set_uid(user.uid)
        .set_gid(user.gid)
        .set_umask(Some(0o022))
        .set_additional_gids(Some(groups))
        .set_username(None);
    spec
}

/// The user's own over the default ones.
fn rlimits(wanted: &[Ulimit]) -> Vec<oci::PosixRlimit> {
    let asked = |name: &str| wanted.iter().any(|u| u.name == name);
    let defaults = ulimit::DEFAULTS.iter().filter(|(name, ..)| !asked(name)).copied();
    let wanted = wanted.iter().map(|u| (u.name.as_str(), u.soft, u.hard));
    defaults.chain(wanted).filter_map(|(name, soft, hard)| rlimit(name, soft, hard)).collect()
}

/// `None` for a name that is not known, which no record of this version holds.
fn rlimit(name: &str, soft: u64, hard: u64) -> Option<oci::PosixRlimit> {
    let typ: oci::PosixRlimitType = format!("RLIMIT_{}", name.to_ascii_uppercase()).parse().ok()?;
    oci::PosixRlimitBuilder::default().typ(typ).soft(soft).hard(hard).build().ok()
}

/// The runtime's own first, then the user's: the parents first, so that none hides another.
fn mounts(container: &Container) -> Vec<oci::Mount> {
    // A file system in memory takes the place of one of the runtime's own (`/dev/shm`).
    let replaced = |path: &str| container.tmpfs.iter().any(|t| t.destination == Path::new(path));
    let mut mounts: Vec<_> = MOUNTS
        .iter()
        .filter(|(destination, ..)| !replaced(destination))
        .map(|(destination, typ, options)| {
            // The source of a file system without one is its name in /proc/mounts.
            let source = if *destination == "/dev/shm" { "shm" } else { typ };
            let mut options = strings(options);
            // Not on the others: proc and sysfs have labels of the policy's, and of the other ones the
            // kernel has mounts already, with which one with another label does not go together. This
            // is why the specification's `mountLabel`, which is for all of them, is not used.
            if matches!(*typ, "tmpfs" | "devpts") {
                options.extend(label_option(container));
            }
            mount(Path::new(destination), typ, Path::new(source), options)
        })
        .collect();
    let mut wanted: Vec<_> = container
        .tmpfs
        .iter()
        .map(|tmpfs| {
            let mut options = tmpfs.options();
            options.extend(label_option(container));
            mount(&tmpfs.destination, "tmpfs", Path::new("tmpfs"), options)
        })
        .collect();
    wanted.extend(container.volumes.iter().map(|volume| {
        let mut options = strings(VOLUME_OPTIONS);
        // `ro` is for the topmost mount alone, `rro` for those below it as well.
        if volume.read_only {
            options.extend(strings(&["ro", "rro"]));
        }
        mount(&volume.destination, "bind", &volume.source, options)
    }));
    wanted.sort_by_key(|mount| mount.destination().components().count());
    mounts.extend(wanted);
    mounts
}

/// What gives all files of a file system one SELinux label (mount(8), `context=`).
fn label_option(container: &Container) -> Option<String> {
    container.selinux.as_ref().map(|labels| format!("context={}", labels.file))
}

fn mount(destination: &Path, typ: &str, source: &Path, options: Vec<String>) -> oci::Mount {
    let mut mount = oci::Mount::default();
    mount
        .set_destination(destination.to_owned())
        .set_typ(Some(typ.to_owned()))
        .set_source(Some(source.to_owned()))
        .set_options(Some(options));
    mount
}

fn linux(container: &Container, cgroups_path: &str) -> oci::Linux {
    let mut namespaces: Vec<_> = NAMESPACES
        .iter()
        .map(|typ| {
            let mut namespace = oci::LinuxNamespace::default();
            namespace.set_typ(*typ);
            namespace
        })
        .collect();
    let mut network = oci::LinuxNamespace::default();
    network.set_typ(oci::LinuxNamespaceType::Network).set_path(Some(container.netns.clone()));
    namespaces.push(network);

    let sysctls: HashMap<_, _> =
        SYSCTLS.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut linux = oci::Linux::default();
    linux
        .set_namespaces(Some(namespaces))
        .set_cgroups_path(Some(cgroups_path.into()))
        .set_resources(Some(resources(&container.limits)))
        .set_sysctl(Some(sysctls))
        .set_masked_paths(Some(strings(MASKED_PATHS)))
        .set_readonly_paths(Some(strings(READONLY_PATHS)))
        // libcontainer does not honour the propagation of a single mount: volumes would stay slaves
        // of the host's mounts, and what is mounted there later would show up inside.
        .set_rootfs_propagation(Some("private".to_owned()))
        // The runtime makes the default devices itself.
        .set_devices(None)
        .set_seccomp(None)
        .set_uid_mappings(None)
        .set_gid_mappings(None);
    linux
}

fn resources(limits: &Limits) -> oci::LinuxResources {
    let mut pids = oci::LinuxPids::default();
    pids.set_limit(i64::from(limits.pids.unwrap_or(DEFAULT_PIDS)));
    let mut resources = oci::LinuxResources::default();
    resources
        .set_devices(Some(devices()))
        .set_pids(Some(pids))
        .set_memory(limits.memory.map(|bytes| memory(bytes, limits.memory_swap)))
        .set_cpu(limits.cpu_milli.map(cpu))
        .set_block_io(block_io(limits));
    resources
}

/// Unless asked for otherwise memory and swap together are as much as memory alone: no swap.
fn memory(bytes: u64, swap: Option<i64>) -> oci::LinuxMemory {
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    let mut memory = oci::LinuxMemory::default();
    memory.set_limit(Some(bytes)).set_swap(Some(swap.unwrap_or(bytes)));
    memory
}

fn block_io(limits: &Limits) -> Option<oci::LinuxBlockIo> {
    if limits.read_bps.is_empty() && limits.write_bps.is_empty() {
        return None;
    }
    let rates = |rates: &[DeviceRate]| {
        let all = rates.iter().filter_map(|rate| {
            oci::LinuxThrottleDeviceBuilder::default()
                .major(rate.major)
                .minor(rate.minor)
                .rate(rate.bytes_per_second)
                .build()
                .ok()
        });
        Some(all.collect())
    };
    let mut block_io = oci::LinuxBlockIo::default();
    block_io
        .set_throttle_read_bps_device(rates(&limits.read_bps))
        .set_throttle_write_bps_device(rates(&limits.write_bps));
    Some(block_io)
}

fn cpu(milli: u32) -> oci::LinuxCpu {
    let mut cpu = oci::LinuxCpu::default();
    cpu.set_period(Some(CPU_PERIOD)).set_quota(Some(i64::from(milli) * 100));
    cpu
}

fn devices() -> Vec<oci::LinuxDeviceCgroup> {
    let mut deny = oci::LinuxDeviceCgroup::default();
    deny.set_allow(false).set_access(Some("rwm".to_owned()));
    let allowed = DEVICES.iter().map(|(_, major, minor)| {
        let mut device = oci::LinuxDeviceCgroup::default();
        device
            .set_allow(true)
            .set_typ(Some(oci::LinuxDeviceType::C))
            .set_major(Some(*major))
            .set_minor(*minor)
            .set_access(Some("rwm".to_owned()));
        device
    });
    std::iter::once(deny).chain(allowed).collect()
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[cfg(test)]
mod tests;
