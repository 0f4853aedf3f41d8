//! The buffer from which the writing half reads the tar. Files are written from the chunks as they
//! come; bytes are moved only where a header lies across the end of one.

use std::sync::mpsc::{Receiver, Sender};

use rustix::fd::OwnedFd;

use super::LayerFault;
use super::stream::CHUNK;

/// The chunks of a tar as one piece where the parser wants it, which is a whole header.
pub(super) struct Buffer {
    /// Ends where the stream ends or fails.
    chunks: Receiver<Vec<u8>>,
    spent: Sender<Vec<u8>>,
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// Chunks that are used up go to `spent`.
    pub(super) fn new(chunks: Receiver<Vec<u8>>, spent: Sender<Vec<u8>>) -> Self {
        Self { chunks, spent, bytes: Vec::new(), start: 0 }
    }

    /// What is there.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(super) fn consume(&mut self, length: usize) {
        self.start += length;
    }

    /// Whether the tar is over, cleanly between two entries. Some writers leave out the end
    /// marker; a single zero block is half of one.
    pub(super) fn at_end(&mut self) -> bool {
        self.bytes().iter().all(|&b| b == 0) && !self.refill()
    }

    /// Reads until `wanted` bytes are there.
    pub(super) fn fill(&mut self, wanted: usize) -> Result<(), LayerFault> {
        while self.bytes().len() < wanted {
            if !self.refill() {
                return Err(LayerFault::Truncated);
            }
        }
        Ok(())
    }

    /// Takes all that is left of the tar, to nowhere.
    pub(super) fn drain(&mut self) {
        self.start = self.bytes.len();
        while self.refill() {
            self.start = self.bytes.len();
        }
    }

    /// Adds a chunk; returns whether there was one.
    fn refill(&mut self) -> bool {
        let Ok(chunk) = self.chunks.recv() else { return false };
        let spent = if self.start == self.bytes.len() {
            std::mem::replace(&mut self.bytes, chunk)
        } else {
            self.bytes.drain(..self.start);
            self.bytes.extend_from_slice(&chunk);
            chunk
        };
        self.start = 0;
        // One that grew for a hostile header would stay as large. The reading thread may be at its
        // end and not take it.
        if spent.capacity() <= 2 * CHUNK {
            self.spent.send(spent).unwrap_or_default();
        }
        true
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
            self.fill(1)?;
            let there = self.bytes().len();
            let length = usize::try_from(left).map_or(there, |left| left.min(there));
            what(&self.bytes()[..length])?;
            self.start += length;
            left -= length as u64;
        }
        Ok(())
    }
}
