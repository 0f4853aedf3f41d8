//! Layers: unpacked into staging, their blobs kept beside, and published together.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Advice, FileType};

use super::{DIFF, LAYERS, LayerRecord, Store, durability, files};
use crate::oci::bounded::{self, Bounded};
use crate::oci::digest::Digest;
use crate::oci::error::StoreError;
use crate::oci::image_config::chain_ids;
use crate::oci::layout::{Candidate, LayerFile};
use crate::oci::source::Contents;
use crate::oci::unpack::{Compression, Hashed, LayerFault, Lower, Unpacked, lookup, unpack};

const WHAT: &str = "layer";

/// What is ready in staging: from where, to where. Blobs come first, so that an unpacked layer is
/// never there without its blob.
#[derive(Default)]
struct Staged {
    blobs: Vec<(PathBuf, PathBuf)>,
    layers: Vec<(PathBuf, PathBuf)>,
}

impl Store {
    /// Unpacks the layers that are missing and keeps the blobs that are; returns whether there was
    /// any. All of them are checked before the first is given its name, and the blobs are on disk;
    /// the layers are waited for if another boot has lost one. Needs the lock.
    pub(super) fn add_layers(
        &self,
        contents: &Contents,
        image: &Candidate,
        notes: &mut Vec<String>,
    ) -> Result<bool, StoreError> {
        // Without it they are waited for: where the kernel does not tell its boots apart, and where a
        // layer was lost, for once is enough.
        let mut boot = durability::this_boot();
        for id in chain(image) {
            if self.layer_record(&id)?.is_some_and(|record| !record.is_whole()) {
                boot = None;
            }
        }
        let mut staged = Staged::default();
        // The topmost first, as a path is looked up.
        let mut below: Vec<OwnedFd> = Vec::new();
        for (layer, id) in image.layers.iter().zip(chain(image)) {
            let mut diff = self.layer(&id).join(DIFF);
            let keep = self.blob_to_keep(layer, &staged);
            let copy = keep.as_deref().map(create).transpose()?;
            if self.whole_layer(&id)?.is_none() {
                let path = self.staging().join(fresh(&id));
                diff = path.join(DIFF);
                let copy = copy.as_ref().zip(keep.as_deref());
                let unpacked = self.stage(contents, layer, &path, &below, copy)?;
                let Unpacked { diff_id, tar_size: size, .. } = unpacked;
                let record = LayerRecord { diff_id, size, unsettled: boot.clone() };
                durability::write(&path, &record)?;
                notes.extend(unpacked.notes);
                staged.layers.push((path, self.layer(&id)));
            } else if let Some((file, path)) = copy.as_ref().zip(keep.as_deref()) {
                self.copy_blob(contents, layer, file, path)?;
            }
            staged.blobs.extend(keep.map(|keep| (keep, self.blob_path(layer.digest()))));
            below.insert(0, files::open_directory(&diff)?);
        }
        check_root(&below, contents)?;
        if staged.blobs.is_empty() && staged.layers.is_empty() {
            return Ok(false);
        }
        if boot.is_none() {
            let staging = self.staging();
            rustix::fs::syncfs(files::open_directory(&staging)?.as_fd())
                .map_err(StoreError::os("sync", &staging))?;
        }
        self.publish(&staged)?;
        Ok(true)
    }

    fn publish(&self, staged: &Staged) -> Result<(), StoreError> {
        let staging = self.staging();
        for (from, to) in &staged.blobs {
            files::rename(from, to)?;
        }
        files::sync_directory(&self.blobs())?;
        for (from, to) in &staged.layers {
            // What was lost with the power can be there, or what somebody emptied by hand.
            if to.exists() {
                files::rename(to, &staging.join(fresh(&Digest::of(b"old"))))?;
            }
            files::rename(from, to)?;
        }
        files::sync_directory(&self.root.join(LAYERS))?;
        // What was replaced.
        files::empty(&staging)
    }

    /// Where to write a layer's blob, if the store has it not yet.
    fn blob_to_keep(&self, layer: &LayerFile, staged: &Staged) -> Option<PathBuf> {
        let target = self.blob_path(layer.digest());
        // One layer may stand in an image twice.
        let there = target.exists() || staged.blobs.iter().any(|(_, to)| *to == target);
        (!there).then(|| self.staging().join(format!("{}.blob", layer.digest().hex())))
    }

    /// Unpacks one layer into staging and checks both of its digests, in one pass that also writes
    /// the blob to `copy`, which has a path.
    fn stage(
        &self,
        contents: &Contents,
        layer: &LayerFile,
        path: &Path,
        below: &[OwnedFd],
        copy: Option<(&File, &Path)>,
    ) -> Result<Unpacked, StoreError> {
        let blob = self.open_layer(contents, layer)?;
        let diff = path.join(DIFF);
        for directory in [path, &diff] {
            DirBuilder::new()
                .mode(0o700)
                .create(directory)
                .map_err(StoreError::io("create", directory))?;
        }
        let directory = files::open_directory(&diff)?;
        let copying = copy.map(|(file, _)| file);
        let mut tee = Tee { inner: blob, copy: copying, written: 0, failed: None };
        let unpacked = unpack(&mut tee, directory.as_fd(), below, self.form, &self.limits);
        if let (Some(source), Some((_, path))) = (tee.failed, copy) {
            return Err(StoreError::io("write", path)(source));
        }
        let blob = match &unpacked {
            Ok(unpacked) => Some(&unpacked.blob),
            Err(failure) => failure.blob.as_ref(),
        };
        // A damaged blob explains whatever went wrong with its content.
        if let (Some((want, _)), Some(found)) = (&layer.blob, blob) {
            contents.check_digest(WHAT, want, found.clone())?;
        }
        let unpacked = unpacked
            .map_err(|failure| fault(contents, layer, failure.entry, reason(failure.fault)))?;
        check_diff_id(contents, layer, &unpacked.diff_id)?;
        Ok(unpacked)
    }

