//! An archive of an image as a set of files: the outer tar of `docker save` and of OCI archives,
//! on disk or in memory. It is indexed once; files are then read at their offsets.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use tar_core::EntryType;
use tar_core::parse::{Limits, ParseError, ParseEvent, Parser};

use super::error::{ArchiveFault, StoreError};
use super::unpack::Compression;

/// Bytes that can be read at any offset.
#[derive(Clone, Debug)]
pub(super) enum Bytes {
    File(Arc<File>),
    Memory(&'static [u8]),
}

impl Bytes {
    /// Reads what there is at `offset`, as much as fits.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read_at(buffer, offset),
            Self::Memory(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let length = buffer.len().min(bytes.len() - start);
                buffer[..length].copy_from_slice(&bytes[start..start + length]);
                Ok(length)
            }
        }
    }

    /// The number of bytes.
    pub(super) fn length(&self) -> io::Result<u64> {
        match self {
            Self::File(file) => Ok(file.metadata()?.len()),
            Self::Memory(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// A reader of the bytes from `at`, `length` of them.
    pub(super) fn section(&self, at: u64, length: u64) -> Section {
        Section { bytes: self.clone(), at, length, left: length }
    }
}

/// A part of an archive or a file of a layout, as a reader.
#[derive(Debug)]
pub(super) struct Section {
    bytes: Bytes,
    at: u64,
    length: u64,
    left: u64,
}

impl Section {
    /// Its length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// How its content is compressed; reads nothing off.
    pub(super) fn compression(&self) -> io::Result<Compression> {
        let mut head = [0; Compression::MAGIC];
        let read = self.bytes.read_at(&mut head, self.at)?;
        let there = usize::try_from(self.left).map_or(read, |left| left.min(read));
        Ok(Compression::of(&head[..there]))
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = self.bytes.read_at(&mut buffer[..wanted], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// Entries an archive may have: an image has some dozen.
const ENTRIES_MAX: usize = 100_000;

/// An entry's headers may have this many bytes in all. The parser's own limits do not see all.
const HEADERS_MAX: usize = 4 << 20;

/// Symbolic links followed for one file; Docker's old archives have one.
const LINKS_MAX: usize = 8;

/// A tar's files by name.
#[derive(Debug)]
pub(super) struct Archive {
    bytes: Bytes,
    places: BTreeMap<String, Place>,
}

#[derive(Debug)]
enum Place {
    File { at: u64, length: u64 },
    Link { target: String },
}

impl Archive {
    /// Indexes a tar; `file` is its name for errors.
    ///
    /// # Errors
    /// [`StoreError::NoImage`] if it does not begin as a tar, [`StoreError::Archive`] if it is
    /// damaged or truncated.
    pub(super) fn index(bytes: Bytes, file: &str) -> Result<Self, StoreError> {
        let mut places = BTreeMap::new();
        let mut last = String::new();
        match scan(&bytes, &mut places, &mut last) {
            Ok(()) => Ok(Self { bytes, places }),
            Err(Fault::Io(source)) => {
                Err(StoreError::Io { action: "read", path: file.into(), source })
            }
            Err(Fault::Archive(ArchiveFault::Header(_) | ArchiveFault::Truncated))
                if last.is_empty() =>
            {
                Err(StoreError::NoImage {
                    file: file.to_owned(),
                    reason: "it is neither a tar archive nor a directory",
                })
            }
            Err(Fault::Archive(source)) => {
                Err(StoreError::Archive { file: file.to_owned(), entry: last, source })
            }
        }
    }

    /// A file by its name, through symbolic links inside the archive.
    pub(super) fn open(&self, name: &str) -> Option<Section> {
        let mut name = plain("", name)?;
        for _ in 0..=LINKS_MAX {
            match self.places.get(&name)? {
                Place::File { at, length } => return Some(self.bytes.section(*at, *length)),
                Place::Link { target } => {
                    let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                    name = plain(directory, target)?;
                }
            }
        }
        None
    }
}

enum Fault {
    Io(io::Error),
    Archive(ArchiveFault),
}

impl From<ParseError> for Fault {
    fn from(error: ParseError) -> Self {
        Self::Archive(ArchiveFault::Header(error))
    }
}

fn scan(
    bytes: &Bytes,
    places: &mut BTreeMap<String, Place>,
    last: &mut String,
) -> Result<(), Fault> {
    const TRUNCATED: Fault = Fault::Archive(ArchiveFault::Truncated);
    let length = bytes.length().map_err(Fault::Io)?;
    let mut parser = Parser::new(Limits { max_path_len: Some(4_096), ..Limits::default() });
    parser.set_allow_empty_path(true);
    let mut buffer = vec![0; 4_096];
    let (mut at, mut entries) = (0u64, 0);
    loop {
        let there = bytes.read_at(&mut buffer, at).map_err(Fault::Io)?;
        let (consumed, entry) = match parser.parse(&buffer[..there])? {
            ParseEvent::NeedData { min_bytes } if min_bytes > HEADERS_MAX => {
                let (size, limit) = (min_bytes as u64, HEADERS_MAX as u32);
                return Err(ParseError::MetadataTooLarge { size, limit }.into());
            }
            ParseEvent::NeedData { min_bytes } if buffer.len() < min_bytes => {
                // In steps: the parser begins anew each time.
                buffer.resize(min_bytes.max(2 * buffer.len()), 0);
                continue;
            }
            // A clean end between two entries, or half of an end marker.
            ParseEvent::NeedData { .. }
                if entries > 0 && buffer[..there].iter().all(|&b| b == 0) =>
            {
                return Ok(());
            }
            ParseEvent::NeedData { .. } => return Err(TRUNCATED),
            ParseEvent::End { .. } => return Ok(()),
            ParseEvent::GlobalExtensions { consumed, .. } => (consumed, None),
            ParseEvent::Entry { consumed, entry } => (consumed, Some(entry)),
            ParseEvent::SparseEntry { entry, .. } => {
                *last = entry.path_lossy().into_owned();
                return Err(Fault::Archive(ArchiveFault::Sparse));
            }
        };
        at += consumed as u64;
        entries += 1;
        if entries > ENTRIES_MAX {
            return Err(Fault::Archive(ArchiveFault::Entries { max: ENTRIES_MAX }));
        }
        let Some(entry) = entry else { continue };
        *last = entry.path_lossy().into_owned();
        let name = plain("", last);
        let place = match entry.entry_type {
            EntryType::Regular | EntryType::Continuous => {
                Some(Place::File { at, length: entry.size })
            }
            EntryType::Symlink => {
                Some(Place::Link { target: entry.link_target_lossy().unwrap_or_default().into() })
            }
            // A hard link's target is a name in the archive, not one beside the link.
            EntryType::Link => {
                let target = entry.link_target_lossy().unwrap_or_default();
                Some(Place::Link { target: format!("/{target}") })
            }
            _ => None,
        };
        // The size is the archive's claim and may be anything.
        let end = at.checked_add(entry.size).filter(|&end| end <= length).ok_or(TRUNCATED)?;
        at = end.next_multiple_of(512);
        // What comes later wins, as when the archive is unpacked.
        if let (Some(name), Some(place)) = (name, place) {
            places.insert(name, place);
        }
    }
}

/// A name without `.`, `..` and doubled slashes; `None` if it leads out of the archive. A name
/// that begins with a slash begins at the archive's root.
pub(super) fn plain(directory: &str, name: &str) -> Option<String> {
    let base = if name.starts_with('/') { "" } else { directory };
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::fixture::Tar;

    #[test]
    fn names_stay_inside_the_archive() {
        let cases = [
            ("", "./a/b", Some("a/b")),
            ("x", "../y/layer.tar", Some("y/layer.tar")),
            ("x", "/y", Some("y")),
            ("x", "../../y", None),
            ("", "..", None),
        ];
        for (directory, name, want) in cases {
            assert_eq!(plain(directory, name).as_deref(), want, "{directory} {name}");
        }
    }

    #[test]
    fn headers_without_an_end_are_refused() {
        // Each block says that another one follows.
        let more = [&[0; 504][..], &[1], &[0; 7]].concat();
        let endless = Tar::default().file("a", b"").gnu_sparse("b", (0, 9), &[], true);
        let map = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")];
        let map = [&map[..], &[("GNU.sparse.realsize", "9000")]].concat();
        let line = Tar::default().file("a", b"").paxes(&map).file("b", &[b'1'; 9_000]);
        for tar in [
            endless.raw(&more.repeat(10_000)),
            line,
            Tar::default().gnu_sparse("a", (0, 9), &[], false),
        ] {
            let bytes: &'static [u8] = tar.end().leak();
            let error = Archive::index(Bytes::Memory(bytes), "f").expect_err("no end");
            assert!(matches!(error, StoreError::Archive { .. }), "{error}");
        }
    }

    #[test]
    fn what_is_no_tar_is_no_image() {
        for bytes in [&b""[..], b"hello", &[0; 100], &[b'x'; 2_000]] {
            let bytes: &'static [u8] = bytes.to_vec().leak();
            let error = Archive::index(Bytes::Memory(bytes), "f").expect_err("no tar");
            assert!(matches!(error, StoreError::NoImage { .. }), "{error}");
        }
    }
}
