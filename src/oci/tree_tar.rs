//! A directory tree as a layer's tar: what a root file system in a directory is made an image of.
//!
//! Every file is opened beneath the one before, never through a symbolic link, so what is packed is
//! what is in the tree. The order is that of the names: the same tree gives the same tar.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tar_core::EntryType;
use tar_core::builder::EntryBuilder;

use super::error::StoreError;

/// Directories in each other; each costs two descriptors.
const DEPTH_MAX: usize = 128;

/// What the kernel allows at most (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_MAX: usize = 64 << 10;

/// Writes the tree below `root` as a tar, and returns what was left out. `label` is what errors call
/// the tree. File systems mounted in the tree are left out; a tree whose files have more than `max`
/// bytes, holes included, is refused.
///
/// # Errors
/// [`StoreError::Io`]; [`StoreError::Rootfs`] for what no layer can hold.
pub(super) fn write(
    root: &OwnedFd,
    label: &Path,
    out: &mut impl Write,
    max: u64,
) -> Result<Vec<String>, StoreError> {
    let about = rustix::fs::fstat(root).map_err(StoreError::os("read", label))?;
    let device = about.st_dev;
    let (links, notes) = (HashMap::new(), Vec::new());
    let mut packer = Packer { label, out, device, links, notes, left: max, max };
    packer.directory(root.as_fd(), &about, b"./", 0)?;
    let Packer { out, notes, .. } = packer;
    out.write_all(&[0; 1024]).map_err(StoreError::io("pack", label))?;
    Ok(notes)
}

struct Packer<'a, W> {
    label: &'a Path,
    out: &'a mut W,
    /// The file system of the root.
    device: u64,
    /// The first name of each file with several.
    links: HashMap<u64, Vec<u8>>,
    notes: Vec<String>,
    /// Bytes that files may still have, and had at first.
    left: u64,
    max: u64,
}

impl<W: Write> Packer<'_, W> {
    fn path(&self, inside: &[u8]) -> PathBuf {
        self.label.join(OsStr::from_bytes(inside))
    }

    /// Packs a directory and all in it; `inside` ends with a slash.
    fn directory(
        &mut self,
        directory: BorrowedFd<'_>,
        about: &Stat,
        inside: &[u8],
        depth: usize,
    ) -> Result<(), StoreError> {
        let path = self.path(inside);
        if depth > DEPTH_MAX {
            let reason = format!("it is more than {DEPTH_MAX} directories deep");
            return Err(StoreError::Rootfs { path, reason });
        }
        let mut entry = entry(EntryType::Directory, inside, about, 0);
        self.attributes(directory, &path, &mut entry)?;
        self.put(&entry)?;
        for name in names(directory, &path)? {
            let inside = [inside.strip_prefix(b"./").unwrap_or(inside), name.as_bytes()].concat();
            self.entry(directory, &name, inside, depth)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &CString,
        mut inside: Vec<u8>,
        depth: usize,
    ) -> Result<(), StoreError> {
        let path = self.path(&inside);
        let failed = || StoreError::os("read", path.clone());
        if name.as_bytes().starts_with(b".wh.") {
            let reason = "in a layer such a name means that a file was removed".to_owned();
            return Err(StoreError::Rootfs { path, reason });
        }
        let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let place = rustix::fs::openat(directory, name, look, Mode::empty()).map_err(failed())?;
        let about = rustix::fs::fstat(&place).map_err(failed())?;
        let elsewhere = about.st_dev != self.device;
        let kind = FileType::from_raw_mode(about.st_mode);
        let packed = matches!(kind, FileType::RegularFile | FileType::Symlink | FileType::Fifo);
        if packed && !elsewhere && about.st_nlink > 1 {
            if let Some(first) = self.links.get(&about.st_ino) {
                let mut entry = entry(EntryType::Link, &inside, &about, 0);
                entry.link_name(first);
                return self.put(&entry);
            }
            self.links.insert(about.st_ino, inside.clone());
        }
        match kind {
            FileType::Directory => {
                inside.push(b'/');
                if elsewhere {
                    self.notes.push(format!("{}: what is mounted there left out", path.display()));
                    return self.put(&entry(EntryType::Directory, &inside, &about, 0));
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let opened =
                    rustix::fs::openat(&place, c".", flags, Mode::empty()).map_err(failed())?;
                self.directory(opened.as_fd(), &about, &inside, depth + 1)
            }
            _ if elsewhere => {
                self.notes.push(format!("{}: what is mounted there left out", path.display()));
                Ok(())
            }
            FileType::RegularFile => self.file(directory, name, &about, inside),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&place, c"", Vec::new()).map_err(failed())?;
                let mut entry = entry(EntryType::Symlink, &inside, &about, 0);
                entry.link_name(target.as_bytes());
                self.put(&entry)
            }
            FileType::Fifo => self.put(&entry(EntryType::Fifo, &inside, &about, 0)),
            other => {
                let what = if other == FileType::Socket { "socket" } else { "device" };
                self.notes.push(format!("{}: {what} left out", path.display()));
                Ok(())
            }
        }
    }

    fn file(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &CString,
        about: &Stat,
        inside: Vec<u8>,
    ) -> Result<(), StoreError> {
        let path = self.path(&inside);
        // Whatever stands there now: a FIFO must not block, a link is not followed.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory, name, flags, Mode::empty())
            .map_err(StoreError::os("open", &path))?;
        let now = rustix::fs::fstat(&file).map_err(StoreError::os("read", &path))?;
        if (now.st_dev, now.st_ino) != (about.st_dev, about.st_ino) {
            return Err(changed(path));
        }
        let size = u64::try_from(now.st_size).unwrap_or_default();
        // Before a byte is written: a file with holes may be larger than any disk.
        self.left = self.left.checked_sub(size).ok_or_else(|| {
            let reason = format!("the files have more than {} bytes", self.max);
            StoreError::Rootfs { path: path.clone(), reason }
        })?;
        let mut entry = entry(EntryType::Regular, &inside, &now, size);
        self.attributes(file.as_fd(), &path, &mut entry)?;
        self.put(&entry)?;
        let copied = io::copy(&mut File::from(file).take(size), self.out)
            .map_err(StoreError::io("pack", &path))?;
        if copied != size {
            return Err(changed(path));
        }
        let padding = usize::try_from(size.next_multiple_of(512) - size).unwrap_or_default();
        self.out.write_all(&[0; 512][..padding]).map_err(StoreError::io("pack", &path))
    }

    /// The attributes that a layer may have; others are the host's own.
    fn attributes(
        &self,
        file: BorrowedFd<'_>,
        path: &Path,
        entry: &mut EntryBuilder,
    ) -> Result<(), StoreError> {
        let mut list = vec![0; XATTR_MAX];
        let length = match rustix::fs::flistxattr(file, &mut list) {
            Err(Errno::NOTSUP) => 0,
            listed => listed.map_err(StoreError::os("read the attributes of", path))?,
        };
        let mut names: Vec<&str> = list[..length]
            .split(|&byte| byte == 0)
            .filter_map(|name| std::str::from_utf8(name).ok())
            .filter(|name| {
                *name == "security.capability"
                    || name.starts_with("user.") && !name.starts_with("user.overlay.")
            })
            .collect();
        names.sort_unstable();
        let mut value = vec![0; XATTR_MAX];
        for name in names {
            let length = match rustix::fs::fgetxattr(file, name, &mut value) {
                // Gone since it was listed.
                Err(Errno::NODATA) => continue,
                read => read.map_err(StoreError::os("read the attributes of", path))?,
            };
            entry.add_pax(&format!("SCHILY.xattr.{name}"), &value[..length]);
        }
        Ok(())
    }

    fn put(&mut self, entry: &EntryBuilder) -> Result<(), StoreError> {
        let bytes = entry.clone().finish_bytes();
        self.out.write_all(&bytes).map_err(StoreError::io("pack", self.label))
    }
}

