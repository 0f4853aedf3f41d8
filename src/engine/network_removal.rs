//! Networks: removing one, with a record or without.

use std::time::Duration;

use super::network::{DEFAULT_MTU, NetworkReport};
use super::{Engine, Error, settle};
use crate::host::{HostError, KernelHost};
use crate::names::{ContainerName, IfName, NetworkName, Slug};
use crate::net::overlap::{default_route, default_route6};
use crate::net::policy::NetworkPolicy;
use crate::plan;
use crate::reconcile::{self, RemoveError};
use crate::resource::Resource;
use crate::spec::{NetworkAddresses, NetworkSpec};
use crate::state::StateError;

impl Engine {
    /// Removes the network; `force` stops the bundles on it first.
    ///
    /// # Errors
    /// In use, or what could not be removed.
    pub fn remove_network(&self, name: &NetworkName, force: bool) -> Result<NetworkReport, Error> {
        Self::require_network_privileges()?;
        let lock = self.state.lock_network(name)?;
        let removed = self.remove_network_locked(name, force);
        let released = self.release_network(name, lock);
        Ok(NetworkReport { name: name.clone(), changed: settle(removed, released)? })
    }

    fn remove_network_locked(&self, name: &NetworkName, force: bool) -> Result<bool, Error> {
        let users = self.users_of(name)?;
        if !users.is_empty() && !force {
            let users = users.iter().map(|(container, _)| container.to_string()).collect();
            return Err(Error::NetworkInUse { name: name.to_string(), users });
        }
        for (container, _) in users {
            let lock = self.state.lock_bundle(&container)?;
            let removed = self.remove_bundle_locked(&container, None, Duration::ZERO);
            let released = self.release_bundle(&container, lock);
            settle(removed, released)?;
        }
        self.clear_network(&mut self.host(), name)
    }

    /// Refuses to remove a network from under other bundles than this one.
    pub(super) fn refuse_other_users(
        &self,
        network: &NetworkName,
        bundle: &ContainerName,
    ) -> Result<(), Error> {
        let users = self.users_of(network)?.into_iter().map(|(user, _)| user);
        let users: Vec<_> = users.filter(|user| user != bundle).map(|u| u.to_string()).collect();
        if users.is_empty() {
            return Ok(());
        }
        Err(Error::NetworkInUse { name: network.to_string(), users })
    }

    /// Removes what there is of the network, with a record or without. The caller holds its lock.
    pub(super) fn clear_network(
        &self,
        host: &mut KernelHost<'_>,
        name: &NetworkName,
    ) -> Result<bool, Error> {
        let (recorded, resources) = self.network_resources(name)?;
        let (removed, left) = self.remove_network_resources(host, &resources)?;
        if !left.is_empty() {
            return Err(Error::Left { name: name.to_string(), left });
        }
        self.state.forget_network(name)?;
        Ok(removed || recorded)
    }

    /// Whether the network has a record, and its resources by that, or else by its name.
    fn network_resources(&self, name: &NetworkName) -> Result<(bool, Vec<Resource>), Error> {
        Ok(match self.state.network(name) {
            Ok(Some(record)) => (true, record.resources),
            Ok(None) => (false, self.presumed_network(name)?),
            // What it said is lost, what it was about is not: the names follow from the slug.
            Err(StateError::Unreadable { .. }) => (true, self.presumed_network(name)?),
            Err(e) => return Err(e.into()),
        })
    }

    /// The network's links; none where they cannot be known, which its removal will tell.
    pub(super) fn network_links(&self, name: &NetworkName) -> Vec<Resource> {
        let mut links = self.network_resources(name).map(|(_, all)| all).unwrap_or_default();
        links.retain(|r| matches!(r, Resource::Bridge(_) | Resource::Veth(_)));
        links
    }

    fn remove_network_resources(
        &self,
        host: &mut KernelHost<'_>,
        resources: &[Resource],
    ) -> Result<(bool, Vec<RemoveError<HostError>>), Error> {
        let (shared, own) = resources.split_at(plan::shared_count(resources));
        // What is the network's alone without the host's lock.
        let mut report = reconcile::remove(host, own);
        let guard = self.state.lock_host()?;
        let rest = reconcile::remove(host, shared);
        drop(guard);
        report.errors.extend(rest.errors);
        let removed = !report.removed.is_empty() || !rest.removed.is_empty();
        Ok((removed, report.errors))
    }

    fn presumed_network(&self, name: &NetworkName) -> Result<Vec<Resource>, Error> {
        Ok(plan::network(&self.presumed_spec(name)?))
    }

    /// A network of which only the name is known. Its addresses do not matter: links and firewall
    /// entries are found by their names.
    pub(super) fn presumed_spec(&self, name: &NetworkName) -> Result<NetworkSpec, Error> {
        let subnet = self.config.pool.candidates(name.as_str()).next();
        let subnet = subnet.ok_or(Error::PoolExhausted { pool: self.config.pool.range })?;
        let prefix = format!("{}-bundle-", self.config.prefix);
        let slug = name.as_str().strip_prefix(&prefix).and_then(|s| Slug::new(s).ok());
        let mut spec = NetworkSpec {
            name: name.clone(),
            addresses: NetworkAddresses::new(subnet, None)?,
            addresses6: None,
            policy: NetworkPolicy::default(),
            log_group: None,
            mtu: DEFAULT_MTU,
            uplink: Some(default_route()?.map_or_else(loopback, |r| r.device)),
            uplink6: Some(default_route6()?.map_or_else(loopback, |r| r.device)),
            guest: None,
        };
        spec.guest = slug.map(|slug| self.presumed_guest(&slug, &spec));
        Ok(spec)
    }
}

/// Stands for a device that nobody knows any more: whichever it was, the firewall's set says where
/// forwarding is to be turned off.
fn loopback() -> IfName {
    IfName::new("lo").expect("it is a name")
}
