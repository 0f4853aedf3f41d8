//! The network resources of a bottle as values: what is wanted, not how it is made. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::names::{EndName, IfName, NetworkName};
use crate::net::policy::{Egress, HostPort};

/// The name of the interface inside a bundle.
pub const CONTAINER_IFNAME: &str = "eth0";

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The address of the bridge, from its gateway address: `02:b0:` and the four bytes.
    pub fn of_gateway(ip: Ipv4Addr) -> Self {
        Self::derived(0xb0, ip)
    }

    /// The address of a veth pair's host end, from the pinned address: `02:b1:` and the four bytes.
    pub fn of_host_end(ip: Ipv4Addr) -> Self {
        Self::derived(0xb1, ip)
    }

    /// The address of `eth0`, from the pinned address: `02:b2:` and the four bytes.
    ///
    /// Derived, so that a bundle that is made again is reached at once: the neighbour entries of
    /// its peers stay right.
    pub fn of_bundle(ip: Ipv4Addr) -> Self {
        Self::derived(0xb2, ip)
    }

    /// 02 marks a locally administered unicast address (IEEE 802, the U/L bit).
    fn derived(kind: u8, ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        Self([0x02, kind, a, b, c, d])
    }

    /// The six bytes.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> String {
        mac.to_string()
    }
}

impl TryFrom<String> for MacAddr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut mac = [0u8; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().filter(|p| p.len() == 2);
            *byte = part
                .and_then(|p| u8::from_str_radix(p, 16).ok())
                .ok_or_else(|| format!("{text:?} is no Ethernet address"))?;
        }
        match parts.next() {
            None => Ok(Self(mac)),
            Some(_) => Err(format!("{text:?} is no Ethernet address")),
        }
    }
}

/// The shared firewall table: static rules that hold for every bottle of the host. It is made with
/// the first bottle and goes with the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {}

/// Rules that let bundles pass through other firewalls of the host, where there are any; shared by
/// every bottle, gone with the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {}

/// Packet forwarding on the device that leads out, which the replies to a bundle come in through.
/// Where carboy turned it on, the firewall keeps the host from becoming a router for others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    /// The device of the host's default route when the network was planned.
    pub device: IfName,
}

/// The same for IPv6, on the device of the IPv6 default route, which may be another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink6 {
    /// The device of the host's IPv6 default route when the network was planned.
    pub device: IfName,
}

/// The bridge of one bundle network, with its gateway address and per-bridge sysctls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// `cb-…`.
    pub name: IfName,
    /// The network's name, which is the bridge's altname.
    pub network: NetworkName,
    /// The network's address range.
    pub subnet: Ipv4Net,
    /// The bridge's own address; inside the subnet.
    pub gateway: Ipv4Addr,
    /// The same for IPv6, which is off if `None`: the bridge's own address and its subnet's prefix.
    #[serde(default)]
    pub gateway6: Option<Ipv6Net>,
    /// Pinned, for it would otherwise follow the ports.
    pub mac: MacAddr,
    /// In bytes.
    pub mtu: u32,
    /// The link group that marks the links of this network (`ip link show group N`).
    pub group: u32,
}

/// What the shared firewall table holds about one bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeRules {
    /// The bridge.
    pub bridge: IfName,
    /// The bridge's own address, where the host's open ports are.
    pub gateway: Ipv4Addr,
    /// The bridge's own IPv6 address.
    #[serde(default)]
    pub gateway6: Option<Ipv6Addr>,
    /// The device that leads out.
    #[serde(default)]
    pub uplink: Option<IfName>,
    /// The same for IPv6.
    #[serde(default)]
    pub uplink6: Option<IfName>,
    /// No way out of the bridge at all.
    pub internal: bool,
    /// The only ways out; every one if `None`.
    #[serde(default)]
    pub egress: Option<Vec<Egress>>,
    /// The host's ports that are open.
    #[serde(default)]
    pub host_ports: Vec<HostPort>,
    /// The netlink group that denied packets are told to; none are if `None`.
    #[serde(default)]
    pub log_group: Option<u16>,
}

/// A named network namespace, as `ip netns` knows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Netns {
    /// Its name.
    pub name: EndName,
    /// Where it is mounted: `/run/netns/<name>`.
    pub path: PathBuf,
    /// Whether `lo` has IPv6. All other interfaces have none until it is turned on for them.
    #[serde(default)]
    pub ipv6: bool,
    /// Whether programs without rights over it may bind low ports and open ICMP sockets: for those of
    /// another user namespace, which never have any. For all others the container's runtime sees to it.
    #[serde(default)]
    pub open_sockets: bool,
}

