//! Joins a container's layers and its writable directory by overlayfs. Runs in the monitor.
//!
//! With a user namespace of the bundle's own the layers and the directory are joined through copies
//! of their mounts whose ids are mapped: on disk everything keeps the ids of the image, so that
//! bundles with other ranges, or with none, share the layers.

use std::fs::{self, DirBuilder};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

use super::mount_attr::{self, Depth};
use super::runtime_error::RuntimeError;
use super::user_namespace::Mapping;
use crate::fsutil::PathContext;

/// What is joined, and where it is seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Overlay<'a> {
    /// The lowest first.
    pub(crate) layers: &'a [PathBuf],
    /// Has the writable directory, `upper`, and overlayfs' own, `work`.
    pub(crate) storage: &'a Path,
    /// Where it is mounted.
    pub(crate) target: &'a Path,
    /// The SELinux label of all files on it, whatever they have on disk.
    pub(crate) label: Option<&'a str>,
}

impl Overlay<'_> {
    /// Mounts it as it is.
    ///
    /// # Errors
    /// [`RuntimeError::Overlay`].
    pub(crate) fn mount(&self) -> Result<(), RuntimeError> {
        let mounted = retry_while_busy(|| self.join(self.layers, self.storage));
        mounted.map_err(|e| self.failed(e))
    }

    /// Mounts it with mapped ids. `place` is a directory's path that is free; it is free again
    /// afterwards.
    ///
    /// # Errors
    /// [`RuntimeError::IdMap`] for a file system that cannot, [`RuntimeError::MappedOverlay`] for a
    /// kernel whose overlayfs cannot.
    pub(crate) fn mount_mapped(&self, mapping: &Mapping, place: &Path) -> Result<(), RuntimeError> {
        let copies = Copies::new(place)?;
        let mut layers = Vec::with_capacity(self.layers.len());
        for (number, layer) in self.layers.iter().enumerate() {
            layers.push(copies.add(&number.to_string(), layer, mapping)?);
        }
        // One copy for both: overlayfs wants them on one mount.
        let storage = copies.add("storage", self.storage, mapping)?;
        let join = || retry_while_busy(|| self.join(&layers, &storage));
        // overlayfs makes its own files as whoever mounted it.
        match mapping.as_root_inside(join).at("take the ids of root for", self.storage)? {
            Ok(()) => Ok(()),
            Err(Errno::INVAL | Errno::OVERFLOW) => Err(RuntimeError::MappedOverlay {
                path: self.storage.to_owned(),
                source: Errno::INVAL.into(),
            }),
            Err(e) => Err(self.failed(e)),
        }
    }

    /// Joins the layers, the lowest first in `layers`, and mounts the result.
    fn join(&self, layers: &[PathBuf], storage: &Path) -> Result<(), Errno> {
        let (upper, work) = (storage.join("upper"), storage.join("work"));
        match self.join_by_parts(layers, &upper, &work) {
            // Linux before 6.5 knows no `lowerdir+`.
            Err(Errno::INVAL) => self.join_by_option_string(layers, &upper, &work),
            other => other,
        }
    }

    /// One message for each layer: no limit on their number but the kernel's own of 500.
    fn join_by_parts(&self, layers: &[PathBuf], upper: &Path, work: &Path) -> Result<(), Errno> {
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for layer in layers.iter().rev() {
            fsconfig_set_string(&fs, "lowerdir+", layer)?;
        }
        fsconfig_set_string(&fs, "upperdir", upper)?;
        fsconfig_set_string(&fs, "workdir", work)?;
        // The writable layer goes with the container: nothing in it has to survive a power cut, and
        // unmounting need not wait for the disk.
        fsconfig_set_flag(&fs, "volatile")?;
        if let Some(label) = self.label {
            fsconfig_set_string(&fs, "context", label)?;
        }
        fsconfig_create(&fs)?;
        let mount = fsmount(
            &fs,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID,
        )?;
        move_mount(mount, "", CWD, self.target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
    }

    /// All in one string of at most a page. Paths too long for that are named by descriptors, which makes
    /// room for some 220 layers.
    fn join_by_option_string(
        &self,
        layers: &[PathBuf],
        upper: &Path,
        work: &Path,
    ) -> Result<(), Errno> {
        // The kernel takes one byte less, and so much of a longer string without a word (mount(2)).
        const PAGE: usize = 4_096;
        let mut options = option_string(layers, upper, work, self.label);
        // Until the kernel has opened them itself.
        let mut opened = Vec::new();
        if options.len() >= PAGE {
            let mut names = Vec::new();
            for layer in layers {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let directory = rustix::fs::open(layer, flags, Mode::empty())?;
                names.push(PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())));
                opened.push(directory);
            }
            options = option_string(&names, upper, work, self.label);
        }
        if options.len() >= PAGE {
            return Err(Errno::TOOBIG);
        }
        let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
        rustix::mount::mount(
            "overlay",
            self.target,
            "overlay",
            MountFlags::NODEV | MountFlags::NOSUID,
            Some(options.as_c_str()),
        )
    }

    fn failed(&self, error: Errno) -> RuntimeError {
        RuntimeError::Overlay { path: self.storage.to_owned(), source: error.into() }
    }
}