    /// Keeps the blob of a layer that is unpacked already.
    fn copy_blob(
        &self,
        contents: &Contents,
        layer: &LayerFile,
        mut to: &File,
        path: &Path,
    ) -> Result<(), StoreError> {
        let mut blob = Hashed::new(self.open_layer(contents, layer)?);
        io::copy(&mut blob, &mut to).map_err(|error| match error.raw_os_error() {
            Some(_) => StoreError::io("write", path)(error),
            // The decoders' own faults have no errno.
            None => fault(contents, layer, String::new(), bounded::fault(error)),
        })?;
        to.sync_all().map_err(StoreError::io("sync", path))?;
        let (found, _) = blob.finish();
        match &layer.blob {
            Some((want, _)) => contents.check_digest(WHAT, want, found),
            None => check_diff_id(contents, layer, &found),
        }
    }

    /// A layer's blob as the store keeps it. One without a descriptor, of an archive of Docker's,
    /// is known by its uncompressed content alone, and is kept as that.
    fn open_layer(
        &self,
        contents: &Contents,
        layer: &LayerFile,
    ) -> Result<Box<dyn Read + Send>, StoreError> {
        let blob =
            contents.open(&layer.name)?.ok_or_else(|| contents.missing(WHAT, &layer.name))?;
        if let Some((_, size)) = &layer.blob {
            contents.check_size(WHAT, &layer.name, *size, blob.length())?;
            return Ok(Box::new(blob));
        }
        let compression = blob.compression().map_err(StoreError::io("read", contents.label()))?;
        match compression {
            Compression::Gzip | Compression::Zstd => Bounded::new(blob, compression, &self.limits)
                .map(|bounded| Box::new(bounded) as Box<dyn Read + Send>)
                .map_err(|source| fault(contents, layer, String::new(), source)),
            // What is neither is for the unpacking to refuse.
            Compression::None | Compression::Other(_) => Ok(Box::new(blob)),
        }
    }
}

/// The names of an image's unpacked layers, the lowest first.
pub(super) fn chain(image: &Candidate) -> Vec<Digest> {
    let diff_ids: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
    chain_ids(&diff_ids)
}

/// A name for a layer in staging. ext4 places a directory by a hash of its name, and is slow
/// where inodes were just freed: a layer that is loaded again must not get its old place.
fn fresh(chain_id: &Digest) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{}", chain_id.hex(), now.as_nanos())
}

fn create(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(StoreError::io("create", path))
}

fn fault(contents: &Contents, layer: &LayerFile, entry: String, source: LayerFault) -> StoreError {
    StoreError::Layer {
        file: contents.label().to_owned(),
        layer: layer.name.clone(),
        entry,
        source,
    }
}

/// A limit that was met on the way into the unpacking comes out as a fault of the stream.
fn reason(fault: LayerFault) -> LayerFault {
    match fault {
        LayerFault::Stream(error) => bounded::fault(error),
        other => other,
    }
}

fn check_diff_id(contents: &Contents, layer: &LayerFile, found: &Digest) -> Result<(), StoreError> {
    if *found == layer.diff_id {
        return Ok(());
    }
    Err(StoreError::DiffIdMismatch {
        file: contents.label().to_owned(),
        layer: layer.name.clone(),
        want: layer.diff_id.clone(),
        found: found.clone(),
    })
}

/// A container runtime mounts on these; were one a symbolic link, it would lead the mount, or
/// what is written there, elsewhere.
fn check_root(layers: &[OwnedFd], contents: &Contents) -> Result<(), StoreError> {
    for path in ["/dev", "/proc", "/sys"] {
        if let Lower::Found(stat) = lookup(layers, &path.as_bytes()[1..])
            && FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
        {
            return Err(StoreError::UnsafeRoot { file: contents.label().to_owned(), path });
        }
    }
    Ok(())
}

/// Writes what is read to a file as well, which is on disk at the end. A fault of that file is no fault
/// of the layer: it is kept aside.
struct Tee<'a, R> {
    inner: R,
    copy: Option<&'a File>,
    written: u64,
    failed: Option<io::Error>,
}

impl<R> Tee<'_, R> {
    /// So much is given to the disk at once.
    const STRIDE: u64 = 8 << 20;

    /// The disk begins to write while the layer is unpacked, so that there is little to wait for
    /// at the end.
    fn keep(&mut self, mut copy: &File, bytes: &[u8]) -> io::Result<()> {
        copy.write_all(bytes)?;
        let before = self.written / Self::STRIDE;
        self.written += bytes.len() as u64;
        if self.written / Self::STRIDE > before {
            // Also starts the writing of what is not on disk yet; it is only faster so.
            let (start, length) = (before * Self::STRIDE, NonZeroU64::new(Self::STRIDE));
            rustix::fs::fadvise(copy, start, length, Advice::DontNeed).unwrap_or_default();
        }
        Ok(())
    }
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        let Some(copy) = self.copy else { return Ok(length) };
        let at_end = length == 0 && !buffer.is_empty();
        let kept = if at_end { copy.sync_all() } else { self.keep(copy, &buffer[..length]) };
        if at_end || kept.is_err() {
            self.copy = None;
            self.failed = kept.err();
        }
        Ok(length)
    }
}
