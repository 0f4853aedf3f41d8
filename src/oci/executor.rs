//! The last steps before a container's program: what libcontainer leaves out or gets wrong.
//!
//! It drops a seccomp profile silently, loses SIGPIPE's default and the signal mask, and cannot
//! pass an environment that is not UTF-8. All of that is put right here, for the container's
//! first process and for every command that is run in it later.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use seccompiler::BpfProgram;

use super::seccomp;
use super::selinux::attribute;

/// Begins libcontainer's message where the program is not there; the caller takes it from there.
pub(crate) const NOT_FOUND: &str = "carboy: program not found";

/// Begins what is said of a program that may not be run, where it was to have an SELinux label; what follows
/// are the kernel's error by its number, a space and the label that this process has.
const NOT_LABELLED: &str = "carboy: not labelled: ";

/// `_NSIG` (signal(7), "Real-time signals").
const LAST_SIGNAL: libc::c_int = 64;

/// Runs the program the way the container's specification says.
#[derive(Clone)]
pub(crate) struct BundleExecutor {
    /// The program and its arguments.
    pub(crate) args: Vec<String>,
    /// `NAME=VALUE`.
    pub(crate) env: Vec<String>,
    /// Installed right before the program, the first first.
    pub(crate) filters: Vec<BpfProgram>,
    /// It dies with the process that started it.
    pub(crate) dies_with_parent: bool,
    /// Its standard input is a terminal, which becomes the one its session is controlled by.
    pub(crate) terminal: bool,
    /// It must be in the control group of version 2 that its cgroup namespace begins with.
    pub(crate) in_own_group: bool,
    /// The SELinux label that it runs with, if not this process' own.
    pub(crate) label: Option<String>,
    /// Where a failure is told. It closes when the program runs: the start is then complete.
    pub(crate) report: RawFd,
}

impl BundleExecutor {
    /// Where the program is: its own path, or the first match in PATH. Called inside.
    fn program(&self) -> Option<PathBuf> {
        let name = self.args.first()?;
        if name.contains('/') {
            let path = PathBuf::from(name);
            return path.exists().then_some(path);
        }
        let path = self.env.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or_default();
        std::env::split_paths(OsStr::new(path))
            .map(|directory| directory.join(name))
            .find(|candidate| candidate.is_file())
    }

