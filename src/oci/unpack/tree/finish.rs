//! What is written down when all of a layer's files are there: what it hides, and its directories'
//! owners, modes and times.

use std::os::fd::OwnedFd;

use rustix::fs::{self, AtFlags, FileType, XattrFlags};
use rustix::io::Errno;

use super::{Found, PLACE, Tree, look, replaced};
use crate::oci::unpack::describe::set_time_at;
use crate::oci::unpack::entry::{Meta, split};
use crate::oci::unpack::lower::is;
use crate::oci::unpack::{Form, LayerFault, Notes};

impl Tree<'_> {
    /// Writes down what had to wait until all files were there.
    pub(in crate::oci::unpack) fn finish(mut self) -> Result<(), LayerFault> {
        if self.opaque.remove(&b""[..]) {
            self.hide_lower_roots()?;
        }
        for path in &self.opaque {
            match self.open_directory(path) {
                Ok(directory) => self.mark_opaque(&directory)?,
                Err(errno) if replaced(errno) => {}
                Err(errno) => return Err(LayerFault::os("open the directory")(errno)),
            }
        }
        for path in &self.whiteouts {
            let (parent, name) = split(path);
            // Nothing from below is seen here, so the whiteout would only show as a broken name.
            if self.opaque.contains(parent)
                && let Ok(parent) = self.resolve(parent, PLACE)
                && look(&parent, name)? == Found::Whiteout
            {
                fs::unlinkat(&parent, name, AtFlags::empty())
                    .map_err(LayerFault::os("remove the whiteout"))?;
            }
        }
        // In this order every directory comes after those inside it.
        for (path, meta) in std::mem::take(&mut self.directories).into_iter().rev() {
            match self.finish_directory(&path, meta) {
                Err(errno) if replaced(errno) => {}
                done => done.map_err(LayerFault::os("open the directory"))??,
            }
        }
        Ok(())
    }

    /// Gives a directory its owner, mode and time. Most have the first two already, and need not be
    /// opened for the third.
    fn finish_directory(
        &mut self,
        path: &[u8],
        meta: Meta,
    ) -> Result<Result<(), LayerFault>, Errno> {
        let (parent, name) = split(path);
        if !path.is_empty() {
            let parent = self.there(parent)?;
            let found = fs::statat(&*parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if !is(&found, FileType::Directory) {
                return Err(Errno::NOTDIR);
            }
            if self.is_described(&found, &meta) {
                return Ok(set_time_at(&parent, name, &meta));
            }
        }
        let directory = self.open_directory(path)?;
        let bare = Meta { xattrs: Vec::new(), ..meta };
        Ok(self.describe(path, &directory, &bare, &mut Notes::default()))
    }

    /// Overlayfs merges the layers' roots without asking whether one is opaque, so each name
    /// below is hidden by itself.
    fn hide_lower_roots(&mut self) -> Result<(), LayerFault> {
        for lower in self.lower {
            let names =
                fs::Dir::read_from(lower).map_err(LayerFault::os("read the layer below"))?;
            for name in names {
                let name = name.map_err(LayerFault::os("read the layer below"))?;
                match name.file_name().to_bytes() {
                    b"." | b".." => {}
                    name => self.whiteout(name)?,
                }
            }
        }
        Ok(())
    }

    fn mark_opaque(&self, directory: &OwnedFd) -> Result<(), LayerFault> {
        let name = match self.form {
            Form::Privileged => "trusted.overlay.opaque",
            Form::Rootless => "user.overlay.opaque",
        };
        fs::fsetxattr(directory, name, b"y", XattrFlags::empty())
            .map_err(LayerFault::os("mark the directory opaque"))
    }
}
