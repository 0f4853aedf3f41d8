//! How a monitor leaves the process that started it.
#![allow(unsafe_code)]

use std::io;

use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, fork, setsid};
use rustix::fs::Mode;

/// Which of the two processes this is after [`detach`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The first one, whose parent waits for it: it is to exit.
    Starter,
    /// The monitor: a child of nobody in particular, in a session of its own.
    Monitor,
}

/// Forks, so that whoever started this process need not stay to reap the monitor, and gives the
/// monitor a session, a name and a umask of its own and no descriptors but its standard streams.
///
/// # Errors
/// What the kernel said.
pub(super) fn detach(name: &str) -> io::Result<Side> {
    // SAFETY: this process runs one thread only, so that the child may go on as it likes.
    if let ForkResult::Parent { .. } = unsafe { fork() }? {
        return Ok(Side::Starter);
    }
    setsid()?;
    close_from(3)?;
    rustix::process::umask(Mode::from(0o022));
    // It has no terminal that could hang up; whoever sends the signal all the same does not mean it.
    // A container's program gets the default again.
    // SAFETY: an ignored signal runs no code of ours.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }?;
    set_name(name);
    Ok(Side::Monitor)
}

/// Forks and goes on in the child, a session leader that nobody waits for; the process that was
/// started ends here, so that whoever started it can reap it. Descriptors stay.
///
/// # Errors
/// What the kernel said.
pub(super) fn leave_caller() -> io::Result<()> {
    // SAFETY: this process runs one thread only, so that the child may go on as it likes.
    if let ForkResult::Parent { .. } = unsafe { fork() }? {
        std::process::exit(0);
    }
    setsid()?;
    Ok(())
}

/// Closes every descriptor from this number on. A helper calls it when it has just begun: it owns
/// none of them, they were inherited from whoever embeds the library.
///
/// # Errors
/// What the kernel said.
pub(super) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: nothing in this process owns a descriptor with such a number; see above.
    match unsafe { libc::close_range(first, libc::c_uint::MAX, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Undoes an ignored SIGCHLD, which is inherited: the kernel would reap this process' children and
/// tell nobody how they ended.
pub(super) fn expect_children() {
    // SAFETY: the default disposition runs no code of ours, and this process has one thread.
    let set = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
    debug_assert!(set.is_ok(), "SIGCHLD can be set");
}

/// Names the process for `ps`: its executable has no path that says anything.
pub(super) fn set_name(name: &str) {
    if let Ok(name) = std::ffi::CString::new(name) {
        // A name is a courtesy.
        let _ = rustix::thread::set_name(&name);
    }
}
