//! A terminal for a command in a container: a pair of the container's own devpts, so that its
//! name (`/dev/pts/0`) means the same inside. Runs in a helper process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::unistd::Uid;
use rustix::fs::{FileType, Mode, OFlags, major, minor};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::helper::WindowSize;
use super::rootfs::Rootfs;
use super::runtime_error::RuntimeError;

/// Where new terminals come from; seen from inside.
const PTMX: &str = "/dev/pts/ptmx";

/// The file system of terminals (`linux/magic.h`).
const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;

/// The device of [`PTMX`] (`Documentation/admin-guide/devices.txt`).
const PTMX_DEVICE: (u32, u32) = (5, 2);

/// Both sides of a terminal.
#[derive(Debug)]
pub(crate) struct Pair {
    /// The helper's side; it does not wait.
    pub(crate) outer: OwnedFd,
    /// The command's side.
    pub(crate) inner: OwnedFd,
}

/// Makes a terminal that belongs to `user` (a uid of the container's user namespace, as this
/// process sees it).
///
/// # Errors
/// [`RuntimeError::Rootfs`] if the container has no devpts of its own, or what the kernel said.
pub(crate) fn open(
    rootfs: &Rootfs,
    user: u32,
    size: Option<WindowSize>,
) -> Result<Pair, RuntimeError> {
    let path = Path::new(PTMX);
    let failed = |action: &'static str| {
        move |source: io::Error| RuntimeError::Rootfs { action, path: path.to_owned(), source }
    };
    // The container may have put anything there: it is looked at before it is opened.
    let found = rootfs.find(path)?;
    check(&found).map_err(failed("use as a terminal"))?;
    let link = format!("/proc/self/fd/{}", found.as_raw_fd());
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let pair = (|| {
        let outer = rustix::fs::open(link.as_str(), flags, Mode::empty())?;
        unlockpt(&outer)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let inner = ioctl_tiocgptpeer(&outer, flags)?;
        if let Some(size) = size {
            resize(&outer, size)?;
        }
        // `/dev/tty` and `/dev/stdout` are opened anew by whoever writes to them.
        nix::unistd::fchown(&inner, Some(Uid::from_raw(user)), None)?;
        Ok::<_, io::Error>(Pair { outer, inner })
    })();
    pair.map_err(failed("open a terminal of"))
}

/// Tells a terminal its size; who runs on it gets SIGWINCH if that is another one.
///
/// # Errors
/// What the kernel said.
pub(crate) fn resize(terminal: &impl AsFd, size: WindowSize) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(terminal, size)?)
}

/// Refuses anything but the multiplexer of a devpts.
fn check(found: &OwnedFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(found)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let device = (major(stat.st_rdev), minor(stat.st_rdev));
    let file_system = rustix::fs::fstatfs(found)?.f_type;
    if kind == FileType::CharacterDevice
        && device == PTMX_DEVICE
        && file_system.cast_unsigned() == DEVPTS_SUPER_MAGIC
    {
        return Ok(());
    }
    Err(io::ErrorKind::InvalidInput.into())
}
