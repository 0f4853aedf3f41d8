//! The reading half of unpacking: blob → digest → inflated bytes → digest, on a thread of its own,
//! and the buffer from which the writing half reads the tar.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};

use rustix::fd::OwnedFd;
use sha2::Digest as _;

use super::{LayerFault, Limits};
use crate::oci::digest::Digest;

/// Chunks that may wait between the threads.
pub(super) const CHUNKS: usize = 8;

const CHUNK: usize = 256 << 10;

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
    /// Of the tar, as far as it was inflated.
    pub(super) diff_id: Digest,
    /// Its size in bytes, as far as it was inflated.
    pub(super) tar_size: u64,
    /// Whether the stream was sound and within the limits.
    pub(super) outcome: Result<(), LayerFault>,
}

/// Reads, hashes and inflates the blob and sends the tar on. If nobody listens any more, or the
/// stream is bad, the rest of the blob is still hashed: a wrong digest explains most faults.
pub(super) fn pump(blob: impl Read + Send, to: SyncSender<Vec<u8>>, limits: &Limits) -> Pumped {
    let mut blob = Hashed::new(blob);
    let mut tar = sha2::Sha256::new();
    let mut tar_size = 0;
    let mut outcome = inflate(&mut blob, &to, limits, |chunk| {
        tar.update(chunk);
        tar_size += chunk.len() as u64;
    });
    drop(to);
    let digest = match io::copy(&mut blob, &mut io::sink()) {
        Ok(_) => Some(blob.finish().0),
        Err(source) => {
            outcome = outcome.and(Err(LayerFault::Io { action: "read the layer", source }));
            None
        }
    };
    Pumped { digest, diff_id: Digest::from_hash(&tar.finalize().into()), tar_size, outcome }
}

fn inflate(
    blob: &mut Hashed<impl Read + Send>,
    to: &SyncSender<Vec<u8>>,
    limits: &Limits,
    mut see: impl FnMut(&[u8]),
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
        let mut chunk = vec![0; CHUNK];
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
        see(&chunk);
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

/// The chunks of the reading thread as a reader. It ends where the stream ends or fails.
pub(super) struct Inflated {
    chunks: Receiver<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl Inflated {
    pub(super) fn new(chunks: Receiver<Vec<u8>>) -> Self {
        Self { chunks, current: Vec::new(), at: 0 }
    }
}

impl Read for Inflated {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.current.len() {
            match self.chunks.recv() {
                Ok(chunk) => (self.current, self.at) = (chunk, 0),
                Err(_) => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len() - self.at);
        buffer[..length].copy_from_slice(&self.current[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// A tar reader's buffer: the parser wants whole headers in one piece.
pub(super) struct Buffer<'a, R> {
    tar: &'a mut R,
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl<'a, R: Read> Buffer<'a, R> {
    pub(super) fn new(tar: &'a mut R) -> Self {
        Self { tar, bytes: vec![0; CHUNK], start: 0, end: 0 }
    }

    /// What is there.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn consume(&mut self, length: usize) {
        self.start += length;
    }

    /// Whether the tar is over, cleanly between two entries. Some writers leave out the end
    /// marker; a single zero block is half of one.
    pub(super) fn at_end(&mut self) -> Result<bool, LayerFault> {
        if self.bytes().iter().any(|&b| b != 0) {
            return Ok(false);
        }
        let known = self.end - self.start;
        self.refill()?;
        Ok(self.end - self.start == known)
    }

    /// Reads until `wanted` bytes are there.
    pub(super) fn fill(&mut self, wanted: usize) -> Result<(), LayerFault> {
        while self.end - self.start < wanted {
            if self.bytes.len() < wanted {
                // In steps: the parser begins anew each time.
                self.bytes.resize(wanted.next_multiple_of(CHUNK), 0);
            }
            let before = self.end - self.start;
            self.refill()?;
            if self.end - self.start == before {
                return Err(LayerFault::Truncated);
            }
        }
        Ok(())
    }

    fn refill(&mut self) -> Result<(), LayerFault> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.bytes.len() {
            self.bytes.resize(self.end + CHUNK, 0);
        }
        let read = self.tar.read(&mut self.bytes[self.end..]);
        self.end += read.map_err(|source| LayerFault::Io { action: "read the layer", source })?;
        Ok(())
    }

    /// Passes over `length` bytes.
    pub(super) fn skip(&mut self, length: u64) -> Result<(), LayerFault> {
        self.each(length, |_| Ok(()))
    }

    /// Writes the next `length` bytes to `file`.
    pub(super) fn copy_to(&mut self, file: &OwnedFd, length: u64) -> Result<(), LayerFault> {
        self.each(length, |mut piece| {
            while !piece.is_empty() {
                match rustix::io::write(file, piece) {
                    Ok(written) => piece = &piece[written..],
                    Err(rustix::io::Errno::INTR) => {}
                    Err(errno) => return Err(LayerFault::os("write the file")(errno)),
                }
            }
            Ok(())
        })
    }

    fn each(
        &mut self,
        mut left: u64,
        mut what: impl FnMut(&[u8]) -> Result<(), LayerFault>,
    ) -> Result<(), LayerFault> {
        while left > 0 {
            if self.start == self.end {
                self.fill(1)?;
            }
            let there = self.end - self.start;
            let length = usize::try_from(left).map_or(there, |left| left.min(there));
            what(&self.bytes[self.start..self.start + length])?;
            self.start += length;
            left -= length as u64;
        }
        Ok(())
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
