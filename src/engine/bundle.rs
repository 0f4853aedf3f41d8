//! Bundles: start, stop, and what `up` and `down` need of them.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use super::adopt::TAKEN_OVER;
use super::host_checks::{check_controllers, check_file_system};
use super::images::Layers;
use super::labels::Own;
use super::{Engine, Error, rolled_back, settle};
use crate::host::KernelHost;
use crate::launch::{self, LaunchImage, Place};
use crate::names::{ContainerName, Slug};
use crate::net::nflog;
use crate::oci::container as oci_container;
use crate::oci::feed::Feed;
use crate::oci::helper::Surroundings;
use crate::oci::spec::{Container, ImageRef};
use crate::oci::status::{ContainerState, Started};
use crate::oci::{RuntimeError, etc_files};
use crate::plan;
use crate::presence::Presence;
use crate::reconcile::{Expect, Transaction};
use crate::resource::Host;
use crate::spec::{BundleLaunchSpec, LaunchOptions, NetworkSpec};
use crate::state::{BundleRecord, Phase};

/// The host's resolver configuration.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where systemd-resolved keeps the real servers, if the host's file names its stub.
const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// A bundle that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartReport {
    /// The bottle.
    pub slug: Slug,
    /// The container.
    pub container: ContainerName,
    /// Its first process.
    pub pid: i32,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// A bundle that was stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopReport {
    /// The bottle.
    pub slug: Slug,
    /// Whether there was anything to stop.
    pub changed: bool,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// A bundle that is in place.
pub(super) struct Placed {
    pub(super) changed: bool,
    pub(super) pid: i32,
    pub(super) notes: Vec<String>,
}

impl Engine {
    /// Starts a bundle on a network that exists. Bare names in the environment are taken from
    /// `inherited`.
    ///
    /// # Errors
    /// The name or the address is taken, network, image or volume source are absent, or what the
    /// host said. Nothing this call made remains then.
    pub fn start(
        &self,
        spec: &BundleLaunchSpec,
        inherited: &impl Fn(&str) -> Option<String>,
    ) -> Result<StartReport, Error> {
        Self::require_bundle_privileges()?;
        let name = self.config.prefix.container(&spec.slug);
        // Without the locks: it may take minutes.
        self.ensure_image(&spec.image, spec.run.pull)?;
        let locks = self.lock_both(&spec.network, &name)?;
        let started = self.start_locked(spec, &name, inherited);
        let released = self.release_both(&spec.network, &name, locks);
        let placed = settle(started, released)?;
        let slug = spec.slug.clone();
        Ok(StartReport { slug, container: name, pid: placed.pid, notes: placed.notes })
    }

    fn start_locked(
        &self,
        spec: &BundleLaunchSpec,
        name: &ContainerName,
        inherited: &impl Fn(&str) -> Option<String>,
    ) -> Result<Placed, Error> {
        let Some(mut network) = self.state.network(&spec.network)? else {
            return Err(Error::NoNetwork { name: spec.network.to_string() });
        };
        let addresses = network.spec.addresses;
        if (spec.subnet, spec.gateway) != (addresses.subnet(), addresses.gateway()) {
            let differences = vec![format!(
                "subnet {} and gateway {} (wanted: {} and {})",
                addresses.subnet(),
                addresses.gateway(),
                spec.subnet,
                spec.gateway
            )];
            let name = spec.network.to_string();
            return Err(Error::Conflict { what: "network", name, differences });
        }
        let ip = addresses.bundle_ip(Some(spec.bundle_ip))?;
        let old = self.state.bundle(name)?;
        self.refuse_taken_name(name, old.as_ref())?;
        if let Some((by, _)) =
            self.users_of(&spec.network)?.into_iter().find(|(n, other)| *other == ip && n != name)
        {
            return Err(Error::AddressInUse { ip, by: by.to_string() });
        }
        if let Some(guest) = network.spec.guest.as_ref().filter(|guest| guest.ip == ip) {
            return Err(Error::AddressInUse { ip, by: guest.name.to_string() });
        }
        let options = spec.options();
        let layers = Layers::Unpack;
        let ip6 = super::network::bundle_ip6(&network.spec, spec.bundle_ip6)?;
        let (slug, image) = (&spec.slug, spec.image.as_str());
        let wish = Wish { slug, ip, ip6, image, options: &options, layers };
        let _hold = self.hold_images()?;
        let (container, notes) = self.container(&network.spec, &wish, inherited)?;
        let mut host = self.host();
        if old.is_some() {
            // A start that a crash cut short: its name is free, what is left of it is not wanted.
            self.clear_bundle(&mut host, name, None, Duration::ZERO)?;
        }
        if spec.network == self.config.prefix.network(&spec.slug) {
            let guest = self.wanted_guest(&network.spec, &spec.slug, None, ip, ip6)?;
            (network, _) = self.ensure_guest(&mut host, network, guest.as_ref())?;
        }
        host.prepare(name)?;
        self.place(&mut host, &network.spec, container, None, notes)
    }

    /// As Docker: a name is taken by what runs and by what has ended.
    fn refuse_taken_name(
        &self,
        name: &ContainerName,
        old: Option<&BundleRecord>,
    ) -> Result<(), Error> {
        let Some(container) = old.and_then(BundleRecord::container) else { return Ok(()) };
        let state = match ContainerState::read(&container.state)? {
            ContainerState::Running(_) => "running",
            ContainerState::Exited(..) => "exited",
            ContainerState::NotStarted => return Ok(()),
        };
        Err(Error::NameTaken { name: name.to_string(), state })
    }

