//! Networks: create, remove, and what `up` needs of both.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::choice::check_mtu;
use super::{Engine, Error, rolled_back, settle};
use crate::host::KernelHost;
use crate::names::{ContainerName, NetworkName};
use crate::net::overlap::{default_route, default_route6};
use crate::net::policy::NetworkPolicy;
use crate::plan;
use crate::reconcile::{self, Expect, Transaction};
use crate::resource::Resource;
use crate::spec::{AddressError6, NetworkAddresses, NetworkAddresses6, NetworkSpec};
use crate::state::{NetworkRecord, Phase};

/// What is used where the host has no way out to take the value from.
pub(super) const DEFAULT_MTU: u32 = 1500;

/// A network as asked for. What is `None` is chosen, or kept from the network that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRequest {
    /// Its name.
    pub name: NetworkName,
    /// Its range.
    pub subnet: Option<Ipv4Net>,
    /// The bridge's address.
    pub gateway: Option<Ipv4Addr>,
    /// Its IPv6 range; IPv6 is off if `None`.
    pub subnet6: Option<Ipv6Net>,
    /// The bridge's IPv6 address.
    pub gateway6: Option<Ipv6Addr>,
    /// What it may be used for.
    pub policy: NetworkPolicy,
    /// In bytes.
    pub mtu: Option<u32>,
    /// What the choice of a range begins with: the slug of a bottle.
    pub seed: String,
}

/// What creating or removing a network did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkReport {
    /// Its name.
    pub name: NetworkName,
    /// Whether anything was changed.
    pub changed: bool,
}

/// A network that is in place.
pub(super) struct Ensured {
    pub(super) record: NetworkRecord,
    /// There was none before this call.
    pub(super) fresh: bool,
    pub(super) changed: bool,
}

impl Engine {
    /// Creates the network, or repairs it, or finds that it is there as asked for.
    ///
    /// # Errors
    /// Conflict with another network of the name, overlap with what the host has, or what the
    /// kernel said. A network that was not there before is not there after.
    pub fn create_network(&self, request: &NetworkRequest) -> Result<NetworkReport, Error> {
        Self::require_network_privileges()?;
        check_addresses(request, None, None)?;
        let lock = self.state.lock_network(&request.name)?;
        let ensured = self.ensure_network(&mut self.host(), request);
        let released = self.release_network(&request.name, lock);
        let changed = settle(ensured, released)?.changed;
        Ok(NetworkReport { name: request.name.clone(), changed })
    }

    /// The bundles on a network.
    pub(super) fn users_of(
        &self,
        name: &NetworkName,
    ) -> Result<Vec<(ContainerName, Ipv4Addr)>, Error> {
        let all = self.state.bundles()?.into_iter().filter(|(_, record)| record.network == *name);
        Ok(all.filter_map(|(n, r)| r.container().map(|c| (n, c.ip))).collect())
    }

    /// Brings the network to what is asked for. The caller holds the network's lock.
    pub(super) fn ensure_network(
        &self,
        host: &mut KernelHost<'_>,
        request: &NetworkRequest,
    ) -> Result<Ensured, Error> {
        let Some(record) = self.state.network(&request.name)? else {
            return self.make_network(host, request);
        };
        let differences = differences(request, &record.spec);
        if !differences.is_empty() {
            let name = request.name.to_string();
            return Err(Error::Conflict { what: "network", name, differences });
        }
        self.bring_up(host, record)
    }

