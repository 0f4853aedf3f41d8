//! The bundle's control group in every hierarchy the host has: version 1, version 2, or both.
//!
//! The runtime makes it and sets its limits; this module ends what is in it and removes it, which
//! has to work after a crash at any point, when nothing but the group's name is known.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::identity::ProcessIdentity;
use crate::fsutil::{PathContext, PathError};
use crate::names::ContainerName;

/// Where control groups are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// How long dying processes may keep a group busy before its removal is given up.
const REMOVE_PATIENCE: Duration = Duration::from_secs(5);

/// The container's own group below the bundle's, on pure version 2.
const INNER: &str = "container";

/// The bundle's path below the root of each hierarchy: absolute and never shared.
///
/// A group of its own at the top, not one below a common `/carboy`: the last bottle's removal of a
/// common parent would race with the next one's creation.
fn path(name: &ContainerName) -> PathBuf {
    PathBuf::from(format!("/carboy.{name}"))
}

/// The path of the group that the container's processes are in.
///
/// On pure version 2 it is one below the bundle's, which so has controllers enabled for a child of
/// its own. Without that whoever manages the root may turn a controller off there, and systemd does
/// so with those it does not use itself: the container's limits would be gone (cgroups(7), "Enabling
/// and disabling controllers": EBUSY if a child hands the controller on).
///
/// # Errors
/// If the mount table cannot be read.
pub(crate) fn container_path(name: &ContainerName) -> Result<PathBuf, PathError> {
    Ok(match is_pure_v2(&hierarchies()?) {
        true => path(name).join(INNER),
        false => path(name),
    })
}

/// Keeps the kernel ready to move processes between groups, for as long as it is used.
///
/// The first write to any `cgroup.procs` after a while waits for an RCU grace period, some 13 ms;
/// those within the next few milliseconds take microseconds. So the wait is begun in a helper
/// process beside everything else that happens, and kept from starting anew, instead of being
/// spent when the container joins its group. Writing the own pid into the own group changes
/// nothing else. Best effort.
#[derive(Debug)]
pub(crate) struct Warmth {
    procs: Option<PathBuf>,
}

impl Warmth {
    /// Waits for the first grace period.
    pub(crate) fn begin() -> Self {
        let mut warmth = Self { procs: None };
        let Ok(own) = fs::read_to_string("/proc/self/cgroup") else { return warmth };
        let Ok(hierarchies) = hierarchies() else { return warmth };
        for line in own.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            let Some(h) = hierarchies.iter().find(|h| h.matches(controllers)) else { continue };
            warmth.procs = Some(h.mount.join(path.trim_start_matches('/')).join("cgroup.procs"));
            if warmth.keep() {
                return warmth;
            }
        }
        Self { procs: None }
    }

    /// To be called every few milliseconds; false if nothing came of it.
    pub(crate) fn keep(&self) -> bool {
        let pid = std::process::id().to_string();
        self.procs.as_ref().is_some_and(|procs| fs::write(procs, pid).is_ok())
    }
}

/// One mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    /// The mount's super options: they hold the names of version 1's controllers.
    options: Vec<String>,
    unified: bool,
}

impl Hierarchy {
    /// Whether a line of `/proc/self/cgroup` with these controllers speaks of this hierarchy.
    fn matches(&self, controllers: &str) -> bool {
        if controllers.is_empty() {
            return self.unified;
        }
        !self.unified && controllers.split(',').all(|c| self.options.iter().any(|o| o == c))
    }

    /// Whether a monitor has a group of its own in it: systemd ends units by it.
    fn is_monitors(&self) -> bool {
        self.unified || self.options.iter().any(|o| o == "name=systemd")
    }
}

fn hierarchies() -> Result<Vec<Hierarchy>, PathError> {
    let path = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(path).at("read", path)?;
    Ok(parse_mountinfo(&text))
}

/// `proc_pid_mountinfo(5)`: `… mount-point options - type source super-options`.
fn parse_mountinfo(text: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    for line in text.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut right = right.split(' ');
        let unified = match right.next() {
            Some("cgroup2") => true,
            Some("cgroup") => false,
            _ => continue,
        };
        let Some(mount) = left.split(' ').nth(4) else { continue };
        let options = right.nth(1).unwrap_or_default().split(',').map(str::to_owned).collect();
        found.push(Hierarchy { mount: PathBuf::from(mount), options, unified });
    }
    found
}

/// Whether version 2 is all there is, as the runtime decides it: what is mounted on the root itself,
/// the last on top.
fn is_pure_v2(all: &[Hierarchy]) -> bool {
    all.iter().rfind(|h| h.mount == Path::new(ROOT)).is_some_and(|h| h.unified)
}

