//! Bottles whole: plan, up, down.

use std::time::Duration;

use serde::Serialize;

use super::bundle::Wish;
use super::images::Layers;
use super::network::{self, Ensured, NetworkRequest};
use super::{Engine, Error, StopReport, guest, rolled_back, settle};
use crate::STOP_GRACE;
use crate::host::KernelHost;
use crate::launch;
use crate::names::{ContainerName, Slug};
use crate::net::passage;
use crate::oci::container;
use crate::oci::events::EventKind;
use crate::oci::spec::{Container, ImageRef};
use crate::oci::status::ContainerState;
use crate::plan::BottleView;
use crate::reconcile::RemoveError;
use crate::spec::{BottleSpec, GuestSpec, NetworkSpec};
use crate::state::{BundleRecord, StateError};

/// What a bottle will be, before anything starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanReport {
    /// Names and addresses.
    #[serde(flatten)]
    pub view: BottleView,
    /// The image.
    pub image: ImageRef,
    /// What the user should know.
    #[serde(skip)]
    pub notes: Vec<String>,
}

/// A bottle that is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UpReport {
    /// Names, addresses and image.
    #[serde(flatten)]
    pub plan: PlanReport,
    /// Whether anything was changed.
    pub changed: bool,
    /// The container's first process.
    pub pid: i32,
}

/// A wish that can be met.
struct Checked {
    network: NetworkSpec,
    /// The network that exists is another one and is to be replaced.
    another_network: bool,
    /// The guest side of the network that is replaced is not asked for again.
    guest_goes: bool,
    container: Container,
    notes: Vec<String>,
}

impl Engine {
    /// What `up` would make, or why it would refuse. Only reads: it makes no file and no directory,
    /// and needs no embedded image in the store.
    ///
    /// # Errors
    /// As [`Engine::up`] would say before its first change.
    pub fn plan(
        &self,
        spec: &BottleSpec,
        inherited: &impl Fn(&str) -> Option<String>,
    ) -> Result<PlanReport, Error> {
        let request = self.network_request(spec);
        let old = readable(self.state.bundle(&self.config.prefix.container(&spec.slug)))?;
        let foresee = Layers::Foresee;
        let checked = self.check_wish(spec, &request, old.as_ref(), false, foresee, inherited)?;
        let report = self.plan_report(&checked.network, &checked.container);
        Ok(PlanReport { notes: checked.notes, ..report })
    }

    fn plan_report(&self, network: &NetworkSpec, container: &Container) -> PlanReport {
        let Container { slug, name, ip, ip6, image, .. } = container;
        let view = BottleView::new(slug, network, name, *ip, *ip6, &self.config.netns);
        PlanReport { view, image: image.clone(), notes: Vec::new() }
    }

    fn network_request(&self, spec: &BottleSpec) -> NetworkRequest {
        NetworkRequest {
            name: self.config.prefix.network(&spec.slug),
            subnet: spec.subnet,
            gateway: spec.gateway,
            subnet6: spec.subnet6,
            gateway6: spec.gateway6,
            policy: spec.policy.clone(),
            mtu: spec.mtu,
            seed: spec.slug.to_string(),
        }
    }

    fn guest_beside(
        &self,
        spec: &BottleSpec,
        network: &NetworkSpec,
        container: &Container,
    ) -> Result<Option<GuestSpec>, Error> {
        let request = spec.guest.as_ref();
        self.wanted_guest(network, &spec.slug, request, container.ip, container.ip6)
    }

    fn wanted(
        &self,
        spec: &BottleSpec,
        network: &NetworkSpec,
        layers: Layers,
        inherited: &impl Fn(&str) -> Option<String>,
    ) -> Result<(Container, Vec<String>), Error> {
        let ip = network.addresses.bundle_ip(spec.bundle_ip)?;
        let ip6 = network::bundle_ip6(network, spec.bundle_ip6)?;
        let (image, options) = (&spec.image, &spec.options);
        let wish = Wish { slug: &spec.slug, ip, ip6, image, options, layers };
        self.container(network, &wish, inherited)
    }

