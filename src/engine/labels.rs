//! Which SELinux labels a bundle gets, and what no two bundles of a host may have both.

use super::{Engine, Error};
use crate::fsutil::LockFile;
use crate::launch::{self, Labelling};
use crate::names::ContainerName;
use crate::oci::selinux::context::Labels;
use crate::oci::selinux::host::{self, Policy};
use crate::oci::selinux::mcs::Pair;
use crate::oci::spec::Container;
use crate::spec::SecurityOptions;
use crate::state::{BundleRecord, StateError};

/// What of the host's a container has for itself alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Own {
    userns: Option<crate::oci::id_range::IdRange>,
    labels: Option<Labels>,
}

impl Own {
    pub(super) fn of(container: &Container) -> Self {
        Self { userns: container.userns, labels: container.selinux.clone() }
    }

    fn categories(&self) -> Option<Pair> {
        self.labels.as_ref().and_then(Labels::pair)
    }
}

impl Engine {
    /// The labels of the container: with the categories that it has, or with some that nobody has now.
    /// Only reads; [`Engine::claim`] makes them its own.
    pub(super) fn labels_for(
        &self,
        name: &ContainerName,
        wanted: &SecurityOptions,
    ) -> Result<Labelling, Error> {
        let options = launch::label_options(wanted)?;
        let defaults = match host::policy() {
            // As with docker and podman: what is asked for has no meaning then.
            Policy::Off => return Ok(Labelling::Off),
            _ if options.disable => return Ok(Labelling::Off),
            Policy::WithoutContainers => {
                launch::refuse_labels(&options)?;
                return Ok(Labelling::Unknown);
            }
            Policy::WithContainers(defaults) => defaults,
        };
        let chosen = match defaults.levels && options.leaves_level() {
            true => Some(self.categories_for(name)?),
            false => None,
        };
        let labels = Labels::new(&defaults, &options, chosen);
        Ok(Labelling::On(launch::known_labels(labels)?))
    }

    fn categories_for(&self, name: &ContainerName) -> Result<Pair, Error> {
        let record = match self.state.bundle(name) {
            Err(StateError::Unreadable { .. }) => None,
            other => other?,
        };
        let container = record.as_ref().and_then(BundleRecord::container);
        match container.and_then(|c| c.selinux.as_ref()?.categories) {
            Some(pair) => Ok(pair),
            None => self.choose_categories(name),
        }
    }

    fn choose_categories(&self, name: &ContainerName) -> Result<Pair, Error> {
        let taken = self.state.categories_of_others(name)?;
        Pair::choose(name.as_str(), &taken).ok_or(Error::NoCategories)
    }

    /// Sees to it that what the container has for itself is its own: another bottle may have claimed it
    /// since it was chosen, then it gets something else. The lock that is returned is the host's: the
    /// record and the leases are to be written under it.
    pub(super) fn claim(&self, container: &mut Container) -> Result<Option<LockFile>, Error> {
        let own = Own::of(container);
        if own.userns.is_none() && own.categories().is_none() {
            return Ok(None);
        }
        let lock = self.state.lock_host()?;
        self.claim_ids(container)?;
        if let Some(labels) = &mut container.selinux
            && let Some(pair) = labels.categories
            // Somebody who asked for the same ones later may have them as well.
            && !self.state.has_categories(pair, &container.name)?
            && self.state.categories_of_others(&container.name)?.contains(&pair)
        {
            *labels = labels.with(self.choose_categories(&container.name)?);
        }
        Ok(Some(lock))
    }

    /// Notes what is the container's own, so that nobody else is given it.
    pub(super) fn lease_own(&self, own: &Own, name: &ContainerName) -> Result<(), Error> {
        if let Some(range) = own.userns {
            self.state.lease_ids(range, name)?;
        }
        if let Some(pair) = own.categories() {
            self.state.lease_categories(pair, name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::config::Config;
    use crate::names::Slug;

    /// A container with the pair in its labels, chosen for it or asked for.
    fn container(engine: &Engine, slug: &str, pair: Pair, is_chosen: bool) -> Container {
        let slug = Slug::new(slug).unwrap();
        let name = engine.config.prefix.container(&slug);
        let selinux = Labels {
            process: format!("u:r:t:{}", pair.level()),
            file: format!("u:object_r:f:{}", pair.level()),
            common: "u:object_r:f:s0".to_owned(),
            categories: is_chosen.then_some(pair),
        };
        let made = engine.presumed_container(&name, &slug, Ipv4Addr::UNSPECIFIED);
        Container { selinux: Some(selinux), ..made }
    }

    /// What a start does, and the pair that comes of it.
    fn settle(engine: &Engine, container: &mut Container) -> Option<Pair> {
        let claim = engine.claim(container).unwrap();
        let own = Own::of(container);
        engine.lease_own(&own, &container.name).unwrap();
        drop(claim);
        own.categories()
    }

    #[test]
    fn a_bundle_keeps_its_categories_although_another_asks_for_them_too() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { state: dir.path().join("state"), ..Config::default() };
        let engine = Engine::new(config);
        let pair = Pair::parse("c1,c2").unwrap();
        let mut first = container(&engine, "first", pair, true);
        assert_eq!(settle(&engine, &mut first), Some(pair));
        let mut second = container(&engine, "second", pair, false);
        assert_eq!(settle(&engine, &mut second), Some(pair));
        let before = first.clone();
        assert_eq!(settle(&engine, &mut first), Some(pair));
        assert_eq!(first, before);
        // One that somebody was given since they were chosen for it gets others.
        let mut late = container(&engine, "late", pair, true);
        assert_ne!(settle(&engine, &mut late), Some(pair));
    }
}
