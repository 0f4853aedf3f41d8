//! Why a container could not be started, reached or removed.

mod classify;

use std::io;
use std::path::{Path, PathBuf};

use super::helper::Failure;
use super::spec::Container;
use super::volume::VolumeError;
use crate::error::{Classify, ErrorKind, with_causes};
use crate::fsutil::PathError;

/// An error around a running container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The file system refused.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A helper process could not be started.
    #[error("start the helper process of {container}")]
    Spawn {
        /// The container.
        container: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A helper process ended without a word.
    #[error("the helper process of {container} ended before it reported")]
    HelperDied {
        /// The container.
        container: String,
    },
    /// A helper process said what went wrong.
    #[error(transparent)]
    Reported(#[from] Failure),
    /// A system call on the way to the container's root file system.
    #[error("{action} {}", path.display())]
    Rootfs {
        /// What was tried.
        action: &'static str,
        /// Inside the container, or on the host.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The layers could not be joined.
    #[error("mount an overlay with its writable layer in {}", path.display())]
    Overlay {
        /// The container's directory on disk.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No user namespace.
    #[error("make a user namespace")]
    UserNamespace {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A file system that cannot be seen with other ids.
    #[error("map the ids of {} ({file_system}) to those of the bundle", path.display())]
    IdMap {
        /// On the host.
        path: PathBuf,
        /// Its type.
        file_system: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// An overlayfs that cannot join layers with mapped ids.
    #[error("mount an overlay of layers with mapped ids, its writable layer in {}", path.display())]
    MappedOverlay {
        /// The container's directory on disk.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A container with a user namespace of its own, on a host that does not see all of `/proc`.
    #[error("mount /proc, of which {} is covered on this host: {message}", path.display())]
    CoveredProc {
        /// What is covered.
        path: PathBuf,
        /// libcontainer's words, causes included.
        message: String,
    },
    /// The image has something in a place that the runtime must own.
    #[error("the image's {path} is a {found}; carboy needs a directory there")]
    HostileRootfs {
        /// Inside the image.
        path: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// libcontainer could not do a step.
    #[error("{step} container {container}: {message}")]
    Libcontainer {
        /// `create`, `start` or `exec in`.
        step: &'static str,
        /// The container.
        container: String,
        /// Its words, causes included.
        message: String,
    },
    /// A program that is not in the container.
    #[error("{program:?} is not found in container {container}")]
    ProgramNotFound {
        /// As asked for.
        program: String,
        /// The container.
        container: String,
    },
    /// A program that cannot be run.
    #[error("{program:?} cannot be run in container {container}: {reason}")]
    ProgramNotRunnable {
        /// As asked for.
        program: String,
        /// The container.
        container: String,
        /// Why.
        reason: String,
    },
    /// A program that may not be run, where it was to have the container's SELinux label.
    #[error(
        "{program:?} cannot be run in container {container}; perhaps SELinux does not let {own} become \
         {label} by it"
    )]
    NotLabelled {
        /// As asked for.
        program: String,
        /// The container.
        container: String,
        /// The container's label.
        label: String,
        /// The label of the process that was to become the program.
        own: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A file that could not be given an SELinux label.
    #[error("give {} the SELinux label {label}", path.display())]
    Relabel {
        /// On the host.
        path: PathBuf,
        /// The label.
        label: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A user that the container does not know, or a wish that makes no specification.
    #[error("prepare container {container}: {message}")]
    Invalid {
        /// The container.
        container: String,
        /// What is wrong.
        message: String,
        /// How it is classified.
        kind: ErrorKind,
    },
    /// The container is to be started anew from its record, which holds no secret.
    #[error("the secrets of container {container} are not known any more")]
    SecretsUnknown {
        /// The container.
        container: String,
    },
    /// A volume that the image's own links would lead to a place where none may be.
    #[error("{} leads elsewhere in this image", destination.display())]
    Misled {
        /// As given.
        destination: PathBuf,
        /// Why it cannot be there.
        #[source]
        source: VolumeError,
    },
    /// The container does not run.
    #[error("container {container} is not running")]
    NotRunning {
        /// The container.
        container: String,
    },
    /// The container is paused.
    #[error("container {container} is paused")]
    Paused {
        /// The container.
        container: String,
    },
    /// The container's processes could not be stopped in time, and go on.
    #[error("container {container} could not be paused within {seconds} s")]
    NotFrozen {
        /// The container.
        container: String,
        /// How long they were given.
        seconds: u64,
    },
    /// The host cannot stop processes for a while.
    #[error("this host has no freezer for container {container}")]
    NoFreezer {
        /// The container.
        container: String,
    },
    /// Nobody knows any more how the container ended.
    #[error("container {container} has ended, and its exit code is lost")]
    ExitCodeLost {
        /// The container.
        container: String,
    },
    /// A process would not end.
    #[error("process {pid} of container {container} is still there after it was killed")]
    Survivor {
        /// The container.
        container: String,
        /// The process.
        pid: i32,
    },
    /// A process could not be signalled or waited for.
    #[error("{action} process {pid} of container {container}")]
    Process {
        /// What was tried.
        action: &'static str,
        /// The container.
        container: String,
        /// The process.
        pid: i32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl RuntimeError {
    /// libcontainer's error with all its causes.
    pub(crate) fn libcontainer(
        step: &'static str,
        container: &str,
        error: &dyn std::error::Error,
    ) -> Self {
        let message = with_causes(error);
        Self::Libcontainer { step, container: container.to_owned(), message }
    }

    /// Why the ids of `path` cannot be mapped.
    pub(crate) fn id_map(path: &Path, source: io::Error) -> Self {
        let file_system = file_system(path);
        Self::IdMap { path: path.to_owned(), file_system, source }
    }

    /// What a pure module found wrong with the container.
    pub(crate) fn invalid(container: &Container, error: &impl Classify) -> Self {
        let container = container.name.to_string();
        Self::Invalid { container, message: error.to_string(), kind: error.kind() }
    }

    /// 126 or 127 where Docker's `exec` and `run` say so.
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            Self::ProgramNotRunnable { .. } | Self::NotLabelled { .. } => Some(126),
            Self::ProgramNotFound { .. } => Some(127),
            Self::Reported(failure) => failure.exit_code,
            _ => None,
        }
    }
}

/// The type of the file system that a path is on; its number where it is not known here.
fn file_system(path: &Path) -> String {
    /// `linux/magic.h`.
    const KNOWN: [(u64, &str); 12] = [
        (0xef53, "ext4"),
        (0x5846_5342, "xfs"),
        (0x9123_683e, "btrfs"),
        (0xf2f5_2010, "f2fs"),
        (0x0102_1994, "tmpfs"),
        (0x794c_7630, "overlayfs"),
        (0x6969, "nfs"),
        (0x6573_5546, "fuse"),
        (0x0102_1997, "9p"),
        (0x2fc1_2fc1, "zfs"),
        (0x9fa0, "proc"),
        (0x6265_6572, "sysfs"),
    ];
    let Ok(found) = rustix::fs::statfs(path) else { return "unknown file system".to_owned() };
    let kind = found.f_type.cast_unsigned();
    let known = KNOWN.iter().find(|(magic, _)| *magic == kind);
    known.map_or_else(|| format!("file system 0x{kind:x}"), |(_, name)| (*name).to_owned())
}
