//! What a caller asks for, as values: a network and a bundle's launch. Pure.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::names::{GuestName, IfName, NetworkName, Slug};
use crate::net::policy::{HostPort, NetworkPolicy};
pub use crate::oci::health::HealthOptions;
pub use crate::readiness::Readiness;
pub use crate::spec4::{AddressError, LONGEST_PREFIX, NetworkAddresses, SHORTEST_PREFIX};
pub use crate::spec6::{AddressError6, NetworkAddresses6};

/// The environment variable that tells the embedded image which daemons to start.
pub const DAEMONS_VARIABLE: &str = "CLAUDE_BOTTLE_SIDECAR_DAEMONS";

/// A bundle network as asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Its name.
    pub name: NetworkName,
    /// Its addresses.
    pub addresses: NetworkAddresses,
    /// Its IPv6 addresses; IPv6 is off if `None`.
    #[serde(default)]
    pub addresses6: Option<NetworkAddresses6>,
    /// What it may be used for.
    #[serde(flatten)]
    pub policy: NetworkPolicy,
    /// The netlink group that denied packets are told to, if the policy wants them kept.
    #[serde(default)]
    pub log_group: Option<u16>,
    /// In bytes.
    pub mtu: u32,
    /// The device that leads out, if the host has one.
    pub uplink: Option<IfName>,
    /// The same for IPv6, if the network has it.
    #[serde(default)]
    pub uplink6: Option<IfName>,
    /// Its guest side, if one is attached.
    #[serde(default)]
    pub guest: Option<GuestSpec>,
}

/// A guest side: a second namespace on a bottle's bridge, from which the bundle alone is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestSpec {
    /// Its name.
    pub name: GuestName,
    /// The path of its namespace.
    pub netns: PathBuf,
    /// The pinned address.
    pub ip: Ipv4Addr,
    /// The pinned IPv6 address, where the network has IPv6.
    #[serde(default)]
    pub ip6: Option<Ipv6Addr>,
    /// The address of the bundle it may reach.
    pub bundle_ip: Ipv4Addr,
    /// That bundle's IPv6 address.
    #[serde(default)]
    pub bundle_ip6: Option<Ipv6Addr>,
    /// The bundle's ports that are open to it; every TCP port if there is none. Sorted, each once.
    pub allow_ports: Vec<HostPort>,
}

/// A guest side as asked for. What is `None` is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestRequest {
    /// The pinned address; the third of the range unless given.
    pub ip: Option<Ipv4Addr>,
    /// The pinned IPv6 address; the third of the range unless given, where the network has IPv6.
    pub ip6: Option<Ipv6Addr>,
    /// The bundle's ports that are open to it; every TCP port if there is none.
    pub allow_ports: Vec<HostPort>,
}

/// Bounds on what a bundle may use, as asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitOptions {
    /// Memory, as Docker writes it: `512m`, `1g`, bytes. Swap is included.
    pub memory: Option<String>,
    /// Processes and threads.
    pub pids: Option<String>,
    /// Processors, as Docker writes it: `1.5`.
    pub cpus: Option<String>,
    /// Memory and swap together; `-1` is no limit. As much as memory alone unless given.
    pub memory_swap: Option<String>,
    /// `DEVICE:BYTES`, per second.
    pub device_read_bps: Vec<String>,
    /// `DEVICE:BYTES`, per second.
    pub device_write_bps: Vec<String>,
}

/// How a bundle is confined, where it is to be otherwise than by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityOptions {
    /// Capabilities to give, by name, or `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities to take, by name, or `ALL`.
    pub cap_drop: Vec<String>,
    /// `seccomp=unconfined`, `apparmor=PROFILE`, `label=…`, `no-new-privileges`.
    pub security_opt: Vec<String>,
    /// `NAME=SOFT[:HARD]`.
    pub ulimits: Vec<String>,
}

/// How a bundle runs. The fields hold what a user would write on Docker's command line; they are
/// checked before anything changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Replaces the image's command.
    pub command: Vec<String>,
    /// Replaces the image's entrypoint, and drops the image's command.
    pub entrypoint: Option<String>,
    /// `name`, `uid`, `name:group` or `uid:gid`.
    pub user: Option<String>,
    /// The working directory inside.
    pub workdir: Option<String>,
    /// Bounds.
    pub limits: LimitOptions,
    /// `max-size=10m` and `max-file=3`, as Docker writes them: the bounds of the log.
    pub log_opts: Vec<String>,
    /// Free text for the user.
    pub labels: BTreeMap<String, String>,
    /// The root file system cannot be written.
    pub read_only: bool,
    /// A small init is PID 1.
    pub init: bool,
    /// Files with a `NAME=VALUE` or `NAME` on each line; what is given by itself wins.
    pub env_files: Vec<PathBuf>,
    /// File systems in memory: `DESTINATION[:OPTION,…]`.
    pub tmpfs: Vec<String>,
    /// A read-only root gets no file systems in memory for `/run`, `/tmp` and `/var/tmp`.
    pub no_read_only_tmpfs: bool,
    /// `NAME=FILE` or `NAME=env:VARIABLE`, seen inside as `/run/secrets/NAME`.
    pub secrets: Vec<String>,
    /// How it is confined.
    pub security: SecurityOptions,
    /// Whether it is started again when it ends of its own accord: `no` unless given, `always`,
    /// `on-failure`, `on-failure:N`.
    pub restart: Option<String>,
    /// How its health is checked.
    pub health: HealthOptions,
    /// What `up` waits for before it returns.
    pub ready: Readiness,
    /// When the image is fetched from its registry.
    pub pull: PullPolicy,
    /// Whether it has ids of its own; as [`crate::Config::userns`] says unless given.
    pub userns: Option<Userns>,
}

