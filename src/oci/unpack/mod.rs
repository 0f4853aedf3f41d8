//! Unpacks one layer into a directory of its own, in the form overlayfs wants a lower layer.
//!
//! Three threads: one reads, hashes and inflates the blob, one hashes the tar, one (the caller's)
//! writes the files. Inflating and writing take about as long, so neither bears the hashing as well.
//! What an entry is and whether it is allowed is decided in `entry`, without I/O; `tree` does the
//! writing and lets the kernel resolve every path inside the layer's directory (`openat2` with
//! `RESOLVE_IN_ROOT`), so a symbolic link of the layer, `..` or a hard link never leads out of it.
//!
//! Sources: `image-spec/layer.md` for whiteouts, `Documentation/filesystems/overlayfs.rst` for
//! the form on disk, `tar(5)` and POSIX `pax` for the archive.

mod buffer;
mod describe;
mod entry;
mod fault;
mod lower;
mod remove;
mod sparse;
mod stream;
#[cfg(test)]
mod tests;
mod tree;

use std::fmt;
use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::mpsc::{channel, sync_channel};
use std::thread::{Builder, ScopedJoinHandle};

use tar_core::parse::{ParseError, ParseEvent, Parser};

use self::buffer::Buffer;
use self::entry::{Entry, What};
pub use self::fault::LayerFault;
pub(in crate::oci) use self::lower::{Lower, lookup};
pub(in crate::oci) use self::remove::remove_tree;
pub(in crate::oci) use self::stream::{Compression, Hashed, copy_limited};
use super::digest::Digest;

/// Bounds on a layer; what exceeds them is refused. The defaults are far above real images.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of the uncompressed tar.
    pub bytes: u64,
    /// Entries of the tar.
    pub entries: u64,
    /// Directories in a path; removal recurses as deep, with a descriptor each.
    pub depth: usize,
    /// Uncompressed bytes per compressed byte, once past [`Limits::ratio_floor`]; not 0.
    pub ratio: u64,
    /// Below this many uncompressed bytes any ratio is fine.
    pub ratio_floor: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 32 << 30,
            entries: 2_000_000,
            depth: 128,
            // Real layers stay below 20; deflate ends at 1,032, zstd is without bounds.
            ratio: 200,
            ratio_floor: 256 << 20,
        }
    }
}

/// How owners, whiteouts and opaque directories are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// With owners, file capabilities and `trusted.overlay.*`: needs root.
    Privileged,
    /// Without owners and file capabilities, with `user.overlay.*` (mount option `userxattr`).
    Rootless,
}

/// A layer that was unpacked; its digests are for the caller to compare.
#[derive(Debug)]
pub struct Unpacked {
    /// The digest of the blob as it was read.
    pub blob: Digest,
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The size of the uncompressed tar in bytes.
    pub tar_size: u64,
    /// What was left out and why, for the user.
    pub notes: Vec<String>,
}

/// A layer that could not be unpacked.
#[derive(Debug)]
pub struct Failure {
    /// The digest of the whole blob: if it is wrong, that is the better explanation. `None` if
    /// the blob could not be read to its end.
    pub blob: Option<Digest>,
    /// The entry at which it happened, as the tar names it; empty before the first.
    pub entry: String,
    /// What is wrong.
    pub fault: LayerFault,
}

/// Unpacks the layer `blob` into the empty directory `into`.
///
/// `lower` are the layers below, the topmost first: directories the layer does not describe take
/// owner and mode from there. Nothing is synced to disk. On failure the directory is left half
/// filled.
///
/// `blob` is read to its end, once and in order, by a thread of its own, even if the layer is
/// refused; a reader that copies what passes to a file therefore gets the whole blob.
///
/// # Errors
/// [`Failure`] with the entry at fault.
pub fn unpack(
    blob: impl Read + Send,
    into: BorrowedFd<'_>,
    lower: &[OwnedFd],
    form: Form,
    limits: &Limits,
) -> Result<Unpacked, Failure> {
    std::thread::scope(|scope| {
        let (inflated, to_digest) = sync_channel(stream::TO_HASH);
        let (digested, to_write) = sync_channel(stream::TO_WRITE);
        let (spent, empty) = channel();
        let start = |source| {
            let fault = LayerFault::Io { action: "start a thread", source };
            Failure { blob: None, entry: String::new(), fault }
        };
        let digester = Builder::new()
            .name("carboy-diff-id".to_owned())
            .spawn_scoped(scope, move || stream::digest(to_digest, digested))
            .map_err(start)?;
        let reader = Builder::new()
            .name("carboy-layer".to_owned())
            .spawn_scoped(scope, move || stream::pump(blob, inflated, &empty, limits))
            .map_err(start)?;
        let mut writer = Writer {
            tar: Buffer::new(to_write, spent),
            tree: tree::Tree::new(into, lower, form),
            notes: Notes::default(),
            entry: Vec::new(),
            entries: 0,
            holes: 0,
            limits,
        };
        let written = writer.run();
        if written.is_ok() {
            // What follows the end marker is hashed, too: the reader must not be stopped.
            writer.tar.drain();
        }
        let Writer { tar, tree, notes, entry, .. } = writer;
        let entry = String::from_utf8_lossy(&entry).into_owned();
        // Without a receiver the reader only hashes what is left of the blob, and ends.
        drop(tar);
        // Beside what is left for the disk to do.
        let finished = written.and_then(|()| tree.finish());
        let (diff_id, tar_size) = join(digester);
        let pumped = join(reader);
        // A fault of the stream explains the one of the tar that ended too early.
        let outcome = pumped.outcome.and(finished);
        match (outcome, pumped.digest) {
            (Ok(()), Some(blob)) => {
                Ok(Unpacked { blob, diff_id, tar_size, notes: notes.into_lines() })
            }
            (Ok(()), None) => Err(Failure { blob: None, entry, fault: LayerFault::Truncated }),
            (Err(fault), blob) => Err(Failure { blob, entry, fault }),
        }
    })
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The writing half: tar events in, files out.
struct Writer<'a> {
    tar: Buffer,
    tree: tree::Tree<'a>,
    notes: Notes,
    /// The name of the entry at hand, as the tar has it.
    entry: Vec<u8>,
    entries: u64,
    /// Bytes of holes so far.
    holes: u64,
    limits: &'a Limits,
}