/// A veth pair: the host end is a port of the bridge, the other end is `eth0` inside the namespace
/// with the pinned address, the default route and permanent neighbour entries on both sides.
///
/// A guest's pair is the same, with its bundle in the gateway's place and no default route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Veth {
    /// The host's end, `cv-…`.
    pub name: IfName,
    /// The container's or the guest's name, which is the host end's altname.
    pub container: EndName,
    /// The bridge it is a port of.
    pub bridge: IfName,
    /// The bridge's address on the wire, for the neighbour entry inside.
    pub bridge_mac: MacAddr,
    /// The namespace's path.
    pub netns: PathBuf,
    /// The host end's address on the wire.
    pub mac: MacAddr,
    /// The pinned address and the length of the subnet's prefix.
    pub address: Ipv4Net,
    /// The same for IPv6, which is off if `None`.
    #[serde(default)]
    pub address6: Option<Ipv6Net>,
    /// `eth0`'s address on the wire.
    pub peer_mac: MacAddr,
    /// The gateway; the default route goes there unless `internal`.
    pub gateway: Ipv4Addr,
    /// The IPv6 gateway, if there is IPv6.
    #[serde(default)]
    pub gateway6: Option<Ipv6Addr>,
    /// No default route.
    pub internal: bool,
    /// Whether the port may exchange frames with isolated ports: a guest's with its bundle's.
    #[serde(default)]
    pub meets_ports: bool,
    /// In bytes.
    pub mtu: u32,
    /// The link group of the network.
    pub group: u32,
}

impl Veth {
    /// The pinned addresses, each with its gateway, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = (IpNet, IpAddr)> {
        let of6 = self.address6.zip(self.gateway6);
        let of6 = of6.map(|(address, gateway)| (IpNet::V6(address), IpAddr::V6(gateway)));
        let of4 = (IpNet::V4(self.address), IpAddr::V4(self.gateway));
        std::iter::once(of4).chain(of6)
    }
}

/// What the shared firewall table holds about one port: which addresses may come from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRules {
    /// The bridge.
    pub bridge: IfName,
    /// The host's end of the veth pair.
    pub veth: IfName,
    /// The only source address on the wire.
    pub mac: MacAddr,
    /// The only IPv4 source address.
    pub ip: Ipv4Addr,
    /// The only IPv6 source address; no IPv6 at all if `None`.
    #[serde(default)]
    pub ip6: Option<Ipv6Addr>,
    /// The netlink group that denied frames are told to; none are if `None`.
    #[serde(default)]
    pub log_group: Option<u16>,
}

/// What the shared firewall tables hold about a guest's port: whom it may reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRules {
    /// The bridge.
    pub bridge: IfName,
    /// The host's end of the guest's veth pair.
    pub veth: IfName,
    /// The guest's own end.
    pub guest: End,
    /// The bundle, the only one it may reach.
    pub bundle: End,
    /// The bundle's ports that are open to the guest; every TCP port if there is none.
    pub ports: Vec<HostPort>,
    /// The netlink group that denied frames are told to; none are if `None`.
    #[serde(default)]
    pub log_group: Option<u16>,
}

/// One end of a wire: its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// On the wire.
    pub mac: MacAddr,
    /// The pinned IPv4 address.
    pub ip: Ipv4Addr,
    /// The pinned IPv6 address; no IPv6 if `None`.
    #[serde(default)]
    pub ip6: Option<Ipv6Addr>,
}

/// The permanent neighbour entry for the guest inside the bundle's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestPeer {
    /// The path of the bundle's namespace.
    pub netns: PathBuf,
    /// The guest's own end.
    pub guest: End,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_follows_the_address() {
        let ip = Ipv4Addr::new(192, 168, 7, 2);
        assert_eq!(MacAddr::of_bundle(ip).to_string(), "02:b2:c0:a8:07:02");
        assert_ne!(MacAddr::of_bundle(ip), MacAddr::of_host_end(ip));
    }

    #[test]
    fn mac_reads_back_what_it_writes() {
        let mac = MacAddr([2, 0xb2, 0, 255, 16, 1]);
        assert_eq!(MacAddr::try_from(mac.to_string()), Ok(mac));
        for bad in
            ["", "02:b2:00:ff:10", "02:b2:00:ff:10:01:02", "02:b2:00:ff:10:0g", "2:b2:0:f:1:1"]
        {
            assert!(MacAddr::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
