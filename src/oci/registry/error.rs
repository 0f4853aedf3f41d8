//! What can go wrong between here and a registry.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Classify, ErrorKind};
use crate::oci::digest::Digest;
use crate::oci::error::StoreError;
use crate::oci::reference::ReferenceError;

/// An error of a pull.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A word is no image name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A name that no registry can have.
    #[error("{name} cannot be pulled: it names no repository")]
    NoRepository {
        /// What was asked for.
        name: String,
    },
    /// The host's name leads nowhere.
    #[error("host {host} is not known")]
    UnknownHost {
        /// The host.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No connection could be made.
    #[error("cannot connect to {host}")]
    Connect {
        /// The host, with its port.
        host: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// What answers does not speak TLS.
    #[error("{host} does not speak TLS")]
    NotTls {
        /// The host.
        host: String,
    },
    /// The host could not prove who it is, or TLS failed otherwise.
    #[error("TLS with {host} failed; trusted were {roots}")]
    Tls {
        /// The host.
        host: String,
        /// Which certificate authorities were trusted.
        roots: String,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The host wants to see a client certificate, or another one.
    #[error("{host} {}", refusal(shown.as_deref()))]
    ClientCert {
        /// The host.
        host: String,
        /// The certificate that it was shown.
        shown: Option<PathBuf>,
        /// What it said.
        source: rustls::Error,
    },
    /// Nothing came for too long.
    #[error("{host} sent nothing for {} while {what} was read", seconds(*after))]
    Stalled {
        /// The host.
        host: String,
        /// What was read.
        what: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The whole took too long.
    #[error("the image was not there after {}", seconds(*after))]
    Deadline {
        /// How long it might have taken.
        after: Duration,
    },
    /// The connection broke, or what came is no HTTP.
    #[error("the connection to {host} failed while {what} was read")]
    Transfer {
        /// The host.
        host: String,
        /// What was read.
        what: String,
        /// What happened.
        source: Box<ureq::Error>,
    },
    /// A redirection that is not followed.
    #[error("{host} redirects to {to:?}, which is not followed: {reason}")]
    Redirect {
        /// Who redirects.
        host: String,
        /// Where to.
        to: String,
        /// Why not.
        reason: &'static str,
    },
    /// The registry wants to know who asks, or does not like the answer.
    #[error("{host} does not let {tried} read {repository}{}", said(message))]
    Denied {
        /// The registry.
        host: String,
        /// The repository.
        repository: String,
        /// Which credential was tried.
        tried: Tried,
        /// What the registry said.
        message: Option<String>,
    },
    /// The registry asks for a kind of authentication that is not known.
    #[error("{host} asks for an authentication that is not known: {header:?}")]
    Challenge {
        /// The registry.
        host: String,
        /// Its header, shortened.
        header: String,
    },
    /// The token server gave none.
    #[error("the token server {realm} of {host} gave no token: {reason}")]
    Token {
        /// The registry.
        host: String,
        /// The token server.
        realm: String,
        /// What it answered.
        reason: String,
    },
    /// The registry has no such image.
    #[error("{host} has no {name}{}", said(message))]
    NotFound {
        /// The registry.
        host: String,
        /// What was asked for.
        name: String,
        /// What the registry said.
        message: Option<String>,
    },
    /// The registry answered with an error of its own.
    #[error("{host} answered {status} when asked for {what}{}", said(message))]
    Status {
        /// The registry, or where it redirected to.
        host: String,
        /// The HTTP status.
        status: u16,
        /// What was asked for.
        what: String,
        /// What it said.
        message: Option<String>,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// Something else than a manifest came.
    #[error("{host} answered with {found:?} when asked for the manifest of {name}")]
    ContentType {
        /// The registry.
        host: String,
        /// The image.
        name: String,
        /// The media type of what came.
        found: String,
    },
    /// Docker's first manifest format.
    #[error("{name} has a manifest of schema 1, which cannot be checked and is not supported")]
    Schema1 {
        /// The image.
        name: String,
    },
    /// A document is larger than any real one.
    #[error("{name}: {what} has more than {max} bytes")]
    TooLarge {
        /// The image.
        name: String,
        /// What the document is.
        what: &'static str,
        /// The most it may have.
        max: u64,
    },
    /// A document is not the JSON it should be.
    #[error("{name}: {what} cannot be read")]
    Json {
        /// The image.
        name: String,
        /// What the document is.
        what: &'static str,
        /// Where it fails.
        source: serde_json::Error,
    },
    /// A manifest or index contradicts itself.
    #[error("{name}: {what} is not valid: {reason}")]
    Document {
        /// The image.
        name: String,
        /// What the document is.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A multi-platform image has nothing for this host.
    #[error("{name} has no image for {want}; it has {}", found.join(", "))]
    NoPlatform {
        /// The image.
        name: String,
        /// This host, `os/architecture`.
        want: String,
        /// What there is.
        found: Vec<String>,
    },
    /// The content is not what its digest says.
    #[error("{name}: {what} {want} came with other content, of digest {found}")]
    DigestMismatch {
        /// The image.
        name: String,
        /// What was read.
        what: &'static str,
        /// What was asked for.
        want: Digest,
        /// What came.
        found: Digest,
    },
    /// There is less or more than the descriptor says.
    #[error("{name}: {what} {digest} came with {found} bytes, its descriptor says {want}")]
    SizeMismatch {
        /// The image.
        name: String,
        /// What was read.
        what: &'static str,
        /// Which one.
        digest: Digest,
        /// What the descriptor says.
        want: u64,
        /// What came; with `want` + 1 it was not read further.
        found: u64,
    },
    /// A file with certificates or credentials.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file with certificates or credentials is not as it should be.
    #[error("{} is not valid: {reason}", path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The proxy's URL is none.
    #[error("proxy {proxy:?} is no URL of an HTTP proxy")]
    Proxy {
        /// What was given, without a password.
        proxy: String,
    },
    /// A credential helper cannot be used.
    #[error("the credential helper {program} failed for {host}: {reason}")]
    Helper {
        /// The program.
        program: String,
        /// For which registry.
        host: String,
        /// What it said, without anything secret.
        reason: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The credential that was tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tried {
    /// None: there is none for the host.
    #[default]
    Nobody,
    /// A user's.
    User {
        /// The user; empty for an identity token.
        name: String,
        /// The file or helper it comes from.
        from: String,
    },
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("anonymous users"),
            Self::User { name, from } if name.is_empty() => write!(f, "the token of {from}"),
            Self::User { name, from } => write!(f, "user {name:?} of {from}"),
        }
    }
}

fn refusal(shown: Option<&Path>) -> String {
    match shown {
        None => "wants a client certificate, and there is none for it".to_owned(),
        Some(path) => format!("does not accept the client certificate {}", path.display()),
    }
}

fn said(message: &Option<String>) -> String {
    message.as_ref().map_or_else(String::new, |message| format!("; it says {message:?}"))
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

impl RegistryError {
    /// Whether the same may go well a moment later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Stalled { .. } | Self::Transfer { .. } => true,
            Self::Status { status, .. } => {
                // What a registry redirects to answers so once its signature is too old.
                matches!(status, 401 | 403 | 408 | 425 | 429 | 500..)
            }
            _ => false,
        }
    }
}

impl Classify for RegistryError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownHost { .. }
            | Self::Connect { .. }
            | Self::NotTls { .. }
            | Self::Tls { .. }
            | Self::Transfer { .. }
            | Self::Redirect { .. }
            | Self::Challenge { .. }
            | Self::Token { .. }
            | Self::Status { .. }
            | Self::Helper { .. } => ErrorKind::Failed,
            Self::Stalled { .. } | Self::Deadline { .. } => ErrorKind::Timeout,
            Self::Denied { .. } | Self::ClientCert { .. } => ErrorKind::Permission,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::NoPlatform { .. } | Self::Schema1 { .. } => ErrorKind::Unsupported,
            Self::Reference(_)
            | Self::NoRepository { .. }
            | Self::ContentType { .. }
            | Self::TooLarge { .. }
            | Self::Json { .. }
            | Self::Document { .. }
            | Self::DigestMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::Proxy { .. }
            | Self::Settings { .. } => ErrorKind::Invalid,
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                ErrorKind::Permission
            }
            Self::File { .. } => ErrorKind::Failed,
            Self::Store(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoRepository { .. } => "load it from a file with `carboy image load`",
            Self::UnknownHost { .. } => {
                "check the name and the host's resolver; a name without a host is Docker Hub's"
            }
            Self::Connect { .. } => "check that the registry runs and no firewall is in the way",
            Self::NotTls { host } => {
                return Some(format!(
                    "plain HTTP must be allowed by name: insecure_registries = [{host:?}] in the \
                     configuration file"
                ));
            }
            Self::Tls {
                host,
                source: rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer),
                ..
            } => {
                return Some(format!(
                    "put the registry's own authority into /etc/docker/certs.d/{host}/ca.crt, or \
                     give its directory with --cert-dir"
                ));
            }
            Self::Tls { .. } => "check the name, the registry's certificate and this host's clock",
            Self::ClientCert { host, shown: None, .. } => {
                return Some(format!(
                    "put it and its key into /etc/docker/certs.d/{host}/client.cert and \
                     client.key, or give their directory with --cert-dir"
                ));
            }
            Self::ClientCert { .. } => {
                "check that it is signed by an authority the registry trusts, and has not expired"
            }
            Self::Denied { host, tried: Tried::Nobody, .. } => {
                return Some(format!(
                    "there is no credential for {host}; `docker login`, `skopeo login` or a \
                     credential helper writes one to config.json (DOCKER_CONFIG). Many registries \
                     answer so for a repository that does not exist, too"
                ));
            }
            Self::Denied { .. } => "check the password, and that this user may read the repository",
            Self::NotFound { .. } => "check the repository and the tag",
            Self::Status { status: 429, .. } => "wait, or log in: registries let users have more",
            Self::Status { .. } | Self::Transfer { .. } | Self::Stalled { .. } => {
                "try again: what has come is kept"
            }
            Self::Deadline { .. } => "try again, what has come is kept; or allow more (--timeout)",
            Self::Schema1 { .. } => "push the image again with a newer tool",
            Self::ContentType { .. } => "check that the host is a registry",
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => {
                "the registry, or a proxy before it, is damaged or lies; do not use the image"
            }
            Self::Store(error) => return error.hint(),
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