fn changed(path: PathBuf) -> StoreError {
    StoreError::Rootfs { path, reason: "it changed while it was read".to_owned() }
}

/// The header of an entry, its owner, mode and time as they are.
fn entry(kind: EntryType, inside: &[u8], about: &Stat, size: u64) -> EntryBuilder {
    let mut entry = EntryBuilder::new_ustar();
    entry.entry_type(kind).path(inside);
    let seconds = u64::try_from(about.st_mtime).unwrap_or_default();
    let numbers = entry
        .mode(about.st_mode & 0o7777)
        .and_then(|entry| entry.uid(about.st_uid.into()))
        .and_then(|entry| entry.gid(about.st_gid.into()))
        .and_then(|entry| entry.size(size))
        .and_then(|entry| entry.mtime(seconds));
    numbers.expect("a mode fits, and what does not fit becomes an extended header");
    if let Some(time) = precise(about.st_mtime, u32::try_from(about.st_mtime_nsec).unwrap_or(0)) {
        entry.add_pax("mtime", time);
    }
    entry
}

/// A time that a plain header cannot hold (POSIX `pax`, "Extended Header File Times"). The kernel
/// counts nanoseconds forwards, a decimal number with a sign does not.
fn precise(seconds: i64, nanoseconds: u32) -> Option<String> {
    match (seconds, nanoseconds) {
        (0.., 0) => None,
        (_, 0) => Some(seconds.to_string()),
        (0.., _) => Some(format!("{seconds}.{nanoseconds:09}")),
        _ => Some(format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanoseconds)),
    }
}

/// The names in a directory, sorted.
fn names(directory: BorrowedFd<'_>, path: &Path) -> Result<Vec<CString>, StoreError> {
    let failed = || StoreError::os("read", path);
    let mut names = Vec::new();
    for entry in Dir::read_from(directory).map_err(failed())? {
        let name = entry.map_err(failed())?.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_decimal_numbers() {
        let cases = [
            ((5, 0), None),
            ((5, 250_000_000), Some("5.250000000")),
            ((-1, 0), Some("-1")),
            ((-1, 750_000_000), Some("-0.250000000")),
            ((-86_401, 500_000_000), Some("-86400.500000000")),
        ];
        for ((seconds, nanoseconds), want) in cases {
            assert_eq!(precise(seconds, nanoseconds).as_deref(), want, "{seconds} {nanoseconds}");
        }
    }

    #[test]
    fn a_tree_with_a_huge_hole_is_refused() {
        let place = tempfile::tempdir().unwrap();
        File::create(place.path().join("hole")).unwrap().set_len(1 << 40).unwrap();
        let root = OwnedFd::from(File::open(place.path()).unwrap());
        let mut tar = Vec::new();
        let error = write(&root, place.path(), &mut tar, 1 << 30).expect_err("too large");
        assert!(error.to_string().contains("hole"), "{error}");
        assert!(tar.len() < 4096);
    }
}
