//! What a pull tells while it goes on.

use std::fmt;
use std::time::Duration;

use crate::oci::digest::Digest;

/// Is told how a pull goes on, from several threads.
pub trait Progress: fmt::Debug + Send + Sync {
    /// Something happened. It must not block.
    fn tell(&self, event: &PullEvent<'_>);
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PullEvent<'a> {
    /// The image was found: its manifest's digest, and what belongs to it.
    Found {
        /// What was asked for.
        name: &'a str,
        /// The manifest's digest.
        digest: &'a Digest,
        /// How many blobs it has.
        blobs: usize,
        /// Their bytes.
        size: u64,
    },
    /// A blob need not be fetched.
    Present {
        /// Which one.
        digest: &'a Digest,
    },
    /// A blob is being fetched.
    Begun {
        /// Which one.
        digest: &'a Digest,
        /// Its bytes.
        size: u64,
        /// How many of them an earlier pull left.
        resumed: u64,
    },
    /// More of a blob is on disk.
    Advanced {
        /// Which one.
        digest: &'a Digest,
        /// How many bytes came.
        bytes: u64,
    },
    /// Something failed and is tried again.
    Again {
        /// What failed, in words.
        reason: &'a str,
        /// After this time.
        after: Duration,
    },
    /// A blob is whole and checked.
    Done {
        /// Which one.
        digest: &'a Digest,
    },
    /// All blobs are there; the layers are unpacked now.
    Unpacking {
        /// What was asked for.
        name: &'a str,
    },
    /// The image can be started.
    Ready {
        /// What was asked for.
        name: &'a str,
    },
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn tell(&self, _: &PullEvent<'_>) {}
}
