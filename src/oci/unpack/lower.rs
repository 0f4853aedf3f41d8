//! What a layer looks up in the layers below it.

use std::os::fd::OwnedFd;

use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags, Stat};

/// What a path is in a stack of layers.
pub(in crate::oci) enum Lower {
    /// It is not there, or hidden.
    Absent,
    /// It is there.
    Found(Box<Stat>),
}

/// Looks a path up in layers, the topmost first, without following symbolic links.
pub(in crate::oci) fn lookup(layers: &[OwnedFd], path: &[u8]) -> Lower {
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    for layer in layers {
        // In an opaque directory only this one layer counts.
        let mut last = false;
        let mut end = 0;
        while let Some(rest) = path.get(end..) {
            end += rest.iter().skip(1).position(|&b| b == b'/').map_or(rest.len(), |at| at + 1);
            let part = if end == 0 { b"." } else { &path[..end] };
            let stat = fs::openat2(layer, part, look, Mode::empty(), inside)
                .and_then(|place| fs::fstat(&place));
            let Ok(stat) = stat else { break };
            if is_whiteout(&stat) {
                return Lower::Absent;
            }
            if end == path.len() {
                return Lower::Found(Box::new(stat));
            }
            // A file here hides directories of that name further below.
            if !is(&stat, FileType::Directory) {
                return Lower::Absent;
            }
            let opened = fs::openat2(layer, part, directory, Mode::empty(), inside);
            last |= opened.is_ok_and(|directory| is_opaque(&directory));
        }
        if last {
            return Lower::Absent;
        }
    }
    Lower::Absent
}

pub(super) fn is_opaque(directory: &OwnedFd) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"].iter().any(|name| {
        let mut value = [0u8; 1];
        fs::fgetxattr(directory, *name, &mut value[..]).is_ok_and(|length| length == 1)
            && value == *b"y"
    })
}

pub(super) fn is_whiteout(stat: &Stat) -> bool {
    is(stat, FileType::CharacterDevice) && stat.st_rdev == 0
}

pub(super) fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}
