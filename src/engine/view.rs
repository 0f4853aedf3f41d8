//! What there is: bottles and networks as callers see them.

use std::path::PathBuf;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::Serialize;

use super::{Engine, Error};
use crate::names::{NetworkName, Slug};
use crate::net::drops::{self, Drops};
use crate::net::policy::NetworkPolicy;
use crate::oci::freezer;
use crate::oci::health::HealthState;
use crate::oci::helper::monitor::log_dir;
use crate::oci::log::{LOG_FILE, LogReader};
use crate::oci::runtime_spec::DEFAULT_PIDS;
use crate::oci::spec::{Container, ImageRef};
use crate::oci::status::ContainerState;
use crate::oci::{cgroup, container, life, spec::Limits, usage};
use crate::plan::BottleView;
use crate::resource::Resource;
use crate::spec::{NetworkAddresses, NetworkAddresses6, NetworkSpec};
use crate::state::{BundleRecord, StateError};

/// What there is, as far as its records can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T> {
    /// What could be read.
    pub items: Vec<T>,
    /// A sentence for each record that could not, which names it.
    pub notes: Vec<String>,
}

/// How a bottle's container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BottleState {
    /// Its start was cut short.
    Created,
    /// It runs.
    Running,
    /// It runs, and its processes are stopped for a while.
    Paused,
    /// It has ended, and is about to be started again.
    Restarting,
    /// It has ended.
    Exited,
    /// There is a network, and no container.
    Absent,
}

impl std::fmt::Display for BottleState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Absent => "absent",
        })
    }
}

/// A bottle with its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BottleStatus {
    /// Names and addresses.
    #[serde(flatten)]
    pub view: BottleView,
    /// The image; `None` while there is no container.
    pub image: Option<ImageRef>,
    /// How the container stands.
    pub state: BottleState,
    /// The container's first process, while it runs.
    pub pid: Option<i32>,
    /// The exit code, once it is known.
    pub exit_code: Option<i32>,
    /// The kernel killed a process of the bundle because its memory ran out.
    pub oom_killed: bool,
    /// When it was started, in RFC 3339.
    pub started_at: Option<String>,
    /// When it ended, in RFC 3339.
    pub finished_at: Option<String>,
    /// How often its restart policy started it again.
    pub restarts: u32,
    /// What its health checks say, if it has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthState>,
    /// The newest log file.
    pub log_path: Option<PathBuf>,
    /// What it was started with. Environment values are in it.
    #[serde(skip)]
    pub container: Option<Container>,
    /// The bounds that are in force, those included that nobody asked for.
    #[serde(skip)]
    pub limits: Option<Limits>,
}

/// A network with its users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetworkStatus {
    /// Its name.
    pub name: NetworkName,
    /// The bridge's interface name.
    pub bridge: String,
    /// Its range.
    pub subnet: Ipv4Net,
    /// The bridge's address.
    pub gateway: std::net::Ipv4Addr,
    /// Its IPv6 range, if it has IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet6: Option<Ipv6Net>,
    /// The bridge's IPv6 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<std::net::Ipv6Addr>,
    /// What it may be used for.
    #[serde(flatten)]
    pub policy: NetworkPolicy,
    /// In bytes.
    pub mtu: u32,
    /// The device that leads out, if the host has one.
    pub uplink: Option<String>,
    /// The same for IPv6, if the network has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uplink6: Option<String>,
    /// The containers on it.
    pub bundles: Vec<String>,
}

