//! Blobs by digest: configurations and layers as a registry or an archive gave them.
//!
//! A blob is published under its digest once it is whole, checked and on disk; what is there is
//! never changed. Until then it grows in `partial/`, under the same name: whoever has the lock on
//! that very file (flock) writes it, others wait and then find the blob. A writer that is killed, or
//! loses its connection, leaves what it has for the next one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use sha2::Digest as _;

use super::{BLOBS, PARTIAL, Store, files};
use crate::oci::digest::Digest;
use crate::oci::error::StoreError;

/// What [`Store::begin_blob`] finds.
#[derive(Debug)]
pub enum BlobStart {
    /// The blob is there, at its first byte.
    Present(File),
    /// It is the caller's to write.
    Partial(Box<BlobWriter>),
}

/// A blob being written. Dropped without an end it stays for the next writer.
#[derive(Debug)]
pub struct BlobWriter {
    digest: Digest,
    /// Bytes it must have, if that is known.
    size: Option<u64>,
    /// Also the lock.
    file: File,
    partial: PathBuf,
    published: PathBuf,
    hasher: sha2::Sha256,
    written: u64,
    resumed: u64,
}

impl Store {
    /// A blob, at its first byte; `None` if it is not there. What it holds was checked when it was
    /// published.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn blob(&self, digest: &Digest) -> Result<Option<File>, StoreError> {
        let path = self.blob_path(digest);
        match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::io("open", &path)(source)),
        }
    }

    /// Begins to write a blob of `size` bytes (if that is known), or finds it there. Waits for
    /// another process or thread that is writing the same one.
    ///
    /// The caller has a [`Store::hold`] from before this call until [`Store::install`] returns, or a
    /// removal could take the blob for a leftover. A thread writes one blob at a time: two that
    /// wait for each other's would wait for ever.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn begin_blob(&self, digest: &Digest, size: Option<u64>) -> Result<BlobStart, StoreError> {
        let path = self.root.join(PARTIAL).join(digest.hex());
        loop {
            if let Some(blob) = self.blob(digest)? {
                return Ok(BlobStart::Present(blob));
            }
            let Some(file) = lock(&path)? else { continue };
            // It may have been published between the look and the lock of a new file.
            if let Some(blob) = self.blob(digest)? {
                files::remove_file(&path)?;
                return Ok(BlobStart::Present(blob));
            }
            let published = self.blob_path(digest);
            let writer = BlobWriter {
                digest: digest.clone(),
                size,
                file,
                partial: path,
                published,
                hasher: sha2::Sha256::new(),
                written: 0,
                resumed: 0,
            };
            return Ok(BlobStart::Partial(Box::new(writer.resume()?)));
        }
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join(BLOBS)
    }

    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// The partial blobs nobody is writing, with their sizes in bytes; removes them if asked to.
    pub(super) fn stale_partials(&self, remove: bool) -> Result<u64, StoreError> {
        let directory = self.root.join(PARTIAL);
        let mut bytes = 0;
        for name in files::names(&directory)? {
            let path = directory.join(name);
            let file = match OpenOptions::new().read(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(StoreError::io("open", &path))?,
            };
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => continue,
                Err(errno) => return Err(StoreError::os("lock", &path)(errno)),
            }
            bytes += file.metadata().map_err(StoreError::io("read", &path))?.len();
            if remove {
                files::remove_file(&path)?;
            }
        }
        Ok(bytes)
    }
}

/// The partial file, locked; `None` if it was published or removed while this waited.
fn lock(path: &Path) -> Result<Option<File>, StoreError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(StoreError::io("open", path))?;
    files::flock(&file, path, files::Kind::Exclusive)?;
    let ours = file.metadata().map_err(StoreError::io("read", path))?;
    let there = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        there => there.map_err(StoreError::io("read", path))?,
    };
    Ok(((ours.dev(), ours.ino()) == (there.dev(), there.ino())).then_some(file))
}

impl BlobWriter {
    /// Bytes a predecessor left; writing goes on behind them. If that is the whole size there is
    /// nothing to write.
    pub fn resumed(&self) -> u64 {
        self.resumed
    }

    /// Begins again at the first byte: the source cannot go on in the middle.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn restart(&mut self) -> Result<(), StoreError> {
        let mut restart = || {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))
        };
        restart().map_err(StoreError::io("write", &self.partial))?;
        self.hasher = sha2::Sha256::new();
        (self.written, self.resumed) = (0, 0);
        Ok(())
    }

    /// Checks size and digest, and publishes the blob; it is on disk then.
    ///
    /// # Errors
    /// [`StoreError::BlobSize`] if bytes are missing: what is there stays for the next writer.
    /// [`StoreError::BlobDigest`] if it is something else: it is removed. [`StoreError::Io`].
    pub fn finish(self) -> Result<File, StoreError> {
        if let Some(want) = self.size.filter(|&size| size != self.written) {
            let (digest, found) = (self.digest, self.written);
            return Err(StoreError::BlobSize { digest, want, found });
        }
        let found = Digest::from_hash(&self.hasher.finalize().into());
        if found != self.digest {
            files::remove_file(&self.partial)?;
            return Err(StoreError::BlobDigest { want: self.digest, found });
        }
        self.file.sync_all().map_err(StoreError::io("sync", &self.partial))?;
        // The lock goes with the file to its new name, where nobody asks for it.
        files::rename(&self.partial, &self.published)?;
        if let Some(directory) = self.published.parent() {
            files::sync_directory(directory)?;
        }
        File::open(&self.published).map_err(StoreError::io("open", &self.published))
    }

    /// Removes what was written.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn discard(self) -> Result<(), StoreError> {
        files::remove_file(&self.partial)
    }

    /// Takes up what a predecessor left: its content is hashed, not believed.
    fn resume(mut self) -> Result<Self, StoreError> {
        let length = self.file.metadata().map_err(StoreError::io("read", &self.partial))?.len();
        if self.size.is_some_and(|size| length > size) {
            self.restart()?;
            return Ok(self);
        }
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = match self.file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(StoreError::io("read", &self.partial)(source)),
            };
            self.hasher.update(&buffer[..read]);
            self.written += read as u64;
        }
        self.resumed = self.written;
        Ok(self)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(size) = self.size {
            // Not one byte more than was announced reaches the disk.
            if self.written + bytes.len() as u64 > size {
                let text = format!("the blob has more than the {size} bytes announced");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
