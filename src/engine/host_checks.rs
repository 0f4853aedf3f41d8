//! What a host must have for a bundle that is wanted, asked before anything changes.

use std::path::Path;

use super::Error;
use crate::oci::cgroup;
use crate::oci::spec::Limits;

/// Refuses bounds that this host's control groups cannot enforce.
pub(super) fn check_controllers(limits: &Limits) -> Result<(), Error> {
    let there = cgroup::controllers()?;
    let Some(there) = there else {
        return Err(Error::Unsupported {
            what: "no control groups mounted".to_owned(),
            hint: "mount cgroup2 on /sys/fs/cgroup",
        });
    };
    let wanted = [
        ("memory", limits.memory.is_some()),
        ("pids", limits.pids.is_some()),
        ("cpu", limits.cpu_milli.is_some()),
        // The same controller by its names in version 2 and version 1.
        (
            if there.contains("blkio") { "blkio" } else { "io" },
            !(limits.read_bps.is_empty() && limits.write_bps.is_empty()),
        ),
    ];
    match wanted.iter().find(|(controller, wanted)| *wanted && !there.contains(*controller)) {
        None => Ok(()),
        Some((controller, _)) => Err(Error::Unsupported {
            what: format!("no {controller} controller in its control groups"),
            hint: "enable it in the kernel's command line, or leave the limit out",
        }),
    }
}

/// Refuses an image root that overlayfs cannot have a writable layer on: overlayfs itself, as in a
/// container. Where the file system cannot be told the mount says what is wrong.
pub(super) fn check_file_system(root: &Path) -> Result<(), Error> {
    const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;
    let existing = root.ancestors().find(|path| path.exists());
    let kind = existing.and_then(|path| rustix::fs::statfs(path).ok());
    match kind {
        Some(kind) if kind.f_type.cast_unsigned() == OVERLAYFS_SUPER_MAGIC => {
            Err(Error::Unsupported {
                what: format!("{} on overlayfs, which carries no writable layer", root.display()),
                hint: "use --root on ext4, xfs, btrfs or tmpfs, not on overlayfs itself",
            })
        }
        _ => Ok(()),
    }
}
