//! What a caller asks for, as values: a network's addresses and a bundle's launch. Pure.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::error::{Classify, ErrorKind};
use crate::names::{GuestName, IfName, NetworkName, Slug};
use crate::net::policy::{HostPort, NetworkPolicy};
pub use crate::oci::health::HealthOptions;
pub use crate::readiness::Readiness;
pub use crate::spec6::{AddressError6, NetworkAddresses6};

/// The smallest network: its own address, the gateway, the bundle and the broadcast address.
pub const LONGEST_PREFIX: u8 = 30;
/// The largest network.
pub const SHORTEST_PREFIX: u8 = 8;

/// The environment variable that tells the embedded image which daemons to start.
pub const DAEMONS_VARIABLE: &str = "CLAUDE_BOTTLE_SIDECAR_DAEMONS";

/// Addresses that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The subnet has bits set behind its prefix.
    #[error("subnet {subnet} has host bits set")]
    HostBits {
        /// As given.
        subnet: Ipv4Net,
    },
    /// The subnet is too small or too large.
    #[error("subnet {subnet} must have a prefix between /{SHORTEST_PREFIX} and /{LONGEST_PREFIX}")]
    PrefixLength {
        /// As given.
        subnet: Ipv4Net,
    },
    /// Loopback, multicast and the like.
    #[error("subnet {subnet} lies in {range}, which is reserved for {purpose}")]
    Reserved {
        /// As given.
        subnet: Ipv4Net,
        /// The reserved range.
        range: Ipv4Net,
        /// What it is for.
        purpose: &'static str,
    },
    /// An address outside of its subnet.
    #[error("{role} {ip} is not in subnet {subnet}")]
    Outside {
        /// `gateway` or `IP`.
        role: &'static str,
        /// As given.
        ip: Ipv4Addr,
        /// The subnet.
        subnet: Ipv4Net,
    },
    /// An address that has another meaning in its subnet.
    #[error("{role} {ip} is the {meaning} of subnet {subnet}")]
    Special {
        /// `gateway` or `IP`.
        role: &'static str,
        /// As given.
        ip: Ipv4Addr,
        /// `network address`, `broadcast address` or `gateway`.
        meaning: &'static str,
        /// The subnet.
        subnet: Ipv4Net,
    },
}

impl Classify for AddressError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::HostBits { subnet } => Some(format!("write {}", subnet.trunc())),
            _ => None,
        }
    }
}

/// A network's addresses, checked against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAddresses {
    subnet: Ipv4Net,
    gateway: Ipv4Addr,
}

impl NetworkAddresses {
    /// Checks a subnet and the gateway in it, which is its first address unless given.
    ///
    /// # Errors
    /// [`AddressError`] that names the wrong one.
    pub fn new(subnet: Ipv4Net, gateway: Option<Ipv4Addr>) -> Result<Self, AddressError> {
        if subnet.trunc() != subnet {
            return Err(AddressError::HostBits { subnet });
        }
        if !(SHORTEST_PREFIX..=LONGEST_PREFIX).contains(&subnet.prefix_len()) {
            return Err(AddressError::PrefixLength { subnet });
        }
        for (range, purpose) in RESERVED {
            let range: Ipv4Net = range.parse().expect("a constant range is well-formed");
            if range.contains(&subnet) || subnet.contains(&range) {
                return Err(AddressError::Reserved { subnet, range, purpose });
            }
        }
        let gateway = gateway.unwrap_or_else(|| nth(subnet, 1));
        check_host("gateway", gateway, subnet)?;
        Ok(Self { subnet, gateway })
    }

    /// The address range.
    pub fn subnet(&self) -> Ipv4Net {
        self.subnet
    }

    /// The bridge's own address.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// Checks a guest's address, which is the third of the range unless given.
    ///
    /// # Errors
    /// [`AddressError`] that says why it cannot be.
    pub fn guest_ip(
        &self,
        bundle: Ipv4Addr,
        ip: Option<Ipv4Addr>,
    ) -> Result<Ipv4Addr, AddressError> {
        let mut places = [3, 2, 1].map(|n| nth(self.subnet, n)).into_iter();
        let free = places.find(|ip| *ip != self.gateway && *ip != bundle);
        let ip = ip.or(free).unwrap_or(bundle);
        check_host("guest IP", ip, self.subnet)?;
        let meaning = match ip {
            ip if ip == self.gateway => "gateway",
            ip if ip == bundle => "bundle's address",
            ip => return Ok(ip),
        };
        Err(AddressError::Special { role: "guest IP", ip, meaning, subnet: self.subnet })
    }

