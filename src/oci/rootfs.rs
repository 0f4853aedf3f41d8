//! The container's root file system: its layers and a writable directory joined by overlayfs, and
//! the few files carboy puts into it. Runs in the monitor, which has a mount namespace of its own:
//! no mount is ever seen on the host, and all of them go with the processes.
//!
//! Nothing of the image is trusted. Every path inside is resolved by the kernel with the root
//! file system as its root (`openat2(2)`, RESOLVE_IN_ROOT): a symbolic link of the image cannot
//! lead out.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::overlay::Overlay;
use super::runtime_error::RuntimeError;
use super::runtime_spec::TmpfsPlace;
use super::spec::{Container, Volume};
use super::user_namespace::Mapping;
use super::volume;
use crate::fsutil;

/// Opens a root file system and prepares it.
#[derive(Debug)]
pub(crate) struct Rootfs {
    path: PathBuf,
    root: OwnedFd,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RuntimeError {
    let path = path.to_owned();
    move |source| RuntimeError::Rootfs { action, path, source }
}

impl Rootfs {
    /// Where a container's root file system is mounted; the directory itself is on the host.
    pub(crate) fn mount_point(container: &Container) -> PathBuf {
        container.state.join("rootfs")
    }

    /// Mounts the container's layers with the writable directory on top, a new one unless it is
    /// there; with mapped ids where the container has ids of its own.
    ///
    /// # Errors
    /// [`RuntimeError::Rootfs`] that names the step, or what [`Overlay`] says.
    pub(crate) fn mount(
        container: &Container,
        mapping: Option<&Mapping>,
    ) -> Result<Self, RuntimeError> {
        let path = Self::mount_point(container);
        let upper = container.storage.join("upper");
        let work = container.storage.join("work");
        // What overlayfs keeps there is of one mount, which is gone; of a writable layer that is
        // mounted again only what was written counts (overlayfs.rst, "Volatile mount").
        fsutil::remove_tree(&work)?;
        let kept = upper.is_dir();
        for directory in [&path, &upper, &work] {
            if kept && directory == &upper {
                continue;
            }
            fs::DirBuilder::new()
                .mode(0o755)
                .create(directory)
                .map_err(failed("create", directory))?;
        }
        // The writable directory's own attributes are those of `/` inside.
        if let Some(top) = container.layers.last().filter(|_| !kept) {
            let of_image = fs::metadata(top).map_err(failed("stat", top))?;
            chown(&upper, Some(of_image.uid()), Some(of_image.gid()))
                .map_err(failed("chown", &upper))?;
            let mode = fs::Permissions::from_mode(of_image.mode() & 0o7777);
            fs::set_permissions(&upper, mode).map_err(failed("chmod", &upper))?;
        }
        let overlay = Overlay {
            layers: &container.layers,
            storage: &container.storage,
            target: &path,
            label: container.selinux.as_ref().map(|labels| labels.file.as_str()),
        };
        match mapping {
            Some(mapping) => overlay.mount_mapped(mapping, &container.state.join("layers"))?,
            None => overlay.mount()?,
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(|e| failed("open", &path)(e.into()))?;
        Ok(Self { path, root })
    }

    /// Unmounts the root file system of a run that has ended, so that it can be mounted again.
    ///
    /// # Errors
    /// [`RuntimeError::Rootfs`].
    pub(crate) fn release(container: &Container) -> Result<(), RuntimeError> {
        let path = Self::mount_point(container);
        match rustix::mount::unmount(&path, UnmountFlags::DETACH) {
            // A monitor that took over from another has not mounted it.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(e) => return Err(failed("unmount", &path)(e.into())),
        }
        match fs::remove_dir(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(e)),
            _ => Ok(()),
        }
    }

    /// The root file system of a process that runs in it.
    ///
    /// # Errors
    /// [`RuntimeError::Rootfs`].
    pub(crate) fn of_process(pid: i32) -> Result<Self, RuntimeError> {
        let path = PathBuf::from(format!("/proc/{pid}/root"));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(|e| failed("open", &path)(e.into()))?;
        Ok(Self { path, root })
    }

