//! The reading half of unpacking: blob → digest → inflated bytes on one thread, their digest on
//! another. The tar goes from thread to thread in chunks, which come back to be filled again.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

use sha2::Digest as _;

use super::{LayerFault, Limits};
use crate::oci::digest::Digest;

/// Chunks that may wait to be hashed.
pub(super) const TO_HASH: usize = 8;

/// Chunks that may wait to be written, 16 MiB. Small files take long to write and large ones to
/// inflate: where they take turns neither thread waits for the other.
pub(super) const TO_WRITE: usize = 64;

/// Bytes of a chunk.
pub(super) const CHUNK: usize = 256 << 10;

/// How a blob or archive is compressed, by its first bytes: media types are often wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::oci) enum Compression {
    None,
    Gzip,
    Zstd,
    Other(&'static str),
}

impl Compression {
    /// Bytes [`Compression::of`] wants to see.
    pub(in crate::oci) const MAGIC: usize = 6;

    /// Tells from the first bytes. Zstandard may begin with a skippable frame (RFC 8878, 3.1.2).
    pub(in crate::oci) fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => Self::Other("bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Other("xz"),
            [0x04, 0x22, 0x4d, 0x18, ..] => Self::Other("lz4"),
            _ => Self::None,
        }
    }

    /// A reader of the inflated bytes.
    pub(in crate::oci) fn decoder<'a>(
        self,
        blob: impl BufRead + Send + 'a,
    ) -> Result<Box<dyn Read + Send + 'a>, LayerFault> {
        Ok(match self {
            Self::None => Box::new(blob),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(blob)),
            Self::Zstd => Box::new(
                zstd::stream::read::Decoder::with_buffer(blob).map_err(LayerFault::Stream)?,
            ),
            Self::Other(found) => return Err(LayerFault::Compression { found }),
        })
    }
}

/// What the reading thread found.
pub(super) struct Pumped {
    /// Of the whole blob; `None` if it could not be read to its end.
    pub(super) digest: Option<Digest>,
    /// Whether the stream was sound and within the limits.
    pub(super) outcome: Result<(), LayerFault>,
}

/// Reads, hashes and inflates the blob and sends the tar on, in chunks that were `spent` before if
/// there are any. If nobody listens any more, or the stream is bad, the rest of the blob is still
/// hashed: a wrong digest explains most faults.
pub(super) fn pump(
    blob: impl Read + Send,
    to: SyncSender<Vec<u8>>,
    spent: &Receiver<Vec<u8>>,
    limits: &Limits,
) -> Pumped {
    let mut blob = Hashed::new(blob);
    let mut outcome = inflate(&mut blob, &to, spent, limits);
    drop(to);
    let digest = match io::copy(&mut blob, &mut io::sink()) {
        Ok(_) => Some(blob.finish().0),
        Err(source) => {
            outcome = outcome.and(Err(LayerFault::Io { action: "read the layer", source }));
            None
        }
    };
    Pumped { digest, outcome }
}

/// Hashes the tar on its way to the writer; its digest and its size in bytes, as far as it was
/// inflated and wanted.
pub(super) fn digest(from: Receiver<Vec<u8>>, to: SyncSender<Vec<u8>>) -> (Digest, u64) {
    let mut hasher = sha2::Sha256::new();
    let mut size = 0;
    for chunk in from {
        hasher.update(&chunk);
        size += chunk.len() as u64;
        if to.send(chunk).is_err() {
            // The writer gave up. With the end of this thread the reading one learns of it.
            break;
        }
    }
    (Digest::from_hash(&hasher.finalize().into()), size)
}

fn inflate(
    blob: &mut Hashed<impl Read + Send>,
    to: &SyncSender<Vec<u8>>,
    spent: &Receiver<Vec<u8>>,
    limits: &Limits,
) -> Result<(), LayerFault> {
    let mut head = [0; Compression::MAGIC];
    let (length, read) = read_full(blob, &mut head);
    read.map_err(LayerFault::Stream)?;
    let head = &head[..length];
    let compression = Compression::of(head);
    let counted = AtomicU64::new(0);
    let rest = Tally { inner: head.chain(blob), count: &counted };
    let mut tar = compression.decoder(BufReader::with_capacity(CHUNK, rest))?;
    let mut sent = 0u64;
    loop {
        let mut chunk = spent.try_recv().unwrap_or_default();
        chunk.resize(CHUNK, 0);
        let (length, read) = read_full(&mut tar, &mut chunk);
        if length == 0 {
            return read.map_err(LayerFault::Stream);
        }
        let room = limits.bytes - sent;
        chunk.truncate(usize::try_from(room).map_or(length, |room| room.min(length)));
        sent += chunk.len() as u64;
        let ratio = limits.ratio.max(1);
        let fault = if chunk.len() < length {
            Some(LayerFault::Bytes { max: limits.bytes })
        } else if sent > limits.ratio_floor && sent / ratio > counted.load(Ordering::Relaxed) {
            Some(LayerFault::Ratio { max: ratio })
        } else {
            read.err().map(LayerFault::Stream)
        };
        if to.send(chunk).is_err() {
            // The writer gave up and says why.
            return Ok(());
        }
        if let Some(fault) = fault {
            // The writer has all up to here, and so knows the entry.
            return Err(fault);
        }
    }
}

/// Counts bytes while a decoder owns the reader.
struct Tally<'a, R> {
    inner: R,
    count: &'a AtomicU64,
}

impl<R: Read> Read for Tally<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.count.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

/// Fills the buffer as far as there is data: how far, and what stopped it other than the end.
fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> (usize, io::Result<()>) {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (filled, Err(error)),
        }
    }
    (filled, Ok(()))
}

/// A reader that hashes and counts what passes.
pub(in crate::oci) struct Hashed<R> {
    inner: R,
    hasher: sha2::Sha256,
    length: u64,
}

impl<R> Hashed<R> {
    pub(in crate::oci) fn new(inner: R) -> Self {
        Self { inner, hasher: sha2::Sha256::new(), length: 0 }
    }

    /// The digest and the number of bytes read so far; drops the reader.
    pub(in crate::oci) fn finish(self) -> (Digest, u64) {
        (Digest::from_hash(&self.hasher.finalize().into()), self.length)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        self.length += length as u64;
        Ok(length)
    }
}

/// Copies everything inflated to `to`, at most `max` bytes; returns whether it was all.
pub(in crate::oci) fn copy_limited(
    from: &mut impl Read,
    to: &mut impl Write,
    max: u64,
) -> io::Result<bool> {
    let mut limited = from.take(max + 1);
    Ok(io::copy(&mut limited, to)? <= max)
}