/// Copies of mounts with mapped ids, where paths lead to them. Once overlayfs has been told the paths
/// they may go: it keeps the mounts.
struct Copies<'a> {
    place: &'a Path,
}

impl<'a> Copies<'a> {
    fn new(place: &'a Path) -> Result<Self, RuntimeError> {
        // A monitor that was killed meanwhile has left it; what it had mounted there went with it.
        let _ = fs::remove_dir(place);
        DirBuilder::new().mode(0o700).create(place).at("create directory", place)?;
        let copies = Self { place };
        let attributes = MountAttrFlags::empty();
        (|| {
            let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_create(&fs)?;
            let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
            move_mount(mount, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        })()
        .at("mount a tmpfs on", place)?;
        Ok(copies)
    }

    fn add(&self, name: &str, source: &Path, mapping: &Mapping) -> Result<PathBuf, RuntimeError> {
        let path = self.place.join(name);
        DirBuilder::new().create(&path).at("create directory", &path)?;
        let copy = mount_attr::copy(source, Depth::Top).at("copy the mount of", source)?;
        mount_attr::map_ids(copy.as_fd(), mapping.namespace(), Depth::Top)
            .map_err(|e| RuntimeError::id_map(source, e))?;
        mount_attr::attach(copy, &path).at("mount on", &path)?;
        Ok(path)
    }
}

impl Drop for Copies<'_> {
    fn drop(&mut self) {
        // What stays is in this process' own mount namespace, and goes with it.
        let _ = unmount(self.place, UnmountFlags::DETACH);
        let _ = fs::remove_dir(self.place);
    }
}

/// The mount of the run before goes with its last process, a moment after that is dead; until then
/// some kernels do not give its writable layer to another mount (`index=on`).
fn retry_while_busy(mut mount: impl FnMut() -> Result<(), Errno>) -> Result<(), Errno> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match mount() {
            Err(Errno::BUSY) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

fn option_string(layers: &[PathBuf], upper: &Path, work: &Path, label: Option<&str>) -> Vec<u8> {
    let mut options = b"volatile,".to_vec();
    if let Some(label) = label {
        // In quotes, for it may hold commas.
        options.extend_from_slice(format!("context=\"{label}\",").as_bytes());
    }
    options.extend_from_slice(b"lowerdir=");
    for (i, layer) in layers.iter().rev().enumerate() {
        if i > 0 {
            options.push(b':');
        }
        escape(layer, &mut options);
    }
    options.extend_from_slice(b",upperdir=");
    escape(upper, &mut options);
    options.extend_from_slice(b",workdir=");
    escape(work, &mut options);
    options
}

/// `:` and `,` part the options, `\` takes their meaning away (overlayfs.rst, "Multiple lower layers").
fn escape(path: &Path, options: &mut Vec<u8>) {
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b':' | b',' | b'\\') {
            options.push(b'\\');
        }
        options.push(*byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_string_survives_odd_paths() {
        let mut out = Vec::new();
        escape(Path::new(r"/a:b,c\d"), &mut out);
        assert_eq!(out, br"/a\:b\,c\\d");
    }
}
