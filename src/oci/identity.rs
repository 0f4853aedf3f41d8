//! A process by pid and start time: a pid alone is given out again (`proc_pid_stat(5)`, field 22).
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// One process of this boot, told apart from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// The pid in the namespace of whoever wrote this down.
    pub pid: i32,
    /// Clock ticks from boot to the process' start.
    pub start_time: u64,
}

/// A process that was alive, and is the right one, when the handle was made.
#[derive(Debug)]
pub struct ProcessHandle {
    pidfd: OwnedFd,
}

impl ProcessIdentity {
    /// The identity of the running process `pid`; `None` if there is none.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, start_time: start_time(&stat)? })
    }

    /// Opens the process if it still runs; a zombie does not run.
    ///
    /// # Errors
    /// What the kernel said, but for a process that is gone.
    pub fn open(self) -> io::Result<Option<ProcessHandle>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
            other => other?,
        };
        // After the open the pid cannot be given out again unnoticed: look at it now.
        if Self::of(self.pid) != Some(self) {
            return Ok(None);
        }
        let handle = ProcessHandle { pidfd };
        Ok((!handle.wait(Some(Duration::ZERO))?).then_some(handle))
    }
}

impl AsFd for ProcessHandle {
    /// Readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl ProcessHandle {
    /// Sends a signal; true if the process was still there.
    ///
    /// # Errors
    /// What the kernel said, but for a process that is gone.
    pub fn signal(&self, signal: i32) -> io::Result<bool> {
        send_signal(self.pidfd.as_fd(), signal)
    }

    /// How the process ended: its exit code, or 128 + the signal that ended it. `None` while it is
    /// not reaped, and before Linux 6.15, which cannot tell.
    pub fn exit_code(&self) -> Option<i32> {
        let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
        // SAFETY: the descriptor is open, and the request's number says how large the structure is
        // that the kernel may write to.
        let result =
            unsafe { libc::ioctl(self.pidfd.as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) };
        if result != 0 || info.mask & PIDFD_INFO_EXIT == 0 {
            return None;
        }
        let status = info.exit_code;
        Some(if libc::WIFSIGNALED(status) {
            128 + libc::WTERMSIG(status)
        } else {
            libc::WEXITSTATUS(status)
        })
    }

    /// Waits until the process has ended (a zombie has), or for as long as `timeout`; true if it
    /// has ended.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let deadline = timeout.map(|t| std::time::Instant::now() + t);
        loop {
            let left = deadline.map(|d| d.saturating_duration_since(std::time::Instant::now()));
            let left = left.map(|d| Timespec {
                tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: d.subsec_nanos().into(),
            });
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match poll(&mut fds, left.as_ref()) {
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
                Ok(n) => return Ok(n > 0),
            }
        }
    }
}

/// The first version of `struct pidfd_info` (`linux/pidfd.h`).
#[derive(Default)]
#[repr(C)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_GET_INFO`: `_IOWR(0xff, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: u32 = 3 << 30 | (size_of::<PidfdInfo>() as u32) << 16 | 0xff << 8 | 11;

/// Asks for the exit code, and says that it is there.
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// Sends a signal through a pidfd; true if the process was still there.
///
/// By number: the safe wrappers know no real-time signals, and images ask for those.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<bool> {
    // SAFETY: the descriptor is open, and no structure is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    match result {
        0 => Ok(true),
        _ => match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            e => Err(e),
        },
    }
}

/// Field 22 of `/proc/<pid>/stat`. The second field is the name in brackets and may hold anything,
/// so that the fields are counted from the last bracket on.
fn start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_survives_a_hostile_name() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(start_time(&format!("7 (a) b (c) {tail}")), Some(4242));
        assert_eq!(start_time("7 (a"), None);
    }

    #[test]
    fn another_start_time_is_another_process() {
        let me = ProcessIdentity::of(std::process::id().cast_signed()).unwrap();
        assert!(me.open().unwrap().is_some());
        assert!(ProcessIdentity { start_time: me.start_time + 1, ..me }.open().unwrap().is_none());
    }

    #[test]
    fn a_zombie_does_not_run() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let identity = ProcessIdentity::of(child.id().cast_signed()).unwrap();
        if let Some(handle) = identity.open().unwrap() {
            assert!(handle.wait(Some(Duration::from_secs(10))).unwrap());
        }
        assert!(identity.open().unwrap().is_none());
        child.wait().unwrap();
    }

    #[test]
    fn the_kernel_tells_how_a_process_ended() {
        for (script, code) in [("read x; exit 7", 7), ("read x; kill -9 $$", 128 + 9)] {
            let mut shell = std::process::Command::new("sh");
            let stdin = std::process::Stdio::piped();
            let mut child = shell.args(["-c", script]).stdin(stdin).spawn().unwrap();
            let identity = ProcessIdentity::of(child.id().cast_signed()).unwrap();
            let handle = identity.open().unwrap().unwrap();
            assert_eq!(handle.exit_code(), None);
            child.wait().unwrap();
            // Older kernels cannot tell.
            assert!(handle.exit_code().is_none_or(|told| told == code), "{:?}", handle.exit_code());
        }
    }
}
