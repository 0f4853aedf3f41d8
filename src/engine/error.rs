//! Why a verb could not be done.

use ipnet::{IpNet, Ipv4Net};

use crate::error::{Classify, ErrorKind, with_causes};
use crate::fsutil::PathError;
use crate::host::HostError;
use crate::launch::LaunchError;
use crate::names::NameError;
use crate::net;
use crate::oci;
use crate::reconcile::{ApplyError, RemoveError};
use crate::spec::{AddressError, AddressError6};
use crate::state::StateError;

/// An error of a verb.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Addresses that cannot be.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// An IPv6 subnet, gateway or IP that cannot be.
    #[error(transparent)]
    Address6(#[from] AddressError6),
    /// A wish that makes no container.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// An image.
    #[error(transparent)]
    Image(#[from] oci::StoreError),
    /// A registry.
    #[error(transparent)]
    Registry(#[from] oci::RegistryError),
    /// The store lacks an image, and it could not be fetched.
    #[error("image {name:?} is not in the store and cannot be pulled")]
    NotPulled {
        /// What was asked for.
        name: String,
        /// Why not.
        source: Box<oci::RegistryError>,
    },
    /// A container.
    #[error(transparent)]
    Runtime(#[from] oci::RuntimeError),
    /// A question to the kernel's network.
    #[error(transparent)]
    Net(#[from] net::Error),
    /// A record or a lock.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A resource could not be brought to its planned state.
    #[error(transparent)]
    Apply(#[from] ApplyError<HostError>),
    /// The same, and the way back did not succeed either.
    #[error("{action} failed, and {} of what it had made could not be removed: {}", left.len(), list(left))]
    RollBack {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: Box<Error>,
        /// What remains.
        left: Vec<RemoveError<HostError>>,
    },
    /// Some of it could not be removed.
    #[error("{} of {name} could not be removed: {}", left.len(), list(left))]
    Left {
        /// The bottle or network.
        name: String,
        /// What remains.
        left: Vec<RemoveError<HostError>>,
    },
    /// The bottle or network exists, and is another one than asked for.
    #[error("{what} {name} exists, with {}", differences.join(", "))]
    Conflict {
        /// `bundle`, `network` or `guest`.
        what: &'static str,
        /// Its name.
        name: String,
        /// What it has, and what was asked for.
        differences: Vec<String>,
    },
    /// The name is taken.
    #[error("the name {name} is taken by a bundle that is {state}")]
    NameTaken {
        /// The container.
        name: String,
        /// `running` or `exited`.
        state: &'static str,
    },
    /// The address is taken by another bundle.
    #[error("IP {ip} is in use by {by}")]
    AddressInUse {
        /// The address.
        ip: std::net::Ipv4Addr,
        /// The container that has it.
        by: String,
    },
    /// The host or another bottle has (part of) the range.
    #[error("subnet {subnet} overlaps {taken}")]
    Overlap {
        /// The range.
        subnet: IpNet,
        /// What is in the way, for people.
        taken: String,
    },
    /// The pool is used up.
    #[error("no subnet of the pool {pool} is free")]
    PoolExhausted {
        /// The pool.
        pool: Ipv4Net,
    },
    /// All ids are taken.
    #[error("no range of 65536 ids is free for the bundle's own user namespace")]
    NoIds,
    /// Every pair of SELinux categories has its bundle.
    #[error("no pair of SELinux categories is free")]
    NoCategories,
    /// There is no such network.
    #[error("there is no network {name}")]
    NoNetwork {
        /// Its name.
        name: String,
    },
    /// Nothing is kept of what was denied.
    #[error("nothing is kept of what {slug} was denied")]
    NoDeniedLog {
        /// The bottle.
        slug: String,
    },
    /// There is no such bottle.
    #[error("there is no bottle {slug}")]
    NoBottle {
        /// Its slug.
        slug: String,
    },
    /// The network still has bundles.
    #[error("network {name} is used by {}", users.join(", "))]
    NetworkInUse {
        /// The network.
        name: String,
        /// The bundles.
        users: Vec<String>,
    },
    /// The bundle ended while `up` waited for its daemons.
    #[error("the bundle of {slug} ended{} before its daemons were ready; it said: {log}", code(*exit_code))]
    EndedEarly {
        /// The bottle.
        slug: String,
        /// Its exit code, if it is known.
        exit_code: Option<i32>,
        /// The log's last lines.
        log: String,
    },
    /// What `up` waited for did not come in time.
    #[error("the bundle of {slug} {lacks}; it said: {log}")]
    NotReady {
        /// The bottle.
        slug: String,
        /// What it lacks, as a predicate: `does not answer on port 80`.
        lacks: String,
        /// The log's last lines.
        log: String,
        /// What the last attempt found.
        #[source]
        source: std::io::Error,
    },
    /// The process lacks a capability.
    #[error("carboy needs {}, which this process does not have", missing.join(", "))]
    MissingCapability {
        /// Their names.
        missing: Vec<String>,
    },
    /// The process is in a user namespace.
    #[error("carboy runs in a user namespace, where it may not make containers")]
    UserNamespace,
    /// The host lacks something.
    #[error("this host has {what}")]
    Unsupported {
        /// What it lacks: `no control groups mounted`.
        what: String,
        /// What to do.
        hint: &'static str,
    },
}

impl Error {
    /// 126 or 127 if it is that a program in a bundle could not be run or found, as Docker's `exec`
    /// and `run` have it.
    pub fn program_exit_code(&self) -> Option<u8> {
        match self {
            Self::Runtime(e) => e.exit_code(),
            Self::Apply(ApplyError::Host { source, .. }) => match &**source {
                HostError::Runtime(e) => e.exit_code(),
                HostError::Net(_) => None,
            },
            Self::RollBack { source, .. } => source.program_exit_code(),
            _ => None,
        }
    }
}

fn code(exit_code: Option<i32>) -> String {
    exit_code.map_or_else(String::new, |code| format!(" with exit code {code}"))
}

fn list(left: &[RemoveError<HostError>]) -> String {
    let words = |e: &RemoveError<HostError>| format!("{} ({})", e.resource, with_causes(&e.source));
    left.iter().map(words).collect::<Vec<_>>().join("; ")
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Name(_) => ErrorKind::Usage,
            Self::Address(e) => e.kind(),
            Self::Address6(e) => e.kind(),
            Self::Launch(e) => e.kind(),
            Self::Image(e) => e.kind(),
            Self::Registry(e) => e.kind(),
            // Whatever keeps the registry from answering: what the verb needs is not there.
            Self::NotPulled { source, .. } => match source.kind() {
                ErrorKind::Failed => ErrorKind::NotFound,
                kind => kind,
            },
            Self::Runtime(e) => e.kind(),
            Self::Net(e) => e.kind(),
            Self::State(e) => e.kind(),
            Self::Path(e) => e.kind(),
            Self::Apply(e) => e.kind(),
            Self::RollBack { source, .. } => source.kind(),
            Self::Left { .. } | Self::EndedEarly { .. } => ErrorKind::Failed,
            Self::NotReady { .. } => ErrorKind::Timeout,
            Self::Conflict { .. } | Self::NameTaken { .. } | Self::AddressInUse { .. } => {
                ErrorKind::Conflict
            }
            Self::Overlap { .. }
            | Self::PoolExhausted { .. }
            | Self::NoIds
            | Self::NoCategories => ErrorKind::Overlap,
            Self::NoNetwork { .. } | Self::NoBottle { .. } | Self::NoDeniedLog { .. } => {
                ErrorKind::NotFound
            }
            Self::NetworkInUse { .. } => ErrorKind::InUse,
            Self::MissingCapability { .. } | Self::UserNamespace => ErrorKind::Permission,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Name(_) => None,
            Self::Address(e) => e.hint(),
            Self::Address6(e) => e.hint(),
            Self::Launch(e) => e.hint(),
            Self::Image(e) => e.hint(),
            Self::Registry(e) => e.hint(),
            Self::NotPulled { source, .. } => source.hint(),
            Self::Runtime(e) => e.hint(),
            Self::Net(e) => e.hint(),
            Self::State(e) => e.hint(),
            Self::Path(e) => e.hint(),
            Self::Apply(e) => e.hint(),
            Self::RollBack { .. } | Self::Left { .. } => {
                Some("`carboy down SLUG` tries again to remove what is left".to_owned())
            }
            Self::Conflict { what: "bundle", .. } => {
                Some("`up --replace` replaces it, `down` removes it".to_owned())
            }
            Self::Conflict { what: "guest", .. } => {
                Some("`--replace` replaces it, `carboy guest detach SLUG` removes it".to_owned())
            }
            Self::Conflict { .. } => Some("remove it first, or choose another name".to_owned()),
            Self::NameTaken { .. } => Some("`carboy stop SLUG` frees the name".to_owned()),
            Self::AddressInUse { .. } => Some("choose another --ip".to_owned()),
            Self::Overlap { .. } => Some("choose another --subnet".to_owned()),
            Self::PoolExhausted { .. } => {
                Some("give a --subnet, or configure a larger pool".to_owned())
            }
            Self::NoCategories => {
                Some("give a level: --security-opt label=level:s0:cN,cM".to_owned())
            }
            Self::NoIds => Some("see /etc/subuid and /etc/subgid, or use --userns=host".to_owned()),
            Self::NoNetwork { .. } => {
                Some("`carboy network create` makes it, `carboy network ls` lists them".to_owned())
            }
            Self::NoDeniedLog { .. } => {
                Some("`carboy up --log-drops --replace` makes a bottle that keeps it".to_owned())
            }
            Self::NoBottle { .. } => Some("`carboy ps` lists them".to_owned()),
            Self::NetworkInUse { .. } => {
                Some("stop them first, or use `carboy network rm --force`".to_owned())
            }
            Self::EndedEarly { .. } | Self::NotReady { .. } => {
                Some("`carboy logs SLUG` has all of it; `carboy down SLUG` removes it".to_owned())
            }
            Self::MissingCapability { .. } => Some(
                "run carboy as root; in a container, give it the capability: `docker run \
                 --cap-add NAME`, or `--privileged`"
                    .to_owned(),
            ),
            Self::UserNamespace => {
                Some("run carboy as root of the host, not in a user namespace".to_owned())
            }
            Self::Unsupported { hint, .. } => Some((*hint).to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_with_the_kernels_words() {
        let busy = std::io::Error::from_raw_os_error(libc::EBUSY);
        let group = PathError { action: "remove", path: "/group".into(), source: busy };
        let source = HostError::Runtime(group.into());
        let left = vec![RemoveError { resource: "container x".to_owned(), source }];
        let text = Error::Left { name: "x".to_owned(), left }.to_string();
        assert!(text.contains("Device or resource busy"), "{text}");
    }
}
