//! Gives a volume's source another label, with everything in it.

use std::ffi::{OsStr, OsString};
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
/// left as it is. What vanishes meanwhile is passed over, and so is what lies in directories that no path
/// from the source can name: they go deeper than 4095 bytes (`PATH_MAX`).
///
/// # Errors
/// [`Failed`]; a part of the rest may be labelled then.
pub(crate) fn relabel(source: &Path, label: &str) -> Result<(), Failed> {
    each(source, |place| attribute::label(place, label))
}

/// Does something to the place at `source` and to all in it, directories before what they hold. It is
/// given a handle that can only be looked at (`O_PATH`).
fn each(source: &Path, mut act: impl FnMut(&OwnedFd) -> io::Result<()>) -> Result<(), Failed> {
    let mut visit = |place: &OwnedFd| act(place).and_then(|()| is_directory(place));
    // The path has no links: one that is there now was not when it was looked at.
    let top = openat2(CWD, source, HANDLE, Mode::empty(), ResolveFlags::NO_SYMLINKS)
        .map_err(|e| (source.to_owned(), e.into()))?;
    let mut directories = Vec::new();
    if visit(&top).map_err(|e| (source.to_owned(), e))? {
        directories.push(PathBuf::new());
    }
    // By a directory's path from the top, not by its open parents: however deep it goes, a few descriptors
    // do. What it holds is opened from there: a path is gone through once a directory.
    while let Some(directory) = directories.pop() {
        let failed = |e: io::Error| (source.join(&directory), e);
        // The top itself is `.` to the kernel.
        let path = if directory == Path::new("") { Path::new(".") } else { &directory };
        let Some(opened) = open(&top, path).map_err(failed)? else { continue };
        for name in names(&opened).map_err(failed)? {
            let below = directory.join(&name);
            match visit_in(&opened, &name, &mut visit) {
                Ok(true) => directories.push(below),
                Ok(false) => {}
                Err(e) => return Err((source.join(below), e)),
            }
        }
    }
    Ok(())
}

/// Visits what a directory holds, and says whether it is a directory itself.
fn visit_in(
    directory: &OwnedFd,
    name: &OsStr,
    visit: &mut impl FnMut(&OwnedFd) -> io::Result<bool>,
) -> io::Result<bool> {
    match open(directory, Path::new(name))? {
        Some(place) => visit(&place),
        None => Ok(false),
    }
}

/// Something below a directory; `None` if it is gone, on another mount, or too deep.
fn open(directory: &OwnedFd, below: &Path) -> io::Result<Option<OwnedFd>> {
    // A link at the end is a place of its own; one on the way was a directory a moment ago.
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    match openat2(directory, below, HANDLE | OFlags::NOFOLLOW, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG) => {
            Ok(None)
        }
        Err(e) => Err(e.into()),
    }
}

fn is_directory(place: &OwnedFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(place)?.st_mode).is_dir())
}

/// What a directory holds; nothing if it is none any more.
fn names(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    // The handle cannot be read from, the place it stands for can.
    let place = format!("/proc/self/fd/{}", directory.as_raw_fd());
    match fs::read_dir(place) {
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.file_name())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn path_of(place: &OwnedFd) -> PathBuf {
        fs::read_link(format!("/proc/self/fd/{}", place.as_raw_fd())).unwrap()
    }

    fn visited(source: &Path) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        each(source, |place| {
            paths.push(path_of(place));
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
        let through_a_link = each(&top.join("a/out"), |_| Ok(()));
        assert_eq!(through_a_link.unwrap_err().0, top.join("a/out"));
    }

    #[test]
    fn what_is_deeper_than_a_path_can_say_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        let name = "d".repeat(200);
        let mut place = openat2(CWD, &top, HANDLE, Mode::empty(), ResolveFlags::empty()).unwrap();
        for _ in 0..40 {
            rustix::fs::mkdirat(&place, &name, Mode::RWXU).unwrap();
            place = open(&place, Path::new(&name)).unwrap().unwrap();
        }
        let mut visited = 0;
        let counted = each(&top, |_| {
            visited += 1;
            Ok(())
        });
        counted.unwrap();
        // The top, 20 that a path from there can name, and what the last one of them holds.
        assert_eq!(visited, 22);
    }

    #[test]
    fn the_path_that_failed_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        fs::write(top.join("file"), "").unwrap();
        let refused = each(&top, |place| match path_of(place).ends_with("file") {
            true => Err(io::ErrorKind::PermissionDenied.into()),
            false => Ok(()),
        });
        let (path, error) = refused.unwrap_err();
        assert_eq!(path, top.join("file"));
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
