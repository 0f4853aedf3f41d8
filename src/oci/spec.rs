//! The container of a bundle as a value: what is wanted, not how it is made. Pure.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::health::Health;
use super::id_range::IdRange;
use super::restart::RestartPolicy;
use super::secret::Secret;
use super::security::Security;
use super::selinux::context::Labels;
use super::tmpfs::Tmpfs;
use super::volume::Relabel;
use crate::names::{ContainerName, Slug};

/// A container that runs, with everything its start depends on. Two equal values start the same
/// container: this is what a second `up` compares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its name; also its cgroup's name.
    pub name: ContainerName,
    /// The bottle; also its host name.
    pub slug: Slug,
    /// The image.
    pub image: ImageRef,
    /// The unpacked layers, the lowest first.
    pub layers: Vec<PathBuf>,
    /// The network namespace it runs in.
    pub netns: PathBuf,
    /// The pinned address, for `/etc/hosts`.
    pub ip: Ipv4Addr,
    /// The pinned IPv6 address.
    #[serde(default)]
    pub ip6: Option<Ipv6Addr>,
    /// No resolver: the network has no way out.
    pub internal: bool,
    /// What runs.
    pub process: Process,
    /// Host directories and files that are seen inside.
    pub volumes: Vec<Volume>,
    /// File systems in memory.
    #[serde(default)]
    pub tmpfs: Vec<Tmpfs>,
    /// Files that are kept in memory alone.
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// How it is confined.
    #[serde(default)]
    pub security: Security,
    /// The ids of its own user namespace; it is in the host's if there are none.
    #[serde(default)]
    pub userns: Option<IdRange>,
    /// Its SELinux labels, if it has any.
    #[serde(default)]
    pub selinux: Option<Labels>,
    /// Directories that the image declares as volumes, and that get an empty file system in memory.
    #[serde(default)]
    pub image_volumes: Vec<PathBuf>,
    /// Bounds on what it may use.
    pub limits: Limits,
    /// The root file system cannot be written.
    pub read_only: bool,
    /// A small init is PID 1 and the process its child.
    pub init: bool,
    /// TCP ports that take connections once it is ready, as the image declares.
    pub ready_ports: Vec<u16>,
    /// The signal that asks it to stop, from the image; SIGTERM unless it says otherwise.
    pub stop_signal: i32,
    /// How large its log may become.
    #[serde(default)]
    pub log: LogLimits,
    /// Whether it is started again when it ends of its own accord.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// How its health is checked, if it is.
    #[serde(default)]
    pub health: Option<Health>,
    /// Free text for the user.
    pub labels: BTreeMap<String, String>,
    /// Where its writable layer and its log are: a directory of its own on disk.
    pub storage: PathBuf,
    /// Where its monitor, status and runtime state are: a directory of its own on tmpfs.
    pub state: PathBuf,
}

/// An image by name and content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRef {
    /// The name it was found under.
    pub reference: String,
    /// The manifest's digest.
    pub digest: Digest,
}

/// What a container runs, with the image's configuration and the user's wishes already merged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The program and its arguments; at least one.
    pub args: Vec<String>,
    /// `NAME=VALUE`, in order, each name once.
    pub env: Vec<String>,
    /// Absolute.
    pub cwd: String,
    /// As the image or the user wrote it (`name`, `uid`, `name:group`, `uid:gid`); empty is root.
    /// It is resolved in the container's own `/etc/passwd` and `/etc/group`.
    pub user: String,
}

/// A host path that is seen inside the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// A file or directory of the host, absolute, without symbolic links.
    pub source: PathBuf,
    /// Where it is seen inside; absolute.
    pub destination: PathBuf,
    /// It cannot be written from inside.
    pub read_only: bool,
    /// Its files' owners are seen as the same ids inside, where the container has ids of its own.
    #[serde(default)]
    pub idmap: bool,
    /// The SELinux label its files are given; none where the container has none.
    #[serde(default)]
    pub relabel: Option<Relabel>,
}

/// Bounds on what a container may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Memory and swap together in bytes, -1 for no bound; as much as memory alone unless given.
    #[serde(default)]
    pub memory_swap: Option<i64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Processor time in thousandths of one processor.
    pub cpu_milli: Option<u32>,
    /// How fast disks may be read.
    #[serde(default)]
    pub read_bps: Vec<DeviceRate>,
    /// How fast disks may be written.
    #[serde(default)]
    pub write_bps: Vec<DeviceRate>,
}

impl Limits {
    /// Whether its memory may be swapped to disk: without a bound on memory it is as the kernel has
    /// it, with one only as far as memory and swap together are more.
    pub(crate) fn allows_swap(&self) -> bool {
        let more_than = |memory| {
            self.memory_swap.is_some_and(|both| u64::try_from(both).is_ok_and(|both| both > memory))
        };
        self.memory_swap == Some(-1) || self.memory.is_none_or(more_than)
    }
}

/// A bound on the use of one disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRate {
    /// As it was named.
    pub device: PathBuf,
    /// Its number's first part.
    pub major: u32,
    /// Its number's second part.
    pub minor: u32,
    /// In bytes.
    pub bytes_per_second: u64,
}

/// How large a log may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// A file that would be larger is rotated. In bytes.
    pub max_size: u64,
    /// So many files are kept, the newest included.
    pub max_files: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { max_size: 10 << 20, max_files: 3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_swap_only_beyond_the_bound_on_memory() {
        for (memory, memory_swap, want) in [
            (None, None, true),
            (Some(64), None, false),
            (Some(64), Some(64), false),
            (Some(64), Some(65), true),
            (Some(64), Some(-1), true),
        ] {
            let limits = Limits { memory, memory_swap, ..Limits::default() };
            assert_eq!(limits.allows_swap(), want, "{memory:?} {memory_swap:?}");
        }
    }
}
