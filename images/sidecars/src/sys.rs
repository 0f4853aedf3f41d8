//! The few calls for which nix has no safe form that fits. nix's `Signal` knows no real-time
//! signals: with it a child killed by one would be reaped without its pid being told, and `init`
//! could not forward them.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};

use crate::state::Ending;

/// Makes `command` start with no signal blocked: a child inherits the mask, and we block everything.
pub(crate) fn unblock_signals(command: &mut Command) {
    let unblock = || SigSet::empty().thread_set_mask().map_err(io::Error::from);
    // SAFETY: between fork and exec only async-signal-safe functions may be called; the closure
    // calls pthread_sigmask alone, and allocates nothing.
    unsafe { command.pre_exec(unblock) };
}

/// Makes children that end wait to be reaped. Who started us may have had SIGCHLD ignored, which
/// exec keeps: then the kernel reaps by itself, sends no signal and tells no exit code (wait(2)).
pub(crate) fn expect_children() -> io::Result<()> {
    // SAFETY: the default disposition runs no code of ours.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.map(drop).map_err(io::Error::from)
}

/// Reaps one child that has ended, without waiting: its pid and its ending. `None` if there is none
/// at the moment, or no child at all.
pub(crate) fn reap() -> io::Result<Option<(u32, Ending)>> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for an int for the length of the call.
    match Errno::result(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) }) {
        Ok(0) | Err(Errno::ECHILD) => Ok(None),
        Ok(pid) if libc::WIFSIGNALED(status) => {
            Ok(Some((pid.unsigned_abs(), Ending::Signalled(libc::WTERMSIG(status)))))
        }
        Ok(pid) => Ok(Some((pid.unsigned_abs(), Ending::Exited(libc::WEXITSTATUS(status))))),
        Err(error) => Err(error.into()),
    }
}

/// Sends a signal to a child that has not been reaped, so that its pid is still its own.
pub(crate) fn send(pid: u32, signal: i32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| Errno::ESRCH)?;
    // SAFETY: kill(2) takes no pointers.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop).map_err(io::Error::from)
}
