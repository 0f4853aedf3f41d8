//! Bundles: removing one, with a record or without.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::bundle::StopReport;
use super::{Engine, Error, settle};
use crate::host::KernelHost;
use crate::names::{ContainerName, Slug};
use crate::net::port_rules;
use crate::oci::digest::Digest;
use crate::oci::security::Security;
use crate::oci::spec::{Container, ImageRef, Limits, LogLimits, Process};
use crate::oci::status::ContainerState;
use crate::plan;
use crate::reconcile;
use crate::resource::Resource;
use crate::state::StateError;

impl Engine {
    /// Stops the bundle and removes it: its stop signal, `grace`, SIGKILL.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn stop(&self, slug: &Slug, grace: Duration) -> Result<StopReport, Error> {
        Self::require_bundle_privileges()?;
        let name = self.config.prefix.container(slug);
        let lock = self.state.lock_bundle(&name)?;
        let removed = self.remove_bundle_locked(&name, Some(slug), grace);
        let released = self.release_bundle(&name, lock);
        let changed = settle(removed, released)?;
        Ok(StopReport { slug: slug.clone(), changed, notes: Vec::new() })
    }

    /// The same for a caller that holds the bundle's lock.
    pub(super) fn remove_bundle_locked(
        &self,
        name: &ContainerName,
        slug: Option<&Slug>,
        grace: Duration,
    ) -> Result<bool, Error> {
        self.clear_bundle(&mut self.host(), name, slug, grace)
    }

    /// Removes what there is of the bundle, with a record or, by its slug, without.
    pub(super) fn clear_bundle(
        &self,
        host: &mut KernelHost<'_>,
        name: &ContainerName,
        slug: Option<&Slug>,
        grace: Duration,
    ) -> Result<bool, Error> {
        self.clear_bundle_and(host, name, slug, grace, Vec::new())
    }

    /// The same with links of a network that is removed next: they go when the bundle's own does, for
    /// the kernel is slow while it takes a namespace down.
    pub(super) fn clear_bundle_and(
        &self,
        host: &mut KernelHost<'_>,
        name: &ContainerName,
        slug: Option<&Slug>,
        grace: Duration,
        links: Vec<Resource>,
    ) -> Result<bool, Error> {
        let (recorded, mut resources) = match self.state.bundle(name) {
            Ok(Some(record)) => (true, record.resources),
            Ok(None) => (false, self.presumed_bundle(name, slug)?),
            // What it said is lost, what it was about is not: the names follow from the slug.
            Err(StateError::Unreadable { .. }) => (true, self.presumed_bundle(name, slug)?),
            Err(e) => return Err(e.into()),
        };
        let container = resources.iter().find_map(|resource| match resource {
            Resource::Container(container) => {
                Some((container.slug.clone(), container.state.clone()))
            }
            _ => None,
        });
        let ran = container.as_ref().is_some_and(|(_, state)| {
            matches!(ContainerState::read(state), Ok(ContainerState::Running(_)))
        });
        let port = resources.iter().position(|r| matches!(r, Resource::Veth(_))).unwrap_or(0);
        resources.splice(port..port, links);
        host.grace = grace;
        let report = reconcile::remove(host, &resources);
        host.grace = Duration::ZERO;
        if let Some((slug, _)) = container {
            self.tell_removal(&slug, &report.removed, ran);
        }
        if !report.errors.is_empty() {
            return Err(Error::Left { name: name.to_string(), left: report.errors });
        }
        self.state.forget_bundle(name)?;
        Ok(recorded || !report.removed.is_empty())
    }

    /// The resources of a bundle of which only the name is known.
    fn presumed_bundle(
        &self,
        name: &ContainerName,
        slug: Option<&Slug>,
    ) -> Result<Vec<Resource>, Error> {
        let Some(slug) = slug else { return Ok(Vec::new()) };
        let network = self.config.prefix.network(slug);
        let (ip, ip6) = port_rules::pinned_addresses(&name.veth())?;
        let ip = ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let spec = self.presumed_spec(&network)?;
        let container = self.presumed_container(name, slug, ip);
        let mut resources = plan::bundle(&spec, container, &self.config.netns);
        for resource in &mut resources {
            if let Resource::PortRules(rules) = resource {
                rules.ip6 = ip6;
            }
        }
        Ok(resources)
    }

    pub(super) fn presumed_container(
        &self,
        name: &ContainerName,
        slug: &Slug,
        ip: Ipv4Addr,
    ) -> Container {
        Container {
            name: name.clone(),
            slug: slug.clone(),
            image: ImageRef { reference: String::new(), digest: Digest::of(b"") },
            layers: Vec::new(),
            netns: plan::netns_path(&self.config.netns, name),
            ip,
            ip6: None,
            internal: false,
            process: Process {
                args: Vec::new(),
                env: Vec::new(),
                cwd: "/".to_owned(),
                user: String::new(),
            },
            volumes: Vec::new(),
            tmpfs: Vec::new(),
            secrets: Vec::new(),
            security: Security::default(),
            userns: None,
            selinux: None,
            image_volumes: Vec::new(),
            limits: Limits::default(),
            read_only: false,
            init: false,
            ready_ports: Vec::new(),
            stop_signal: libc::SIGTERM,
            log: LogLimits::default(),
            restart: crate::oci::restart::RestartPolicy::No,
            health: None,
            labels: std::collections::BTreeMap::new(),
            storage: self.config.storage(name),
            state: plan::run_dir(&self.config.state, name),
        }
    }
}
