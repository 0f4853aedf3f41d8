//! Why a layer is refused.

use std::io;

use tar_core::parse::ParseError;

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerFault {
    /// The kernel refused an operation.
    #[error("cannot {action}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A compression nobody specified for layers.
    #[error("it is compressed with {found}, only gzip and zstd are known")]
    Compression {
        /// What was found.
        found: &'static str,
    },
    /// The compressed stream is damaged or ends early.
    #[error("the compressed stream is damaged or truncated")]
    Stream(#[source] io::Error),
    /// A header is damaged or exceeds a limit of the format.
    #[error("the tar has a bad header after it")]
    Header(#[source] ParseError),
    /// A field of an extended header is no number.
    #[error("the pax header has a bad {key}")]
    Pax {
        /// The field.
        key: String,
    },
    /// The tar ends in the middle of an entry.
    #[error("the tar is truncated")]
    Truncated,
    /// `..` in a path.
    #[error("the path leads upwards with \"..\"")]
    DotDot,
    /// A NUL byte in a path.
    #[error("the path holds a NUL byte")]
    Nul,
    /// A component of a path is too long for any file system.
    #[error("a name in the path is longer than 255 bytes")]
    NameTooLong,
    /// A path has too many directories.
    #[error("the path is more than {max} directories deep")]
    Depth {
        /// The most it may have.
        max: usize,
    },
    /// The map of a file with holes is not valid.
    #[error("it is a sparse file whose map is not valid: {reason}")]
    Sparse {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Parsers disagree on whether data follows such an entry.
    #[error("it is no file, yet has a size")]
    Sized,
    /// An owner the kernel cannot store.
    #[error("its owner {uid}:{gid} is out of range")]
    Owner {
        /// The user.
        uid: u64,
        /// The group.
        gid: u64,
    },
    /// The layer's root is something else than a directory.
    #[error("the root of the layer is no directory")]
    Root,
    /// A whiteout that names nothing, or that is no plain file, or that has files beneath.
    #[error("it is no valid whiteout")]
    Whiteout,
    /// A kind of entry no image has.
    #[error("its type {kind:?} is unknown")]
    Kind {
        /// The type byte.
        kind: char,
    },
    /// Something that is no directory stands where a parent should be.
    #[error("its parent {parent:?} is no directory in this layer")]
    Parent {
        /// The parent's path.
        parent: String,
    },
    /// A hard link's target is not there before it.
    #[error("it is a hard link to {target:?}, which is no file of this layer")]
    LinkTarget {
        /// The target's path.
        target: String,
    },
    /// Too many entries.
    #[error("the layer has more than {max} entries")]
    Entries {
        /// The most it may have.
        max: u64,
    },
    /// Too many bytes.
    #[error("the layer unpacks to more than {max} bytes")]
    Bytes {
        /// The most it may have.
        max: u64,
    },
    /// A compression bomb.
    #[error("the layer unpacks to more than {max} times its size")]
    Ratio {
        /// The highest ratio allowed.
        max: u64,
    },
}

impl LayerFault {
    /// Wraps what the kernel said; `action` is a verb.
    pub(super) fn os(action: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Io { action, source: errno.into() }
    }
}
