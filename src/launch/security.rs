//! How a container is confined and bounded, from the user's words.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::LaunchError;
use crate::oci::apparmor;
use crate::oci::capabilities::Granted;
use crate::oci::limits as parse;
use crate::oci::security::{self, Security};
use crate::oci::selinux::context::{LabelOptions, Labels};
use crate::oci::selinux::host;
use crate::oci::spec::{Container, DeviceRate, Limits};
use crate::oci::ulimit::{self, Ulimit};
use crate::privileges;
use crate::spec::{LimitOptions, SecurityOptions};

pub(super) fn of(wanted: &SecurityOptions) -> Result<Security, LaunchError> {
    let held = privileges::held();
    let words = security::parse(&wanted.security_opt)?;
    if let Some(profile) = &words.apparmor {
        check_profile(profile)?;
    }
    Ok(Security {
        capabilities: Granted::new(&wanted.cap_add, &wanted.cap_drop, &held)?,
        seccomp_unconfined: words.seccomp_unconfined,
        apparmor: words.apparmor,
        ulimits: ulimit::parse_all(&wanted.ulimits)?,
    })
}

/// What is asked for of SELinux labels.
///
/// # Errors
/// [`LaunchError::Security`].
pub(crate) fn label_options(wanted: &SecurityOptions) -> Result<LabelOptions, LaunchError> {
    Ok(security::parse(&wanted.security_opt)?.label)
}

/// Refuses labels that are asked for where the host's policy has none for containers.
///
/// # Errors
/// [`LaunchError::NoContainerLabels`].
pub(crate) fn refuse_labels(options: &LabelOptions) -> Result<(), LaunchError> {
    match options.asks() {
        true => Err(LaunchError::NoContainerLabels),
        false => Ok(()),
    }
}

/// The labels as the kernel writes them.
///
/// # Errors
/// [`LaunchError::UnknownLabel`] for one that the host's policy does not know.
pub(crate) fn known_labels(labels: Labels) -> Result<Labels, LaunchError> {
    let Labels { process, file, common, categories } = labels;
    let known = |label: String| host::canonical(&label).ok_or(LaunchError::UnknownLabel { label });
    let (process, file, common) = (known(process)?, known(file)?, known(common)?);
    Ok(Labels { process, file, common, categories })
}

/// Rights over a network namespace that the host owns: a container with a user namespace of its own
/// has none.
const OVER_THE_NETWORK: [&str; 2] = ["CAP_NET_ADMIN", "CAP_NET_RAW"];

/// What the user should know of capabilities that were asked for in vain.
pub(super) fn without_effect(container: &Container) -> Option<String> {
    container.userns?;
    let Granted { root, everyone } = &container.security.capabilities;
    let has = |name: &&str| root.contains(*name) || everyone.contains(*name);
    let names: Vec<&str> = OVER_THE_NETWORK.into_iter().filter(|name| has(name)).collect();
    (!names.is_empty()).then(|| {
        format!("{} has no effect: the host owns the bundle's network", names.join(" and "))
    })
}

fn check_profile(profile: &str) -> Result<(), LaunchError> {
    if profile == "unconfined" {
        return Ok(());
    }
    if !apparmor::is_enabled() {
        return Err(LaunchError::NoAppArmor { profile: profile.to_owned() });
    }
    match apparmor::is_loaded(profile) {
        Some(false) => Err(LaunchError::NoProfile { profile: profile.to_owned() }),
        // A list that cannot be read is no proof; the kernel will say.
        Some(true) | None => Ok(()),
    }
}

pub(super) fn limits(wanted: &LimitOptions) -> Result<Limits, LaunchError> {
    let memory = wanted.memory.as_deref().map(parse::parse_memory).transpose()?;
    let swap = wanted.memory_swap.as_deref().map(|text| parse::parse_memory_swap(text, memory));
    let rates = |texts: &[String]| texts.iter().map(|text| rate(text)).collect::<Result<_, _>>();
    Ok(Limits {
        memory,
        memory_swap: swap.transpose()?,
        pids: wanted.pids.as_deref().map(parse::parse_pids).transpose()?,
        cpu_milli: wanted.cpus.as_deref().map(parse::parse_cpus).transpose()?,
        read_bps: rates(&wanted.device_read_bps)?,
        write_bps: rates(&wanted.device_write_bps)?,
    })
}

fn rate(text: &str) -> Result<DeviceRate, LaunchError> {
    let (device, bytes_per_second) = parse::parse_rate(text)?;
    let no = |path: &PathBuf, problem| LaunchError::Device { path: path.clone(), problem };
    let about = fs::metadata(&device).map_err(|_| no(&device, "does not exist"))?;
    if !about.file_type().is_block_device() {
        return Err(no(&device, "is no block device"));
    }
    let (major, minor) = (rustix::fs::major(about.rdev()), rustix::fs::minor(about.rdev()));
    if Path::new(&format!("/sys/dev/block/{major}:{minor}/partition")).exists() {
        return Err(no(&device, "is a partition; the kernel bounds whole disks only"));
    }
    Ok(DeviceRate { device, major, minor, bytes_per_second })
}

/// What differs, for people.
pub(super) fn differences(there: &Security, wanted: &Security) -> Vec<String> {
    let mut all = Vec::new();
    let mut differ = |what: &str, a: String, b: String| {
        if a != b {
            all.push(format!("{what} {a} (wanted: {b})"));
        }
    };
    let capabilities = |s: &Security| {
        let names = |set: &std::collections::BTreeSet<String>| {
            set.iter().map(|n| n.trim_start_matches("CAP_")).collect::<Vec<_>>().join(" ")
        };
        let Granted { root, everyone } = &s.capabilities;
        let extra = if everyone.is_empty() { "" } else { " everyone: " };
        format!("[{}{extra}{}]", names(root), names(everyone))
    };
    let seccomp =
        |s: &Security| (if s.seccomp_unconfined { "unconfined" } else { "default" }).to_owned();
    let profile = |s: &Security| s.apparmor.clone().unwrap_or_else(|| "default".to_owned());
    let ulimits = |s: &Security| {
        let one = |u: &Ulimit| format!("{}={}:{}", u.name, u.soft, u.hard);
        format!("[{}]", s.ulimits.iter().map(one).collect::<Vec<_>>().join(" "))
    };
    differ("capabilities", capabilities(there), capabilities(wanted));
    differ("system-call filter", seccomp(there), seccomp(wanted));
    differ("AppArmor profile", profile(there), profile(wanted));
    differ("resource limits", ulimits(there), ulimits(wanted));
    all
}