    /// The container that a wish makes, and what the user should know about it.
    pub(super) fn container(
        &self,
        network: &NetworkSpec,
        wish: &Wish<'_>,
        inherited: &impl Fn(&str) -> Option<String>,
    ) -> Result<(Container, Vec<String>), Error> {
        let image = self.find_image(wish.image, wish.layers)?;
        let options = wish.options;
        let name = self.config.prefix.container(wish.slug);
        let userns = self.ids_for(&name, options.run.userns)?;
        let selinux = self.labels_for(&name, &options.run.security)?;
        let internal = network.policy.internal;
        let place = Place { ip: wish.ip, ip6: wish.ip6, internal, userns, selinux };
        let init = if options.run.init { Some(self.init_program(wish.layers)?) } else { None };
        let reference = ImageRef { reference: image.reference, digest: image.digest };
        let (config, healthcheck) = (&image.config, image.healthcheck.as_ref());
        let image =
            LaunchImage { image: reference, config, healthcheck, layers: image.layers, init };
        let made = launch::container(&self.config, wish.slug, place, image, options, inherited)?;
        check_controllers(&made.0.limits)?;
        check_file_system(&self.config.root)?;
        Ok(made)
    }

    /// Brings the bundle to its planned state. The caller holds the locks. `old` is the record of
    /// the very same container, if there is one.
    pub(super) fn place(
        &self,
        host: &mut KernelHost<'_>,
        network: &NetworkSpec,
        mut container: Container,
        old: Option<Phase>,
        mut notes: Vec<String>,
    ) -> Result<Placed, Error> {
        let name = container.name.clone();
        let state = container.state.clone();
        if old.is_some() && oci_container::is_orphaned(&container)? {
            notes.push(TAKEN_OVER.to_owned());
        }
        let (surroundings, note) = surroundings(&container, network.log_group);
        host.surroundings = surroundings;
        host.netns = super::verify::live_netns(&container)?;
        let wanted = Own::of(&container);
        let claim = self.claim(&mut container)?;
        let own = Own::of(&container);
        let mut record = BundleRecord {
            phase: Phase::Applying,
            slug: container.slug.clone(),
            network: network.name.clone(),
            resources: plan::bundle(network, container, &self.config.netns),
        };
        let expect = match old {
            Some(Phase::Done) => Expect::Existing,
            Some(Phase::Applying) | None => Expect::Fresh,
        };
        if old.is_none() || own != wanted {
            self.state.write_bundle(&name, &record)?;
        }
        self.lease_own(&own, &name)?;
        drop(claim);
        let mut transaction = Transaction::new();
        let applied = transaction.apply(host, &record.resources, expect).map_err(Error::from);
        let changed = !transaction.changes().is_empty();
        let settled = applied.and_then(|()| {
            if changed || expect == Expect::Fresh {
                record.phase = Phase::Done;
                self.state.write_bundle(&name, &record)?;
                notes.extend(note);
            }
            if expect == Expect::Existing {
                self.tell_drift(&record.slug, transaction.changes());
            }
            match ContainerState::read(&state)? {
                // One that has ended since was started all the same: `up` looks again.
                ContainerState::Running(started) | ContainerState::Exited(started, _) => {
                    if changed {
                        notes.extend(started.notes);
                    }
                    Ok(started.init.pid)
                }
                ContainerState::NotStarted => {
                    Err(RuntimeError::NotRunning { container: name.to_string() }.into())
                }
            }
        });
        match settled {
            Ok(pid) => Ok(Placed { changed, pid, notes }),
            Err(error) => {
                let left = transaction.roll_back(host);
                let gone = record.resources.iter().all(|r| {
                    matches!(host.observe(r), Ok(Presence::Absent | Presence::Foreign(_)))
                });
                if old.is_none() && left.is_empty() && gone {
                    // A record that stays speaks of nothing, and `down` takes it.
                    let _ = self.state.forget_bundle(&name);
                }
                Err(rolled_back("the start", error, left))
            }
        }
    }

    /// The bundle's container and its running process.
    ///
    /// # Errors
    /// There is no such bottle, or it does not run.
    pub(super) fn running(&self, slug: &Slug) -> Result<(Container, Started), Error> {
        let name = self.config.prefix.container(slug);
        let record = self.state.bundle(&name)?;
        let container = record.as_ref().and_then(BundleRecord::container);
        let container = container.ok_or(Error::NoBottle { slug: slug.to_string() })?;
        match ContainerState::read(&container.state)? {
            ContainerState::Running(started) => Ok((container.clone(), started)),
            _ => Err(RuntimeError::NotRunning { container: name.to_string() }.into()),
        }
    }
}

/// What a bundle is to be, apart from its network.
pub(super) struct Wish<'a> {
    pub(super) slug: &'a Slug,
    pub(super) ip: Ipv4Addr,
    pub(super) ip6: Option<Ipv6Addr>,
    pub(super) image: &'a str,
    pub(super) options: &'a LaunchOptions,
    pub(super) layers: Layers,
}

/// What the container gets from the host as it is now, and what the user should know about it.
pub(super) fn surroundings(
    container: &Container,
    log_group: Option<u16>,
) -> (Surroundings, Option<String>) {
    let (resolv_conf, note) = resolv_conf(container.ip6.is_some(), container.internal);
    let feed =
        log_group.map(|group| Feed { protocol: nflog::PROTOCOL, setup: nflog::setup(group) });
    (Surroundings { resolv_conf, feed }, note)
}

/// The content of the bundle's resolver configuration, from the host's.
fn resolv_conf(ipv6: bool, internal: bool) -> (String, Option<String>) {
    let read = |path: &str| fs::read_to_string(Path::new(path)).ok();
    let host = read(RESOLV_CONF).unwrap_or_default();
    let resolved = read(RESOLVED_CONF);
    let conf = etc_files::resolv_conf(&host, resolved.as_deref(), ipv6, internal);
    (conf.text, conf.note)
}
