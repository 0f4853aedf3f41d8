//! What a tar entry means for a layer, and whether it is allowed. Pure.

use tar_core::parse::ParsedEntry;
use tar_core::{EntryType, PaxExtensions, SparseEntry};

use super::sparse::Sparse;
use super::{LayerFault, Limits};

/// One entry, checked; its paths are relative, without `.`, `..`, NUL and doubled slashes. The
/// layer's root is the empty path.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where; for a whiteout what it hides, for an opaque marker the directory.
    pub(super) path: Vec<u8>,
    pub(super) meta: Meta,
    pub(super) what: What,
    /// Bytes of data that follow in the tar, padding not included.
    pub(super) size: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    Directory,
    File,
    /// A file with holes.
    Sparse(Sparse),
    Symlink {
        target: Vec<u8>,
    },
    Hardlink {
        target: Vec<u8>,
    },
    Fifo,
    Whiteout,
    Opaque,
    LeftOut {
        why: String,
    },
}

/// A point in time: seconds since 1970 and the nanoseconds after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time {
    pub(super) seconds: i64,
    pub(super) nanoseconds: u32,
}

/// What a file has besides content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// `None` leaves the time of unpacking.
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Vec<(String, Vec<u8>)>,
    pub(super) skipped_xattrs: Vec<String>,
}

/// The longest name file systems take (`NAME_MAX`).
const NAME_MAX: usize = 255;

const BLOCK: u64 = 512;

/// Bytes from the end of an entry's data to the next header. (The parser's own `padded_size`
/// overflows on the sizes a hostile PAX header can claim.)
pub(super) fn padding(size: u64) -> u64 {
    (BLOCK - size % BLOCK) % BLOCK
}

impl Entry {
    /// Checks an entry; `sparse` is the map of its holes, and its size with them.
    pub(super) fn parse(
        entry: &ParsedEntry<'_>,
        sparse: Option<(&[SparseEntry], u64)>,
        limits: &Limits,
    ) -> Result<Self, LayerFault> {
        let kind = entry.entry_type;
        let is_file = matches!(kind, EntryType::Regular | EntryType::Continuous);
        let has_data = is_file || kind == EntryType::GnuSparse;
        if !has_data && entry.size != 0 {
            return Err(LayerFault::Sized);
        }
        let path = clean(&entry.path, limits.depth)?;
        let pax = Pax::parse(entry)?;
        let sparse = match sparse {
            None if pax.sparse || kind == EntryType::GnuSparse => {
                return Err(LayerFault::Sparse { reason: "it is of no known form" });
            }
            None => None,
            // Such a size may count the map or not: parsers disagree.
            Some(_) if !has_data || pax.size => {
                return Err(LayerFault::Sparse { reason: "its headers contradict it" });
            }
            Some((map, size)) => Some(Sparse::parse(map, size, entry.size, limits)?),
        };
        let meta = Meta::parse(entry, &pax)?;
        let (path, what) = if path.is_empty() {
            if kind != EntryType::Directory {
                return Err(LayerFault::Root);
            }
            (path, What::Directory)
        } else if let Some(marker) = Marker::parse(&path)? {
            if (!is_file || sparse.is_some()) && marker != Marker::Aufs {
                return Err(LayerFault::Whiteout);
            }
            match marker {
                Marker::Whiteout(hidden) => (hidden, What::Whiteout),
                Marker::Opaque(directory) => (directory, What::Opaque),
                Marker::Aufs => (path, What::LeftOut { why: "metadata of aufs".to_owned() }),
            }
        } else {
            let what = match sparse {
                Some(sparse) => What::Sparse(sparse),
                None => What::parse(entry, limits)?,
            };
            (path, what)
        };
        Ok(Self { path, meta, what, size: entry.size })
    }
}

impl What {
    fn parse(entry: &ParsedEntry<'_>, limits: &Limits) -> Result<Self, LayerFault> {
        let target = entry.link_target.as_deref().unwrap_or_default();
        Ok(match entry.entry_type {
            EntryType::Directory => Self::Directory,
            EntryType::Regular | EntryType::Continuous => Self::File,
            EntryType::Symlink if target.contains(&0) => return Err(LayerFault::Nul),
            EntryType::Symlink => Self::Symlink { target: target.to_owned() },
            EntryType::Link => Self::Hardlink { target: clean(target, limits.depth)? },
            EntryType::Fifo => Self::Fifo,
            EntryType::Char | EntryType::Block => Self::LeftOut {
                why: format!(
                    "device {}:{}",
                    entry.dev_major.unwrap_or(0),
                    entry.dev_minor.unwrap_or(0)
                ),
            },
            other => return Err(LayerFault::Kind { kind: char::from(other.to_byte()) }),
        })
    }
}

