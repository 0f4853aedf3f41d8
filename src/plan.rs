//! From what was asked for to the resources that are wanted, in dependency order. Pure.

mod view;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnet::{Ipv4Net, Ipv6Net};
use sha2::{Digest, Sha256};

pub use self::view::{BottleView, GuestView};
use crate::names::{ContainerName, GuestName, IfName, NetworkName};
use crate::net::spec::{
    Bridge, BridgeRules, End, Firewall, GuestPeer, GuestRules, MacAddr, Netns, Passage, PortRules,
    Uplink, Uplink6, Veth,
};
use crate::oci::spec::Container;
use crate::resource::Resource;
use crate::spec::{GuestSpec, NetworkAddresses6, NetworkSpec};

/// The address ranges bottles are given when none is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The whole range.
    pub range: Ipv4Net,
    /// The prefix length of one bottle's subnet.
    pub prefix: u8,
}

impl Default for Pool {
    fn default() -> Self {
        let range = Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16);
        Self { range, prefix: 24 }
    }
}

impl Pool {
    /// Every subnet of the pool once, beginning with the one the seed's hash picks: the same slug
    /// gets the same subnet as long as nothing else takes it.
    pub fn candidates(self, seed: &str) -> impl Iterator<Item = Ipv4Net> {
        let bits = u32::from(self.prefix.saturating_sub(self.range.prefix_len())).min(31);
        let count = 1u32 << bits;
        let digest = Sha256::digest(seed.as_bytes());
        let first = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) % count;
        let size = 32 - u32::from(self.prefix);
        let base = u32::from(self.range.network());
        (0..count).map(move |i| {
            let index = first.wrapping_add(i) % count;
            Ipv4Net::new_assert(Ipv4Addr::from(base + (index << size)), self.prefix)
        })
    }
}

/// The link group of a network's links: derived from the name, so that it marks them as ours in
/// the very message that makes them. The highest bit keeps clear of numbers people choose.
pub fn link_group(network: &NetworkName) -> u32 {
    let digest = Sha256::digest(network.as_str().as_bytes());
    u32::from_be_bytes([digest[16], digest[17], digest[18], digest[19]]) & 0x3fff_ffff | 0x4000_0000
}

/// The resources of a network. The first [`shared_count`] of them touch what all bottles share.
pub fn network(spec: &NetworkSpec) -> Vec<Resource> {
    let bridge = spec.name.bridge();
    let mut resources = vec![Resource::Firewall(Firewall {}), Resource::Passage(Passage {})];
    // An uplink belongs to those who have a way out.
    let way_out = |device: &Option<IfName>| device.clone().filter(|_| !spec.policy.internal);
    let (uplink, uplink6) = (way_out(&spec.uplink), way_out(&spec.uplink6));
    resources.extend(uplink.clone().map(|device| Resource::Uplink(Uplink { device })));
    resources.extend(uplink6.clone().map(|device| Resource::Uplink6(Uplink6 { device })));
    // The rules before the links: from its first moment a bridge is closed.
    resources.push(Resource::BridgeRules(BridgeRules {
        bridge: bridge.clone(),
        gateway: spec.addresses.gateway(),
        gateway6: spec.addresses6.map(|a| a.gateway()),
        uplink,
        uplink6,
        internal: spec.policy.internal,
        egress: spec.policy.egress.clone(),
        host_ports: spec.policy.host_ports.clone(),
        log_group: spec.log_group,
    }));
    resources.push(Resource::Bridge(Bridge {
        name: bridge,
        network: spec.name.clone(),
        subnet: spec.addresses.subnet(),
        gateway: spec.addresses.gateway(),
        gateway6: spec.addresses6.map(|a| prefixed(a.gateway(), a)),
        mac: MacAddr::of_gateway(spec.addresses.gateway()),
        mtu: spec.mtu,
        group: link_group(&spec.name),
    }));
    if let Some(side) = &spec.guest {
        resources.extend(guest(spec, side));
    }
    resources
}

