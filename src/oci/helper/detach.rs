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
    // SAFETY: nothing in this process owns a descriptor above its standard streams: it has just
    // begun, and what is open there was inherited from whoever embeds the library.
    if unsafe { libc::close_range(3, libc::c_uint::MAX, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    rustix::process::umask(Mode::from(0o022));
    // It has no terminal that could hang up; whoever sends the signal all the same does not mean it.
    // A container's program gets the default again.
    // SAFETY: an ignored signal runs no code of ours.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }?;
    set_name(name);
    Ok(Side::Monitor)
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