impl Meta {
    fn parse(entry: &ParsedEntry<'_>, pax: &Pax) -> Result<Self, LayerFault> {
        // The kernel takes 2³²−1 for "leave as it is".
        let (uid, gid) = match (u32::try_from(entry.uid), u32::try_from(entry.gid)) {
            (Ok(uid), Ok(gid)) if uid != u32::MAX && gid != u32::MAX => (uid, gid),
            _ => return Err(LayerFault::Owner { uid: entry.uid, gid: entry.gid }),
        };
        let (mut xattrs, mut skipped_xattrs) = (Vec::new(), Vec::new());
        for (name, value) in &entry.xattrs {
            match std::str::from_utf8(name) {
                Ok(name) if allowed(name) => xattrs.push((name.to_owned(), value.to_vec())),
                _ => skipped_xattrs.push(String::from_utf8_lossy(name).into_owned()),
            }
        }
        // Base-256 fields hold times before 1970 as two's complement.
        let header = Time { seconds: entry.mtime.cast_signed(), nanoseconds: 0 };
        let mtime = Some(pax.mtime.unwrap_or(header));
        Ok(Self { mode: entry.mode & 0o7777, uid, gid, mtime, xattrs, skipped_xattrs })
    }
}

/// What a pax header has that the parser does not tell, or tells wrong.
///
/// The parser takes times before 1970 for errors, so it is told to pass over errors, and the
/// fields that must be right are checked here again.
#[derive(Default)]
struct Pax {
    mtime: Option<Time>,
    /// It gives the size of the data.
    size: bool,
    /// It speaks of a file with holes.
    sparse: bool,
}

impl Pax {
    fn parse(entry: &ParsedEntry<'_>) -> Result<Self, LayerFault> {
        let mut pax = Self::default();
        for record in PaxExtensions::new(entry.pax.unwrap_or_default()) {
            let record = record.map_err(|_| LayerFault::Pax { key: "record".to_owned() })?;
            let key = record.key().map_err(|_| LayerFault::Pax { key: "key".to_owned() })?;
            let bad = || LayerFault::Pax { key: key.to_owned() };
            let value = || record.value().map_err(|_| bad());
            match key {
                "size" | "uid" | "gid" => {
                    value()?.parse::<u64>().map_err(|_| bad())?;
                    pax.size |= key == "size";
                }
                "mtime" => pax.mtime = Some(Time::parse(value()?).ok_or_else(bad)?),
                key if key.starts_with("GNU.sparse.") => pax.sparse = true,
                _ => {}
            }
        }
        Ok(pax)
    }
}

impl Time {
    /// A decimal number of seconds, perhaps negative, perhaps with a fraction (POSIX `pax`,
    /// "Extended Header File Times"). What is finer than a nanosecond is cut off.
    fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let seconds: i64 = whole.parse().ok()?;
        if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
        let nanoseconds = digits.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
        if whole.starts_with('-') && nanoseconds > 0 {
            // The kernel counts nanoseconds forwards.
            let nanoseconds = 1_000_000_000 - nanoseconds;
            return Some(Self { seconds: seconds.checked_sub(1)?, nanoseconds });
        }
        Some(Self { seconds, nanoseconds })
    }
}

/// Only what the file's own program can read: `trusted.*` and `user.overlay.*` would speak to
/// overlayfs, other `security.*` to the host's security modules.
fn allowed(xattr: &str) -> bool {
    if xattr.len() > NAME_MAX || xattr.contains('\0') {
        return false;
    }
    xattr == "security.capability"
        || (xattr.len() > "user.".len()
            && xattr.starts_with("user.")
            && !xattr.starts_with("user.overlay.")
            && !xattr.starts_with("user.containers."))
}

/// Entries that are not files but say something about lower layers.
#[derive(Debug, PartialEq, Eq)]
enum Marker {
    /// Hides this path.
    Whiteout(Vec<u8>),
    /// Hides all that is below in this directory.
    Opaque(Vec<u8>),
    /// Bookkeeping of an extinct file system.
    Aufs,
}

const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const AUFS: &[u8] = b".wh..wh.";

impl Marker {
    fn parse(path: &[u8]) -> Result<Option<Self>, LayerFault> {
        let (parent, name) = split(path);
        for directory in parent.split(|&b| b == b'/') {
            if directory.starts_with(AUFS) && directory != OPAQUE {
                return Ok(Some(Self::Aufs));
            }
            if directory.starts_with(PREFIX) {
                return Err(LayerFault::Whiteout);
            }
        }
        if name == OPAQUE {
            return Ok(Some(Self::Opaque(parent.to_owned())));
        }
        if name.starts_with(AUFS) {
            return Ok(Some(Self::Aufs));
        }
        match name.strip_prefix(PREFIX) {
            None => Ok(None),
            Some(b"" | b"." | b"..") => Err(LayerFault::Whiteout),
            Some(hidden) => Ok(Some(Self::Whiteout(join(parent, hidden)))),
        }
    }
}

