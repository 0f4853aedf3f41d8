//! The system-call filter of a container: Docker's default profile, compiled to BPF for the
//! machine's architecture.
//!
//! What is not on the list fails with EPERM, as if the kernel had no such permission to give.
//! `clone3` fails with ENOSYS instead: its flags lie in memory, where no filter can read them, and
//! C libraries then fall back to `clone`, whose flags can be read.
//!
//! Unlike Docker's, the filter knows one architecture: a program of the 32-bit ABI of the same
//! machine is killed at its first system call.

mod by_capability;
mod table;

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::capabilities::Granted;
use crate::error::{Classify, ErrorKind};
use by_capability::BY_CAPABILITY;
use table::{ALLOWED, Syscall};

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// The profile has no numbers for this machine.
    #[error("there is no system-call filter for the architecture {architecture}")]
    Architecture {
        /// As Rust names it.
        architecture: &'static str,
    },
    /// The profile does not compile.
    #[error("the system-call filter cannot be compiled")]
    Compile {
        /// What the compiler said.
        #[source]
        source: BackendError,
    },
    /// The kernel refused the filter.
    #[error("the system-call filter cannot be installed")]
    Install {
        /// What the kernel said.
        #[source]
        source: seccompiler::Error,
    },
}

impl From<BackendError> for SeccompError {
    fn from(source: BackendError) -> Self {
        Self::Compile { source }
    }
}

impl Classify for SeccompError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Architecture { .. } | Self::Install { .. } => ErrorKind::Unsupported,
            Self::Compile { .. } => ErrorKind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Install { .. } => Some("the kernel needs CONFIG_SECCOMP_FILTER".to_owned()),
            _ => None,
        }
    }
}

/// Allowed for some values of one argument; any of the conditions is enough.
struct Conditional {
    syscall: Syscall,
    argument: u8,
    conditions: &'static [(SeccompCmpOp, u64)],
}

/// `CLONE_NEWNS`, `CLONE_NEWCGROUP`, `CLONE_NEWUTS`, `CLONE_NEWIPC`, `CLONE_NEWUSER`,
/// `CLONE_NEWPID` and `CLONE_NEWNET` together: a thread or a process is fine, a namespace is not.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;

/// The arguments are compared by their lower 32 bits, which is all the kernel looks at in each of
/// these calls. To compare 64, as Docker's filter does, lets `socket(2^32 + 40, …)` pass for a
/// family above 40 and be AF_VSOCK.
const CONDITIONAL: &[Conditional] = &[
    Conditional {
        syscall: ("clone", Some(56), Some(220)),
        argument: 0,
        conditions: &[(SeccompCmpOp::MaskedEq(CLONE_NAMESPACES), 0)],
    },
    // PER_LINUX and PER_LINUX32, each with and without UNAME26, and the query (personality(2)).
    Conditional {
        syscall: ("personality", Some(135), Some(92)),
        argument: 0,
        conditions: &[
            (SeccompCmpOp::Eq, 0),
            (SeccompCmpOp::Eq, 0x8),
            (SeccompCmpOp::Eq, 0x2_0000),
            (SeccompCmpOp::Eq, 0x2_0008),
            (SeccompCmpOp::Eq, 0xffff_ffff),
        ],
    },
    // All families but AF_ALG (38), the kernel's crypto, and AF_VSOCK (40), which knows no network
    // namespace and reaches the hypervisor.
    Conditional {
        syscall: ("socket", Some(41), Some(198)),
        argument: 0,
        conditions: &[(SeccompCmpOp::Lt, 38), (SeccompCmpOp::Eq, 39), (SeccompCmpOp::Gt, 40)],
    },
];

const CLONE3: Syscall = ("clone3", Some(435), Some(435));

/// The filters, in the order in which they must be installed.
///
/// One filter has one action for what it names, and two are needed (EPERM and ENOSYS), so there are
/// two filters. The kernel runs them all, the newest first, and takes the strictest answer; among
/// equals the first seen, errno included, stands (seccomp(2)). So the one that says ENOSYS comes
/// last: it is the newest, and its ENOSYS stands before the older filter's EPERM.
///
/// A capability opens the calls that are of no use without it, as in Docker's profile.
///
/// # Errors
/// [`SeccompError`] on an architecture the profile has no numbers for.
pub fn program(granted: &Granted) -> Result<Vec<BpfProgram>, SeccompError> {
    let architecture = std::env::consts::ARCH;
    let target = match architecture {
        "x86_64" => TargetArch::x86_64,
        "aarch64" => TargetArch::aarch64,
        _ => return Err(SeccompError::Architecture { architecture }),
    };
    compile(target, granted)
}

/// Installs the filters on the calling thread, for good. It also sets no_new_privs, without which
/// the kernel takes no filter from a thread without `CAP_SYS_ADMIN`.
///
/// To be called right before execve: afterwards the thread can do only what the container may.
///
/// # Errors
/// [`SeccompError::Install`]; the thread may have a part of the filters then and must not go on.
pub fn install(programs: &[BpfProgram]) -> Result<(), SeccompError> {
    for program in programs {
        seccompiler::apply_filter(program).map_err(|source| SeccompError::Install { source })?;
    }
    Ok(())
}

fn compile(target: TargetArch, granted: &Granted) -> Result<Vec<BpfProgram>, SeccompError> {
    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().filter_map(|s| number(s, target)).map(|n| (n, Vec::new())).collect();
    for call in CONDITIONAL {
        let Some(number) = number(&call.syscall, target) else { continue };
        let rules = call.conditions.iter().map(|(operator, value)| {
            let dword = SeccompCmpArgLen::Dword;
            let (argument, operator) = (call.argument, operator.clone());
            SeccompRule::new(vec![SeccompCondition::new(argument, dword, operator, *value)?])
        });
        allowed.insert(number, rules.collect::<Result<_, BackendError>>()?);
    }
    // After the conditional ones: CAP_SYS_ADMIN takes the condition of `clone` away.
    for (_, calls) in BY_CAPABILITY.iter().filter(|(capability, _)| granted.allows(capability)) {
        allowed.extend(calls.iter().filter_map(|s| number(s, target)).map(|n| (n, Vec::new())));
    }
    let absent = number(&CLONE3, target).map(|n| (n, Vec::new())).into_iter().collect();
    let [eperm, enosys] =
        [libc::EPERM, libc::ENOSYS].map(|e| SeccompAction::Errno(e.unsigned_abs()));
    [
        SeccompFilter::new(allowed, eperm, SeccompAction::Allow, target)?,
        SeccompFilter::new(absent, SeccompAction::Allow, enosys, target)?,
    ]
    .into_iter()
    .map(|filter| Ok(BpfProgram::try_from(filter)?))
    .collect()
}

fn number(syscall: &Syscall, target: TargetArch) -> Option<i64> {
    match target {
        TargetArch::x86_64 => syscall.1,
        TargetArch::aarch64 => syscall.2,
        // `program` asks for these two alone.
        TargetArch::riscv64 => None,
    }
    .map(i64::from)
}

#[cfg(test)]
mod tests;
