//! What can go wrong with images: their names, their files, their layers, the store.

use std::io;
use std::path::{Path, PathBuf};

use super::digest::Digest;
use super::process::ProcessError;
use super::reference::ReferenceError;
use super::signal::SignalError;
use super::unpack::LayerFault;
use crate::error::{Classify, ErrorKind};

/// An error of the image store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A word is no image name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The kernel refused an operation on a file.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file or directory to load is not there.
    #[error("{} does not exist", path.display())]
    SourceAbsent {
        /// What was asked for.
        path: PathBuf,
    },
    /// The source is a registry.
    #[error("{name} is in a registry, images are loaded from files")]
    InRegistry {
        /// The image's name there.
        name: String,
    },
    /// A file of a root file system that no layer can hold.
    #[error("{} cannot become part of an image: {reason}", path.display())]
    Rootfs {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A wish for an image's configuration.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The stop signal of an image's configuration.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// The one image that was asked for is not among those there are.
    #[error("{file} has no image {pick:?}; it has {}", list(there))]
    NotAmong {
        /// The archive or directory.
        file: String,
        /// What was asked for.
        pick: String,
        /// The names there are.
        there: Vec<String>,
    },
    /// What is to be loaded is no image.
    #[error("{file} is no image: {reason}")]
    NoImage {
        /// The archive or directory.
        file: String,
        /// What was expected or found.
        reason: &'static str,
    },
    /// The outer tar is damaged.
    #[error("{file} is damaged after entry {entry:?}")]
    Archive {
        /// The archive.
        file: String,
        /// The last entry that could be read.
        entry: String,
        /// What is wrong.
        source: ArchiveFault,
    },
    /// A file that another one names is missing in the archive or layout.
    #[error("{file} has no {name}, its {what}")]
    MissingBlob {
        /// The archive or directory.
        file: String,
        /// What the blob is: `layer`, `config`, `manifest`.
        what: &'static str,
        /// Its name inside.
        name: String,
    },
    /// A file has another size than its descriptor says.
    #[error("{file}: {what} {name} has {found} bytes, its descriptor says {want}")]
    SizeMismatch {
        /// The archive or directory.
        file: String,
        /// What the blob is.
        what: &'static str,
        /// Its name inside.
        name: String,
        /// What the descriptor says.
        want: u64,
        /// What it has.
        found: u64,
    },
    /// A file's content is not what its digest says.
    #[error("{file}: {what} {want} is damaged, its content has digest {found}")]
    DigestMismatch {
        /// The archive or directory.
        file: String,
        /// What the blob is.
        what: &'static str,
        /// What its descriptor says.
        want: Digest,
        /// The digest of what was read.
        found: Digest,
    },
    /// A blob that is being brought in has another size than its descriptor says.
    #[error("blob {digest} ended after {found} bytes, it should have {want}")]
    BlobSize {
        /// The blob.
        digest: Digest,
        /// Bytes its descriptor says.
        want: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A blob that was brought in is not what its digest says.
    #[error("blob {want} is damaged, its content has digest {found}")]
    BlobDigest {
        /// What its descriptor says.
        want: Digest,
        /// The digest of what was written.
        found: Digest,
    },
    /// The store has an image's layer unpacked, but no longer as the archive had it.
    #[error("image {name} has no blob of layer {digest}: an older carboy loaded it, and kept none")]
    NoBlob {
        /// The image.
        name: String,
        /// The layer's blob.
        digest: Digest,
    },
    /// A layer's uncompressed content is not what the image's configuration says.
    #[error("{file}: layer {layer} unpacks to {found}, the image's configuration says {want}")]
    DiffIdMismatch {
        /// The archive or directory.
        file: String,
        /// The layer's name inside.
        layer: String,
        /// What the configuration says.
        want: Digest,
        /// The digest of what was unpacked.
        found: Digest,
    },
    /// A document is larger than any real one.
    #[error("{file}: {what} {name} has {size} bytes, at most {max} are allowed")]
    TooLarge {
        /// The archive or directory.
        file: String,
        /// What the document is.
        what: &'static str,
        /// Its name inside.
        name: String,
        /// Its size in bytes.
        size: u64,
        /// The most it may have.
        max: u64,
    },
    /// A document is not the JSON it should be.
    #[error("{file}: {what} {name} cannot be read")]
    Json {
        /// The archive or directory.
        file: String,
        /// What the document is.
        what: &'static str,
        /// Its name inside.
        name: String,
        /// Where it fails.
        source: serde_json::Error,
    },
    /// A manifest, index or configuration contradicts itself or the others.
    #[error("{file}: {what} {name} is not valid: {reason}")]
    Document {
        /// The archive or directory.
        file: String,
        /// What the document is.
        what: &'static str,
        /// Its name inside.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A multi-platform image has nothing for this host.
    #[error("{file} has no image for {want}; it has {}", list(found))]
    NoPlatform {
        /// The archive or directory.
        file: String,
        /// This host, `os/architecture`.
        want: String,
        /// What there is.
        found: Vec<String>,
    },
    /// An image was made for another system.
    #[error("the image in {file} is for {found}, this host runs {want}")]
    WrongPlatform {
        /// The archive or directory.
        file: String,
        /// This host, `os/architecture`.
        want: String,
        /// What the image's configuration says.
        found: String,
    },
    /// A layer cannot be unpacked.
    #[error("{file}: layer {layer}{} cannot be unpacked", of_entry(entry))]
    Layer {
        /// The archive or directory.
        file: String,
        /// The layer's name inside.
        layer: String,
        /// The entry at which it happened; empty before the first.
        entry: String,
        /// What is wrong.
        source: LayerFault,
    },
    /// `/dev`, `/proc` or `/sys` would lead elsewhere when something is mounted on it.
    #[error("the image in {file} has a symbolic link in place of {path}")]
    UnsafeRoot {
        /// The archive or directory.
        file: String,
        /// The path inside the image.
        path: &'static str,
    },
    /// One name was given for several images.
    #[error("{file} holds several images ({}), one name does not fit them", list(images))]
    SeveralImages {
        /// The archive or directory.
        file: String,
        /// The names it has, or the digests.
        images: Vec<String>,
    },
    /// The name to load under pins another content.
    #[error("{name} pins another digest than the image in {file}, which has {found}")]
    PinnedDigest {
        /// The archive or directory.
        file: String,
        /// The name that was given.
        name: String,
        /// The image's digest.
        found: Digest,
    },
    /// The built-in image's name was given to another one.
    #[error("the name {name} is reserved for the built-in image")]
    Reserved {
        /// The name.
        name: String,
    },
    /// The store has no such image.
    #[error("no image {name:?} in {}", root.display())]
    NotFound {
        /// What was asked for.
        name: String,
        /// The store.
        root: PathBuf,
        /// The names there are.
        there: Vec<String>,
    },
    /// A container still uses the image.
    #[error("image {name} is used by {}", list(by))]
    InUse {
        /// The image.
        name: String,
        /// Who uses it.
        by: Vec<String>,
    },
    /// The directory holds something else than a store of this version.
    #[error("{} is no image store this version can use: it has {found:?}, wanted is {want:?}", root.display())]
    Schema {
        /// The store.
        root: PathBuf,
        /// What its marker says.
        found: String,
        /// What this version writes.
        want: String,
    },
    /// A file of the store cannot be read any more.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it fails.
        source: serde_json::Error,
    },
    /// A blob of the store is not what it was when it was published.
    #[error("{} is damaged, it gives {found}", path.display())]
    DamagedBlob {
        /// The file.
        path: PathBuf,
        /// The digest of what was read.
        found: Digest,
    },
    /// A file of the store is missing: somebody else changed it.
    #[error("image {name} is incomplete in the store: {} is missing", path.display())]
    Incomplete {
        /// The image.
        name: String,
        /// What is missing.
        path: PathBuf,
    },
}

/// What is wrong with an outer tar.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveFault {
    /// It ends in the middle of an entry.
    #[error("it is truncated")]
    Truncated,
    /// It is no tar, or a damaged one.
    #[error("it has a bad header")]
    Header(#[source] tar_core::parse::ParseError),
    /// It has more entries than any image.
    #[error("it has more than {max} entries")]
    Entries {
        /// The most it may have.
        max: usize,
    },
    /// A file of it has holes: it cannot be read at its place.
    #[error("it is a sparse file, which an image's archive must not hold")]
    Sparse,
    /// It unpacks to more than any image.
    #[error("it unpacks to more than {max} bytes")]
    Bytes {
        /// The most it may have.
        max: u64,
    },
    /// The compressed stream is damaged.
    #[error("its compressed stream is damaged or truncated")]
    Compression(#[source] io::Error),
}

impl StoreError {
    /// Wraps what the kernel said about `path`; `action` is a verb.
    pub(crate) fn io(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.as_ref().to_owned(), source }
    }

    /// As [`StoreError::io`], for the errors of `rustix`.
    pub(crate) fn os(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Io { action, path: path.as_ref().to_owned(), source: errno.into() }
    }
}

fn list(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

fn of_entry(entry: &str) -> String {
    if entry.is_empty() { String::new() } else { format!(", entry {entry:?}") }
}

/// The kind of an error of the kernel.
fn io_kind(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::Permission,
        io::ErrorKind::Unsupported => ErrorKind::Unsupported,
        _ => ErrorKind::Failed,
    }
}

fn io_hint(error: &io::Error) -> Option<String> {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("free some space, or choose another place with --root".to_owned())
        }
        io::ErrorKind::PermissionDenied => Some(
            "run as root (CAP_CHOWN, CAP_FOWNER, CAP_DAC_OVERRIDE, CAP_SETFCAP and CAP_SYS_ADMIN \
             are needed), or choose a place you own with --root"
                .to_owned(),
        ),
        _ => None,
    }
}