    /// Brings the bottle up: makes what is missing, repairs what is damaged, starts what has
    /// ended, leaves alone what is right. `replace` ends a bundle that was started otherwise.
    ///
    /// # Errors
    /// Conflict with what is there, anything wrong with the wish, or what the host said. What this
    /// call made is gone then.
    pub fn up(
        &self,
        spec: &BottleSpec,
        replace: bool,
        inherited: &impl Fn(&str) -> Option<String>,
    ) -> Result<UpReport, Error> {
        Self::require_bundle_privileges()?;
        let request = self.network_request(spec);
        network::check_addresses(&request, spec.bundle_ip, spec.bundle_ip6)?;
        // Without the locks: it may take minutes.
        self.ensure_image(&spec.image, spec.options.run.pull)?;
        let name = self.config.prefix.container(&spec.slug);
        let locks = self.lock_both(&request.name, &name)?;
        let result = self.up_locked(spec, &request, &name, replace, inherited);
        let released = self.release_both(&request.name, &name, locks);
        let (mut report, ready_ports) = settle(result, released)?;
        // Without the locks: `down` need not wait for daemons that never come.
        self.await_wanted(&report.plan.view, &spec.options.run.ready, &ready_ports)?;
        report.plan.notes.extend(self.check_alive(&spec.slug)?);
        if report.changed {
            report.plan.notes.extend(passage::obstacles()?);
            self.tell(&spec.slug, EventKind::Ready, None);
        }
        Ok(report)
    }

    fn up_locked(
        &self,
        spec: &BottleSpec,
        request: &NetworkRequest,
        name: &ContainerName,
        replace: bool,
        inherited: &impl Fn(&str) -> Option<String>,
    ) -> Result<(UpReport, Vec<u16>), Error> {
        let mut host = self.host();
        let old = readable(self.state.bundle(name))?;
        if !is_running(old.as_ref())? {
            // It waits for the kernel while this process works on the network.
            host.prepare(name)?;
        }
        let _hold = self.hold_images()?;
        let unpack = Layers::Unpack;
        let checked = self.check_wish(spec, request, old.as_ref(), replace, unpack, inherited)?;
        self.clear_unreadable(&mut host, &spec.slug)?;
        if checked.another_network {
            let links = self.network_links(&request.name);
            self.clear_bundle_and(&mut host, name, Some(&spec.slug), STOP_GRACE, links)?;
            self.clear_network(&mut host, &request.name)?;
        }
        let old = self.state.bundle(name)?;
        let Ensured { record, fresh, changed } = self.ensure_network(&mut host, request)?;
        let had_guest = record.spec.guest.is_some();
        let wanted = self.wanted(spec, &record.spec, unpack, inherited);
        let placed = wanted.and_then(|(container, mut notes)| {
            if checked.guest_goes {
                notes.push("the guest side went with the network that was replaced".to_owned());
            }
            let guest = self.guest_beside(spec, &record.spec, &container)?;
            let (record, attached) = self.ensure_guest(&mut host, record, guest.as_ref())?;
            let plan = self.plan_report(&record.spec, &container);
            let same = old.as_ref().filter(|o| o.container() == Some(&container));
            let phase = same.map(|o| o.phase);
            let replaced = old.is_some() && phase.is_none();
            if replaced {
                self.clear_bundle(&mut host, name, None, STOP_GRACE)?;
            }
            let introduced = self.introduce_guest(&mut host, &record.spec, name)?;
            let ports = container.ready_ports.clone();
            let placed = self.place(&mut host, &record.spec, container, phase, notes)?;
            let changed = changed || attached || replaced || introduced || placed.changed;
            let plan = PlanReport { notes: placed.notes, ..plan };
            Ok((UpReport { plan, changed, pid: placed.pid }, ports))
        });
        match placed {
            // Not from under a bundle that could not be taken back.
            Err(error) if fresh && !self.state.has_bundle(name) => {
                let left = self.take_network_back(&mut host, request);
                Err(rolled_back("`up`", error, left))
            }
            Err(error) if !fresh && !had_guest && spec.guest.is_some() => {
                match self.remove_guest(&spec.slug, &request.name, name) {
                    Err(Error::Left { left, .. }) => Err(rolled_back("`up`", error, left)),
                    // Anything else leaves the record, and with it the way to try again.
                    Ok(_) | Err(_) => Err(error),
                }
            }
            other => other,
        }
    }

    /// Removes what records speak of that cannot be read: nobody knows any more whether it is as
    /// it was wanted.
    fn clear_unreadable(&self, host: &mut KernelHost<'_>, slug: &Slug) -> Result<(), Error> {
        let name = self.config.prefix.container(slug);
        let network = self.config.prefix.network(slug);
        let bundle = matches!(self.state.bundle(&name), Err(StateError::Unreadable { .. }));
        let lost = matches!(self.state.network(&network), Err(StateError::Unreadable { .. }));
        if bundle || lost {
            self.clear_bundle(host, &name, Some(slug), STOP_GRACE)?;
        }
        if lost {
            self.clear_network(host, &network)?;
        }
        Ok(())
    }

