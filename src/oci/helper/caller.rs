//! What becomes of a command in a container when whoever asked for it dies: it dies too.
//!
//! The kernel tells a helper of its parent's death by a signal, on which the helper kills the
//! command's process group and ends. It does so in the signal's handler: the helper may be held up
//! at that time, writing to a terminal that is stopped.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, kill, sigaction, sigprocmask,
};
use nix::unistd::Pid;

/// What the kernel sends when the caller dies; also what others end a helper with.
const CALLER_DIED: Signal = Signal::SIGTERM;

/// The command's process group; 0 while there is none to end.
static COMMAND: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_caller_died(_: libc::c_int) {
    end_command();
    // SAFETY: `_exit(2)` may be called in a handler (signal-safety(7)) and never returns.
    unsafe { libc::_exit(128 + CALLER_DIED as i32) }
}

/// Kills the command's process group: of the command and of what it started and did not put into
/// another one. Only async-signal-safe calls.
pub(super) fn end_command() {
    let group = COMMAND.load(Ordering::SeqCst);
    if group > 0 {
        // The command is not reaped yet, so the number is still its group's. It may be dead.
        let _ = kill(Pid::from_raw(-group), Signal::SIGKILL);
    }
}

/// Binds this process to its caller. What a terminal sends to all of its foreground is for the
/// caller to take or to pass on; SIGTERM waits until [`watch`].
///
/// # Errors
/// What the kernel said.
pub(super) fn bind() -> nix::Result<()> {
    let action =
        SigAction::new(SigHandler::Handler(on_caller_died), SaFlags::empty(), SigSet::empty());
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler makes async-signal-safe calls only.
    unsafe {
        sigaction(CALLER_DIED, &action)?;
        for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
            sigaction(signal, &ignore)?;
        }
    }
    // The mask is inherited from whoever embeds the library, and is whatever it is.
    let mut blocked = SigSet::empty();
    blocked.add(CALLER_DIED);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&blocked), None)?;
    nix::sys::prctl::set_pdeathsig(CALLER_DIED)
}

/// From here on this command dies with the caller, and SIGTERM is taken.
///
/// Not before: a helper that dies while libcontainer starts the command would leave it half made.
///
/// # Errors
/// What the kernel said.
pub(super) fn watch(command: i32) -> nix::Result<()> {
    COMMAND.store(command, Ordering::SeqCst);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// The caller may die from here on.
///
/// # Errors
/// What the kernel said.
pub(super) fn let_go() -> nix::Result<()> {
    forget();
    nix::sys::prctl::set_pdeathsig(None)
}

/// The command has ended: its number is anybody's once it is reaped.
pub(super) fn forget() {
    COMMAND.store(0, Ordering::SeqCst);
}
