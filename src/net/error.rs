//! What can go wrong in the network modules: each error names the object, the operation and what
//! the kernel said.

use std::fmt;
use std::io;

use ipnet::IpNet;

use crate::error::{Classify, ErrorKind};
use crate::names::NameError;

/// An error of the network modules.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a netlink request.
    #[error("cannot {operation} {object}{}", words(.said))]
    Kernel {
        /// What was to be changed or read.
        object: String,
        /// What was to be done with it.
        operation: &'static str,
        /// The kernel's own sentence (extended acknowledgement); empty if it gave none.
        said: String,
        /// The errno.
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot {operation} {object}")]
    System {
        /// What was to be changed or read.
        object: String,
        /// What was to be done with it.
        operation: &'static str,
        /// The errno.
        source: io::Error,
    },
    /// A capability is missing.
    #[error("cannot {operation} {object}: {capability} is missing")]
    Permission {
        /// What was to be changed or read.
        object: String,
        /// What was to be done with it.
        operation: &'static str,
        /// The capability that would allow it.
        capability: Capability,
        /// The errno.
        source: io::Error,
    },
    /// The kernel or the host lacks a feature.
    #[error("cannot {operation} {object}: no {feature} here{}", words(.said))]
    Unsupported {
        /// What was to be changed or read.
        object: String,
        /// What was to be done with it.
        operation: &'static str,
        /// The feature that is missing.
        feature: &'static str,
        /// The kernel's own sentence; empty if it gave none.
        said: String,
        /// The errno.
        source: io::Error,
    },
    /// What the operation builds upon is not there.
    #[error("{object} is not there")]
    Missing {
        /// What is missing.
        object: String,
    },
    /// The place of a resource is taken by something that is not ours.
    #[error("{object} is taken by {found}")]
    Foreign {
        /// The place.
        object: String,
        /// What has it.
        found: String,
    },
    /// Somebody else has the same subnet: its connected route exists already.
    #[error("the subnet {subnet} of {object} is taken by {device}")]
    Overlap {
        /// Who wanted the subnet.
        object: String,
        /// The subnet.
        subnet: IpNet,
        /// The interface that has it.
        device: String,
    },
    /// The kernel's answer lacks what it should hold.
    #[error("the kernel's answer about {object} makes no sense: {what}")]
    Answer {
        /// What was asked for.
        object: String,
        /// What is wrong with the answer.
        what: String,
    },
    /// A device whose name carboy cannot handle.
    #[error("the device {name:?} has a name that cannot be used")]
    DeviceName {
        /// The name.
        name: String,
        /// Why not.
        source: NameError,
    },
}

/// A capability the network modules need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// For links, addresses, routes, sysctls and the firewall.
    NetAdmin,
    /// For entering namespaces and for mounts.
    SysAdmin,
    /// For files and directories of root.
    DacOverride,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::DacOverride => "CAP_DAC_OVERRIDE",
        })
    }
}

impl Error {
    /// An error of a netlink request; EPERM and the errnos of missing features get their own kinds.
    ///
    /// `feature` names what an errno of [`is_unsupported`] would mean for this request.
    pub(crate) fn netlink(
        object: &str,
        operation: &'static str,
        feature: &'static str,
        refusal: Refusal,
    ) -> Self {
        let object = object.to_owned();
        let Refusal { errno, said } = refusal;
        let source = io::Error::from_raw_os_error(errno);
        if is_permission(errno) {
            let capability = Capability::NetAdmin;
            return Self::Permission { object, operation, capability, source };
        }
        if is_unsupported(errno) {
            return Self::Unsupported { object, operation, feature, said, source };
        }
        Self::Kernel { object, operation, said, source }
    }

    /// An error of a system call about namespaces, mounts or threads.
    pub(crate) fn system(
        object: &str,
        operation: &'static str,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::of_call(object, operation, Capability::SysAdmin, source.into())
    }

    /// An error of a system call about files and directories.
    pub(crate) fn file(object: &str, operation: &'static str, source: io::Error) -> Self {
        Self::of_call(object, operation, Capability::DacOverride, source)
    }

