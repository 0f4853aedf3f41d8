//! Why a wish makes no container.

use std::io;
use std::path::PathBuf;

use super::mounts::IMAGE_VOLUMES_MAX;
use crate::error::{Classify, ErrorKind};
use crate::oci::capabilities::CapabilityError;
use crate::oci::env_file::{self, EnvFileError};
use crate::oci::health::HealthError;
use crate::oci::id_range::IdRangeError;
use crate::oci::limits::LimitError;
use crate::oci::log_opts::LogOptionError;
use crate::oci::process::ProcessError;
use crate::oci::restart::RestartPolicyError;
use crate::oci::secret::SecretError;
use crate::oci::security::SecurityError;
use crate::oci::signal::SignalError;
use crate::oci::tmpfs::TmpfsError;
use crate::oci::ulimit::UlimitError;
use crate::oci::volume::VolumeError;

/// A wish that makes no container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The program or its environment.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A volume.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// A file system in memory.
    #[error(transparent)]
    Tmpfs(#[from] TmpfsError),
    /// A secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// An id that the bundle's own user namespace lacks.
    #[error(transparent)]
    Ids(#[from] IdRangeError),
    /// A bound.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// A resource limit.
    #[error(transparent)]
    Ulimit(#[from] UlimitError),
    /// A capability.
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    /// A security option.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// A restart policy.
    #[error(transparent)]
    Restart(#[from] RestartPolicyError),
    /// A health check.
    #[error(transparent)]
    Health(#[from] HealthError),
    /// A bound of the log.
    #[error(transparent)]
    Log(#[from] LogOptionError),
    /// The image's stop signal.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// A daemon that the image does not have.
    #[error("the image has no daemon {name:?}; it has {known}")]
    UnknownDaemon {
        /// As given.
        name: String,
        /// The names it has.
        known: String,
    },
    /// An image that declares more volumes than any real one.
    #[error("the image declares {count} volumes, at most {IMAGE_VOLUMES_MAX} are allowed")]
    ImageVolumes {
        /// How many.
        count: usize,
    },
    /// A volume's source that is not there.
    #[error("volume source {} does not exist", path.display())]
    NoVolumeSource {
        /// As given.
        path: PathBuf,
    },
    /// A volume's source that cannot be looked at.
    #[error("look at volume source {}", path.display())]
    VolumeSource {
        /// As given.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A volume whose ids are to be mapped where the bundle has none of its own.
    #[error("volume source {} is asked for with idmap, but the bundle has no ids of its own", path.display())]
    NothingToMap {
        /// As given.
        path: PathBuf,
    },
    /// Labels on a host whose policy has none.
    #[error("SELinux labels are asked for, but the host's policy has none for containers")]
    NoContainerLabels,
    /// A label that the host's policy does not know.
    #[error("the host's SELinux policy does not know the label {label}")]
    UnknownLabel {
        /// The whole label.
        label: String,
    },
    /// A place of the host's own that is not to be given another label.
    #[error("volume source {} is the system's own and keeps its SELinux label", path.display())]
    RefusedRelabel {
        /// Without symbolic links.
        path: PathBuf,
    },
    /// A file of variables, or with a secret, that cannot be read.
    #[error("read {what} {}", path.display())]
    File {
        /// `environment file` or `secret`.
        what: &'static str,
        /// As given.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A file of variables that is too large.
    #[error("environment file {} has more than {} bytes", path.display(), env_file::FILE_MAX)]
    LargeEnvFile {
        /// As given.
        path: PathBuf,
    },
    /// A file of variables with a line that is none.
    #[error("environment file {}", path.display())]
    EnvFile {
        /// As given.
        path: PathBuf,
        /// Which line, and why.
        #[source]
        source: EnvFileError,
    },
    /// A device limit for something that is no whole disk.
    #[error("{} {problem}", path.display())]
    Device {
        /// As given.
        path: PathBuf,
        /// `does not exist`, `is no block device`.
        problem: &'static str,
    },
    /// A profile on a host without AppArmor.
    #[error("AppArmor profile {profile:?} is asked for, but AppArmor is not enabled")]
    NoAppArmor {
        /// As given.
        profile: String,
    },
    /// A profile that is not loaded.
    #[error("AppArmor profile {profile:?} is not loaded")]
    NoProfile {
        /// As given.
        profile: String,
    },
}

impl LaunchError {
    /// The error of the part that it is about, where it only passes one on.
    fn part(&self) -> Option<&dyn Classify> {
        Some(match self {
            Self::Process(e) => e,
            Self::Volume(e) => e,
            Self::Tmpfs(e) => e,
            Self::Secret(e) => e,
            Self::Ids(e) => e,
            Self::Limit(e) => e,
            Self::Ulimit(e) => e,
            Self::Capability(e) => e,
            Self::Security(e) => e,
            Self::Restart(e) => e,
            Self::Health(e) => e,
            Self::Log(e) => e,
            Self::Signal(e) => e,
            Self::EnvFile { source, .. } => source,
            _ => return None,
        })
    }
}

impl Classify for LaunchError {
    fn kind(&self) -> ErrorKind {
        if let Some(part) = self.part() {
            return part.kind();
        }
        match self {
            Self::NoVolumeSource { .. } | Self::NoProfile { .. } => ErrorKind::NotFound,
            Self::File { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::PermissionDenied => ErrorKind::Permission,
                _ => ErrorKind::Failed,
            },
            Self::VolumeSource { .. } => ErrorKind::Failed,
            Self::NoContainerLabels | Self::NoAppArmor { .. } => ErrorKind::Unsupported,
            _ => ErrorKind::Invalid,
        }
    }

    fn hint(&self) -> Option<String> {
        if let Some(part) = self.part() {
            return part.hint();
        }
        let hint = match self {
            Self::NoVolumeSource { .. } => "carboy makes no directory on the host: create it first",
            Self::NothingToMap { .. } => "give --userns=auto, or leave idmap out",
            Self::NoContainerLabels => {
                "leave z, Z and label= out, or load the policy's module for containers"
            }
            Self::UnknownLabel { .. } => "`semanage user -l` and `seinfo -t` list what it knows",
            Self::RefusedRelabel { .. } => "leave z and Z out, or name a directory in it",
            Self::NoAppArmor { .. } => "leave the option out; what else confines it stays",
            Self::NoProfile { .. } => "load it with apparmor_parser",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