impl Classify for StoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => io_kind(source),
            Self::Layer { source, .. } => match source {
                LayerFault::Io { source, .. } => io_kind(source),
                LayerFault::Compression { .. } => ErrorKind::Unsupported,
                _ => ErrorKind::Invalid,
            },
            Self::SourceAbsent { .. }
            | Self::NotAmong { .. }
            | Self::NotFound { .. }
            | Self::NoBlob { .. } => ErrorKind::NotFound,
            Self::Process(error) => error.kind(),
            Self::Signal(error) => error.kind(),
            Self::NoPlatform { .. }
            | Self::WrongPlatform { .. }
            | Self::InRegistry { .. }
            | Self::Schema { .. } => ErrorKind::Unsupported,
            Self::InUse { .. } => ErrorKind::InUse,
            Self::Incomplete { .. }
            | Self::Damaged { .. }
            | Self::DamagedBlob { .. }
            | Self::BlobSize { .. } => ErrorKind::Failed,
            Self::Reference(_)
            | Self::Rootfs { .. }
            | Self::NoImage { .. }
            | Self::Archive { .. }
            | Self::MissingBlob { .. }
            | Self::SizeMismatch { .. }
            | Self::DigestMismatch { .. }
            | Self::BlobDigest { .. }
            | Self::DiffIdMismatch { .. }
            | Self::TooLarge { .. }
            | Self::Json { .. }
            | Self::Document { .. }
            | Self::UnsafeRoot { .. }
            | Self::SeveralImages { .. }
            | Self::PinnedDigest { .. }
            | Self::Reserved { .. } => ErrorKind::Invalid,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, .. } | Self::Layer { source: LayerFault::Io { source, .. }, .. } => {
                io_hint(source)
            }
            Self::Layer {
                source:
                    LayerFault::Bytes { .. } | LayerFault::Entries { .. } | LayerFault::Ratio { .. },
                ..
            } => Some(
                "if you trust the image, raise layer_max_bytes, layer_max_entries or \
                 layer_max_ratio in the configuration file"
                    .to_owned(),
            ),
            Self::Process(error) => error.hint(),
            Self::Signal(error) => error.hint(),
            Self::InRegistry { name } => Some(format!("fetch it with `carboy image pull {name}`")),
            Self::NoImage { .. } => Some(
                "give what `docker save`, `skopeo copy … docker-archive:` or `skopeo copy … oci:` \
                 made"
                    .to_owned(),
            ),
            Self::Archive { .. }
            | Self::MissingBlob { .. }
            | Self::SizeMismatch { .. }
            | Self::DigestMismatch { .. }
            | Self::DiffIdMismatch { .. } => Some("make or copy the archive again".to_owned()),
            Self::SeveralImages { .. } => Some("load it without a name of your own".to_owned()),
            Self::NotFound { there, .. } if there.is_empty() => Some(
                "no image has a name here: load one with `carboy image load ARCHIVE`".to_owned(),
            ),
            Self::NotFound { there, .. } => Some(format!(
                "there is {}; load another with `carboy image load ARCHIVE`",
                there.join(", ")
            )),
            Self::InUse { .. } => Some("stop its containers first".to_owned()),
            Self::Schema { .. } => {
                Some("use the carboy that made it, or choose another place with --root".to_owned())
            }
            Self::BlobSize { .. } => Some("try again: it goes on where it ended".to_owned()),
            Self::BlobDigest { .. } => Some("try again; its source may be damaged".to_owned()),
            Self::Incomplete { .. } | Self::NoBlob { .. } => {
                Some("load the image again".to_owned())
            }
            Self::DamagedBlob { .. } => {
                Some("load or pull the image again; check the disk".to_owned())
            }
            Self::Damaged { .. } => Some("remove the file and load its images again".to_owned()),
            _ => None,
        }
    }
}