    /// Returns only if the program cannot be run.
    fn run(&self) -> Result<(), String> {
        let program = self.program().ok_or_else(|| NOT_FOUND.to_owned())?;
        let program = c_string(program.as_os_str().as_bytes())?;
        let args =
            self.args.iter().map(|a| c_string(a.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let env = self.env.iter().map(|e| c_string(e.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        reset_signals().map_err(|e| format!("reset signals: {e}"))?;
        if self.dies_with_parent {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
                .map_err(|e| format!("bind to the parent: {e}"))?;
            // A parent outside of this PID namespace is 0, one that has died is not.
            if nix::unistd::getppid().as_raw() != 0 {
                return Err("its parent has died".to_owned());
            }
        }
        if self.in_own_group {
            let groups = std::fs::read_to_string("/proc/self/cgroup")
                .map_err(|e| format!("look at its control group: {e}"))?;
            if !is_in_own_group(&groups) {
                return Err("it is not in the container's control group".to_owned());
            }
        }
        if self.terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())
                .map_err(|e| format!("take the terminal: {e}"))?;
        }
        let own = self.labelled()?;
        seccomp::install(&self.filters).map_err(|e| format!("install the seccomp filter: {e}"))?;
        match nix::unistd::execve(&program, &args, &env) {
            Err(Errno::ENOENT) => Err("its interpreter is missing".to_owned()),
            Err(e) => Err(match (e, own) {
                // SELinux may be why, or a script's interpreter; what this process may not execute either
                // is another matter.
                (Errno::EACCES | Errno::EPERM, Some(own)) if is_executable(&program) => {
                    not_labelled(e, &own)
                }
                _ => e.desc().to_owned(),
            }),
        }
    }
}

impl BundleExecutor {
    /// Has the program run with its label. Returns the one of this process, if there is a difference.
    fn labelled(&self) -> Result<Option<String>, String> {
        let Some(label) = &self.label else { return Ok(None) };
        attribute::set_for_exec(label)
            .map_err(|e| format!("ask for the SELinux label {label}: {e}"))?;
        Ok(Some(attribute::own().unwrap_or_default()))
    }
}

impl Executor for BundleExecutor {
    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let Err(message) = self.run() else { return Ok(()) };
        // SAFETY: the starting process gave this descriptor to this process alone to write to;
        // nothing else in this process uses it, and the process ends after this.
        let mut report = File::from(unsafe { OwnedFd::from_raw_fd(self.report) });
        // Nobody is left to tell if this fails too.
        let _ = report.write_all(message.as_bytes());
        Err(ExecutorError::Other(message))
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        match self.program() {
            Some(_) => Ok(()),
            None => Err(ExecutorValidationError::ArgValidationError(NOT_FOUND.to_owned())),
        }
    }

    /// The environment goes to `execve(2)` directly.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}

/// Whether `/proc/self/cgroup` speaks of a group within the reader's cgroup namespace
/// (cgroup_namespaces(7)).
fn is_in_own_group(groups: &str) -> bool {
    groups.lines().any(|line| line.starts_with("0::/") && !line.starts_with("0::/.."))
}

fn is_executable(program: &CStr) -> bool {
    nix::unistd::access(program, nix::unistd::AccessFlags::X_OK).is_ok()
}

fn not_labelled(errno: Errno, own: &str) -> String {
    format!("{NOT_LABELLED}{} {own}", errno as i32)
}

/// What an executor said of a program that was to have a label: the kernel's error, and the executor's own
/// label. `None` if it said something else.
pub(crate) fn refused_label(said: &str) -> Option<(io::Error, &str)> {
    let (errno, own) = said.strip_prefix(NOT_LABELLED)?.split_once(' ')?;
    Some((io::Error::from_raw_os_error(errno.parse().ok()?), own))
}

fn c_string(bytes: &[u8]) -> Result<CString, String> {
    CString::new(bytes).map_err(|_| "an argument or variable holds a NUL".to_owned())
}

/// Rust's runtime ignores SIGPIPE, and an ignored signal stays ignored across `execve(2)`; so does
/// whatever the process that started us ignored or had blocked.
///
/// The C library keeps the first two real-time signals to itself, and its `posix_spawn(3)` leaves
/// them ignored; so the kernel is asked directly.
fn reset_signals() -> nix::Result<()> {
    // `struct sigaction` of the kernel, of which this is the size or more: SIG_DFL, no flags, an
    // empty mask.
    let default = [0_u64; 4];
    for number in (1..=LAST_SIGNAL).filter(|n| !matches!(*n, libc::SIGKILL | libc::SIGSTOP)) {
        // SAFETY: the structure outlives the call, nothing is written back, and the default
        // disposition runs no code of ours.
        let result = unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                default.as_ptr(),
                std::ptr::null::<u64>(),
                size_of::<u64>(),
            )
        };
        Errno::result(result)?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// The write end for an executor and the read end that tells when the program runs.
pub(crate) struct StartBarrier {
    read: File,
    write: Option<OwnedFd>,
}

impl StartBarrier {
    /// A new pipe; both ends close on `execve(2)`.
    pub(crate) fn new() -> std::io::Result<Self> {
        let (read, write) = std::io::pipe()?;
        Ok(Self { read: OwnedFd::from(read).into(), write: Some(write.into()) })
    }

    /// The number the executor is given; it is inherited by the container's process.
    pub(crate) fn write_fd(&self) -> RawFd {
        self.write.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Waits until the program runs, or could not be run: then what was said.
    pub(crate) fn wait(mut self) -> std::io::Result<Option<String>> {
        use std::io::Read;
        self.write = None;
        let mut said = Vec::new();
        self.read.read_to_end(&mut said)?;
        Ok((!said.is_empty()).then(|| String::from_utf8_lossy(&said).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_label_reads_back() {
        let said = not_labelled(Errno::EACCES, "u:r:t:s0");
        let (error, own) = refused_label(&said).unwrap();
        assert_eq!((error.raw_os_error(), own), (Some(libc::EACCES), "u:r:t:s0"));
        assert!(refused_label(NOT_FOUND).is_none());
    }

    #[test]
    fn a_group_outside_of_the_namespace_is_not_the_own() {
        assert!(is_in_own_group("0::/\n"));
        assert!(is_in_own_group("1:cpu:/../x\n0::/below\n"));
        assert!(!is_in_own_group("0::/../carboy-monitor.x\n"));
        assert!(!is_in_own_group("1:cpu:/\n"));
        assert!(!is_in_own_group(""));
    }
}
