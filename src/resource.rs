//! A plan's resources and the host they live on, as the mechanism sees them. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Classify;
use crate::net::spec::{
    Bridge, BridgeRules, Firewall, GuestPeer, GuestRules, Netns, Passage, PortRules, Uplink,
    Uplink6, Veth,
};
use crate::oci::spec::Container;
use crate::presence::{Creation, Drift, Presence, Removal};

/// One thing on the host that a plan wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "resource", rename_all = "kebab-case")]
pub enum Resource {
    /// The firewall table every bottle shares.
    Firewall(Firewall),
    /// Rules in other firewalls that let bundles pass; shared.
    Passage(Passage),
    /// Forwarding on the device that leads out; shared.
    Uplink(Uplink),
    /// The same for IPv6; shared.
    Uplink6(Uplink6),
    /// The bottle's bridge.
    Bridge(Bridge),
    /// The bridge's firewall entries.
    BridgeRules(BridgeRules),
    /// The bundle's network namespace.
    Netns(Netns),
    /// The bundle's port: its firewall entries.
    PortRules(PortRules),
    /// The bundle's veth pair and everything inside its namespace.
    Veth(Veth),
    /// The guest's port: its firewall entries.
    GuestRules(GuestRules),
    /// The bundle's neighbour entry for the guest.
    GuestPeer(GuestPeer),
    /// The bundle's container and its monitor.
    Container(Box<Container>),
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Firewall(_) => write!(f, "firewall table"),
            Self::Passage(_) => write!(f, "passage through other firewalls"),
            Self::Uplink(u) => write!(f, "forwarding on {}", u.device),
            Self::Uplink6(u) => write!(f, "IPv6 forwarding on {}", u.device),
            Self::Bridge(b) => write!(f, "bridge {} ({})", b.name, b.network),
            Self::BridgeRules(r) => write!(f, "firewall entries of bridge {}", r.bridge),
            Self::Netns(n) => write!(f, "network namespace {}", n.name),
            Self::PortRules(r) => write!(f, "firewall entries of port {}", r.veth),
            Self::Veth(v) => write!(f, "veth pair {} ({})", v.name, v.container),
            Self::GuestRules(r) => write!(f, "firewall entries of guest port {}", r.veth),
            Self::GuestPeer(p) => {
                write!(f, "neighbour {} in {}", p.guest.ip, p.netns.display())
            }
            Self::Container(c) => write!(f, "container {}", c.name),
        }
    }
}

/// A host on which resources are made: the kernel, or an in-memory one in tests.
///
/// Every method may be called again after a crash at any point: `create` never changes what is
/// there, `remove` succeeds where nothing is.
pub trait Host {
    /// What can go wrong.
    type Error: Classify;

    /// Makes the resource if its place is free (`O_EXCL`, `NLM_F_EXCL`); looks at nothing else.
    ///
    /// # Errors
    /// What the kernel said. Nothing of the resource remains then.
    fn create(&mut self, resource: &Resource) -> Result<Creation, Self::Error>;

    /// Compares the resource with the plan; changes nothing.
    ///
    /// # Errors
    /// If the host cannot be read.
    fn observe(&mut self, resource: &Resource) -> Result<Presence, Self::Error>;

    /// Puts right what [`Host::observe`] found different, touching nothing that was right.
    ///
    /// # Errors
    /// What the kernel said; a second attempt may follow.
    fn repair(&mut self, resource: &Resource, drift: &[Drift]) -> Result<(), Self::Error>;

    /// Removes what is ours of the resource, whole or half made; shared resources go with their
    /// last user. What is foreign stays.
    ///
    /// # Errors
    /// What the kernel said; a second attempt may follow.
    fn remove(&mut self, resource: &Resource) -> Result<Removal, Self::Error>;
}
