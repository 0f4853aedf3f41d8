//! Gives a volume's source another label, with everything in it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::attribute;

/// What is open can be looked at, and no more.
const HANDLE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// The path that could not be labelled, and what the kernel said.
pub(crate) type Failed = (PathBuf, io::Error);

/// Labels the file or directory at `source` and all that is in it: nothing that links lead to, and
/// nothing on another mount. What has the label keeps it untouched. A file system without labels is
/// left as it is. What vanishes meanwhile is passed over.
///
/// # Errors
/// [`Failed`]; a part of the rest may be labelled then.
pub(crate) fn relabel(source: &Path, label: &str) -> Result<(), Failed> {
    each(source, |_, handle| attribute::label(handle, label).map(drop))
}

/// Does something to the place at `source` and to all in it, directories before what they hold. It is
/// given a handle that can only be looked at (`O_PATH`).
fn each(
    source: &Path,
    mut act: impl FnMut(&Path, &OwnedFd) -> io::Result<()>,
) -> Result<(), Failed> {
    // The path has no links: one that is there now was not when it was looked at.
    let top = openat2(CWD, source, HANDLE, Mode::empty(), ResolveFlags::NO_SYMLINKS)
        .map_err(|e| (source.to_owned(), e.into()))?;
    let mut visit = |path: &Path, place: &OwnedFd| {
        act(path, place).and_then(|()| is_directory(place)).map_err(|e| (path.to_owned(), e))
    };
    let mut directories = Vec::new();
    if visit(source, &top)? {
        directories.push(PathBuf::new());
    }
    // By paths from the top, not by open directories: however deep it goes, two descriptors do.
    while let Some(directory) = directories.pop() {
        let failed = |path: &Path| {
            let path = source.join(path);
            move |e: io::Error| (path, e)
        };
        for name in names(&top, &directory).map_err(failed(&directory))? {
            let below = directory.join(name);
            let Some(place) = open(&top, &below).map_err(failed(&below))? else { continue };
            if visit(&source.join(&below), &place)? {
                directories.push(below);
            }
        }
    }
    Ok(())
}

/// Something below the top; `None` if it is gone, or on another mount.
fn open(top: &OwnedFd, below: &Path) -> io::Result<Option<OwnedFd>> {
    // A link at the end is a place of its own; one on the way was a directory a moment ago.
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    match openat2(top, below, HANDLE | OFlags::NOFOLLOW, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn is_directory(place: &OwnedFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(place)?.st_mode).is_dir())
}

/// What is in a directory below the top; nothing if it is gone.
fn names(top: &OwnedFd, directory: &Path) -> io::Result<Vec<OsString>> {
    // The top itself is `.` to the kernel.
    let directory = if directory == Path::new("") { Path::new(".") } else { directory };
    let Some(handle) = open(top, directory)? else { return Ok(Vec::new()) };
    // The handle cannot be read from, the place it stands for can.
    let place = format!("/proc/self/fd/{}", handle.as_raw_fd());
    fs::read_dir(place)?.map(|entry| Ok(entry?.file_name())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn visited(source: &Path) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        each(source, |path, _| {
            paths.push(path.to_owned());
            Ok(())
        })
        .unwrap();
        paths.sort();
        paths
    }

    #[test]
    fn everything_is_visited_and_no_link_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::write(top.join("a/b/file"), "").unwrap();
        symlink(outside.path(), top.join("a/out")).unwrap();
        symlink("nowhere", top.join("dangling")).unwrap();
        let below = ["a", "a/b", "a/b/file", "a/out", "dangling"].map(|below| top.join(below));
        let want = [std::slice::from_ref(&top), below.as_slice()].concat();
        assert_eq!(visited(&top), want);
        assert_eq!(visited(&top.join("a/b/file")), [top.join("a/b/file")]);
        let through_a_link = each(&top.join("a/out"), |_, _| Ok(()));
        assert_eq!(through_a_link.unwrap_err().0, top.join("a/out"));
    }

    #[test]
    fn it_goes_as_deep_as_a_path_can() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        let below: PathBuf = std::iter::repeat_n("d", 1200).collect();
        fs::create_dir_all(top.join(&below)).unwrap();
        assert_eq!(visited(&top).len(), 1201);
    }

    #[test]
    fn the_path_that_failed_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        fs::write(top.join("file"), "").unwrap();
        let refused = each(&top, |path, _| match path.ends_with("file") {
            true => Err(io::ErrorKind::PermissionDenied.into()),
            false => Ok(()),
        });
        let (path, error) = refused.unwrap_err();
        assert_eq!(path, top.join("file"));
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