    /// Brings a network with a record to its planned state, its guest side included, and to the
    /// host's present way out. The caller holds the network's lock.
    pub(super) fn bring_up(
        &self,
        host: &mut KernelHost<'_>,
        record: NetworkRecord,
    ) -> Result<Ensured, Error> {
        let (record, unplanned) = self.follow_uplink(record)?;
        let expect = match record.phase {
            Phase::Done => Expect::Existing,
            Phase::Applying => Expect::Fresh,
        };
        let mut transaction = Transaction::new();
        let guard = self.state.lock_host()?;
        // A call that was killed may have written the record alone.
        self.lease(&record.spec)?;
        let applied = transaction.apply(host, &record.resources, expect);
        let changed = !transaction.changes().is_empty();
        let record = NetworkRecord { phase: Phase::Done, ..record };
        let settled = applied.map_err(Error::from).and_then(|()| {
            let left = reconcile::remove(host, &unplanned).errors;
            if !left.is_empty() {
                return Err(Error::Left { name: record.spec.name.to_string(), left });
            }
            if changed || expect == Expect::Fresh {
                self.state.write_network(&record)?;
            }
            Ok(())
        });
        if let Err(error) = settled {
            return Err(rolled_back("the repair", error, transaction.roll_back(host)));
        }
        drop(guard);
        if expect == Expect::Existing
            && let Some(slug) = self.config.prefix.slug_of_network(&record.spec.name)
        {
            self.tell_drift(&slug, transaction.changes());
        }
        Ok(Ensured { record, fresh: false, changed })
    }

    /// The record with the devices that lead out now, for the host's default route may have moved, and
    /// the uplinks that are not in its plan any more.
    fn follow_uplink(
        &self,
        record: NetworkRecord,
    ) -> Result<(NetworkRecord, Vec<Resource>), Error> {
        let uplink = default_route()?.map(|route| route.device);
        let uplink6 = match record.spec.addresses6 {
            Some(_) => default_route6()?.map(|route| route.device),
            None => None,
        };
        if (&uplink, &uplink6) == (&record.spec.uplink, &record.spec.uplink6) {
            return Ok((record, Vec::new()));
        }
        let spec = NetworkSpec { uplink, uplink6, ..record.spec };
        let resources = plan::network(&spec);
        let mut unplanned = record.resources;
        unplanned.retain(|r| {
            matches!(r, Resource::Uplink(_) | Resource::Uplink6(_)) && !resources.contains(r)
        });
        let record = NetworkRecord { phase: Phase::Applying, spec, resources };
        self.state.write_network(&record)?;
        Ok((record, unplanned))
    }

    fn make_network(
        &self,
        host: &mut KernelHost<'_>,
        request: &NetworkRequest,
    ) -> Result<Ensured, Error> {
        // Held until the bridge has its address: from then on the kernel itself says that the
        // range is taken.
        let guard = self.state.lock_host()?;
        let spec = self.choose(request)?;
        let resources = plan::network(&spec);
        let mut record = NetworkRecord { phase: Phase::Applying, spec, resources };
        self.state.write_network(&record)?;
        let mut transaction = Transaction::new();
        let leased = self.lease(&record.spec);
        let applied =
            leased.and_then(|()| Ok(transaction.apply(host, &record.resources, Expect::Fresh)?));
        let settled = applied.and_then(|()| {
            record.phase = Phase::Done;
            Ok(self.state.write_network(&record)?)
        });
        if let Err(error) = settled {
            let left = transaction.roll_back(host);
            if left.is_empty() {
                // A record that stays speaks of nothing, and `down` takes it.
                let _ = self.state.forget_network(&request.name);
            }
            return Err(rolled_back("the creation of the network", error, left));
        }
        drop(guard);
        Ok(Ensured { record, fresh: true, changed: true })
    }
}

impl NetworkRequest {
    /// The IPv6 addresses, if IPv6 is asked for.
    pub(super) fn addresses6(&self) -> Result<Option<NetworkAddresses6>, AddressError6> {
        match (self.subnet6, self.gateway6) {
            (Some(subnet), gateway) => NetworkAddresses6::new(subnet, gateway).map(Some),
            (None, Some(ip)) => Err(AddressError6::NoSubnet { role: "gateway", ip }),
            (None, None) => Ok(None),
        }
    }
}