/// In which user namespace a bundle is (`user_namespaces(7)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Userns {
    /// The host's: root inside has root's id.
    #[default]
    Host,
    /// One of its own, with 65,536 ids of the host that nobody else has.
    Auto,
}

/// When an image is fetched from its registry, as `docker run --pull`. The built-in image never is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Each time: only what changed is fetched.
    Always,
    /// When the store does not have it.
    #[default]
    Missing,
    /// Never: it must have been loaded or pulled.
    Never,
}

/// How a bundle is launched: everything but its addresses and its image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaunchOptions {
    /// The daemons of the embedded image, as csv; `None` leaves the choice to the image.
    pub daemons_csv: Option<String>,
    /// `NAME=VALUE`, or `NAME` to take the value from the caller's environment.
    pub environment: Vec<String>,
    /// `SOURCE:DESTINATION[:ro|rw|z|Z]`.
    pub volumes: Vec<String>,
    /// How it runs.
    pub run: RunOptions,
}

/// What `docker run -d` was told: a bundle on a network that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleLaunchSpec {
    /// The bottle.
    pub slug: Slug,
    /// The network's name.
    pub network: NetworkName,
    /// The network's range; checked against the network that exists.
    pub subnet: Ipv4Net,
    /// The network's gateway; checked against the network that exists.
    pub gateway: Ipv4Addr,
    /// The pinned address.
    pub bundle_ip: Ipv4Addr,
    /// The pinned IPv6 address; the second of the network's range unless given, where the network
    /// has IPv6.
    pub bundle_ip6: Option<Ipv6Addr>,
    /// The daemons of the embedded image, as csv; `None` leaves the choice to the image.
    pub daemons_csv: Option<String>,
    /// `NAME=VALUE`, or `NAME` to take the value from the caller's environment.
    pub environment: Vec<String>,
    /// `SOURCE:DESTINATION[:ro|rw|z|Z]`.
    pub volumes: Vec<String>,
    /// The image, by name.
    pub image: String,
    /// How it runs.
    pub run: RunOptions,
}

impl BundleLaunchSpec {
    /// How it is launched, in the form that a bottle has it too.
    pub(crate) fn options(&self) -> LaunchOptions {
        LaunchOptions {
            daemons_csv: self.daemons_csv.clone(),
            environment: self.environment.clone(),
            volumes: self.volumes.clone(),
            run: self.run.clone(),
        }
    }
}

/// What `up` was told. What is `None` is chosen, or kept from the bottle that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BottleSpec {
    /// The bottle.
    pub slug: Slug,
    /// The network's range.
    pub subnet: Option<Ipv4Net>,
    /// The network's gateway.
    pub gateway: Option<Ipv4Addr>,
    /// The pinned address.
    pub bundle_ip: Option<Ipv4Addr>,
    /// The network's IPv6 range; IPv6 is off if `None`.
    pub subnet6: Option<Ipv6Net>,
    /// The network's IPv6 gateway.
    pub gateway6: Option<Ipv6Addr>,
    /// The pinned IPv6 address.
    pub bundle_ip6: Option<Ipv6Addr>,
    /// What the network may be used for.
    pub policy: NetworkPolicy,
    /// In bytes; that of the device that leads out unless given.
    pub mtu: Option<u32>,
    /// The guest side; one that is attached already is kept if `None`.
    pub guest: Option<GuestRequest>,
    /// The image, by name.
    pub image: String,
    /// Everything else.
    pub options: LaunchOptions,
}

impl BottleSpec {
    /// A bottle of which everything but its name and image is chosen, or kept.
    pub fn new(slug: Slug, image: &str) -> Self {
        Self {
            slug,
            subnet: None,
            gateway: None,
            bundle_ip: None,
            subnet6: None,
            gateway6: None,
            bundle_ip6: None,
            policy: NetworkPolicy::default(),
            mtu: None,
            guest: None,
            image: image.to_owned(),
            options: LaunchOptions::default(),
        }
    }
}
