//! Guest sides: a second namespace on a bottle's bridge, from which the bundle alone is reached.
//!
//! A guest is part of its network's record, so that `up` repairs it and `down` removes it. What the
//! bundle needs to answer it, a neighbour entry, is part of the bundle's.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use super::{Engine, Error, network, rolled_back, settle};
use crate::error::{Classify, ErrorKind};
use crate::host::KernelHost;
use crate::names::{ContainerName, NetworkName, Slug};
use crate::net::netns;
use crate::plan::{self, GuestView};
use crate::reconcile::{self, Expect, Transaction};
use crate::resource::Resource;
use crate::spec::{GuestRequest, GuestSpec, NetworkSpec};
use crate::state::{BundleRecord, NetworkRecord, Phase, StateError};

/// How many processes a note names.
const NAMED_PROCESSES: usize = 5;

/// A guest side that is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GuestReport {
    /// The bottle.
    pub slug: Slug,
    /// The guest side.
    pub guest: GuestView,
    /// Whether anything was changed.
    pub changed: bool,
}

/// A guest side that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachReport {
    /// The bottle.
    pub slug: Slug,
    /// Whether there was one.
    pub changed: bool,
    /// What the user should know.
    pub notes: Vec<String>,
}

impl Engine {
    /// Attaches a guest side to a bottle, whether its bundle runs or not; repairs it, or finds that
    /// it is there as asked for. `replace` gives one that is there other addresses or ports; its
    /// namespace, and whoever is in it, stays.
    ///
    /// # Errors
    /// There is no such bottle, conflict with the guest side that is there, an address that cannot
    /// be or is in use, or what the host said.
    pub fn attach_guest(
        &self,
        slug: &Slug,
        request: &GuestRequest,
        replace: bool,
    ) -> Result<GuestReport, Error> {
        Self::require_bundle_privileges()?;
        let network = self.config.prefix.network(slug);
        let name = self.config.prefix.container(slug);
        let locks = self.lock_both(&network, &name)?;
        let attached = self.attach_locked(slug, request, replace, &network, &name);
        settle(attached, self.release_both(&network, &name, locks))
    }

    fn attach_locked(
        &self,
        slug: &Slug,
        request: &GuestRequest,
        replace: bool,
        network: &NetworkName,
        name: &ContainerName,
    ) -> Result<GuestReport, Error> {
        let Some(record) = self.state.network(network)? else {
            return Err(Error::NoBottle { slug: slug.to_string() });
        };
        let bundle = self.state.bundle(name)?;
        let (ip, ip6) = match bundle.as_ref().filter(|b| b.network == *network) {
            Some(bundle) => bundle.container().map(|c| (c.ip, c.ip6)),
            None => None,
        }
        .map_or_else(|| default_addresses(&record.spec), Ok)?;
        let wanted = self.guest_spec(&record.spec, slug, request, ip, ip6)?;
        if !replace {
            refuse_another_guest(&record.spec, &wanted)?;
        }
        let mut host = self.host();
        let ensured = self.bring_up(&mut host, record)?;
        let (record, attached) = self.ensure_guest(&mut host, ensured.record, Some(&wanted))?;
        let introduced = self.introduce_guest(&mut host, &record.spec, name)?;
        let changed = ensured.changed || attached || introduced;
        Ok(GuestReport { slug: slug.clone(), guest: GuestView::from(&wanted), changed })
    }