/// The controllers that limits can be set with; `None` if no hierarchy is mounted at all.
///
/// The runtime uses version 2 where it is mounted on `/sys/fs/cgroup` itself, and otherwise the
/// hierarchies of version 1 below (hybrid mode).
///
/// # Errors
/// If the mount table cannot be read.
pub(crate) fn controllers() -> Result<Option<BTreeSet<String>>, PathError> {
    let root = Path::new(ROOT);
    let all = hierarchies()?;
    if is_pure_v2(&all) {
        let path = root.join("cgroup.controllers");
        let text = fs::read_to_string(&path).at("read", &path)?;
        return Ok(Some(text.split_ascii_whitespace().map(str::to_owned).collect()));
    }
    let below = all.iter().filter(|h| h.mount.starts_with(root)).collect::<Vec<_>>();
    if below.is_empty() {
        return Ok(None);
    }
    let v1 = below.iter().filter(|h| !h.unified).flat_map(|h| h.options.iter().cloned());
    Ok(Some(v1.collect()))
}

/// The container's group, where version 2 is all there is.
pub(crate) fn pure_v2_directory(name: &ContainerName) -> Result<Option<PathBuf>, PathError> {
    let pure = is_pure_v2(&hierarchies()?);
    Ok(pure.then(|| below(Path::new(ROOT), &path(name).join(INNER))))
}

/// Moves this process, a monitor, out of its caller's groups into one of its own, in the
/// hierarchies by which systemd ends what belongs to a unit or a session: the bundle is to outlive
/// the unit that started it. What the runtime does not place in those hierarchies (version 2
/// beside version 1) is born in the monitor's group. Best effort: a container often may not.
pub(crate) fn join_monitor_group(name: &ContainerName) {
    let Ok(hierarchies) = hierarchies() else { return };
    let group = monitor_path(name);
    for hierarchy in hierarchies {
        let of_its_own = hierarchy.is_monitors();
        let directory = match of_its_own {
            true => below(&hierarchy.mount, &group),
            // A controller of version 1: no group, only not the caller's, which could not be
            // removed otherwise and whose limits are not meant for a monitor.
            false => hierarchy.mount,
        };
        // Where this fails the caller's group has to do.
        if of_its_own {
            let _ = fs::create_dir(&directory);
        }
        let _ = fs::write(directory.join("cgroup.procs"), std::process::id().to_string());
    }
}

/// Moves this process, which is about to run a command in the container, where that container's own
/// processes were born: into the monitor's group. Its other groups are left to it, or, if it is to
/// outlive its caller, exchanged for the root's. Best effort, as [`join_monitor_group`].
pub(crate) fn follow_monitor(name: &ContainerName, outlives_caller: bool) {
    let Ok(hierarchies) = hierarchies() else { return };
    let group = monitor_path(name);
    for hierarchy in hierarchies {
        let directory = match hierarchy.is_monitors() {
            true => below(&hierarchy.mount, &group),
            false if outlives_caller => hierarchy.mount,
            false => continue,
        };
        // It is not made: where it is gone the container is about to go.
        let _ = fs::write(directory.join("cgroup.procs"), std::process::id().to_string());
    }
}

/// The monitor's group.
fn monitor_path(name: &ContainerName) -> PathBuf {
    PathBuf::from(format!("/carboy-monitor.{name}"))
}

fn below(mount: &Path, group: &Path) -> PathBuf {
    mount.join(group.strip_prefix("/").unwrap_or(group))
}

/// The group's directories that exist now.
fn directories(group: &Path) -> Result<Vec<PathBuf>, PathError> {
    let mut all: Vec<PathBuf> =
        hierarchies()?.into_iter().map(|h| below(&h.mount, group)).filter(|d| d.is_dir()).collect();
    all.sort();
    all.dedup();
    Ok(all)
}

/// The directory of the group in the hierarchy by which its processes can be stopped for a while,
/// and whether that is of version 2. `None` if there is none: in hybrid mode without version 1's
/// freezer the container has no group of version 2 to itself.
///
/// # Errors
/// If the mount table cannot be read.
pub(crate) fn freezer_directory(
    name: &ContainerName,
) -> Result<Option<(PathBuf, bool)>, PathError> {
    let found = match pure_v2_directory(name)? {
        Some(directory) => Some((directory, true)),
        None => {
            let is_freezer = |h: &Hierarchy| h.options.iter().any(|o| o == "freezer");
            let v1 = hierarchies()?.into_iter().find(|h| !h.unified && is_freezer(h));
            v1.map(|h| (below(&h.mount, &path(name)), false))
        }
    };
    Ok(found.filter(|(directory, _)| directory.is_dir()))
}

/// The container's directories that exist now, one in each hierarchy.
///
/// # Errors
/// If the mount table cannot be read.
pub(crate) fn group_directories(name: &ContainerName) -> Result<Vec<PathBuf>, PathError> {
    directories(&container_path(name)?)
}

