//! What a container uses, as the files of its control groups tell: version 1, version 2 or both.

use std::fs;
use std::path::PathBuf;

use serde::Serialize;

use super::cgroup;
use crate::fsutil::PathError;
use crate::names::ContainerName;

/// What a container has used and uses. `None` is what this host's control groups do not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Processor time since its start, in nanoseconds.
    pub cpu_nanoseconds: Option<u64>,
    /// Memory in bytes, without the part of the page cache that the kernel can drop at once.
    pub memory: Option<u64>,
    /// In bytes, if there is a bound.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// If there is a bound.
    pub pids_limit: Option<u64>,
    /// Read from disks since its start, in bytes.
    pub block_read: Option<u64>,
    /// Written to disks since its start, in bytes.
    pub block_written: Option<u64>,
}

/// What the container of this name uses now; nothing is known of one that does not run.
///
/// # Errors
/// If the mount table cannot be read.
pub(crate) fn of(name: &ContainerName) -> Result<Usage, PathError> {
    Ok(Files(cgroup::group_directories(name)?).usage())
}

/// Whether the kernel has killed a process of the container because its memory ran out. Counted
/// from the start of its group; once that is gone nothing is known, and that is no.
pub(crate) fn oom_killed(name: &ContainerName) -> bool {
    cgroup::group_directories(name).is_ok_and(|directories| Files(directories).oom_killed())
}

/// A group's directory in every hierarchy.
struct Files(Vec<PathBuf>);

impl Files {
    /// The text of the first of these files that is there. Each of them is in one hierarchy only.
    fn read(&self, name: &str) -> Option<String> {
        self.0.iter().find_map(|directory| fs::read_to_string(directory.join(name)).ok())
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.read(name)?.trim().parse().ok()
    }

    fn oom_killed(&self) -> bool {
        ["memory.events", "memory.oom_control"]
            .iter()
            .filter_map(|file| value(&self.read(file)?, "oom_kill"))
            .any(|count| count > 0)
    }

    fn usage(&self) -> Usage {
        let memory = self.number("memory.current").or_else(|| self.number("memory.usage_in_bytes"));
        let stat = self.read("memory.stat").unwrap_or_default();
        let inactive =
            value(&stat, "total_inactive_file").or_else(|| value(&stat, "inactive_file"));
        let cpu = self.read("cpu.stat").and_then(|text| value(&text, "usage_usec"));
        let (block_read, block_written) = self.block();
        Usage {
            cpu_nanoseconds: cpu
                .and_then(|usec| usec.checked_mul(1000))
                .or_else(|| self.number("cpuacct.usage")),
            memory: memory.map(|bytes| bytes.saturating_sub(inactive.unwrap_or_default())),
            memory_limit: self
                .number("memory.max")
                .or_else(|| self.number("memory.limit_in_bytes"))
                .filter(|bytes| *bytes < UNBOUNDED),
            pids: self.number("pids.current"),
            pids_limit: self.number("pids.max"),
            block_read,
            block_written,
        }
    }

    fn block(&self) -> (Option<u64>, Option<u64>) {
        if let Some(text) = self.read("io.stat") {
            return (Some(sum_v2(&text, "rbytes=")), Some(sum_v2(&text, "wbytes=")));
        }
        match self.read("blkio.throttle.io_service_bytes_recursive") {
            Some(text) => (Some(sum_v1(&text, "Read")), Some(sum_v1(&text, "Write"))),
            None => (None, None),
        }
    }
}

/// Version 1 says "no bound" with the largest multiple of a page that fits into 63 bits.
const UNBOUNDED: u64 = 1 << 62;

/// The number behind a word at the start of a line (cgroups(7), "flat keyed").
fn value(text: &str, key: &str) -> Option<u64> {
    let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    found?.trim().parse().ok()
}

/// `8:0 rbytes=1 wbytes=2 …`, a line for each disk.
fn sum_v2(text: &str, key: &str) -> u64 {
    text.split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok())
        .sum()
}

/// `8:0 Read 1`, a line for each disk and operation.
fn sum_v1(text: &str, operation: &str) -> u64 {
    let fields = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let of_operation = fields.filter(|fields| fields.get(1) == Some(&operation));
    of_operation.filter_map(|fields| fields.get(2)?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn files(directory: &Path, files: &[(&str, &str)]) -> Files {
        for (name, content) in files {
            fs::write(directory.join(name), content).unwrap();
        }
        Files(vec![directory.to_owned()])
    }

    #[test]
    fn version_2_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let group = files(
            directory.path(),
            &[
                ("cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
                ("memory.current", "5000\n"),
                ("memory.stat", "anon 1\ninactive_file 1000\n"),
                ("memory.max", "67108864\n"),
                ("memory.events", "low 0\noom 1\noom_kill 1\noom_group_kill 0\n"),
                ("pids.current", "3\n"),
                ("pids.max", "max\n"),
                ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n"),
            ],
        );
        let want = Usage {
            cpu_nanoseconds: Some(1_500_000),
            memory: Some(4000),
            memory_limit: Some(64 << 20),
            pids: Some(3),
            pids_limit: None,
            block_read: Some(11),
            block_written: Some(22),
        };
        assert_eq!(group.usage(), want);
        assert!(group.oom_killed());
    }

    #[test]
    fn version_1_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let group = files(
            directory.path(),
            &[
                ("cpuacct.usage", "1500000\n"),
                ("cpu.stat", "nr_periods 0\n"),
                ("memory.usage_in_bytes", "5000\n"),
                ("memory.stat", "inactive_file 7\ntotal_inactive_file 1000\n"),
                ("memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n"),
                ("pids.current", "3\n"),
                ("pids.max", "256\n"),
                (
                    "blkio.throttle.io_service_bytes_recursive",
                    "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\n8:16 Read 1\nTotal 31\n",
                ),
            ],
        );
        let want = Usage {
            cpu_nanoseconds: Some(1_500_000),
            memory: Some(4000),
            memory_limit: None,
            pids: Some(3),
            pids_limit: Some(256),
            block_read: Some(11),
            block_written: Some(20),
        };
        assert_eq!(group.usage(), want);
        assert!(!group.oom_killed());
    }

    #[test]
    fn nothing_is_known_of_what_is_not_there() {
        assert_eq!(Files(Vec::new()).usage(), Usage::default());
        assert!(!Files(Vec::new()).oom_killed());
    }
}
