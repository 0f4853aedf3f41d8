//! The filter's data against independent tables, and the filter itself on throwaway threads: it
//! needs no root.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::io;
use std::thread;

use super::*;

/// What the profile also allows and neither architecture has: calls of 32-bit machines, and of
/// other ones.
const ABSENT: &[&str] = &[
    "arm_fadvise64_64",
    "arm_sync_file_range",
    "breakpoint",
    "cacheflush",
    "chown32",
    "clock_adjtime64",
    "clock_getres_time64",
    "clock_gettime64",
    "clock_nanosleep_time64",
    "fadvise64_64",
    "fchown32",
    "fcntl64",
    "fstat64",
    "fstatat64",
    "fstatfs64",
    "ftruncate64",
    "futex_time64",
    "getegid32",
    "geteuid32",
    "getgid32",
    "getgroups32",
    "getresgid32",
    "getresuid32",
    "getuid32",
    "io_pgetevents_time64",
    "ipc",
    "lchown32",
    "_llseek",
    "lstat64",
    "mmap2",
    "mq_timedreceive_time64",
    "mq_timedsend_time64",
    "_newselect",
    "ppoll_time64",
    "pselect6_time64",
    "recv",
    "recvmmsg_time64",
    "riscv_hwprobe",
    "rt_sigtimedwait_time64",
    "sched_rr_get_interval_time64",
    "semtimedop_time64",
    "send",
    "sendfile64",
    "set_tls",
    "setfsgid32",
    "setfsuid32",
    "setgid32",
    "setgroups32",
    "setregid32",
    "setresgid32",
    "setresuid32",
    "setreuid32",
    "setuid32",
    "sigprocmask",
    "sigreturn",
    "socketcall",
    "stat64",
    "statfs64",
    "sync_file_range2",
    "timer_gettime64",
    "timer_settime64",
    "timerfd_gettime64",
    "timerfd_settime64",
    "truncate64",
    "ugetrlimit",
    "utimensat_time64",
    "waitpid",
];

/// Newer than the compiler crate's own table (Linux 6.12).
const NEWER: &[&str] = &["setxattrat", "getxattrat", "listxattrat", "removexattrat"];

const TARGETS: [(TargetArch, &str); 2] =
    [(TargetArch::x86_64, "x86_64"), (TargetArch::aarch64, "aarch64")];

fn all() -> impl Iterator<Item = &'static Syscall> {
    ALLOWED.iter().chain(CONDITIONAL.iter().map(|c| &c.syscall)).chain([&CLONE3])
}

/// The number the compiler crate knows a call by: a filter of that one call begins with the
/// architecture check and the load of the number; then comes the comparison with it.
fn number_elsewhere(name: &str, target: TargetArch) -> Option<i64> {
    let json = format!(
        r#"{{"f":{{"mismatch_action":"trap","match_action":"allow","filter":[{{"syscall":"{name}"}}]}}}}"#
    );
    let map = seccompiler::compile_from_json(json.as_bytes(), target).ok()?;
    Some(i64::from(map["f"][4].k))
}

#[test]
fn every_number_agrees_with_an_independent_table() {
    let opened = BY_CAPABILITY.iter().flat_map(|(_, calls)| calls.iter());
    let all: Vec<&Syscall> = all().chain(opened).collect();
    for (target, architecture) in TARGETS {
        for syscall in all.iter().copied() {
            let (ours, theirs) = (number(syscall, target), number_elsewhere(syscall.0, target));
            if NEWER.contains(&syscall.0) {
                // From 424 on the kernel numbers them alike everywhere.
                assert_eq!((syscall.1, theirs), (syscall.2, None), "{syscall:?}");
            } else {
                assert_eq!(ours, theirs, "{} on {architecture}", syscall.0);
            }
        }
    }
}

#[test]
fn what_is_absent_is_absent() {
    for name in ABSENT {
        for (target, architecture) in TARGETS {
            assert_eq!(number_elsewhere(name, target), None, "{name} on {architecture}");
        }
        assert!(all().all(|s| s.0 != *name), "{name}");
    }
    let names: BTreeSet<_> = all().map(|s| s.0).collect();
    assert_eq!(names.len(), all().count(), "a name stands twice");
    assert!(all().all(|s| s.1.is_some() || s.2.is_some()));
}

#[test]
fn what_opens_the_kernel_is_not_on_the_list() {
    let names: BTreeSet<_> = ALLOWED.iter().map(|s| s.0).collect();
    for name in [
        "add_key",
        "bpf",
        "chroot",
        "clone3",
        "delete_module",
        "fsopen",
        "init_module",
        "io_uring_setup",
        "kexec_load",
        "keyctl",
        "mount",
        "move_mount",
        "open_by_handle_at",
        "open_tree",
        "perf_event_open",
        "pidfd_getfd",
        "pivot_root",
        "reboot",
        "request_key",
        "setns",
        "swapon",
        "syslog",
        "umount2",
        "unshare",
        "userfaultfd",
    ] {
        assert!(!names.contains(name), "{name}");
    }
}

