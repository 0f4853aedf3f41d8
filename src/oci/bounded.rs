//! A compressed layer as its tar, within the limits of one: for what reads the tar without unpacking
//! it, and for what is unpacked from the tar, where its compression can no longer be seen.

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::unpack::{Compression, LayerFault, Limits};

/// The tar of a blob.
pub(super) struct Bounded<'a> {
    tar: Box<dyn Read + Send + 'a>,
    read: Arc<AtomicU64>,
    written: u64,
    limits: Limits,
}

impl<'a> Bounded<'a> {
    /// # Errors
    /// [`LayerFault::Compression`] for one that layers do not have.
    pub(super) fn new(
        blob: impl Read + Send + 'a,
        compression: Compression,
        limits: &Limits,
    ) -> Result<Self, LayerFault> {
        let read = Arc::new(AtomicU64::new(0));
        let counted = Counted { blob, read: Arc::clone(&read) };
        let tar = compression.decoder(BufReader::with_capacity(256 << 10, counted))?;
        Ok(Self { tar, read, written: 0, limits: limits.clone() })
    }
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.tar.read(buffer)?;
        self.written += length as u64;
        let Limits { bytes, ratio, ratio_floor, .. } = self.limits;
        if self.written > bytes {
            return Err(io::Error::other(LayerFault::Bytes { max: bytes }));
        }
        let read = self.read.load(Ordering::Relaxed);
        if self.written > ratio_floor && self.written / ratio > read {
            return Err(io::Error::other(LayerFault::Ratio { max: ratio }));
        }
        Ok(length)
    }
}

/// What a bounded reader's error says of the layer.
pub(super) fn fault(error: io::Error) -> LayerFault {
    match error.downcast::<LayerFault>() {
        Ok(fault) => fault,
        Err(error) => LayerFault::Stream(error),
    }
}

/// Counts bytes while a decoder owns the reader.
struct Counted<R> {
    blob: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.blob.read(buffer)?;
        self.read.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::fixture::gzip;

    #[test]
    fn bombs_are_stopped() {
        let bomb = gzip(&vec![0; 1 << 20]);
        let limits =
            |bytes, ratio| Limits { bytes, ratio, ratio_floor: 1 << 10, ..Limits::default() };
        let run = |limits: &Limits| {
            let mut tar = Bounded::new(&bomb[..], Compression::Gzip, limits).unwrap();
            io::copy(&mut tar, &mut io::sink()).map_err(fault)
        };
        assert_eq!(run(&limits(1 << 20, 10_000)).unwrap(), 1 << 20);
        assert!(matches!(run(&limits(1 << 19, 10_000)), Err(LayerFault::Bytes { .. })));
        assert!(matches!(run(&limits(1 << 30, 10)), Err(LayerFault::Ratio { max: 10 })));
    }
}