/// The resources of a guest side on its network.
pub fn guest(network: &NetworkSpec, side: &GuestSpec) -> Vec<Resource> {
    let addresses = network.addresses;
    let ip6 = side.ip6.zip(network.addresses6);
    let rules = GuestRules {
        bridge: network.name.bridge(),
        veth: side.name.veth(),
        guest: guest_end(side),
        bundle: End {
            mac: MacAddr::of_bundle(side.bundle_ip),
            ip: side.bundle_ip,
            ip6: side.bundle_ip6,
        },
        ports: side.allow_ports.clone(),
        log_group: network.log_group,
    };
    let veth = Veth {
        name: rules.veth.clone(),
        container: side.name.clone().into(),
        bridge: rules.bridge.clone(),
        bridge_mac: rules.bundle.mac,
        netns: side.netns.clone(),
        mac: MacAddr::of_host_end(side.ip),
        address: Ipv4Net::new_assert(side.ip, addresses.subnet().prefix_len()),
        address6: ip6.map(|(ip, addresses)| prefixed(ip, addresses)),
        peer_mac: rules.guest.mac,
        gateway: side.bundle_ip,
        gateway6: side.bundle_ip6,
        internal: true,
        meets_ports: true,
        mtu: network.mtu,
        group: link_group(&network.name),
    };
    vec![
        Resource::Netns(Netns {
            name: side.name.clone().into(),
            path: side.netns.clone(),
            ipv6: ip6.is_some(),
            open_sockets: false,
        }),
        Resource::GuestRules(rules),
        Resource::Veth(veth),
    ]
}

fn guest_end(side: &GuestSpec) -> End {
    End { mac: MacAddr::of_bundle(side.ip), ip: side.ip, ip6: side.ip6 }
}

/// How many of a network's resources are shared with other bottles: those are changed under the
/// host's lock.
pub fn shared_count(resources: &[Resource]) -> usize {
    resources
        .iter()
        .take_while(|r| {
            matches!(
                r,
                Resource::Firewall(_)
                    | Resource::Passage(_)
                    | Resource::Uplink(_)
                    | Resource::Uplink6(_)
                    | Resource::BridgeRules(_)
            )
        })
        .count()
}

/// The resources of a bundle on its network, below the container.
pub fn port(
    network: &NetworkSpec,
    name: &ContainerName,
    ip: Ipv4Addr,
    ip6: Option<Ipv6Addr>,
    netns_dir: &Path,
) -> Vec<Resource> {
    // Without a range the network has no IPv6.
    let ip6 = ip6.zip(network.addresses6);
    let addresses = network.addresses;
    let netns = netns_path(netns_dir, name);
    let veth = Veth {
        name: name.veth(),
        container: name.clone().into(),
        bridge: network.name.bridge(),
        bridge_mac: MacAddr::of_gateway(addresses.gateway()),
        netns: netns.clone(),
        mac: MacAddr::of_host_end(ip),
        address: Ipv4Net::new_assert(ip, addresses.subnet().prefix_len()),
        address6: ip6.map(|(ip, addresses)| prefixed(ip, addresses)),
        peer_mac: MacAddr::of_bundle(ip),
        gateway: addresses.gateway(),
        gateway6: network.addresses6.map(|a| a.gateway()),
        internal: network.policy.internal,
        meets_ports: false,
        mtu: network.mtu,
        group: link_group(&network.name),
    };
    vec![
        Resource::Netns(Netns {
            name: name.clone().into(),
            path: netns,
            ipv6: ip6.is_some(),
            open_sockets: false,
        }),
        Resource::PortRules(PortRules {
            bridge: veth.bridge.clone(),
            veth: veth.name.clone(),
            mac: veth.peer_mac,
            ip,
            ip6: ip6.map(|(ip, _)| ip),
            log_group: network.log_group,
        }),
        Resource::Veth(veth),
    ]
}

/// An address with its subnet's prefix length.
fn prefixed(ip: Ipv6Addr, addresses: NetworkAddresses6) -> Ipv6Net {
    Ipv6Net::new_assert(ip, addresses.subnet().prefix_len())
}

/// All resources of a bundle, the container last.
pub fn bundle(network: &NetworkSpec, container: Container, netns_dir: &Path) -> Vec<Resource> {
    let mut resources = port(network, &container.name, container.ip, container.ip6, netns_dir);
    for resource in &mut resources {
        if let Resource::Netns(netns) = resource {
            netns.open_sockets = container.userns.is_some();
        }
    }
    if let Some(side) = network.guest.as_ref().filter(|side| side.bundle_ip == container.ip) {
        let netns = netns_path(netns_dir, &container.name);
        resources.push(Resource::GuestPeer(GuestPeer { netns, guest: guest_end(side) }));
    }
    resources.push(Resource::Container(Box::new(container)));
    resources
}

/// Where a bundle's network namespace is mounted.
pub fn netns_path(netns_dir: &Path, name: &ContainerName) -> PathBuf {
    netns_dir.join(name.as_str())
}

/// Where a guest's network namespace is mounted.
pub fn guest_netns_path(netns_dir: &Path, name: &GuestName) -> PathBuf {
    netns_dir.join(name.as_str())
}

