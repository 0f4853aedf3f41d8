//! A bundle whose monitor was killed goes on without one until a verb gives it another.

use super::{Engine, Error, settle};
use crate::names::{ContainerName, Slug};
use crate::oci::container;
use crate::oci::spec::Container;
use crate::state::BundleRecord;

/// What became of a bundle whose monitor was killed.
pub(super) const TAKEN_OVER: &str = "the bundle's monitor had been killed; another one took over, and its \
     output goes on without a gap, but how this run ends will not be known";

impl Engine {
    /// Gives a bundle whose monitor was killed another one. `up`, `reload` and `restart` do so by
    /// themselves; this is for a caller that is about to do something else with the bundle, and
    /// costs it a look at three files where there is nothing to do.
    ///
    /// Returns what the user should know of what was lost; `None` if the bundle has its monitor,
    /// or needs none.
    ///
    /// # Errors
    /// The record cannot be read, or no monitor could take over. The bundle goes on as before.
    pub fn adopt(&self, slug: &Slug) -> Result<Option<String>, Error> {
        let name = self.config.prefix.container(slug);
        if self.orphan(&name)?.is_none() {
            return Ok(None);
        }
        let lock = self.state.lock_bundle(&name)?;
        let adopted = self.adopt_locked(&name);
        settle(adopted, self.release_bundle(&name, lock))
    }

    /// The same for a caller that holds the bundle's lock.
    pub(super) fn adopt_locked(&self, name: &ContainerName) -> Result<Option<String>, Error> {
        // It may have been given one while this waited for the lock.
        let Some(container) = self.orphan(name)? else { return Ok(None) };
        Self::require_bundle_privileges()?;
        container::take_over(&container, &self.config.helper, None)?;
        Ok(Some(TAKEN_OVER.to_owned()))
    }

    /// The bundle's container, if its monitor was killed and another one can take over.
    fn orphan(&self, name: &ContainerName) -> Result<Option<Container>, Error> {
        let record = self.state.bundle(name)?;
        let Some(container) = record.as_ref().and_then(BundleRecord::container) else {
            return Ok(None);
        };
        Ok(container::is_orphaned(container)?.then(|| container.clone()))
    }
}
