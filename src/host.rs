//! The real host: gives each resource to the module that knows it. Dispatch only.

use std::collections::HashMap;
use std::fs::File;
use std::time::Duration;

use crate::error::{Classify, ErrorKind};
use crate::names::ContainerName;
use crate::net;
use crate::oci;
use crate::oci::helper::{HelperBinary, PreparedMonitor, Surroundings};
use crate::oci::{RuntimeError, container};
use crate::presence::{Creation, Drift, Presence, Removal};
use crate::resource::{Host, Resource};

/// What the kernel, or a helper process, refused.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A link, an address, a namespace or the firewall.
    #[error(transparent)]
    Net(#[from] net::Error),
    /// The container.
    #[error(transparent)]
    Runtime(#[from] oci::RuntimeError),
}

impl Classify for HostError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Net(e) => e.kind(),
            Self::Runtime(e) => e.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Net(e) => e.hint(),
            Self::Runtime(e) => e.hint(),
        }
    }
}

/// This machine.
#[derive(Debug)]
pub(crate) struct KernelHost<'a> {
    binary: &'a HelperBinary,
    /// How long a container may take to stop when it is removed.
    pub(crate) grace: Duration,
    /// What containers get from the host.
    pub(crate) surroundings: Surroundings,
    /// The network namespace that the container runs in already. If its mount is gone, this one is
    /// mounted again, and no new one made.
    pub(crate) netns: Option<File>,
    prepared: HashMap<ContainerName, PreparedMonitor>,
}

impl<'a> KernelHost<'a> {
    /// This machine, with containers killed at once when they are removed.
    pub(crate) fn new(binary: &'a HelperBinary) -> Self {
        let surroundings = Surroundings::default();
        Self { binary, grace: Duration::ZERO, surroundings, netns: None, prepared: HashMap::new() }
    }

    /// Starts the container's monitor now, so that what it can do alone is done beside the work
    /// on the network.
    ///
    /// # Errors
    /// If no helper process can be started.
    pub(crate) fn prepare(&mut self, container: &ContainerName) -> Result<(), RuntimeError> {
        let monitor = PreparedMonitor::spawn(self.binary, container)?;
        self.prepared.insert(container.clone(), monitor);
        Ok(())
    }
}

impl Host for KernelHost<'_> {
    type Error = HostError;

    fn create(&mut self, resource: &Resource) -> Result<Creation, HostError> {
        Ok(match resource {
            Resource::Firewall(r) => net::firewall::create(r)?,
            Resource::Passage(r) => net::passage::create(r)?,
            Resource::Uplink(r) => net::uplink::create(r)?,
            Resource::Uplink6(r) => net::uplink6::create(r)?,
            Resource::Bridge(r) => net::bridge::create(r)?,
            Resource::BridgeRules(r) => net::bridge_rules::create(r)?,
            Resource::Netns(r) => net::netns::create(r, self.netns.as_ref())?,
            Resource::PortRules(r) => net::port_rules::create(r)?,
            Resource::Veth(r) => net::veth::create(r)?,
            Resource::GuestRules(r) => net::guest_rules::create(r)?,
            Resource::GuestPeer(r) => net::guest_peer::create(r)?,
            Resource::Container(c) => {
                let prepared = self.prepared.remove(&c.name);
                container::create(c, self.binary, prepared, &self.surroundings)?
            }
        })
    }

    fn observe(&mut self, resource: &Resource) -> Result<Presence, HostError> {
        Ok(match resource {
            Resource::Firewall(r) => net::firewall::observe(r)?,
            Resource::Passage(r) => net::passage::observe(r)?,
            Resource::Uplink(r) => net::uplink::observe(r)?,
            Resource::Uplink6(r) => net::uplink6::observe(r)?,
            Resource::Bridge(r) => net::bridge::observe(r)?,
            Resource::BridgeRules(r) => net::bridge_rules::observe(r)?,
            Resource::Netns(r) => net::netns::observe(r)?,
            Resource::PortRules(r) => net::port_rules::observe(r)?,
            Resource::Veth(r) => net::veth::observe(r)?,
            Resource::GuestRules(r) => net::guest_rules::observe(r)?,
            Resource::GuestPeer(r) => net::guest_peer::observe(r)?,
            Resource::Container(c) => container::observe(c)?,
        })
    }

    fn repair(&mut self, resource: &Resource, drift: &[Drift]) -> Result<(), HostError> {
        match resource {
            Resource::Firewall(r) => net::firewall::repair(r, drift)?,
            Resource::Passage(r) => net::passage::repair(r, drift)?,
            Resource::Uplink(r) => net::uplink::repair(r, drift)?,
            Resource::Uplink6(r) => net::uplink6::repair(r, drift)?,
            Resource::Bridge(r) => net::bridge::repair(r, drift)?,
            Resource::BridgeRules(r) => net::bridge_rules::repair(r, drift)?,
            Resource::Netns(r) => net::netns::repair(r, drift, self.netns.as_ref())?,
            Resource::PortRules(r) => net::port_rules::repair(r, drift)?,
            Resource::Veth(r) => net::veth::repair(r, drift)?,
            Resource::GuestRules(r) => net::guest_rules::repair(r, drift)?,
            Resource::GuestPeer(r) => net::guest_peer::repair(r, drift)?,
            Resource::Container(c) => {
                let prepared = self.prepared.remove(&c.name);
                container::repair(c, self.binary, prepared, &self.surroundings)?;
            }
        }
        Ok(())
    }

    fn remove(&mut self, resource: &Resource) -> Result<Removal, HostError> {
        Ok(match resource {
            Resource::Firewall(r) => net::firewall::remove(r)?,
            Resource::Passage(r) => net::passage::remove(r)?,
            Resource::Uplink(r) => net::uplink::remove(r)?,
            Resource::Uplink6(r) => net::uplink6::remove(r)?,
            Resource::Bridge(r) => net::bridge::remove(r)?,
            Resource::BridgeRules(r) => net::bridge_rules::remove(r)?,
            Resource::Netns(r) => net::netns::remove(r)?,
            Resource::PortRules(r) => net::port_rules::remove(r)?,
            Resource::Veth(r) => net::veth::remove(r)?,
            Resource::GuestRules(r) => net::guest_rules::remove(r)?,
            Resource::GuestPeer(r) => net::guest_peer::remove(r)?,
            Resource::Container(c) => container::remove(c, self.grace)?,
        })
    }
}
