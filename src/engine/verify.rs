//! Bottles that are there, compared with their records: `verify` says what differs, `reload` puts
//! the network back.

use std::fs::File;

use serde::Serialize;

use super::{Engine, Error, settle};
use crate::names::{ContainerName, IfName, NetworkName, Slug};
use crate::net::overlap::{default_route, default_route6};
use crate::net::passage;
use crate::oci::spec::Container;
use crate::oci::status::ContainerState;
use crate::presence::Drift;
use crate::reconcile::{self, Expect, Transaction};
use crate::resource::Resource;
use crate::state::{BundleRecord, NetworkRecord, Phase};

/// A bottle compared with its record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// The bottle.
    pub slug: Slug,
    /// All is as planned.
    pub ok: bool,
    /// What is not.
    pub drift: Vec<Drift>,
    /// What the user should know.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// A bottle whose network is in place again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReloadReport {
    /// The bottle.
    pub slug: Slug,
    /// Whether anything had to be put back.
    pub changed: bool,
    /// What the user should know.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// What is recorded of a bottle.
struct Recorded {
    network: NetworkName,
    bundle: ContainerName,
}

impl Engine {
    /// Compares the bottle with what was planned; changes nothing.
    ///
    /// # Errors
    /// There is no such bottle, its record cannot be read, or the host cannot be looked at.
    pub fn verify(&self, slug: &Slug) -> Result<VerifyReport, Error> {
        Self::require_network_privileges()?;
        let Recorded { network, bundle } = self.recorded(slug)?;
        let locks = self.lock_both(&network, &bundle)?;
        let drift = self.verify_locked(&network, &bundle, slug);
        let drift = settle(drift, self.release_both(&network, &bundle, locks))?;
        let notes = passage::obstacles()?;
        Ok(VerifyReport { slug: slug.clone(), ok: drift.is_empty(), drift, notes })
    }

    fn verify_locked(
        &self,
        network: &NetworkName,
        bundle: &ContainerName,
        slug: &Slug,
    ) -> Result<Vec<Drift>, Error> {
        let (network_record, bundle_record) = self.both(network, bundle, slug)?;
        let mut host = self.host();
        let mut drift = Vec::new();
        match &network_record {
            Some(record) => {
                drift.extend(moved_uplinks(record)?);
                drift.extend(reconcile::verify(&mut host, &record.resources)?);
            }
            None => drift.push(Drift::new(format!("record of {network}"), "present", "absent")),
        }
        if let Some(record) = &bundle_record {
            drift.extend(reconcile::verify(&mut host, &record.resources)?);
        }
        Ok(drift)
    }

    /// Puts back what is missing or damaged of the bottle's network: firewall, bridge, addresses,
    /// routes. Its container goes on as it is, running or ended; one whose monitor was killed is given
    /// another.
    ///
    /// # Errors
    /// There is no such bottle, its record cannot be read, or what the host said. What was put
    /// back until then stays.
    pub fn reload(&self, slug: &Slug) -> Result<ReloadReport, Error> {
        Self::require_network_privileges()?;
        let Recorded { network, bundle } = self.recorded(slug)?;
        let locks = self.lock_both(&network, &bundle)?;
        let reloaded = self.reload_locked(&network, &bundle, slug).and_then(|changed| {
            let note = self.adopt_locked(&bundle)?;
            Ok((changed || note.is_some(), note))
        });
        let (changed, note) = settle(reloaded, self.release_both(&network, &bundle, locks))?;
        Ok(ReloadReport { slug: slug.clone(), changed, notes: note.into_iter().collect() })
    }

    fn reload_locked(
        &self,
        network: &NetworkName,
        bundle: &ContainerName,
        slug: &Slug,
    ) -> Result<bool, Error> {
        let (network_record, bundle_record) = self.both(network, bundle, slug)?;
        let record =
            network_record.ok_or_else(|| Error::NoNetwork { name: network.to_string() })?;
        let mut host = self.host();
        let mut changed = self.bring_up(&mut host, record)?.changed;
        if let Some(record) = bundle_record {
            host.netns = record.container().map(live_netns).transpose()?.flatten();
            let own: Vec<Resource> = record
                .resources
                .iter()
                .filter(|r| !matches!(r, Resource::Container(_)))
                .cloned()
                .collect();
            let expect = match record.phase {
                Phase::Done => Expect::Existing,
                Phase::Applying => Expect::Fresh,
            };
            let mut transaction = Transaction::new();
            transaction.apply(&mut host, &own, expect)?;
            changed |= !transaction.changes().is_empty();
        }
        Ok(changed)
    }

    /// The names under which the bottle is recorded. Before the locks, which leave traces.
    fn recorded(&self, slug: &Slug) -> Result<Recorded, Error> {
        let bundle = self.config.prefix.container(slug);
        let network = match self.state.bundle(&bundle)? {
            Some(record) => record.network,
            None => self.config.prefix.network(slug),
        };
        if !self.state.has_bundle(&bundle) && !self.state.has_network(&network) {
            return Err(Error::NoBottle { slug: slug.to_string() });
        }
        Ok(Recorded { network, bundle })
    }

    /// Both records as they are under the locks; at least one is there.
    fn both(
        &self,
        network: &NetworkName,
        bundle: &ContainerName,
        slug: &Slug,
    ) -> Result<(Option<NetworkRecord>, Option<BundleRecord>), Error> {
        match (self.state.network(network)?, self.state.bundle(bundle)?) {
            (None, None) => Err(Error::NoBottle { slug: slug.to_string() }),
            records => Ok(records),
        }
    }
}

/// The network namespace of the container, while it runs: what keeps it whose mount somebody has
/// taken away.
pub(super) fn live_netns(container: &Container) -> Result<Option<File>, Error> {
    Ok(match ContainerState::read(&container.state)? {
        ContainerState::Running(started) => started.open_netns(),
        _ => None,
    })
}

/// The next `up` follows the default routes to other devices.
fn moved_uplinks(record: &NetworkRecord) -> Result<Vec<Drift>, Error> {
    let spec = &record.spec;
    let now = default_route()?.map(|route| route.device);
    let now6 = match spec.addresses6 {
        Some(_) => default_route6()?.map(|route| route.device),
        None => None,
    };
    let word = |device: &Option<IfName>| match device {
        Some(device) => device.to_string(),
        None => "none".to_owned(),
    };
    let uplinks = [("uplink", &now, &spec.uplink), ("IPv6 uplink", &now6, &spec.uplink6)];
    Ok(uplinks
        .into_iter()
        .filter(|(_, now, then)| now != then)
        .map(|(what, now, then)| {
            Drift::new(format!("{what} of {}", spec.name), word(now), word(then))
        })
        .collect())
}