    /// Removes the guest side of a bottle; an absent one is no error. Processes in its namespace
    /// stay, without a network.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn detach_guest(&self, slug: &Slug) -> Result<DetachReport, Error> {
        Self::require_bundle_privileges()?;
        let network = self.config.prefix.network(slug);
        let name = self.config.prefix.container(slug);
        let locks = self.lock_both(&network, &name)?;
        let notes = self.guest_notes(slug);
        let removed =
            notes.and_then(|notes| Ok((notes, self.remove_guest(slug, &network, &name)?)));
        let (notes, changed) = settle(removed, self.release_both(&network, &name, locks))?;
        Ok(DetachReport { slug: slug.clone(), changed, notes })
    }

    /// The caller holds both locks.
    pub(super) fn remove_guest(
        &self,
        slug: &Slug,
        network: &NetworkName,
        name: &ContainerName,
    ) -> Result<bool, Error> {
        let mut host = self.host();
        let record = match self.state.network(network) {
            // What it said is lost, what it was about is not: the names follow from the slug.
            Err(StateError::Unreadable { .. }) => None,
            other => other?,
        };
        let (side, spec) = match &record {
            Some(record) => (record.spec.guest.clone(), record.spec.clone()),
            None => (None, self.presumed_spec(network)?),
        };
        let recorded = side.is_some();
        let side = side.unwrap_or_else(|| self.presumed_guest(slug, &spec));
        let without = NetworkSpec { guest: None, ..spec.clone() };
        let introduced = match self.state.bundle(name) {
            Err(StateError::Unreadable { .. }) => false,
            _ => self.introduce_guest(&mut host, &without, name)?,
        };
        let report = reconcile::remove(&mut host, &plan::guest(&spec, &side));
        if !report.errors.is_empty() {
            return Err(Error::Left { name: side.name.to_string(), left: report.errors });
        }
        if let Some(record) = record.filter(|_| recorded) {
            let resources = plan::network(&without);
            self.state.write_network(&NetworkRecord { spec: without, resources, ..record })?;
        }
        Ok(recorded || introduced || !report.removed.is_empty())
    }

    /// What the user should know before the guest side goes.
    pub(super) fn guest_notes(&self, slug: &Slug) -> Result<Vec<String>, Error> {
        let name = self.config.prefix.guest(slug);
        let inside = netns::processes(&plan::guest_netns_path(&self.config.netns, &name))?;
        if inside.is_empty() {
            return Ok(Vec::new());
        }
        let mut named: Vec<_> = inside.iter().map(u32::to_string).collect();
        named.truncate(NAMED_PROCESSES);
        let more = if inside.len() > NAMED_PROCESSES { ", …" } else { "" };
        Ok(vec![format!(
            "still running in {name}, now without a network: process {}{more}",
            named.join(", ")
        )])
    }

    /// The guest side that was asked for, with what was left open taken from the one that is there
    /// or chosen.
    pub(super) fn guest_spec(
        &self,
        network: &NetworkSpec,
        slug: &Slug,
        request: &GuestRequest,
        bundle_ip: Ipv4Addr,
        bundle_ip6: Option<Ipv6Addr>,
    ) -> Result<GuestSpec, Error> {
        let name = self.config.prefix.guest(slug);
        let there = network.guest.as_ref();
        let ip = request.ip.or(there.map(|g| g.ip).filter(|ip| *ip != bundle_ip));
        let ip6 = request.ip6.or(there.and_then(|g| g.ip6).filter(|ip| Some(*ip) != bundle_ip6));
        let ip = network.addresses.guest_ip(bundle_ip, ip)?;
        let ip6 = network::guest_ip6(network, bundle_ip6, ip6)?;
        let users = self.users_of(&network.name)?;
        if let Some((by, _)) = users.into_iter().find(|(_, other)| *other == ip) {
            return Err(Error::AddressInUse { ip, by: by.to_string() });
        }
        let mut allow_ports = request.allow_ports.clone();
        allow_ports.sort_unstable();
        allow_ports.dedup();
        let netns = plan::guest_netns_path(&self.config.netns, &name);
        Ok(GuestSpec { name, netns, ip, ip6, bundle_ip, bundle_ip6, allow_ports })
    }

    /// The guest side a bottle will have: the one that is asked for, or else the one that is there,
    /// beside the bundle's address.
    pub(super) fn wanted_guest(
        &self,
        network: &NetworkSpec,
        slug: &Slug,
        request: Option<&GuestRequest>,
        bundle_ip: Ipv4Addr,
        bundle_ip6: Option<Ipv6Addr>,
    ) -> Result<Option<GuestSpec>, Error> {
        let kept = network.guest.as_ref().map(|there| GuestRequest {
            ip: Some(there.ip),
            ip6: there.ip6,
            allow_ports: there.allow_ports.clone(),
        });
        request
            .or(kept.as_ref())
            .map(|request| self.guest_spec(network, slug, request, bundle_ip, bundle_ip6))
            .transpose()
    }

    /// Brings a network that is in place to have this guest side; true if that took a change. The
    /// caller holds the network's lock.
    pub(super) fn ensure_guest(
        &self,
        host: &mut KernelHost<'_>,
        record: NetworkRecord,
        wanted: Option<&GuestSpec>,
    ) -> Result<(NetworkRecord, bool), Error> {
        let Some(wanted) = wanted.filter(|w| record.spec.guest.as_ref() != Some(*w)) else {
            return Ok((record, false));
        };
        let spec = NetworkSpec { guest: Some(wanted.clone()), ..record.spec.clone() };
        let resources = plan::network(&spec);
        let mut new = NetworkRecord { phase: Phase::Applying, spec, resources };
        self.state.write_network(&new)?;
        if let Some(old) = record.spec.guest.as_ref().filter(|old| moves(old, wanted)) {
            self.unplug(host, &record.spec, old)?;
        }
        let mut transaction = Transaction::new();
        let own = plan::guest(&new.spec, wanted);
        let applied = transaction.apply(host, &own, Expect::Fresh).map_err(Error::from);
        new.phase = record.phase;
        let settled = applied.and_then(|()| Ok(self.state.write_network(&new)?));
        if let Err(error) = settled {
            let left = transaction.roll_back(host);
            if left.is_empty() && record.spec.guest.is_none() {
                // The other record speaks of a guest that `guest attach` would only make again.
                let _ = self.state.write_network(&record);
            }
            return Err(rolled_back("the attachment of the guest", error, left));
        }
        Ok((new, true))
    }

    /// Takes the link and the rules of a guest away; its namespace stays for the next ones.
    fn unplug(
        &self,
        host: &mut KernelHost<'_>,
        network: &NetworkSpec,
        side: &GuestSpec,
    ) -> Result<(), Error> {
        let mut resources = plan::guest(network, side);
        resources.retain(|r| !matches!(r, Resource::Netns(_)));
        let report = reconcile::remove(host, &resources);
        if report.errors.is_empty() {
            return Ok(());
        }
        Err(Error::Left { name: side.name.to_string(), left: report.errors })
    }

    /// Brings the bundle's record, and its namespace, to know the network's guest and no other;
    /// true if that took a change. A bundle that is not in place learns it when it starts.
    pub(super) fn introduce_guest(
        &self,
        host: &mut KernelHost<'_>,
        network: &NetworkSpec,
        name: &ContainerName,
    ) -> Result<bool, Error> {
        let Some(record) = self.state.bundle(name)?.filter(|r| r.phase == Phase::Done) else {
            return Ok(false);
        };
        let Some(container) = record.container().cloned() else { return Ok(false) };
        let is_peer = |r: &Resource| matches!(r, Resource::GuestPeer(_));
        let resources = plan::bundle(network, container, &self.config.netns);
        let split = |all: Vec<Resource>| all.into_iter().partition::<Vec<_>, _>(is_peer);
        let (wanted, _) = split(resources);
        let (old, mut rest) = split(record.resources.clone());
        let known = wanted == old;
        if !known {
            let report = reconcile::remove(host, &old);
            if !report.errors.is_empty() {
                return Err(Error::Left { name: name.to_string(), left: report.errors });
            }
            // Before the container, which is the last.
            let place = rest.len().saturating_sub(1);
            rest.splice(place..place, wanted.clone());
            let new = BundleRecord { resources: rest, ..record };
            self.state.write_bundle(name, &new)?;
        }
        // Also of one that is known: a crash may have come between the record and the entry.
        let mut transaction = Transaction::new();
        match transaction.apply(host, &wanted, Expect::Existing) {
            // Without its namespace the bundle needs an `up`, which knows the guest now.
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(!known || !transaction.changes().is_empty()),
        }
    }

    /// A guest side of which only the name is known.
    pub(super) fn presumed_guest(&self, slug: &Slug, network: &NetworkSpec) -> GuestSpec {
        let name = self.config.prefix.guest(slug);
        let (ip, bundle_ip) = (Ipv4Addr::UNSPECIFIED, network.addresses.gateway());
        let netns = plan::guest_netns_path(&self.config.netns, &name);
        let allow_ports = Vec::new();
        GuestSpec { name, netns, ip, ip6: None, bundle_ip, bundle_ip6: None, allow_ports }
    }
}

