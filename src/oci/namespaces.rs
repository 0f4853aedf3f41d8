//! Namespaces that a helper process enters by itself, because libcontainer cannot: it takes a
//! process into its user namespace first and a command into none, and from within a user namespace
//! nobody may enter a network namespace that the host owns.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

use super::id_range::IdRange;
use crate::fsutil::{PathContext, PathError};

/// Where this process' own network namespace is found.
const OWN_NETWORK: &str = "/proc/self/ns/net";

/// A stay in another network namespace, for what is born there. It ends with [`Visit::end`]; where
/// something fails meanwhile, when it is dropped.
#[derive(Debug)]
pub(crate) struct Visit {
    home: Option<File>,
}

impl Visit {
    /// Enters the network namespace at `path`.
    ///
    /// # Errors
    /// What the kernel said; this process is where it was then.
    pub(crate) fn begin(path: &Path) -> Result<Self, PathError> {
        let own = Path::new(OWN_NETWORK);
        let home = File::open(own).at("open", own)?;
        let there = File::open(path).at("open", path)?;
        setns(&there, CloneFlags::CLONE_NEWNET).at("enter", path)?;
        Ok(Self { home: Some(home) })
    }

    /// Goes back.
    ///
    /// # Errors
    /// What the kernel said: this process must do nothing with the network then.
    pub(crate) fn end(mut self) -> Result<(), PathError> {
        self.leave().at("return to", Path::new("the host's network namespace"))
    }

    fn leave(&mut self) -> io::Result<()> {
        match self.home.take() {
            Some(home) => Ok(setns(&home, CloneFlags::CLONE_NEWNET)?),
            None => Ok(()),
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        // An error is on its way already, and this process ends with it.
        let _ = self.leave();
    }
}

/// The namespaces of a container that has a user namespace of its own, opened before they are
/// entered.
#[derive(Debug)]
pub(crate) struct Entrance {
    network: File,
    user: File,
}

impl Entrance {
    /// Those of the process `pid`. Whoever asks makes sure afterwards that it was the right one.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn of(pid: i32) -> Result<Self, PathError> {
        let open = |kind: &str| {
            let path = format!("/proc/{pid}/ns/{kind}");
            File::open(&path).at("open", Path::new(&path))
        };
        Ok(Self { network: open("net")?, user: open("user")? })
    }

    /// Enters them for good. The host's root has no rights over the host any more then; its files it
    /// still reaches as their owner, the control groups' among them.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn pass(&self) -> io::Result<()> {
        // In this order: the network namespace is the host's to enter.
        setns(&self.network, CloneFlags::CLONE_NEWNET)?;
        Ok(setns(&self.user, CloneFlags::CLONE_NEWUSER)?)
    }
}

/// Whether a process has the ids that its user namespace is to have, if it is to have any of its own.
/// One that cannot be looked at is none that differs.
pub(crate) fn has_ids(pid: i32, range: Option<IdRange>) -> bool {
    let (Some(range), Ok(map)) = (range, fs::read_to_string(format!("/proc/{pid}/uid_map"))) else {
        return true;
    };
    map.split_ascii_whitespace().eq(range.map().split_ascii_whitespace())
}

/// What is mounted over a part of `/proc`, which keeps every new user namespace from mounting its own
/// (`mount_too_revealing` in the kernel's `fs/namespace.c`). The kernel's own places for mounts do not
/// count.
pub(crate) fn covered_proc() -> Option<PathBuf> {
    covered(&fs::read_to_string("/proc/self/mountinfo").ok()?)
}

/// proc_pid_mountinfo(5): the fifth field is where it is mounted.
fn covered(mountinfo: &str) -> Option<PathBuf> {
    const FREE: [&str; 2] = ["/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd"];
    let places = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let mut found = places.filter(|place| place.starts_with("/proc/") && !FREE.contains(place));
    found.next().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_covers_proc_is_found() {
        let plain = "22 1 0:21 / /proc rw - proc proc rw\n\
                     30 22 0:27 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw\n";
        assert_eq!(covered(plain), None);
        let masked = format!("{plain}40 22 0:5 /null /proc/kcore rw - tmpfs tmpfs rw\n");
        assert_eq!(covered(&masked), Some("/proc/kcore".into()));
    }
}
