//! `sidecars init -- CMD ARG…`: a minimal PID 1 for images whose program is not made for that.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::process::{Command, ExitCode};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::log;
use crate::signals::{Received, Signals, wait};
use crate::sys;

/// The exit codes of a shell for a command that is not there, or cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Runs `command` (not empty) as a child until it ends, and returns its exit code, or 128 and the
/// number of the signal that ended it. Its own descendants that are left are the kernel's to end.
pub(crate) fn run(command: &[OsString]) -> ExitCode {
    match supervise(command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log::error(format_args!("init: {}: {error}", command[0].display()));
            match error.kind() {
                io::ErrorKind::NotFound => ExitCode::from(NOT_FOUND),
                _ => ExitCode::from(NOT_EXECUTABLE),
            }
        }
    }
}

fn supervise(command: &[OsString]) -> io::Result<u8> {
    // First, so that a signal that comes during the start is forwarded after it.
    let signals = Signals::take()?;
    sys::expect_children()?;
    let mut program = Command::new(&command[0]);
    program.args(&command[1..]);
    sys::unblock_signals(&mut program);
    let child = program.spawn()?.id();
    loop {
        wait(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
        while let Some(signal) = signals.next()? {
            if signal.number == libc::SIGCHLD {
                if let Some(code) = reap_all(child)? {
                    return Ok(code);
                }
            } else if is_for_child(signal)
                && let Err(error) = sys::send(child, signal.number)
            {
                log::error(format_args!("init: cannot forward signal {}: {error}", signal.number));
            }
        }
    }
}

/// Reaps all that have ended; the exit code of `child` if it is among them.
fn reap_all(child: u32) -> io::Result<Option<u8>> {
    let mut code = None;
    while let Some((pid, ending)) = sys::reap()? {
        if pid == child {
            code = Some(ending.exit_code());
        }
    }
    Ok(code)
}

fn is_for_child(signal: Received) -> bool {
    match signal.number {
        // About this process's own use of the terminal.
        libc::SIGTTIN | libc::SIGTTOU => false,
        // A key in the terminal reaches the whole foreground process group, the child included.
        libc::SIGINT | libc::SIGQUIT | libc::SIGTSTP => !signal.from_kernel,
        _ => true,
    }
}