/// A path's directory (empty for the root) and its last name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// The path of `name` in `directory`.
pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_owned() } else { [directory, b"/", name].concat() }
}

/// Makes a path relative and plain; a leading slash means the layer's root.
fn clean(path: &[u8], depth: usize) -> Result<Vec<u8>, LayerFault> {
    let mut clean = Vec::with_capacity(path.len());
    let mut components = 0;
    for name in path.split(|&b| b == b'/') {
        match name {
            b"" | b"." => continue,
            b".." => return Err(LayerFault::DotDot),
            name if name.contains(&0) => return Err(LayerFault::Nul),
            name if name.len() > NAME_MAX => return Err(LayerFault::NameTooLong),
            name => {
                if components > 0 {
                    clean.push(b'/');
                }
                clean.extend_from_slice(name);
                components += 1;
            }
        }
    }
    if components > depth { Err(LayerFault::Depth { max: depth }) } else { Ok(clean) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_plain_or_refused() {
        for (path, want) in
            [("./a//b/", "a/b"), ("/a", "a"), ("./", ""), ("/", ""), ("a/./b", "a/b")]
        {
            assert_eq!(clean(path.as_bytes(), 9).ok().as_deref(), Some(want.as_bytes()), "{path}");
        }
        assert!(matches!(clean(b"a/../b", 9), Err(LayerFault::DotDot)));
        assert!(matches!(clean(b"..", 9), Err(LayerFault::DotDot)));
        assert!(matches!(clean(b"a\0b", 9), Err(LayerFault::Nul)));
        assert!(matches!(clean(b"a/b/c", 2), Err(LayerFault::Depth { max: 2 })));
        assert!(matches!(clean(&[b'x'; 256], 9), Err(LayerFault::NameTooLong)));
    }

    #[test]
    fn markers_are_told_from_files() {
        let whiteout = |p: &str| Some(Marker::Whiteout(p.as_bytes().to_owned()));
        let opaque = |p: &str| Some(Marker::Opaque(p.as_bytes().to_owned()));
        let cases = [
            ("a/b", None),
            ("a/.whale", None),
            ("a/.wh.b", whiteout("a/b")),
            (".wh.b", whiteout("b")),
            (".wh....", whiteout("...")),
            ("a/.wh..wh..opq", opaque("a")),
            (".wh..wh..opq", opaque("")),
            (".wh..wh.plnk", Some(Marker::Aufs)),
            (".wh..wh.plnk/1.2", Some(Marker::Aufs)),
        ];
        for (path, want) in cases {
            match Marker::parse(path.as_bytes()) {
                Ok(found) => assert_eq!(found, want, "{path}"),
                Err(fault) => panic!("{path}: {fault}"),
            }
        }
        for bad in [".wh.", ".wh..", ".wh...", "a/.wh...", ".wh.a/b", ".wh..wh..opq/b"] {
            assert!(matches!(Marker::parse(bad.as_bytes()), Err(LayerFault::Whiteout)), "{bad}");
        }
    }

    #[test]
    fn only_harmless_attributes_are_kept() {
        for good in ["user.a", "security.capability"] {
            assert!(allowed(good), "{good}");
        }
        for bad in [
            "trusted.overlay.opaque",
            "trusted.x",
            "user.overlay.opaque",
            "user.containers.override_stat",
            "user.",
            "security.selinux",
            "security.ima",
            "system.posix_acl_access",
            "user.a\0b",
        ] {
            assert!(!allowed(bad), "{bad}");
        }
    }

    #[test]
    fn times_have_nanoseconds() {
        let cases = [
            ("0", Some((0, 0))),
            ("1234567890.5", Some((1_234_567_890, 500_000_000))),
            ("1.123456789999", Some((1, 123_456_789))),
            ("-86400.5", Some((-86_401, 500_000_000))),
            ("-0.25", Some((-1, 750_000_000))),
            ("7.", Some((7, 0))),
            ("", None),
            (".5", None),
            ("1.x", None),
            ("1.-5", None),
            ("1e9", None),
            ("9223372036854775808", None),
            ("-9223372036854775808.5", None),
        ];
        for (text, want) in cases {
            let found = Time::parse(text).map(|time| (time.seconds, time.nanoseconds));
            assert_eq!(found, want, "{text}");
        }
    }

    #[test]
    fn padding_fills_the_block() {
        for (size, want) in [(0, 0), (1, 511), (512, 0), (513, 511), (u64::MAX, 1)] {
            assert_eq!(padding(size), want, "{size}");
        }
    }
}
