//! A cgroup per test in every hierarchy of the machine, v1 and v2, and its removal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use super::poll;

/// What the name of every test's cgroup begins with.
pub(crate) const PREFIX: &str = "carboy-it-";

/// One mounted hierarchy.
#[derive(Clone, Debug)]
pub(crate) struct Hierarchy {
    /// Where it is mounted on the machine.
    pub(crate) mount: PathBuf,
    /// The mount options that name a v1 hierarchy (`cpu,cpuacct`, `none,name=systemd`); none for v2.
    pub(crate) v1: Option<String>,
}

/// The hierarchies below `/sys/fs/cgroup`, as `/proc/self/mountinfo` lists them.
pub(crate) fn hierarchies() -> Vec<Hierarchy> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let found: Vec<Hierarchy> = mounts.lines().filter_map(hierarchy).collect();
    assert!(
        found.iter().any(|h| h.v1.is_none()),
        "the tests need cgroup2 mounted below /sys/fs/cgroup, alone or beside v1 controllers"
    );
    found
}

/// Parses a line of proc_pid_mountinfo(5); none if it is no cgroup file system.
fn hierarchy(line: &str) -> Option<Hierarchy> {
    let (left, right) = line.split_once(" - ")?;
    let mount = PathBuf::from(left.split(' ').nth(4)?);
    let mut right = right.split(' ');
    let (kind, options) = (right.next()?, right.nth(1)?);
    if !mount.starts_with("/sys/fs/cgroup") {
        return None;
    }
    let v1 = match kind {
        "cgroup2" => None,
        "cgroup" => {
            let not_identity =
                |o: &&str| !matches!(*o, "rw" | "ro" | "xattr") && !o.starts_with("release_agent=");
            let names: Vec<&str> = options.split(',').filter(not_identity).collect();
            let named = names.iter().any(|n| n.starts_with("name="));
            Some(format!("{}{}", if named { "none," } else { "" }, names.join(",")))
        }
        _ => return None,
    };
    Some(Hierarchy { mount, v1 })
}

/// A test's own cgroup in each hierarchy; removed on drop, with everything below.
#[derive(Debug)]
pub(crate) struct Cgroups {
    directories: Vec<(Hierarchy, PathBuf)>,
}

impl Cgroups {
    /// Makes them, named `id`, which begins with [`PREFIX`] and the test process' pid.
    pub(crate) fn new(id: &str) -> Self {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let mut made = Self { directories: Vec::new() };
        for hierarchy in hierarchies() {
            let directory = hierarchy.mount.join(id);
            fs::create_dir(&directory).unwrap_or_else(|e| {
                panic!(
                    "cannot make {}: {e}; the tests need root and writable cgroups",
                    directory.display()
                )
            });
            match hierarchy.v1 {
                // cpusets(7): a new one is empty and takes no process before it is filled.
                Some(_) => inherit_cpuset(&hierarchy.mount, &directory),
                None => delegate_controllers(&hierarchy.mount),
            }
            made.directories.push((hierarchy, directory));
        }
        made
    }

    /// Each hierarchy with the test's directory in it.
    pub(crate) fn directories(&self) -> &[(Hierarchy, PathBuf)] {
        &self.directories
    }

    /// All cgroups below the test's own, as `mount:relative path`.
    pub(crate) fn below(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (hierarchy, directory) in &self.directories {
            for below in tree(directory) {
                let relative = below.strip_prefix(directory).unwrap();
                found.push(format!("{}:/{}", hierarchy.mount.display(), relative.display()));
            }
        }
        found
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for (_, directory) in &self.directories {
            // A cgroup is busy for a moment after its last process has gone.
            let gone = poll(Duration::from_secs(5), || remove(directory).is_ok());
            if !gone && !std::thread::panicking() {
                panic!("{} cannot be removed", directory.display());
            }
        }
    }
}

/// Removes what a killed test process left: its cgroups and directories outlive its hosts.
fn sweep() {
    for hierarchy in hierarchies() {
        for left in of_dead_processes(&hierarchy.mount) {
            // One that still has processes belongs to somebody whose pids are not ours.
            drop(remove(&left));
        }
    }
    for left in of_dead_processes(Path::new(env!("CARGO_TARGET_TMPDIR"))) {
        // Another run may be sweeping too.
        drop(fs::remove_dir_all(left));
    }
}

/// What stands in `directory` under the name of a test process that is gone.
fn of_dead_processes(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let dead = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
    };
    entries.map(|entry| entry.path()).filter(dead).collect()
}

fn remove(directory: &Path) -> io::Result<()> {
    for below in tree(directory) {
        fs::remove_dir(below)?;
    }
    fs::remove_dir(directory)
}

/// The directories below, children before their parents.
fn tree(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // A cgroup may go while it is read.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            found.extend(tree(&entry.path()));
            found.push(entry.path());
        }
    }
    found
}

fn inherit_cpuset(parent: &Path, child: &Path) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if child.join(file).exists() {
            fs::write(child.join(file), fs::read(parent.join(file)).unwrap()).unwrap();
        }
    }
}

/// Lets the test's cgroup see the controllers that limits need.
fn delegate_controllers(root: &Path) {
    let read = |file: &str| fs::read_to_string(root.join(file)).unwrap_or_default();
    let (available, enabled) = (read("cgroup.controllers"), read("cgroup.subtree_control"));
    for name in ["cpu", "cpuset", "io", "memory", "pids"] {
        let in_list = |list: &str| list.split_whitespace().any(|c| c == name);
        if in_list(&available) && !in_list(&enabled) {
            // Where the machine's own arrangement forbids it (a container's cgroup with processes
            // of its own), the tests of limits say so; the others do not need it.
            drop(fs::write(root.join("cgroup.subtree_control"), format!("+{name}")));
        }
    }
}