/// Refuses addresses that cannot be, before anything is locked.
pub(super) fn check_addresses(
    request: &NetworkRequest,
    bundle_ip: Option<Ipv4Addr>,
    bundle_ip6: Option<Ipv6Addr>,
) -> Result<(), Error> {
    let addresses6 = request.addresses6()?;
    if let Some(mtu) = request.mtu {
        check_mtu(mtu, addresses6)?;
    }
    match (addresses6, bundle_ip6) {
        (Some(addresses), ip) => {
            addresses.bundle_ip(ip)?;
        }
        (None, Some(ip)) => return Err(AddressError6::NoSubnet { role: "IP", ip }.into()),
        (None, None) => {}
    }
    if let Some(subnet) = request.subnet {
        NetworkAddresses::new(subnet, request.gateway)?.bundle_ip(bundle_ip)?;
    }
    Ok(())
}

/// What the network that exists has otherwise than asked for.
pub(super) fn differences(request: &NetworkRequest, there: &NetworkSpec) -> Vec<String> {
    let mut all = Vec::new();
    let mut differ = |what: &str, there: String, wanted: Option<String>| {
        if let Some(wanted) = wanted.filter(|w| *w != there) {
            all.push(format!("{what} {there} (wanted: {wanted})"));
        }
    };
    let addresses = there.addresses;
    differ("subnet", addresses.subnet().to_string(), request.subnet.map(|s| s.to_string()));
    differ("gateway", addresses.gateway().to_string(), request.gateway.map(|g| g.to_string()));
    differ("mtu", there.mtu.to_string(), request.mtu.map(|m| m.to_string()));
    let (was, is) = (&there.policy, request.policy.clone().normalized());
    let subnet6 = |subnet: Option<Ipv6Net>| subnet.map_or("none".to_owned(), |s| s.to_string());
    let there6 = subnet6(there.addresses6.map(|a| a.subnet()));
    differ("IPv6 subnet", there6, Some(subnet6(request.subnet6)));
    let gateway6 = there.addresses6.map(|a| a.gateway().to_string()).unwrap_or_default();
    differ("IPv6 gateway", gateway6, request.gateway6.map(|g| g.to_string()));
    differ("internal", was.internal.to_string(), Some(is.internal.to_string()));
    let egress = |p: &NetworkPolicy| match &p.egress {
        Some(egress) => list(egress),
        None => "everything".to_owned(),
    };
    differ("egress", egress(was), Some(egress(&is)));
    differ("host ports", list(&was.host_ports), Some(list(&is.host_ports)));
    differ("log-drops", was.log_drops.to_string(), Some(is.log_drops.to_string()));
    all
}

/// The bundle's IPv6 address on the network: none where the network has no IPv6.
pub(super) fn bundle_ip6(
    network: &NetworkSpec,
    ip: Option<Ipv6Addr>,
) -> Result<Option<Ipv6Addr>, AddressError6> {
    match (network.addresses6, ip) {
        (Some(addresses), ip) => addresses.bundle_ip(ip).map(Some),
        (None, Some(ip)) => Err(AddressError6::NoSubnet { role: "IP", ip }),
        (None, None) => Ok(None),
    }
}

/// The guest's IPv6 address beside the bundle's: none where the bundle has none.
pub(super) fn guest_ip6(
    network: &NetworkSpec,
    bundle: Option<Ipv6Addr>,
    ip: Option<Ipv6Addr>,
) -> Result<Option<Ipv6Addr>, AddressError6> {
    match (network.addresses6.zip(bundle), ip) {
        (Some((addresses, bundle)), ip) => addresses.guest_ip(bundle, ip).map(Some),
        (None, Some(ip)) => Err(AddressError6::NoSubnet { role: "guest IP", ip }),
        (None, None) => Ok(None),
    }
}

pub(super) fn list(items: &[impl std::fmt::Display]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    if items.is_empty() { "none".to_owned() } else { items.join(" ") }
}