#[test]
fn a_capability_opens_its_calls_and_no_others() {
    let names: BTreeSet<_> = ALLOWED.iter().map(|s| s.0).collect();
    for (capability, calls) in BY_CAPABILITY {
        let granted = Granted {
            root: [(*capability).to_owned()].into_iter().collect(),
            everyone: BTreeSet::new(),
        };
        assert!(!Granted::default().allows(capability), "{capability}");
        assert!(calls.iter().all(|call| !names.contains(call.0)), "{capability}");
        for (target, architecture) in TARGETS {
            let opened = calls.iter().any(|call| number(call, target).is_some());
            let length = |granted: &Granted| compile(target, granted).unwrap()[0].len();
            let grown = length(&granted) != length(&Granted::default());
            assert_eq!(grown, opened, "{capability} on {architecture}");
        }
    }
}

#[test]
fn both_architectures_compile() {
    for (target, architecture) in TARGETS {
        let programs = compile(target, &Granted::default()).unwrap();
        assert_eq!(programs.len(), 2, "{architecture}");
        assert!(programs[0].len() > 1000, "{architecture}: {}", programs[0].len());
        // BPF_MAXINSNS of linux/bpf_common.h.
        assert!(programs[0].len() < 4096, "{architecture}: {}", programs[0].len());
    }
}

/// Runs `calls` on a thread of its own under the filter.
fn filtered<T: Send + 'static>(calls: impl FnOnce() -> T + Send + 'static) -> T {
    let programs = program(&Granted::default()).unwrap();
    thread::spawn(move || {
        install(&programs).unwrap();
        calls()
    })
    .join()
    .unwrap()
}

/// The errno of a raw system call, 0 if it succeeds.
fn errno(number: libc::c_long, a: u64, b: u64, c: u64) -> i32 {
    // SAFETY: the callers pass numbers or null pointers, which the kernel checks.
    let result = unsafe { libc::syscall(number, a, b, c) };
    if result < 0 { io::Error::last_os_error().raw_os_error().unwrap_or(-1) } else { 0 }
}

#[test]
fn refused_calls_fail_with_eperm() {
    let namespace = u64::try_from(libc::CLONE_NEWUSER).unwrap();
    let thread_flag = u64::try_from(libc::CLONE_THREAD).unwrap();
    let got = filtered(move || {
        [
            ("keyctl", errno(libc::SYS_keyctl, u64::MAX, 0, 0)),
            ("unshare", errno(libc::SYS_unshare, namespace, 0, 0)),
            ("mount", errno(libc::SYS_mount, 0, 0, 0)),
            ("chroot", errno(libc::SYS_chroot, 0, 0, 0)),
            ("io_uring_setup", errno(libc::SYS_io_uring_setup, 0, 0, 0)),
            // This pair of flags is EINVAL without the filter, so nothing is ever cloned.
            ("clone", errno(libc::SYS_clone, namespace | thread_flag, 0, 0)),
            ("AF_ALG", errno(libc::SYS_socket, 38, 5, 0)),
            ("AF_VSOCK", errno(libc::SYS_socket, 40, 1, 0)),
            ("AF_VSOCK + 2^32", errno(libc::SYS_socket, (1 << 32) + 40, 1, 0)),
            ("personality", errno(libc::SYS_personality, 0x004_0000, 0, 0)),
            ("unknown", errno(100_000, 0, 0, 0)),
        ]
    });
    for (name, errno) in got {
        assert_eq!(errno, libc::EPERM, "{name}");
    }
}

#[test]
fn clone3_is_absent_and_threads_start_all_the_same() {
    let (clone3, joined) = filtered(|| {
        let clone3 = errno(libc::SYS_clone3, 0, 0, 0);
        (clone3, thread::spawn(|| 7).join().ok())
    });
    assert_eq!((clone3, joined), (libc::ENOSYS, Some(7)));
}

#[test]
fn ordinary_calls_pass() {
    let got = filtered(|| {
        let status = std::process::Command::new("/bin/true").status().is_ok_and(|s| s.success());
        let file = std::fs::read("/proc/self/stat").is_ok();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").is_ok();
        let query = errno(libc::SYS_personality, 0xffff_ffff, 0, 0);
        (status, file, socket, query, errno(libc::SYS_getpid, 0, 0, 0))
    });
    assert_eq!(got, (true, true, true, 0, 0));
}
