//! A bottle's plan as callers see it, in JSON as well. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{guest_end, netns_path};
use crate::names::{ContainerName, GuestName, NetworkName, Slug};
use crate::net::policy::HostPort;
use crate::net::spec::MacAddr;
use crate::spec::{GuestSpec, NetworkSpec};

/// A guest side as callers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestView {
    /// Its name, which `ip netns` knows.
    pub name: GuestName,
    /// The pinned address.
    pub ip: Ipv4Addr,
    /// The pinned IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip6: Option<Ipv6Addr>,
    /// `eth0`'s address on the wire.
    pub mac: MacAddr,
    /// The namespace's path.
    pub netns: PathBuf,
    /// The bundle's ports that are open to it; every TCP port if there is none.
    pub allow_ports: Vec<HostPort>,
}

impl From<&GuestSpec> for GuestView {
    fn from(side: &GuestSpec) -> Self {
        Self {
            name: side.name.clone(),
            ip: side.ip,
            ip6: side.ip6,
            mac: guest_end(side).mac,
            netns: side.netns.clone(),
            allow_ports: side.allow_ports.clone(),
        }
    }
}

/// A bottle's plan as callers see it: known before anything starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BottleView {
    /// The bottle.
    pub slug: Slug,
    /// The network's name.
    pub network: NetworkName,
    /// The container's name.
    pub container: ContainerName,
    /// The bridge's interface name.
    pub bridge: String,
    /// The network's range.
    pub subnet: Ipv4Net,
    /// The bridge's address.
    pub gateway: Ipv4Addr,
    /// The pinned address.
    pub bundle_ip: Ipv4Addr,
    /// The network's IPv6 range, if it has IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet6: Option<Ipv6Net>,
    /// The bridge's IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<Ipv6Addr>,
    /// The pinned IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_ip6: Option<Ipv6Addr>,
    /// `eth0`'s address on the wire.
    pub mac: MacAddr,
    /// What a VM's allowlist needs: the pinned addresses alone.
    pub allow_cidrs: Vec<IpNet>,
    /// The network namespace's path.
    pub netns: PathBuf,
    /// The guest side, if one is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestView>,
}

impl BottleView {
    /// The view of a bundle at `ip` on `network`.
    pub fn new(
        slug: &Slug,
        network: &NetworkSpec,
        container: &ContainerName,
        ip: Ipv4Addr,
        ip6: Option<Ipv6Addr>,
        netns_dir: &Path,
    ) -> Self {
        let pinned6 = ip6.map(|ip| IpNet::from(Ipv6Net::new_assert(ip, 128)));
        Self {
            slug: slug.clone(),
            network: network.name.clone(),
            container: container.clone(),
            bridge: network.name.bridge().to_string(),
            subnet: network.addresses.subnet(),
            gateway: network.addresses.gateway(),
            bundle_ip: ip,
            subnet6: network.addresses6.map(|a| a.subnet()),
            gateway6: network.addresses6.map(|a| a.gateway()),
            bundle_ip6: ip6,
            mac: MacAddr::of_bundle(ip),
            allow_cidrs: [IpNet::from(Ipv4Net::new_assert(ip, 32))]
                .into_iter()
                .chain(pinned6)
                .collect(),
            netns: netns_path(netns_dir, container),
            guest: network.guest.as_ref().map(GuestView::from),
        }
    }
}
