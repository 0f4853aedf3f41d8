//! The system calls that a capability opens in Docker's default profile, as data: without the call
//! a container that was given the capability could not use it.
//!
//! Origin as in [`super::table`]: the entries of the profile that name a capability.

use super::table::Syscall;

/// A capability and the calls that come with it.
#[rustfmt::skip]
pub(super) const BY_CAPABILITY: &[(&str, &[Syscall])] = &[
    ("CAP_BPF", &[BPF]),
    ("CAP_DAC_READ_SEARCH", &[("open_by_handle_at", Some(304), Some(265))]),
    ("CAP_PERFMON", &[PERF_EVENT_OPEN]),
    ("CAP_SYSLOG", &[SYSLOG]),
    ("CAP_SYS_ADMIN", &[
        BPF,
        PERF_EVENT_OPEN,
        SYSLOG,
        ("clone", Some(56), Some(220)),
        ("fanotify_init", Some(300), Some(262)),
        ("fsconfig", Some(431), Some(431)),
        ("fsmount", Some(432), Some(432)),
        ("fsopen", Some(430), Some(430)),
        ("fspick", Some(433), Some(433)),
        ("mount", Some(165), Some(40)),
        ("mount_setattr", Some(442), Some(442)),
        ("move_mount", Some(429), Some(429)),
        ("open_tree", Some(428), Some(428)),
        ("quotactl", Some(179), Some(60)),
        ("quotactl_fd", Some(443), Some(443)),
        ("setdomainname", Some(171), Some(162)),
        ("sethostname", Some(170), Some(161)),
        ("setns", Some(308), Some(268)),
        ("umount2", Some(166), Some(39)),
        ("unshare", Some(272), Some(97)),
    ]),
    ("CAP_SYS_BOOT", &[("reboot", Some(169), Some(142))]),
    ("CAP_SYS_CHROOT", &[("chroot", Some(161), Some(51))]),
    ("CAP_SYS_MODULE", &[
        ("delete_module", Some(176), Some(106)),
        ("finit_module", Some(313), Some(273)),
        ("init_module", Some(175), Some(105)),
    ]),
    ("CAP_SYS_NICE", &[
        ("get_mempolicy", Some(239), Some(236)),
        ("mbind", Some(237), Some(235)),
        ("set_mempolicy", Some(238), Some(237)),
        ("set_mempolicy_home_node", Some(450), Some(450)),
    ]),
    ("CAP_SYS_PACCT", &[("acct", Some(163), Some(89))]),
    ("CAP_SYS_PTRACE", &[
        ("kcmp", Some(312), Some(272)),
        ("pidfd_getfd", Some(438), Some(438)),
        ("process_madvise", Some(440), Some(440)),
    ]),
    ("CAP_SYS_RAWIO", &[("ioperm", Some(173), None), ("iopl", Some(172), None)]),
    ("CAP_SYS_TIME", &[
        ("clock_settime", Some(227), Some(112)),
        ("settimeofday", Some(164), Some(170)),
    ]),
    ("CAP_SYS_TTY_CONFIG", &[("vhangup", Some(153), Some(58))]),
];

const BPF: Syscall = ("bpf", Some(321), Some(280));
const PERF_EVENT_OPEN: Syscall = ("perf_event_open", Some(298), Some(241));
const SYSLOG: Syscall = ("syslog", Some(103), Some(116));