    /// Refuses an image that has something else where the runtime mounts its own file systems.
    ///
    /// # Errors
    /// [`RuntimeError::HostileRootfs`].
    pub(crate) fn check_mount_points(&self) -> Result<(), RuntimeError> {
        for path in ["/dev", "/proc", "/sys"] {
            let found = match rustix::fs::statat(&self.root, &path[1..], AtFlags::SYMLINK_NOFOLLOW)
            {
                Err(Errno::NOENT) => continue,
                other => other.map_err(|e| failed("stat", Path::new(path))(e.into()))?,
            };
            let found = match FileType::from_raw_mode(found.st_mode) {
                FileType::Directory => continue,
                FileType::Symlink => "symbolic link",
                _ => "file",
            };
            return Err(RuntimeError::HostileRootfs { path, found });
        }
        Ok(())
    }

    /// Makes the working directory if it is not there; what it is without links.
    ///
    /// # Errors
    /// [`RuntimeError::Rootfs`] if something else is in the way.
    pub(crate) fn make_working_dir(&self, inside: &Path) -> Result<PathBuf, RuntimeError> {
        let directory = self.ensure_dir(inside)?;
        self.inside(directory.as_fd(), inside)
    }

    /// Makes the place a file system is mounted on, and says where it really is.
    ///
    /// # Errors
    /// [`RuntimeError::Rootfs`] if something else is in the way.
    pub(crate) fn make_dir(&self, inside: &Path) -> Result<PathBuf, RuntimeError> {
        let directory = self.ensure_dir(inside)?;
        self.inside(directory.as_fd(), inside)
    }

    /// Writes a file, replacing whatever is there but a directory.
    ///
    /// # Errors
    /// [`RuntimeError::Rootfs`].
    pub(crate) fn write(&self, inside: &Path, content: &str) -> Result<(), RuntimeError> {
        let (directory, name) = self.parent(inside)?;
        match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(failed("replace", inside)(e.into())),
        }
        let mut file: File = create(directory.as_fd(), name, inside)?.into();
        file.write_all(content.as_bytes()).map_err(failed("write", inside))?;
        // Whatever the umask: everybody inside may read it.
        file.set_permissions(fs::Permissions::from_mode(0o644)).map_err(failed("chmod", inside))
    }

    /// Makes sure that a directory is there.
    ///
    /// # Errors
    /// [`RuntimeError::Rootfs`] that names it.
    pub(crate) fn check_dir(&self, inside: &Path) -> Result<(), RuntimeError> {
        let opened = self.open(inside, OFlags::PATH | OFlags::DIRECTORY);
        opened.map(drop).map_err(|e| failed("enter directory", inside)(e.into()))
    }

    /// Whatever is there, as a handle that can only be looked at (`O_PATH`).
    ///
    /// # Errors
    /// [`RuntimeError::Rootfs`].
    pub(crate) fn find(&self, inside: &Path) -> Result<OwnedFd, RuntimeError> {
        self.open(inside, OFlags::PATH).map_err(|e| failed("find", inside)(e.into()))
    }