/// The directory of a bundle's record below the state directory.
pub fn bundle_dir(state: &Path, name: &ContainerName) -> PathBuf {
    state.join("bundles").join(name.as_str())
}

/// The directory of a container's run-time state.
pub fn run_dir(state: &Path, name: &ContainerName) -> PathBuf {
    bundle_dir(state, name).join("run")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::names::{Prefix, Slug};
    use crate::net::policy::NetworkPolicy;
    use crate::spec::NetworkAddresses;

    fn spec(internal: bool) -> NetworkSpec {
        let slug = Slug::new("demo").unwrap();
        NetworkSpec {
            name: Prefix::default().network(&slug),
            addresses: NetworkAddresses::new("192.168.7.0/24".parse().unwrap(), None).unwrap(),
            addresses6: None,
            policy: NetworkPolicy { internal, ..NetworkPolicy::default() },
            log_group: None,
            mtu: 1400,
            uplink: Some(crate::names::IfName::new("eth0").unwrap()),
            guest: None,
            uplink6: None,
        }
    }

    #[test]
    fn pool_gives_every_subnet_once_and_the_same_first() {
        let slug = "demo";
        let all: Vec<_> = Pool::default().candidates(slug).collect();
        assert_eq!(all.len(), 256);
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 256);
        assert!(all.iter().all(|n| Pool::default().range.contains(n)));
        assert_eq!(Pool::default().candidates(slug).next(), all.first().copied());
        let small = Pool { range: "198.18.0.0/15".parse().unwrap(), prefix: 29 };
        assert_eq!(small.candidates(slug).count(), 1 << 14);
        let one = Pool { range: "10.9.8.0/24".parse().unwrap(), prefix: 24 };
        assert_eq!(one.candidates(slug).collect::<Vec<_>>(), vec![one.range]);
    }

    #[test]
    fn rules_come_before_links_and_shared_things_first() {
        let plan = network(&spec(false));
        assert_eq!(shared_count(&plan), 4);
        assert!(matches!(plan.last(), Some(Resource::Bridge(_))));
        let port = port(
            &spec(false),
            &spec_container(),
            Ipv4Addr::new(192, 168, 7, 2),
            None,
            Path::new("/n"),
        );
        let kinds: Vec<String> = port.iter().map(ToString::to_string).collect();
        assert!(kinds[0].starts_with("network namespace"), "{kinds:?}");
        assert!(kinds[1].starts_with("firewall entries"), "{kinds:?}");
        assert!(kinds[2].starts_with("veth pair"), "{kinds:?}");
    }

    #[test]
    fn a_guest_has_no_way_out_and_rules_before_its_link() {
        let mut network_spec = spec(false);
        let name = Prefix::default().guest(&Slug::new("demo").unwrap());
        network_spec.guest = Some(GuestSpec {
            netns: guest_netns_path(Path::new("/n"), &name),
            name,
            ip: Ipv4Addr::new(192, 168, 7, 3),
            ip6: None,
            bundle_ip: Ipv4Addr::new(192, 168, 7, 2),
            bundle_ip6: None,
            allow_ports: Vec::new(),
        });
        let plan = network(&network_spec);
        assert_eq!(shared_count(&plan), 4);
        let [.., Resource::Netns(netns), Resource::GuestRules(_), Resource::Veth(veth)] = &plan[..]
        else {
            panic!("{plan:?}");
        };
        assert_eq!(netns.path, veth.netns);
        assert!(veth.internal && veth.meets_ports);
        assert_eq!(veth.gateway, Ipv4Addr::new(192, 168, 7, 2));
        assert_eq!(veth.peer_mac.to_string(), "02:b2:c0:a8:07:03");
    }

    #[test]
    fn internal_network_leaves_the_uplink_alone() {
        assert!(!network(&spec(true)).iter().any(|r| matches!(r, Resource::Uplink(_))));
    }

    #[test]
    fn view_holds_what_an_allowlist_needs() {
        let slug = Slug::new("demo").unwrap();
        let ip = Ipv4Addr::new(192, 168, 7, 2);
        let view = BottleView::new(
            &slug,
            &spec(false),
            &spec_container(),
            ip,
            None,
            Path::new("/run/netns"),
        );
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["allow_cidrs"][0], "192.168.7.2/32");
        assert_eq!(json["netns"], "/run/netns/claude-bottle-sidecars-demo");
        assert_eq!(json["mac"], "02:b2:c0:a8:07:02");
    }

    fn spec_container() -> ContainerName {
        Prefix::default().container(&Slug::new("demo").unwrap())
    }
}
