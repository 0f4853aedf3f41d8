//! The options of a network, shared by `plan`, `up` and `network create`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use carboy::net::policy::{Egress, HostPort, NetworkPolicy};
use clap::Args;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::exit::Failure;

/// What a network is, and what it may be used for.
#[derive(Debug, Args)]
pub(super) struct NetworkArgs {
    /// The network's range; chosen from the pool unless given. A second one, of IPv6, turns IPv6 on
    #[arg(long, value_name = "CIDR")]
    subnet: Vec<IpNet>,
    /// The bridge's address; the first of the range unless given. A second one for IPv6
    #[arg(long, value_name = "IP")]
    gateway: Vec<IpAddr>,
    /// Give the network no way out at all
    #[arg(long)]
    internal: bool,
    /// Let the bundle reach this alone, whatever runs in it; may be given more than once
    #[arg(long, value_name = "CIDR[:PORT][/PROTO]", conflicts_with = "internal")]
    egress: Vec<Egress>,
    /// Open a port of the host, at the gateway's address, to the bundle; may be given more than once
    #[arg(long, value_name = "PROTO/PORT")]
    host_port: Vec<HostPort>,
    /// Keep the last denied flows, for `carboy denied`
    #[arg(long)]
    log_drops: bool,
    /// The network's MTU; that of the default route's device unless given
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(576..=65535))]
    mtu: Option<u32>,
}

/// The options, told apart.
pub(super) struct NetworkWish {
    pub(super) subnet: Option<Ipv4Net>,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) subnet6: Option<Ipv6Net>,
    pub(super) gateway6: Option<Ipv6Addr>,
    pub(super) policy: NetworkPolicy,
    pub(super) mtu: Option<u32>,
}

impl NetworkArgs {
    /// The options by family.
    pub(super) fn wish(self) -> Result<NetworkWish, Failure> {
        let (mut subnet, mut subnet6, mut gateway, mut gateway6) = (None, None, None, None);
        let twice = |what: &str, there: bool| {
            let text = format!("--{what} is given twice for one family of addresses");
            if there { Err(Failure::usage(text)) } else { Ok(()) }
        };
        for range in self.subnet {
            match range {
                IpNet::V4(range) => twice("subnet", subnet.replace(range).is_some())?,
                IpNet::V6(range) => twice("subnet", subnet6.replace(range).is_some())?,
            }
        }
        for ip in self.gateway {
            match ip {
                IpAddr::V4(ip) => twice("gateway", gateway.replace(ip).is_some())?,
                IpAddr::V6(ip) => twice("gateway", gateway6.replace(ip).is_some())?,
            }
        }
        let policy = NetworkPolicy {
            internal: self.internal,
            egress: (!self.egress.is_empty()).then_some(self.egress),
            host_ports: self.host_port,
            log_drops: self.log_drops,
        };
        let policy = policy.normalized();
        Ok(NetworkWish { subnet, gateway, subnet6, gateway6, policy, mtu: self.mtu })
    }
}