    /// Removes the network this very call made.
    fn take_network_back(
        &self,
        host: &mut KernelHost<'_>,
        request: &NetworkRequest,
    ) -> Vec<RemoveError<crate::host::HostError>> {
        match self.clear_network(host, &request.name) {
            Err(Error::Left { left, .. }) => left,
            // Anything else leaves the record, and with it the way to try again.
            Ok(_) | Err(_) => Vec::new(),
        }
    }

    /// Finds everything that is wrong with the wish before anything changes.
    fn check_wish(
        &self,
        spec: &BottleSpec,
        request: &NetworkRequest,
        old: Option<&BundleRecord>,
        replace: bool,
        layers: Layers,
        inherited: &impl Fn(&str) -> Option<String>,
    ) -> Result<Checked, Error> {
        let there = readable(self.state.network(&request.name))?;
        let mut another_network = false;
        let had_guest = there.as_ref().is_some_and(|record| record.spec.guest.is_some());
        let network = match there {
            None => self.choose(request)?,
            Some(record) => {
                let differences = network::differences(request, &record.spec);
                another_network = !differences.is_empty();
                match (another_network, replace) {
                    (false, _) => record.spec,
                    (true, true) => {
                        self.refuse_other_users(
                            &request.name,
                            &self.config.prefix.container(&spec.slug),
                        )?;
                        self.choose(request)?
                    }
                    (true, false) => {
                        let name = request.name.to_string();
                        return Err(Error::Conflict { what: "network", name, differences });
                    }
                }
            }
        };
        let (container, notes) = self.wanted(spec, &network, layers, inherited)?;
        let guest = self.guest_beside(spec, &network, &container)?;
        if let Some(guest) = guest.as_ref().filter(|_| !replace) {
            guest::refuse_another_guest(&network, guest)?;
        }
        let network = NetworkSpec { guest, ..network };
        let guest_goes = had_guest && network.guest.is_none();
        let checked = Checked { network, another_network, guest_goes, container, notes };
        let Some(there) = old.and_then(BundleRecord::container) else { return Ok(checked) };
        let differences = launch::differences(there, &checked.container);
        // What has ended, or was never there in full, stands in nobody's way.
        if differences.is_empty() || replace || !is_running(old)? {
            return Ok(checked);
        }
        let name = checked.container.name.to_string();
        Err(Error::Conflict { what: "bundle", name, differences })
    }

    /// Takes the bottle down: the bundle, then its network. Whatever state it is in, all that is
    /// its own is removed.
    ///
    /// # Errors
    /// What could not be removed; everything else is.
    pub fn down(&self, slug: &Slug, grace: Duration) -> Result<StopReport, Error> {
        Self::require_bundle_privileges()?;
        let network = self.config.prefix.network(slug);
        let name = self.config.prefix.container(slug);
        let locks = self.lock_both(&network, &name)?;
        let notes = self.guest_notes(slug);
        let alone = self.refuse_other_users(&network, &name);
        let links = if alone.is_ok() { self.network_links(&network) } else { Vec::new() };
        let mut host = self.host();
        let bundle = self.clear_bundle_and(&mut host, &name, Some(slug), grace, links);
        let removed = alone.and_then(|()| self.clear_network(&mut host, &network));
        let released = self.release_both(&network, &name, locks);
        let changed = bundle.and_then(|bundle| Ok(removed? || bundle));
        let changed = settle(changed, released)?;
        Ok(StopReport { slug: slug.clone(), changed, notes: notes? })
    }
}

/// A record that cannot be read counts as none: what it was about is found by its names.
fn readable<T>(record: Result<Option<T>, StateError>) -> Result<Option<T>, Error> {
    match record {
        Err(StateError::Unreadable { .. }) => Ok(None),
        other => Ok(other?),
    }
}

fn is_running(record: Option<&BundleRecord>) -> Result<bool, Error> {
    let Some(container) = record.and_then(BundleRecord::container) else { return Ok(false) };
    let running = matches!(ContainerState::read(&container.state)?, ContainerState::Running(_));
    // One that its restart policy is about to start again is as good as running.
    Ok(running || container::is_restarting(container)?)
}