    /// An error of reading or writing a file below /proc/sys/net.
    pub(crate) fn sysctl(object: &str, operation: &'static str, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::ReadOnlyFilesystem {
            let (object, said) = (object.to_owned(), String::new());
            return Self::Unsupported {
                object,
                operation,
                feature: "writable /proc/sys",
                said,
                source,
            };
        }
        Self::of_call(object, operation, Capability::NetAdmin, source)
    }

    fn of_call(
        object: &str,
        operation: &'static str,
        capability: Capability,
        source: io::Error,
    ) -> Self {
        let object = object.to_owned();
        match source.raw_os_error() {
            Some(errno) if is_permission(errno) => {
                Self::Permission { object, operation, capability, source }
            }
            _ => Self::System { object, operation, source },
        }
    }

    /// A malformed or missing answer.
    pub(crate) fn answer(object: &str, what: impl Into<String>) -> Self {
        Self::Answer { object: object.to_owned(), what: what.into() }
    }

    /// The errno, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { source, .. }
            | Self::System { source, .. }
            | Self::Permission { source, .. }
            | Self::Unsupported { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// A request the kernel refused, before it is known whose request it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Positive, as in errno(3).
    pub(crate) errno: i32,
    /// The extended acknowledgement's sentence; empty if there is none.
    pub(crate) said: String,
}

fn is_permission(errno: i32) -> bool {
    matches!(errno, libc::EPERM | libc::EACCES)
}

/// What the kernel answers for a link type, a family or a subsystem it was built without.
fn is_unsupported(errno: i32) -> bool {
    matches!(
        errno,
        libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT | libc::EPFNOSUPPORT
    )
}

fn words(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Kernel { .. } | Self::System { .. } | Self::Answer { .. } => ErrorKind::Failed,
            Self::Permission { .. } => ErrorKind::Permission,
            Self::Unsupported { .. } | Self::DeviceName { .. } => ErrorKind::Unsupported,
            Self::Missing { .. } => ErrorKind::NotFound,
            Self::Foreign { .. } => ErrorKind::Foreign,
            Self::Overlap { .. } => ErrorKind::Overlap,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Permission { capability, .. } => {
                let flag = capability.to_string().to_lowercase();
                Some(format!(
                    "run as root, or grant it: setcap {flag}+ep /path/to/carboy (in a container: \
                     --cap-add {})",
                    capability.to_string().trim_start_matches("CAP_")
                ))
            }
            Self::Unsupported { source, .. }
                if source.kind() == io::ErrorKind::ReadOnlyFilesystem =>
            {
                Some("remount it: mount -o remount,rw /proc/sys".to_owned())
            }
            Self::Unsupported { feature, .. } => {
                Some(format!("load the kernel module or use a kernel built with it: {feature}"))
            }
            Self::Overlap { .. } => Some("choose another subnet".to_owned()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errnos_get_their_kinds() {
        let cases = [
            (libc::EPERM, ErrorKind::Permission),
            (libc::EACCES, ErrorKind::Permission),
            (libc::EOPNOTSUPP, ErrorKind::Unsupported),
            (libc::EBUSY, ErrorKind::Failed),
        ];
        for (errno, kind) in cases {
            let refusal = Refusal { errno, said: String::new() };
            let error = Error::netlink("bridge b", "create", "bridge support", refusal);
            assert_eq!(error.kind(), kind, "{errno}");
            assert_eq!(error.errno(), Some(errno));
        }
    }

    #[test]
    fn texts_name_the_object_and_keep_the_kernels_words() {
        let refusal = Refusal { errno: libc::EINVAL, said: "MTU too large".to_owned() };
        let error = Error::netlink("bridge b", "create", "bridge support", refusal);
        assert_eq!(error.to_string(), "cannot create bridge b: MTU too large");
        let refusal = Refusal { errno: libc::EPERM, said: String::new() };
        let error = Error::netlink("bridge b", "create", "bridge support", refusal);
        assert_eq!(error.to_string(), "cannot create bridge b: CAP_NET_ADMIN is missing");
        assert!(error.hint().is_some_and(|h| h.contains("setcap cap_net_admin+ep")));
        let error =
            Error::system("namespace n", "enter", io::Error::from_raw_os_error(libc::EPERM));
        assert!(error.to_string().contains("CAP_SYS_ADMIN"));
    }
}
