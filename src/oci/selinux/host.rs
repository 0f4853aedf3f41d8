//! Whether the host has SELinux, and what its policy has for containers.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::attribute;
use super::context::{Context, Defaults, of_containers, policy_name};

/// Where every distribution mounts it.
const SELINUXFS: &str = "/sys/fs/selinux";
/// `linux/magic.h`.
const SELINUX_MAGIC: u64 = 0xf97c_ff8c;
/// The label of every process until a policy is loaded (`security_sid_to_context` of the kernel).
const WITHOUT_POLICY: &str = "kernel";
/// Says which policy is the host's.
const CONFIG: &str = "/etc/selinux/config";

/// Where Fedora's policy module for containers (container-selinux) has its contexts, which go before
/// those of the policy itself: docker and podman look there first.
const CONTAINER_SELINUX: &str = "/usr/share/containers/selinux/contexts";

/// What the host has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// No SELinux.
    Off,
    /// A policy that knows no containers.
    WithoutContainers,
    /// One that does.
    WithContainers(Defaults),
}

/// Whether SELinux is on. As libselinux has it, a `selinuxfs` that is mounted read-only is that of a
/// container, which is to take SELinux for off. So is one that has no policy yet, and would take any label.
pub fn is_enabled() -> bool {
    let Ok(about) = rustix::fs::statvfs(SELINUXFS) else { return false };
    let Ok(kind) = rustix::fs::statfs(SELINUXFS) else { return false };
    // The field is signed, and 32 bits wide on some architectures.
    let magic = kind.f_type.cast_unsigned() & 0xffff_ffff;
    let read_only = about.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
    magic == SELINUX_MAGIC && !read_only && !attribute::own().is_ok_and(|l| l == WITHOUT_POLICY)
}

/// Looks at the policy, whose own contexts for containers must be ones that the kernel knows.
pub fn policy() -> Policy {
    if !is_enabled() {
        return Policy::Off;
    }
    match defaults() {
        Some(defaults) => Policy::WithContainers(defaults),
        None => Policy::WithoutContainers,
    }
}

fn defaults() -> Option<Defaults> {
    let levels =
        fs::read_to_string(Path::new(SELINUXFS).join("mls")).is_ok_and(|t| t.trim() == "1");
    let files = [Some(PathBuf::from(CONTAINER_SELINUX)), lxc_contexts()];
    let mut contexts = files.into_iter().flatten().filter_map(|path| {
        let (process, file) = of_containers(&fs::read_to_string(path).ok()?)?;
        Some(Defaults { process, file, levels })
    });
    contexts.find(|found| knows(&found.process) && knows(&found.file))
}

/// Where the policy itself has its contexts for containers (selinux_lxc_contexts_path(3)).
fn lxc_contexts() -> Option<PathBuf> {
    let config = fs::read_to_string(CONFIG).ok()?;
    let name = policy_name(&config)?;
    Some(Path::new("/etc/selinux").join(name).join("contexts/lxc_contexts"))
}

fn knows(context: &Context) -> bool {
    canonical(&context.to_string()).is_some()
}

/// A context as the kernel writes it (`s0:c1.c3` for `s0:c1,c2,c3`), which is how files are found to have
/// it; `None` if the loaded policy does not have it. Where the kernel does not say, as it was given.
pub fn canonical(context: &str) -> Option<String> {
    match ask(context) {
        Ok(answer) => Some(answer),
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => None,
        Err(_) => Some(context.to_owned()),
    }
}

/// The kernel's answer to a context (security_canonicalize_context(3)).
fn ask(context: &str) -> io::Result<String> {
    let path = Path::new(SELINUXFS).join("context");
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    file.write_all(context.as_bytes())?;
    let mut answer = String::new();
    file.read_to_string(&mut answer)?;
    Ok(answer.trim_end_matches('\0').to_owned())
}