/// The addresses of a bundle that is not there yet.
fn default_addresses(network: &NetworkSpec) -> Result<(Ipv4Addr, Option<Ipv6Addr>), Error> {
    Ok((network.addresses.bundle_ip(None)?, network::bundle_ip6(network, None)?))
}

/// Whether its link must be made anew: addresses are pinned where it begins.
fn moves(old: &GuestSpec, new: &GuestSpec) -> bool {
    let addresses = |g: &GuestSpec| (g.ip, g.ip6, g.bundle_ip, g.bundle_ip6);
    addresses(old) != addresses(new)
}

/// Refuses a guest side with other options than the one that is there.
pub(super) fn refuse_another_guest(network: &NetworkSpec, wanted: &GuestSpec) -> Result<(), Error> {
    let Some(there) = &network.guest else { return Ok(()) };
    let ports = |g: &GuestSpec| match g.allow_ports.as_slice() {
        [] => "every TCP port".to_owned(),
        ports => network::list(ports),
    };
    let ip6 = |g: &GuestSpec| g.ip6.map_or_else(|| "none".to_owned(), |ip| ip.to_string());
    let mut differences = Vec::new();
    for (what, is, want) in [
        ("IP", there.ip.to_string(), wanted.ip.to_string()),
        ("IPv6 address", ip6(there), ip6(wanted)),
        ("allowed ports", ports(there), ports(wanted)),
    ] {
        if is != want {
            differences.push(format!("{what} {is} (wanted: {want})"));
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::Conflict { what: "guest", name: there.name.to_string(), differences })
}
