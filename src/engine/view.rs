//! What there is: bottles and networks as callers see them.

use std::path::PathBuf;

use ipnet::Ipv4Net;
use serde::Serialize;

use super::{Engine, Error};
use crate::names::{NetworkName, Slug};
use crate::oci::helper::monitor::log_dir;
use crate::oci::log::{LOG_FILE, LogReader};
use crate::oci::spec::{Container, ImageRef};
use crate::oci::status::ContainerState;
use crate::plan::BottleView;
use crate::state::BundleRecord;

/// How a bottle's container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BottleState {
    /// Its start was cut short.
    Created,
    /// It runs.
    Running,
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
    /// When it was started, in RFC 3339.
    pub started_at: Option<String>,
    /// When it ended, in RFC 3339.
    pub finished_at: Option<String>,
    /// The newest log file.
    pub log_path: Option<PathBuf>,
    /// What it was started with. Environment values are in it.
    #[serde(skip)]
    pub container: Option<Container>,
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
    /// No way out at all.
    pub internal: bool,
    /// In bytes.
    pub mtu: u32,
    /// The device that leads out, if the host has one.
    pub uplink: Option<String>,
    /// The containers on it.
    pub bundles: Vec<String>,
}

impl Engine {
    /// All bottles: every bundle, and every network of ours that has none.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub fn bottles(&self) -> Result<Vec<BottleStatus>, Error> {
        let mut all = Vec::new();
        for (_, record) in self.state.bundles()? {
            all.extend(self.status(&record.slug)?);
        }
        for network in self.state.network_names()? {
            let prefix = format!("{}-bundle-", self.config.prefix);
            let slug = network.as_str().strip_prefix(&prefix).and_then(|s| Slug::new(s).ok());
            let Some(slug) = slug else { continue };
            if !self.state.has_bundle(&self.config.prefix.container(&slug)) {
                all.extend(self.status(&slug)?);
            }
        }
        all.sort_by(|a, b| a.view.slug.cmp(&b.view.slug));
        Ok(all)
    }

    /// One bottle.
    ///
    /// # Errors
    /// There is no such bottle, or its record cannot be read.
    pub fn inspect(&self, slug: &Slug) -> Result<BottleStatus, Error> {
        self.status(slug)?.ok_or_else(|| Error::NoBottle { slug: slug.to_string() })
    }

    fn status(&self, slug: &Slug) -> Result<Option<BottleStatus>, Error> {
        let name = self.config.prefix.container(slug);
        let record = self.state.bundle(&name)?;
        let network = match &record {
            Some(record) => record.network.clone(),
            None => self.config.prefix.network(slug),
        };
        let Some(network) = self.state.network(&network)? else { return Ok(None) };
        let network = network.spec;
        let container = record.as_ref().and_then(BundleRecord::container);
        let ip = match container {
            Some(container) => container.ip,
            None => network.addresses.bundle_ip(None)?,
        };
        let mut status = BottleStatus {
            view: BottleView::new(slug, &network, &name, ip, &self.config.netns),
            image: container.map(|c| c.image.clone()),
            state: BottleState::Absent,
            pid: None,
            exit_code: None,
            started_at: None,
            finished_at: None,
            log_path: container.map(|c| log_dir(c).join(LOG_FILE)),
            container: container.cloned(),
        };
        if let Some(container) = container {
            match ContainerState::read(&container.state)? {
                ContainerState::NotStarted => status.state = BottleState::Created,
                ContainerState::Running(started) => {
                    status.state = BottleState::Running;
                    status.pid = Some(started.init.pid);
                    status.started_at = Some(started.started_at);
                }
                ContainerState::Exited(started, ended) => {
                    status.state = BottleState::Exited;
                    status.started_at = Some(started.started_at);
                    status.exit_code = ended.as_ref().map(|e| e.exit_code);
                    status.finished_at = ended.map(|e| e.finished_at);
                }
            }
        }
        Ok(Some(status))
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

    /// All networks.
    ///
    /// # Errors
    /// If the records cannot be read.
    pub fn networks(&self) -> Result<Vec<NetworkStatus>, Error> {
        let names = self.state.network_names()?;
        names.iter().map(|name| self.inspect_network(name)).collect()
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
            internal: spec.internal,
            mtu: spec.mtu,
            uplink: spec.uplink.map(|u| u.to_string()),
            bundles: users.into_iter().map(|(container, _)| container.to_string()).collect(),
            name: spec.name,
        })
    }
}
