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
        launch::check_labels(&labels)?;
        Ok(Labelling::On(labels))
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
