//! What a file has besides its content: owner, extended attributes, mode and time.

use std::os::fd::OwnedFd;

use rustix::fs::{self, AtFlags, Gid, Mode, Stat, Uid, XattrFlags};
use rustix::io::Errno;

use super::entry::{Meta, Time};
use super::tree::Tree;
use super::{Form, LayerFault, Notes};

impl Tree<'_> {
    /// Owner first, since it clears capabilities and set-user-id bits; then the rest. What the file
    /// has already is left: most are root's, with a mode that the umask lets through.
    pub(super) fn describe(
        &self,
        path: &[u8],
        file: &OwnedFd,
        meta: &Meta,
        notes: &mut Notes,
    ) -> Result<(), LayerFault> {
        let found = fs::fstat(file).map_err(LayerFault::os("read the state of the file"))?;
        let owned = self.is_owned(&found, meta);
        if !owned {
            fs::fchown(file, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))
                .map_err(LayerFault::os("set the owner"))?;
        }
        self.set_xattrs(file, path, meta, notes)?;
        if !owned || found.st_mode & 0o7777 != meta.mode {
            fs::fchmod(file, Mode::from_raw_mode(meta.mode))
                .map_err(LayerFault::os("set the mode"))?;
        }
        if let Some(mtime) = meta.mtime {
            fs::futimens(file, &times(mtime)).map_err(LayerFault::os("set the time"))?;
        }
        Ok(())
    }

    /// Whether there is nothing left to do for what `found` is of, but for its time.
    pub(super) fn is_described(&self, found: &Stat, meta: &Meta) -> bool {
        self.is_owned(found, meta) && found.st_mode & 0o7777 == meta.mode
    }

    fn is_owned(&self, found: &Stat, meta: &Meta) -> bool {
        self.form == Form::Rootless || (found.st_uid, found.st_gid) == (meta.uid, meta.gid)
    }

    /// The same for what cannot be opened. Neither a symbolic link's mode nor its attributes count.
    pub(super) fn describe_at(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        meta: &Meta,
    ) -> Result<(), LayerFault> {
        if self.form == Form::Privileged {
            let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
            fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(LayerFault::os("set the owner"))?;
        }
        set_time_at(parent, name, meta)
    }

    pub(super) fn set_xattrs(
        &self,
        file: &OwnedFd,
        path: &[u8],
        meta: &Meta,
        notes: &mut Notes,
    ) -> Result<(), LayerFault> {
        let path = String::from_utf8_lossy(path);
        for (name, value) in &meta.xattrs {
            let user = name.starts_with("user.");
            if !user && self.form == Form::Rootless {
                notes.add(format_args!("{path}: attribute {name} left out, it needs root"));
                continue;
            }
            match fs::fsetxattr(file, name.as_str(), value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP) if user => {
                    notes.add(format_args!(
                        "{path}: attribute {name} left out, the file system has none"
                    ));
                }
                Err(errno) => return Err(LayerFault::os("set an attribute")(errno)),
            }
        }
        Ok(())
    }
}

/// Sets the time of what has this name there, be it a symbolic link.
pub(super) fn set_time_at(parent: &OwnedFd, name: &[u8], meta: &Meta) -> Result<(), LayerFault> {
    let Some(mtime) = meta.mtime else { return Ok(()) };
    fs::utimensat(parent, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(LayerFault::os("set the time"))
}

/// Moves on in a new file: what is left out becomes a hole.
pub(super) fn seek(file: &OwnedFd, offset: u64) -> Result<(), LayerFault> {
    fs::seek(file, fs::SeekFrom::Start(offset))
        .map(|_| ())
        .map_err(LayerFault::os("seek in the file"))
}

/// Gives a file its size, with a hole at the end if need be.
pub(super) fn set_size(file: &OwnedFd, size: u64) -> Result<(), LayerFault> {
    fs::ftruncate(file, size).map_err(LayerFault::os("set the size of the file"))
}

fn times(time: Time) -> fs::Timestamps {
    let time = fs::Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    fs::Timestamps { last_access: time, last_modification: time }
}