impl Engine {
    /// All bottles of this prefix: every bundle, and every network that has none. One that is
    /// removed meanwhile is left out, one whose record is damaged is named in the notes.
    ///
    /// # Errors
    /// If the state directory cannot be read.
    pub fn bottles(&self) -> Result<Listing<BottleStatus>, Error> {
        let (mut items, mut notes) = (Vec::new(), Vec::new());
        for name in self.state.bundle_names()? {
            let record = match self.state.bundle(&name) {
                Err(e @ StateError::Unreadable { .. }) => {
                    // The record would say whose it is; the name is all there is.
                    if name.as_str().starts_with(&format!("{}-sidecars-", self.config.prefix)) {
                        notes.push(e.to_string());
                    }
                    continue;
                }
                other => other?,
            };
            let Some(record) = record else { continue };
            // Another installation may keep its records here under another prefix.
            if name != self.config.prefix.container(&record.slug) {
                continue;
            }
            let network = match self.state.network(&record.network) {
                Err(e @ StateError::Unreadable { .. }) => {
                    notes.push(e.to_string());
                    None
                }
                other => other?,
            };
            let network = network.map(|n| n.spec).or_else(|| network_of(&record));
            if let Some(network) = network {
                items.push(self.status(&record.slug, &network, Some(&record))?);
            }
        }
        for name in self.state.network_names()? {
            let prefix = format!("{}-bundle-", self.config.prefix);
            let slug = name.as_str().strip_prefix(&prefix).and_then(|s| Slug::new(s).ok());
            let Some(slug) = slug else { continue };
            if self.state.has_bundle(&self.config.prefix.container(&slug)) {
                continue;
            }
            match self.state.network(&name) {
                Ok(Some(network)) => items.push(self.status(&slug, &network.spec, None)?),
                Ok(None) => {}
                Err(e @ StateError::Unreadable { .. }) => notes.push(e.to_string()),
                Err(e) => return Err(e.into()),
            }
        }
        items.sort_by(|a, b| a.view.slug.cmp(&b.view.slug));
        Ok(Listing { items, notes })
    }

    /// One bottle.
    ///
    /// # Errors
    /// There is no such bottle, or its record cannot be read.
    pub fn inspect(&self, slug: &Slug) -> Result<BottleStatus, Error> {
        let record = self.state.bundle(&self.config.prefix.container(slug))?;
        let name = match &record {
            Some(record) => record.network.clone(),
            None => self.config.prefix.network(slug),
        };
        let network = self.state.network(&name)?.map(|network| network.spec);
        match network.or_else(|| network_of(record.as_ref()?)) {
            Some(network) => self.status(slug, &network, record.as_ref()),
            None => Err(Error::NoBottle { slug: slug.to_string() }),
        }
    }

    fn status(
        &self,
        slug: &Slug,
        network: &NetworkSpec,
        record: Option<&BundleRecord>,
    ) -> Result<BottleStatus, Error> {
        let name = self.config.prefix.container(slug);
        let container = record.and_then(BundleRecord::container);
        let ip = match container {
            Some(container) => container.ip,
            None => network.addresses.bundle_ip(None)?,
        };
        let ip6 = container.map_or_else(
            || super::network::bundle_ip6(network, None),
            |container| Ok(container.ip6),
        )?;
        let mut status = BottleStatus {
            view: BottleView::new(slug, network, &name, ip, ip6, &self.config.netns),
            image: container.map(|c| c.image.clone()),
            state: BottleState::Absent,
            pid: None,
            exit_code: None,
            oom_killed: false,
            started_at: None,
            finished_at: None,
            restarts: 0,
            health: None,
            log_path: container.map(|c| log_dir(c).join(LOG_FILE)),
            container: container.cloned(),
            limits: container.map(|c| in_force(&c.limits)).transpose()?,
        };
        if let Some(container) = container {
            if container.health.is_some() {
                status.health = Some(life::read_health(&container.state)?);
            }
            status.restarts = life::read_restarts(&container.state)?.count;
            match ContainerState::read(&container.state)? {
                ContainerState::NotStarted => status.state = BottleState::Created,
                ContainerState::Running(started) => {
                    status.state = match freezer::is_frozen(&container.name)? {
                        false => BottleState::Running,
                        true => BottleState::Paused,
                    };
                    status.pid = Some(started.init.pid);
                    status.started_at = Some(started.started_at);
                    status.oom_killed = usage::oom_killed(&name);
                }
                ContainerState::Exited(started, ended) => {
                    let waits =
                        container::is_restarting(container)? && container::is_watched(container)?;
                    status.state = match waits {
                        true => BottleState::Restarting,
                        false => BottleState::Exited,
                    };
                    status.started_at = Some(started.started_at);
                    status.exit_code = ended.as_ref().map(|e| e.exit_code);
                    status.oom_killed = ended.as_ref().is_some_and(|e| e.oom_killed);
                    status.finished_at = ended.map(|e| e.finished_at);
                }
            }
        }
        Ok(status)
    }