    /// Checks a bundle's address, which is the first that is not the gateway's unless given.
    ///
    /// # Errors
    /// [`AddressError`] that says why it cannot be.
    pub fn bundle_ip(&self, ip: Option<Ipv4Addr>) -> Result<Ipv4Addr, AddressError> {
        let first = nth(self.subnet, 1);
        let free = if first == self.gateway { nth(self.subnet, 2) } else { first };
        let ip = ip.unwrap_or(if self.gateway == nth(self.subnet, 2) { first } else { free });
        check_host("IP", ip, self.subnet)?;
        if ip == self.gateway {
            let meaning = "gateway";
            return Err(AddressError::Special { role: "IP", ip, meaning, subnet: self.subnet });
        }
        Ok(ip)
    }
}

/// RFC 6890 ranges that no host can route a bottle through.
const RESERVED: [(&str, &str); 5] = [
    ("0.0.0.0/8", "\"this network\""),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local addresses"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "future use"),
];

fn nth(subnet: Ipv4Net, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()).saturating_add(n))
}

fn check_host(role: &'static str, ip: Ipv4Addr, subnet: Ipv4Net) -> Result<(), AddressError> {
    if !subnet.contains(&ip) {
        return Err(AddressError::Outside { role, ip, subnet });
    }
    let meaning = if ip == subnet.network() {
        "network address"
    } else if ip == subnet.broadcast() {
        "broadcast address"
    } else {
        return Ok(());
    };
    Err(AddressError::Special { role, ip, meaning, subnet })
}

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
    /// `seccomp=unconfined`, `apparmor=PROFILE`, `no-new-privileges`.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn net(s: &str) -> Ipv4Net {
        s.parse().unwrap()
    }

    fn ip(s: &str) -> Ipv4Addr {
        s.parse().unwrap()
    }

    #[test]
    fn gateway_and_bundle_have_defaults() {
        let a = NetworkAddresses::new(net("192.168.7.0/24"), None).unwrap();
        assert_eq!(a.gateway(), ip("192.168.7.1"));
        assert_eq!(a.bundle_ip(None), Ok(ip("192.168.7.2")));
        let b = NetworkAddresses::new(net("10.0.0.0/30"), Some(ip("10.0.0.2"))).unwrap();
        assert_eq!(b.bundle_ip(None), Ok(ip("10.0.0.1")));
    }

    #[test]
    fn a_guest_takes_the_third_address_or_the_next_that_is_free() {
        let a = NetworkAddresses::new(net("192.168.7.0/24"), None).unwrap();
        assert_eq!(a.guest_ip(ip("192.168.7.2"), None), Ok(ip("192.168.7.3")));
        assert_eq!(a.guest_ip(ip("192.168.7.3"), None), Ok(ip("192.168.7.2")));
        assert_eq!(a.guest_ip(ip("192.168.7.2"), Some(ip("192.168.7.9"))), Ok(ip("192.168.7.9")));
        for (bad, what) in [
            ("192.168.7.1", "gateway"),
            ("192.168.7.2", "bundle"),
            ("192.168.8.3", "not in subnet"),
            ("192.168.7.255", "broadcast"),
        ] {
            let error = a.guest_ip(ip("192.168.7.2"), Some(ip(bad))).unwrap_err().to_string();
            assert!(error.contains(what), "{bad}: {error}");
        }
        let small = NetworkAddresses::new(net("10.0.0.0/30"), None).unwrap();
        assert!(small.guest_ip(ip("10.0.0.2"), None).is_err());
    }

    #[test]
    fn impossible_networks_are_refused() {
        for bad in [
            "192.168.7.5/24",
            "10.0.0.0/31",
            "10.0.0.0/7",
            "127.1.0.0/16",
            "169.254.7.0/24",
            "224.0.0.0/8",
            "255.255.255.0/24",
            "0.0.0.0/8",
        ] {
            assert!(NetworkAddresses::new(net(bad), None).is_err(), "{bad}");
        }
        let hint = NetworkAddresses::new(net("192.168.7.5/24"), None).unwrap_err().hint();
        assert_eq!(hint.as_deref(), Some("write 192.168.7.0/24"));
    }

    #[test]
    fn impossible_addresses_are_refused_with_their_meaning() {
        let a = NetworkAddresses::new(net("192.168.7.0/24"), None).unwrap();
        for (bad, what) in [
            ("192.168.8.2", "not in subnet"),
            ("192.168.7.0", "network address"),
            ("192.168.7.255", "broadcast address"),
            ("192.168.7.1", "gateway"),
        ] {
            let error = a.bundle_ip(Some(ip(bad))).unwrap_err().to_string();
            assert!(error.contains(what), "{bad}: {error}");
        }
        assert!(NetworkAddresses::new(net("192.168.7.0/24"), Some(ip("192.168.7.0"))).is_err());
    }
}