/// Whether anything of the group exists.
///
/// # Errors
/// If the mount table cannot be read.
pub(crate) fn exists(name: &ContainerName) -> Result<bool, PathError> {
    Ok(!directories(&path(name))?.is_empty() || !directories(&monitor_path(name))?.is_empty())
}

/// Kills every process in the group, then removes the group and those below it; true if there was
/// one.
///
/// # Errors
/// What the kernel said if processes or groups are still there after five seconds.
pub(crate) fn remove(name: &ContainerName) -> Result<bool, PathError> {
    remove_group(&path(name))
}

/// The same for the monitor's group. The monitor is to have ended: it would be killed.
///
/// # Errors
/// As [`remove`].
pub(crate) fn remove_monitor_group(name: &ContainerName) -> Result<bool, PathError> {
    remove_group(&monitor_path(name))
}

fn remove_group(group: &Path) -> Result<bool, PathError> {
    let directories = directories(group)?;
    let deadline = Instant::now() + REMOVE_PATIENCE;
    for directory in &directories {
        let mut pause = Duration::from_micros(200);
        loop {
            kill_all(directory)?;
            match remove_tree(directory) {
                Ok(()) => break,
                // Killed processes leave the group a moment after they are dead.
                Err(e) if Instant::now() >= deadline => return Err(e),
                Err(_) => std::thread::sleep(pause),
            }
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
    Ok(!directories.is_empty())
}

/// Kills every process of a directory and of those below it.
fn kill_all(directory: &Path) -> Result<(), PathError> {
    // Version 2 since Linux 5.14: atomic and recursive.
    if fs::write(directory.join("cgroup.kill"), "1").is_ok() {
        return Ok(());
    }
    for below in children(directory)? {
        kill_all(&below)?;
    }
    let procs = directory.join("cgroup.procs");
    let pids = match fs::read_to_string(&procs) {
        Err(e) if gone(&e) => return Ok(()),
        other => other.at("read", &procs)?,
    };
    for pid in pids.lines().filter_map(|l| l.parse().ok()) {
        // By handle: between the reading and the signal the pid may become somebody else's.
        let Some(identity) = ProcessIdentity::of(pid) else { continue };
        if let Some(handle) = identity.open().at("open process of", &procs)?
            && still_member(&procs, pid)
        {
            handle.signal(libc::SIGKILL).at("kill process of", &procs)?;
        }
    }
    // Version 1: what is stopped does not die before it goes on.
    let state = directory.join("freezer.state");
    if state.exists() {
        match fs::write(&state, "THAWED") {
            Err(e) if gone(&e) => {}
            other => other.at("write", &state)?,
        }
    }
    Ok(())
}

fn still_member(procs: &Path, pid: i32) -> bool {
    fs::read_to_string(procs).is_ok_and(|all| all.lines().any(|l| l.parse() == Ok(pid)))
}

fn remove_tree(directory: &Path) -> Result<(), PathError> {
    for below in children(directory)? {
        remove_tree(&below)?;
    }
    match fs::remove_dir(directory) {
        Err(e) if gone(&e) => Ok(()),
        other => other.at("remove control group", directory),
    }
}

fn children(directory: &Path) -> Result<Vec<PathBuf>, PathError> {
    let listing = match fs::read_dir(directory) {
        Err(e) if gone(&e) => return Ok(Vec::new()),
        other => other.at("list", directory)?,
    };
    Ok(listing
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
        .collect())
}

/// A group that vanishes while it is read says ENOENT or ENODEV.
fn gone(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_in_hybrid_mode() {
        let text = "\
33 32 0:29 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
34 33 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 33 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
36 33 0:32 / /sys/fs/cgroup/unified rw shared:7 - cgroup2 cgroup2 rw
";
        let all = parse_mountinfo(text);
        let mounts: Vec<_> = all.iter().map(|h| h.mount.to_str().unwrap()).collect();
        assert_eq!(
            mounts,
            ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"]
        );
        assert!(all[0].matches("cpu,cpuacct") && !all[0].matches("") && !all[0].matches("memory"));
        assert!(all[1].matches("name=systemd"));
        assert!(all[2].matches("") && !all[2].matches("cpu"));
        assert!(!is_pure_v2(&all));
        let over = "33 32 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        assert!(is_pure_v2(&parse_mountinfo(&format!("{text}{over}"))));
    }

    #[test]
    fn the_group_is_absolute_and_unique() {
        let a = path(&ContainerName::new("a").unwrap());
        assert!(a.is_absolute());
        assert_eq!(a.components().count(), 2);
        assert_ne!(a, path(&ContainerName::new("b").unwrap()));
    }
}