    /// What was dropped of a bottle's traffic, by reason. Of no other bottle anything is read.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn drops(&self, bottle: &BottleView) -> Result<Drops, Error> {
        let guest = bottle.guest.as_ref().map(|guest| guest.name.veth());
        let (bridge, port) = (bottle.network.bridge(), bottle.container.veth());
        Ok(drops::read(&bridge, &port, guest.as_ref())?)
    }

    /// A reader of the bundle's log.
    ///
    /// # Errors
    /// There is no such bottle.
    pub fn log(&self, slug: &Slug) -> Result<LogReader, Error> {
        let status = self.inspect(slug)?;
        match status.container {
            Some(container) => Ok(LogReader::new(log_dir(&container))),
            None => Err(Error::NoBottle { slug: slug.to_string() }),
        }
    }

    /// All networks, of any prefix. One that is removed meanwhile is left out, one whose record is
    /// damaged is named in the notes.
    ///
    /// # Errors
    /// If the state directory cannot be read.
    pub fn networks(&self) -> Result<Listing<NetworkStatus>, Error> {
        let (mut items, mut notes) = (Vec::new(), Vec::new());
        for name in self.state.network_names()? {
            match self.inspect_network(&name) {
                Ok(network) => items.push(network),
                Err(Error::NoNetwork { .. }) => {}
                Err(Error::State(e @ StateError::Unreadable { .. })) => notes.push(e.to_string()),
                Err(e) => return Err(e),
            }
        }
        Ok(Listing { items, notes })
    }

    /// One network.
    ///
    /// # Errors
    /// There is no such network, or its record cannot be read.
    pub fn inspect_network(&self, name: &NetworkName) -> Result<NetworkStatus, Error> {
        let record = self.state.network(name)?;
        let spec = record.ok_or_else(|| Error::NoNetwork { name: name.to_string() })?.spec;
        let users = self.users_of(name)?;
        Ok(NetworkStatus {
            bridge: name.bridge().to_string(),
            subnet: spec.addresses.subnet(),
            gateway: spec.addresses.gateway(),
            subnet6: spec.addresses6.map(|a| a.subnet()),
            gateway6: spec.addresses6.map(|a| a.gateway()),
            policy: spec.policy,
            mtu: spec.mtu,
            uplink: spec.uplink.map(|u| u.to_string()),
            uplink6: spec.uplink6.map(|u| u.to_string()),
            bundles: users.into_iter().map(|(container, _)| container.to_string()).collect(),
            name: spec.name,
        })
    }
}

/// The network that a bundle was made for, from the bundle's own end of it: the network's record
/// may be gone.
fn network_of(record: &BundleRecord) -> Option<NetworkSpec> {
    let veth = record.resources.iter().find_map(|r| match r {
        Resource::Veth(veth) => Some(veth),
        _ => None,
    })?;
    Some(NetworkSpec {
        name: record.network.clone(),
        addresses: NetworkAddresses::new(veth.address.trunc(), Some(veth.gateway)).ok()?,
        addresses6: veth
            .address6
            .and_then(|a| NetworkAddresses6::new(a.trunc(), veth.gateway6).ok()),
        policy: NetworkPolicy { internal: veth.internal, ..NetworkPolicy::default() },
        log_group: None,
        mtu: veth.mtu,
        uplink: None,
        guest: None,
        uplink6: None,
    })
}

/// The bounds with the one that every container has where the host can enforce it.
fn in_force(asked: &Limits) -> Result<Limits, Error> {
    let enforced = cgroup::controllers()?.is_some_and(|all| all.contains("pids"));
    let pids = asked.pids.or(enforced.then_some(DEFAULT_PIDS));
    // Without swap unless asked for.
    let swap = asked.memory_swap.or(asked.memory.and_then(|bytes| i64::try_from(bytes).ok()));
    Ok(Limits { pids, memory_swap: swap, ..asked.clone() })
}
