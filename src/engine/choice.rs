//! Which addresses a network gets, and what it needs of the host for them.

use std::collections::HashSet;

use ipnet::IpNet;

use super::network::{DEFAULT_MTU, NetworkRequest};
use super::{Engine, Error};
use crate::names::NetworkName;
use crate::net::nflog;
use crate::net::overlap::{DefaultRoute, Occupied, Taken, default_route, default_route6};
use crate::net::uplink6::{self, Support};
use crate::plan;
use crate::spec::{AddressError6, NetworkAddresses, NetworkAddresses6, NetworkSpec};
use crate::spec6::LEAST_MTU6;
use crate::state::{Lease, StateError};

impl Engine {
    /// Notes the network's ranges, so that nobody else is given them.
    pub(super) fn lease(&self, spec: &NetworkSpec) -> Result<(), Error> {
        let subnet6 = spec.addresses6.map(|a| IpNet::V6(a.subnet()));
        for subnet in [IpNet::V4(spec.addresses.subnet())].into_iter().chain(subnet6) {
            self.state.lease(&Lease { subnet, network: spec.name.clone() })?;
        }
        Ok(())
    }

    /// The network as it will be: with ranges that are free, and the host's way out.
    pub(super) fn choose(&self, request: &NetworkRequest) -> Result<NetworkSpec, Error> {
        let route = default_route()?;
        let addresses6 = request.addresses6()?;
        let route6 = match addresses6 {
            Some(_) => default_route6()?,
            None => None,
        };
        let leases = self.state.leases_of_others(&request.name)?;
        if let Some(addresses6) = addresses6 {
            check_support(request.policy.internal || route6.is_none())?;
            let occupied = Occupied::read(&request.name.bridge(), true)?;
            self.refuse_overlap(addresses6.subnet().into(), &occupied, &leases)?;
        }
        let occupied = Occupied::read(&request.name.bridge(), false)?;
        let addresses = match request.subnet {
            Some(subnet) => {
                let addresses = NetworkAddresses::new(subnet, request.gateway)?;
                self.refuse_overlap(subnet.into(), &occupied, &leases)?;
                addresses
            }
            None => self.choose_addresses(request, &occupied, &leases)?,
        };
        let mtu = request.mtu.unwrap_or_else(|| way_out_mtu(&route, &route6));
        check_mtu(mtu, addresses6)?;
        let policy = request.policy.clone().normalized();
        let log_group = if policy.log_drops { self.choose_log_group(&request.name)? } else { None };
        Ok(NetworkSpec {
            name: request.name.clone(),
            addresses,
            addresses6,
            policy,
            log_group,
            mtu,
            uplink: route.map(|r| r.device),
            uplink6: route6.map(|r| r.device),
            guest: None,
        })
    }

    fn choose_addresses(
        &self,
        request: &NetworkRequest,
        occupied: &Occupied,
        leases: &[Lease],
    ) -> Result<NetworkAddresses, Error> {
        for subnet in self.config.pool.candidates(&request.seed) {
            if request.gateway.is_some_and(|gateway| !subnet.contains(&gateway)) {
                continue;
            }
            let range = IpNet::V4(subnet);
            if occupied.is_free(range) && !leases.iter().any(|lease| lease.overlaps(range)) {
                return Ok(NetworkAddresses::new(subnet, request.gateway)?);
            }
        }
        Err(Error::PoolExhausted { pool: self.config.pool.range })
    }

    /// A netlink group that no other network has its denied packets told to.
    fn choose_log_group(&self, name: &NetworkName) -> Result<Option<u16>, Error> {
        let mut taken = HashSet::new();
        for other in self.state.network_names()?.iter().filter(|other| *other != name) {
            match self.state.network(other) {
                Ok(record) => taken.extend(record.and_then(|record| record.spec.log_group)),
                Err(StateError::Unreadable { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(nflog::groups(plan::link_group(name)).find(|group| !taken.contains(group)))
    }

    /// Refuses a range of which the host or another network has a part.
    fn refuse_overlap(
        &self,
        subnet: IpNet,
        occupied: &Occupied,
        leases: &[Lease],
    ) -> Result<(), Error> {
        let lease = leases.iter().find(|lease| lease.overlaps(subnet));
        let taken = match (occupied.find(subnet)?, lease) {
            (Some(taken), _) => self.name_of(&taken),
            (None, Some(lease)) => format!("network {} ({})", lease.network, lease.subnet),
            (None, None) => return Ok(()),
        };
        Err(Error::Overlap { subnet, taken })
    }

    /// What is in the way, by the bottle's name where it is one of ours.
    fn name_of(&self, taken: &Taken) -> String {
        let names = self.state.network_names().unwrap_or_default();
        match names.iter().find(|n| n.bridge().as_str() == taken.device) {
            Some(network) => format!("network {network} ({taken})"),
            None => taken.to_string(),
        }
    }
}

/// What fits through both ways out.
fn way_out_mtu(route: &Option<DefaultRoute>, route6: &Option<DefaultRoute>) -> u32 {
    route.iter().chain(route6).map(|r| r.mtu).min().unwrap_or(DEFAULT_MTU)
}

/// Refuses what the kernel would: it takes all IPv6 from a link that carries less.
pub(super) fn check_mtu(
    mtu: u32,
    addresses6: Option<NetworkAddresses6>,
) -> Result<(), AddressError6> {
    if addresses6.is_some() && mtu < LEAST_MTU6 {
        return Err(AddressError6::Mtu { mtu });
    }
    Ok(())
}

/// Refuses IPv6 where the kernel has none, or cannot forward it; `confined` needs no forwarding.
fn check_support(confined: bool) -> Result<(), Error> {
    let (what, hint) = match uplink6::support()? {
        Support::NoIpv6 => {
            ("a kernel without IPv6", "boot it with IPv6, or leave the IPv6 subnet out")
        }
        Support::NoForwarding if !confined => (
            "no IPv6 forwarding for single devices (Linux 6.17 has it), and \
             net.ipv6.conf.all.forwarding is 0",
            "set net.ipv6.conf.all.forwarding=1 yourself, and accept_ra=2 on a device that takes \
             its routes from router advertisements; or use --internal",
        ),
        Support::NoForwarding | Support::Full => return Ok(()),
    };
    Err(Error::Unsupported { what: what.to_owned(), hint })
}
