//! Where an installation keeps its things and what it gives out: prefix, directories, address
//! pool. Precedence is the caller's business; this is the outcome.

use std::path::PathBuf;

use crate::names::{ContainerName, Prefix};
use crate::oci::helper::HelperBinary;
use crate::oci::registry::RegistryConfig;
use crate::oci::unpack::Limits;
use crate::plan::Pool;
use crate::spec::Userns;

/// The settings of an installation.
#[derive(Clone, Debug)]
pub struct Config {
    /// The first part of all names.
    pub prefix: Prefix,
    /// Records, locks and run-time state; on tmpfs.
    pub state: PathBuf,
    /// Images, writable layers and logs; on disk.
    pub root: PathBuf,
    /// Where network namespaces are mounted, as `ip netns` has it.
    pub netns: PathBuf,
    /// The addresses that bottles are given.
    pub pool: Pool,
    /// What helper processes run.
    pub helper: HelperBinary,
    /// What a layer may have; more is refused when an image is loaded.
    pub layer_limits: Limits,
    /// How image registries are reached.
    pub registry: RegistryConfig,
    /// In which user namespace bundles are for which nothing was asked.
    pub userns: Userns,
}

impl Default for Config {
    /// The settings of root.
    fn default() -> Self {
        Self {
            prefix: Prefix::default(),
            state: PathBuf::from("/run/carboy"),
            root: PathBuf::from("/var/lib/carboy"),
            netns: PathBuf::from("/run/netns"),
            pool: Pool::default(),
            helper: HelperBinary::default(),
            layer_limits: Limits::default(),
            registry: RegistryConfig::default(),
            userns: Userns::default(),
        }
    }
}

impl Config {
    /// The directory of a container's writable layer and log.
    pub(crate) fn storage(&self, name: &ContainerName) -> PathBuf {
        self.root.join("bundles").join(name.as_str())
    }
}
