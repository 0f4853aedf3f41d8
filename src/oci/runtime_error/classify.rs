//! The kind of each error, and what the user can do about it.

use super::RuntimeError;
use crate::error::{Classify, ErrorKind};

impl Classify for RuntimeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Path(e) => e.kind(),
            Self::Reported(e) => e.kind(),
            Self::HostileRootfs { .. } | Self::Misled { .. } => ErrorKind::Invalid,
            Self::Invalid { kind, .. } => *kind,
            Self::ProgramNotFound { .. }
            | Self::NotRunning { .. }
            | Self::SecretsUnknown { .. } => ErrorKind::NotFound,
            Self::Paused { .. } => ErrorKind::Conflict,
            Self::NotFrozen { .. } => ErrorKind::Timeout,
            Self::NotLabelled { .. } => ErrorKind::Permission,
            Self::Relabel { source, .. } => match source.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => ErrorKind::Permission,
                _ => ErrorKind::Failed,
            },
            Self::NoFreezer { .. } | Self::MappedOverlay { .. } | Self::CoveredProc { .. } => {
                ErrorKind::Unsupported
            }
            Self::UserNamespace { source } => match source.raw_os_error() {
                // No namespaces of that kind, or none more (user_namespaces(7)).
                Some(libc::EINVAL | libc::ENOSYS | libc::ENOSPC | libc::EUSERS) => {
                    ErrorKind::Unsupported
                }
                Some(libc::EPERM) => ErrorKind::Permission,
                _ => ErrorKind::Failed,
            },
            Self::IdMap { source, .. } => match source.raw_os_error() {
                Some(libc::EPERM) => ErrorKind::Permission,
                _ => ErrorKind::Unsupported,
            },
            Self::Overlay { source, .. } => match source.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => ErrorKind::Permission,
                Some(libc::EINVAL | libc::ENODEV | libc::EOPNOTSUPP | libc::E2BIG) => {
                    ErrorKind::Unsupported
                }
                _ => ErrorKind::Failed,
            },
            Self::Spawn { source, .. } | Self::Rootfs { source, .. } => match source.raw_os_error()
            {
                Some(libc::EPERM | libc::EACCES) => ErrorKind::Permission,
                Some(libc::ENOSYS | libc::ENODEV | libc::EOPNOTSUPP) => ErrorKind::Unsupported,
                // What is asked for does not fit what the image has there.
                Some(libc::ENOTDIR | libc::EISDIR | libc::EEXIST | libc::ELOOP) => {
                    ErrorKind::Invalid
                }
                Some(libc::ENOENT) => ErrorKind::NotFound,
                _ => ErrorKind::Failed,
            },
            _ => ErrorKind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Path(e) => e.hint(),
            Self::Reported(e) => e.hint(),
            Self::SecretsUnknown { .. } => Some(
                "`carboy up` with the same options and --secret starts it with its secrets"
                    .to_owned(),
            ),
            Self::NotRunning { .. } => Some("`carboy up SLUG` starts it".to_owned()),
            Self::NotLabelled { .. } => Some(
                "if it is SELinux the kernel's log has the denial (`avc:`): give a volume that holds the \
                 program :z, run carboy in a domain that the policy lets start containers \
                 (docs/hardening.md, \"SELinux\"), or use --security-opt label=disable; a script's \
                 interpreter that may not be executed is answered in the same way"
                    .to_owned(),
            ),
            Self::Relabel { .. } => Some(
                "leave z and Z out, and label it yourself (chcon -R -t container_file_t)".to_owned(),
            ),
            Self::Paused { .. } => Some("`carboy unpause SLUG` lets it go on".to_owned()),
            Self::NotFrozen { .. } => {
                Some("a process waits for the kernel; try again later".to_owned())
            }
            Self::NoFreezer { .. } => Some(
                "pausing needs cgroup v2 on /sys/fs/cgroup, or the freezer controller of v1"
                    .to_owned(),
            ),
            Self::ExitCodeLost { .. } => {
                Some("its monitor was killed; `carboy up SLUG` starts it anew".to_owned())
            }
            Self::UserNamespace { .. } => Some(
                "this needs a kernel with CONFIG_USER_NS, and room in user.max_user_namespaces; or \
                 use --userns=host"
                    .to_owned(),
            ),
            Self::IdMap { .. } => Some(
                "ID-mapped mounts need Linux 5.12 for ext4 and xfs, 5.15 for btrfs, 6.3 for tmpfs; or \
                 use --userns=host, or the volume without idmap"
                    .to_owned(),
            ),
            Self::CoveredProc { .. } => Some(
                "in a container, run carboy where /proc is not masked (Docker: \
                 --security-opt systempaths=unconfined), or use --userns=host"
                    .to_owned(),
            ),
            Self::MappedOverlay { .. } => Some(
                "overlayfs takes layers with mapped ids since Linux 5.19; or use --userns=host"
                    .to_owned(),
            ),
            Self::Overlay { source, .. } if source.raw_os_error() == Some(libc::E2BIG) => {
                Some("so many layers can be joined since Linux 6.5".to_owned())
            }
            Self::Overlay { .. } if self.kind() == ErrorKind::Unsupported => Some(
                "overlayfs needs a --root on ext4, xfs, btrfs or tmpfs, not on overlayfs itself"
                    .to_owned(),
            ),
            Self::Spawn { source, .. } if source.raw_os_error() == Some(libc::EINVAL) => Some(
                "the executable is of another mount namespace: name one in Config::helper"
                    .to_owned(),
            ),
            Self::Spawn { .. } | Self::Rootfs { .. } => match self.kind() {
                ErrorKind::Permission => {
                    Some("this needs CAP_SYS_ADMIN: run carboy as root".to_owned())
                }
                ErrorKind::Unsupported => Some(
                    "this needs Linux 5.12 or newer with overlayfs and mount_setattr".to_owned(),
                ),
                _ => None,
            },
            _ => None,
        }
    }
}
