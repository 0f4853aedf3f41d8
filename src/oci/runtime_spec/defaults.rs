//! What every container has, as data: Docker's defaults (`daemon/pkg/oci/defaults.go` of moby), and
//! where they differ, why.

use oci_spec::runtime::LinuxNamespaceType as Ns;

/// New for each container; the network's is given by path.
pub(super) const NAMESPACES: &[Ns] = &[Ns::Pid, Ns::Ipc, Ns::Uts, Ns::Mount, Ns::Cgroup];

/// Destination, type, options; in the order in which they are mounted.
///
/// `/dev` is always among them: with a link in its place the runtime would make the devices
/// wherever the image points.
pub(super) const MOUNTS: &[(&str, &str, &[&str])] = &[
    ("/proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    (
        "/dev/pts",
        "devpts",
        &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    ("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]),
    ("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
];

/// How volumes are mounted, whatever lies below the topmost mount included: device nodes and
/// set-user-id files of the host's directories have no effect inside.
pub(super) const VOLUME_OPTIONS: &[&str] =
    &["rbind", "rprivate", "nosuid", "nodev", "rnosuid", "rnodev"];

/// Hidden, for they tell of the host or of other containers. Those a kernel lacks are passed over
/// by the runtime.
pub(super) const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts", // GHSA-6fw5-f8r9-fgfm
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap", // GHSA-jq35-85cj-fj4p
    "/sys/firmware",
];

/// Visible, but not to be written.
///
/// The controllers of cgroup v1 are here because libcontainer mounts them writable even when
/// `/sys/fs/cgroup` is asked for read-only: root inside could lift its own limits. They stand after
/// their parent, whose new mount would hide theirs. cgroup v2 has none of them.
pub(super) const READONLY_PATHS: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/sys/fs/cgroup",
    "/sys/fs/cgroup/blkio",
    "/sys/fs/cgroup/cpu",
    "/sys/fs/cgroup/cpu,cpuacct",
    "/sys/fs/cgroup/cpuacct",
    "/sys/fs/cgroup/cpuset",
    "/sys/fs/cgroup/devices",
    "/sys/fs/cgroup/dmem",
    "/sys/fs/cgroup/freezer",
    "/sys/fs/cgroup/hugetlb",
    "/sys/fs/cgroup/memory",
    "/sys/fs/cgroup/misc",
    "/sys/fs/cgroup/net_cls",
    "/sys/fs/cgroup/net_cls,net_prio",
    "/sys/fs/cgroup/net_prio",
    "/sys/fs/cgroup/perf_event",
    "/sys/fs/cgroup/pids",
    "/sys/fs/cgroup/rdma",
    "/sys/fs/cgroup/systemd",
    "/sys/fs/cgroup/unified",
];

/// Set in the container's own network namespace, as Docker does: they let programs that are not
/// root bind low ports, and open ICMP datagram sockets (icmp(7)) in place of raw ones.
pub(super) const SYSCTLS: &[(&str, &str)] =
    &[("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// The character devices that may be used: name, major, minor (`None` is any); see
/// `Documentation/admin-guide/devices.txt` of the kernel. libcontainer itself adds the making of
/// any device node (for which `CAP_MKNOD` is not held) and `/dev/net/tun`.
pub(super) const DEVICES: &[(&str, i64, Option<i64>)] = &[
    ("null", 1, Some(3)),
    ("zero", 1, Some(5)),
    ("full", 1, Some(7)),
    ("random", 1, Some(8)),
    ("urandom", 1, Some(9)),
    ("tty", 5, Some(0)),
    ("console", 5, Some(1)),
    ("ptmx", 5, Some(2)),
    ("pts", 136, None),
];