/// Metadata of one entry may have this many bytes, and a path this many.
const METADATA_MAX: u32 = 1 << 20;
const PATH_MAX: u32 = 4_096;

/// An entry's headers may have this many bytes in all, the map of a file with holes included.
const HEADERS_MAX: usize = 4 << 20;

impl Writer<'_> {
    fn run(&mut self) -> Result<(), LayerFault> {
        let mut parser = Parser::new(tar_core::parse::Limits {
            max_metadata_size: METADATA_MAX,
            max_path_len: Some(PATH_MAX),
            max_sparse_entries: sparse::REGIONS_MAX,
            ..Default::default()
        });
        // "./" cleans up to nothing in some archives; the root is checked in `Entry::parse`.
        parser.set_allow_empty_path(true);
        // `Entry::parse` checks pax headers itself.
        parser.set_ignore_pax_errors(true);
        loop {
            let event = parser.parse(self.tar.bytes()).map_err(LayerFault::Header)?;
            let (consumed, entry) = match event {
                ParseEvent::NeedData { min_bytes } => {
                    // A sparse map without entries or line ends passes the parser's limits, and
                    // it may ask for what is there already.
                    let wanted = min_bytes.max(self.tar.bytes().len() + 1);
                    if wanted > HEADERS_MAX {
                        let (size, limit) = (wanted as u64, HEADERS_MAX as u32);
                        let fault = ParseError::MetadataTooLarge { size, limit };
                        return Err(LayerFault::Header(fault));
                    }
                    if self.tar.at_end() {
                        return Ok(());
                    }
                    self.tar.fill(wanted)?;
                    continue;
                }
                ParseEvent::End { .. } => return Ok(()),
                // Global headers carry comments (git archive); Docker ignores them, too.
                ParseEvent::GlobalExtensions { consumed, .. } => (consumed, None),
                ParseEvent::Entry { consumed, entry } => {
                    entry.path.as_ref().clone_into(&mut self.entry);
                    (consumed, Some(Entry::parse(&entry, None, self.limits)?))
                }
                ParseEvent::SparseEntry { consumed, entry, sparse_map, real_size } => {
                    entry.path.as_ref().clone_into(&mut self.entry);
                    let sparse = Some((&sparse_map[..], real_size));
                    (consumed, Some(Entry::parse(&entry, sparse, self.limits)?))
                }
            };
            self.tar.consume(consumed);
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(LayerFault::Entries { max: self.limits.entries });
            }
            if let Some(entry) = entry {
                self.write(entry)?;
            }
        }
    }

    fn write(&mut self, entry: Entry) -> Result<(), LayerFault> {
        let Entry { path, meta, what, size } = entry;
        for skipped in &meta.skipped_xattrs {
            let name = String::from_utf8_lossy(&self.entry);
            self.notes.add(format_args!("{name}: attribute {skipped} left out"));
        }
        match what {
            What::Directory => self.tree.directory(&path, meta, &mut self.notes)?,
            What::Symlink { target } => self.tree.symlink(&path, &target, &meta)?,
            What::Hardlink { target } => self.tree.hardlink(&path, &target)?,
            What::Fifo => self.tree.fifo(&path, &meta)?,
            What::Whiteout => self.tree.whiteout(&path)?,
            What::Opaque => self.tree.opaque(&path)?,
            What::LeftOut { why } => {
                let name = String::from_utf8_lossy(&self.entry);
                self.notes.add(format_args!("{name}: {why} left out"));
            }
            What::File => {
                let file = self.tree.create(&path, &meta)?;
                self.tar.copy_to(&file, size)?;
                self.tree.describe(&path, &file, &meta, &mut self.notes)?;
                return self.tar.skip(entry::padding(size));
            }
            What::Sparse(sparse) => {
                self.holes = self.holes.saturating_add(sparse.size - size);
                // What reads the layer later reads the holes, too.
                if self.holes > self.limits.bytes {
                    return Err(LayerFault::Bytes { max: self.limits.bytes });
                }
                let file = self.tree.create(&path, &meta)?;
                for (offset, length) in sparse.regions {
                    describe::seek(&file, offset)?;
                    self.tar.copy_to(&file, length)?;
                }
                describe::set_size(&file, sparse.size)?;
                self.tree.describe(&path, &file, &meta, &mut self.notes)?;
                return self.tar.skip(entry::padding(size));
            }
        }
        self.tar.skip(size)?;
        self.tar.skip(entry::padding(size))
    }
}

/// Notes for the user, not more than anyone reads.
#[derive(Default)]
struct Notes {
    lines: Vec<String>,
    more: usize,
}

impl Notes {
    const MAX: usize = 20;

    fn add(&mut self, note: fmt::Arguments<'_>) {
        if self.lines.len() < Self::MAX {
            self.lines.push(note.to_string());
        } else {
            self.more += 1;
        }
    }

    fn into_lines(mut self) -> Vec<String> {
        if self.more > 0 {
            self.lines.push(format!("… and {} more", self.more));
        }
        self.lines
    }
}
