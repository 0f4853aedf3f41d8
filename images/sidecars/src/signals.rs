//! Signals as something to poll, and the poll itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals a process gets for its own fault: blocking them would only hide the fault.
const FAULTS: [Signal; 7] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGABRT,
    Signal::SIGSYS,
];

/// All signals of this process but faults: blocked, and read one by one.
pub(crate) struct Signals(SignalFd);

/// One signal that came.
#[derive(Clone, Copy)]
pub(crate) struct Received {
    /// Its number; real-time signals included.
    pub(crate) number: i32,
    /// The kernel sent it, such as a terminal for a key, and nobody's kill(2).
    pub(crate) from_kernel: bool,
}

impl Signals {
    /// Blocks the signals of the calling thread, which must be the only one. What is already
    /// pending, or came blocked from the parent, is not lost.
    pub(crate) fn take() -> io::Result<Self> {
        let mut all = SigSet::all();
        for fault in FAULTS {
            all.remove(fault);
        }
        all.thread_block()?;
        Ok(Self(SignalFd::with_flags(&all, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// The next signal, if one is pending.
    pub(crate) fn next(&self) -> io::Result<Option<Received>> {
        let received = self.0.read_signal()?;
        Ok(received.map(|info| Received {
            number: i32::try_from(info.ssi_signo).unwrap_or_default(),
            from_kernel: info.ssi_code == libc::SI_KERNEL,
        }))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of `fds` is ready or the time is over.
pub(crate) fn wait(fds: &mut [PollFd<'_>], timeout: PollTimeout) -> io::Result<()> {
    match poll(fds, timeout) {
        // Nothing is ready then, and the caller looks again.
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The time until `deadline`, for [`wait`]; without one, for ever. Rounded up, so that the deadline
/// has passed when the wait is over.
pub(crate) fn until(deadline: Option<Instant>) -> PollTimeout {
    deadline.map_or(PollTimeout::NONE, |deadline| {
        let left = deadline.saturating_duration_since(Instant::now());
        let millis = left.as_nanos().div_ceil(1_000_000);
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
    })
}

/// True if something happened to the descriptor: data, room, an error or the other side's end.
pub(crate) fn is_ready(fd: &PollFd<'_>) -> bool {
    fd.revents().is_some_and(|events| !events.is_empty())
}