    /// Reads a regular file of at most `limit` bytes; empty if it is not there.
    ///
    /// # Errors
    /// [`RuntimeError::Rootfs`].
    pub(crate) fn read(&self, inside: &Path, limit: usize) -> Result<Vec<u8>, RuntimeError> {
        // Not to hang on a FIFO.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file: File = match self.open(inside, flags) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            other => other.map_err(|e| failed("open", inside)(e.into()))?.into(),
        };
        if !file.metadata().map_err(failed("stat", inside))?.is_file() {
            return Ok(Vec::new());
        }
        let mut content = Vec::new();
        // One byte more, so that a longer file is seen as one.
        let bound = limit as u64 + 1;
        file.take(bound).read_to_end(&mut content).map_err(failed("read", inside))?;
        Ok(content)
    }

    /// Makes the places of all that is mounted at the user's wish, and puts where they really are in
    /// their stead: the runtime follows no link of the image.
    ///
    /// # Errors
    /// [`RuntimeError::Misled`] if the image's links lead one of them onto another one, or where
    /// nothing may be mounted.
    pub(crate) fn place_mounts(&self, container: &mut Container) -> Result<(), RuntimeError> {
        let mut taken = Vec::new();
        let mut place = |wanted: &mut PathBuf, found: PathBuf| {
            let misled = |source| RuntimeError::Misled { destination: wanted.clone(), source };
            volume::check_place(&found).map_err(misled)?;
            taken.push(found.clone());
            volume::check(taken.iter().map(PathBuf::as_path)).map_err(misled)?;
            *wanted = found;
            Ok::<_, RuntimeError>(())
        };
        for tmpfs in &mut container.tmpfs {
            let found = self.make_dir(&tmpfs.destination)?;
            place(&mut tmpfs.destination, found)?;
        }
        for volume in &mut container.volumes {
            let found = self.volume_target(volume)?;
            place(&mut volume.destination, found)?;
        }
        Ok(())
    }

    /// Makes the place a volume is mounted on, and says where it really is.
    ///
    /// # Errors
    /// [`RuntimeError::Rootfs`] if the image has something of another kind there.
    pub(crate) fn volume_target(&self, volume: &Volume) -> Result<PathBuf, RuntimeError> {
        let inside = &volume.destination;
        let source = fs::metadata(&volume.source).map_err(failed("stat", &volume.source))?;
        if source.is_dir() {
            return self.make_dir(inside);
        }
        match self.open(inside, OFlags::PATH) {
            Ok(found) => self.inside(found.as_fd(), inside),
            Err(Errno::NOENT) => {
                let (directory, name) = self.parent(inside)?;
                let made = create(directory.as_fd(), name, inside)?;
                self.inside(made.as_fd(), inside)
            }
            Err(e) => Err(failed("open", inside)(e.into())),
        }
    }

    /// Where a volume of the image's is, made if it is missing. `None` if it has something in it, which
    /// an empty file system would hide: then it stays as it is, in the writable layer, which goes with
    /// the container as well. Nor is one that the image leads elsewhere mounted.
    ///
    /// # Errors
    /// [`RuntimeError::Rootfs`] if the image has something of another kind there.
    pub(crate) fn tmpfs_place(&self, inside: &Path) -> Result<Option<TmpfsPlace>, RuntimeError> {
        let directory = self.ensure_dir(inside)?;
        let destination = self.inside(directory.as_fd(), inside)?;
        if destination != inside {
            return Ok(None);
        }
        let path = descriptor_path(directory.as_fd());
        let mut entries = fs::read_dir(&path).map_err(failed("read", inside))?;
        if entries.next().is_some() {
            return Ok(None);
        }
        let about = fs::metadata(&path).map_err(failed("stat", inside))?;
        let (mode, uid, gid) = (about.mode() & 0o7777, about.uid(), about.gid());
        Ok(Some(TmpfsPlace { destination, mode, uid, gid }))
    }

    fn open(&self, inside: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.root, inside, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    /// The directory, made with its parents where they are missing.
    fn ensure_dir(&self, inside: &Path) -> Result<OwnedFd, RuntimeError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let refused = |e: Errno| failed("make directory", inside)(e.into());
        let mut reached = PathBuf::from("/");
        let mut directory = self.open(&reached, flags).map_err(refused)?;
        for part in inside.components() {
            let Component::Normal(name) = part else { continue };
            reached.push(name);
            directory = match self.open(&reached, flags) {
                Err(Errno::NOENT) => {
                    rustix::fs::mkdirat(&directory, name, Mode::from(0o755)).map_err(refused)?;
                    let made = self.open(&reached, flags).map_err(refused)?;
                    let mode = fs::Permissions::from_mode(0o755);
                    fs::set_permissions(descriptor_path(made.as_fd()), mode)
                        .map_err(failed("chmod", inside))?;
                    made
                }
                other => other.map_err(refused)?,
            };
        }
        Ok(directory)
    }

    fn parent<'a>(&self, inside: &'a Path) -> Result<(OwnedFd, &'a std::ffi::OsStr), RuntimeError> {
        let (Some(parent), Some(name)) = (inside.parent(), inside.file_name()) else {
            return Err(failed("write", inside)(io::ErrorKind::IsADirectory.into()));
        };
        Ok((self.ensure_dir(parent)?, name))
    }

    /// The path inside that a descriptor stands for, without symbolic links.
    fn inside(&self, fd: BorrowedFd<'_>, inside: &Path) -> Result<PathBuf, RuntimeError> {
        let link = descriptor_path(fd);
        let outside = fs::read_link(&link).map_err(failed("resolve", inside))?;
        let below = outside
            .strip_prefix(&self.path)
            .map_err(|_| failed("resolve", inside)(io::ErrorKind::InvalidInput.into()))?;
        Ok(Path::new("/").join(below))
    }
}

fn descriptor_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn create(
    directory: BorrowedFd<'_>,
    name: &std::ffi::OsStr,
    inside: &Path,
) -> Result<OwnedFd, RuntimeError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::from(0o644))
        .map_err(|e| failed("create", inside)(e.into()))
}
