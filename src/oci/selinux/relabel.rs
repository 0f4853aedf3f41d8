//! Gives a volume's source another label, with everything in it.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::attribute;

/// Labels the file or directory at `source` and all that is in it: nothing that links lead to, and
/// nothing on another mount. What has the label keeps it untouched. A file system without labels is
/// left as it is. What vanishes meanwhile is passed over.
///
/// # Errors
/// The path that could not be labelled, and what the kernel said; a part of the rest may be
/// labelled then.
pub(crate) fn relabel(source: &Path, label: &str) -> Result<(), (PathBuf, io::Error)> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |e: io::Error| (path, e)
    };
    // The path has no links: one that is there now was not when it was looked at.
    let top = openat2(CWD, source, handle(), Mode::empty(), ResolveFlags::NO_SYMLINKS)
        .map_err(|e| failed(source)(e.into()))?;
    attribute::label(&top, label).map_err(failed(source))?;
    let mut directories = Vec::new();
    if is_directory(&top).map_err(failed(source))? {
        directories.push(PathBuf::from("."));
    }
    // By paths from the top, not by open directories: however deep it goes, two descriptors do.
    while let Some(directory) = directories.pop() {
        let path = source.join(&directory);
        let entries = match open(&top, &directory).and_then(|fd| fd.map(names).transpose()) {
            Ok(entries) => entries.unwrap_or_default(),
            Err(e) => return Err(failed(&path)(e)),
        };
        for name in entries {
            let below = directory.join(name);
            let path = source.join(&below);
            let Some(entry) = open(&top, &below).map_err(failed(&path))? else { continue };
            attribute::label(&entry, label).map_err(failed(&path))?;
            if is_directory(&entry).map_err(failed(&path))? {
                directories.push(below);
            }
        }
    }
    Ok(())
}

fn handle() -> OFlags {
    OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// Something below the top; `None` if it is gone, or on another mount.
fn open(top: &OwnedFd, below: &Path) -> io::Result<Option<OwnedFd>> {
    // A link at the end is labelled itself; one on the way was a directory a moment ago.
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    match openat2(top, below, handle(), Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn is_directory(fd: &OwnedFd) -> io::Result<bool> {
    let about = rustix::fs::fstat(fd)?;
    Ok(rustix::fs::FileType::from_raw_mode(about.st_mode).is_dir())
}

fn names(directory: OwnedFd) -> io::Result<Vec<std::ffi::OsString>> {
    // The handle cannot be read from, the place it stands for can.
    let place = format!("/proc/self/fd/{}", directory.as_raw_fd());
    fs::read_dir(place)?.map(|entry| Ok(entry?.file_name())).collect()
}
