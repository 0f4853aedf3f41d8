//! Images from registries.

use super::images::Layers;
use super::{Engine, Error};
use crate::oci::registry::{self, Progress, RegistryConfig};
use crate::oci::store::Loaded;
use crate::oci::{RegistryError, StoreError, embedded};
use crate::spec::PullPolicy;

impl Engine {
    /// Fetches an image (`NAME[:TAG][@DIGEST]`, or the same after `docker://`) from its registry
    /// into the store, under the name given. What is there already is not fetched again.
    ///
    /// # Errors
    /// The registry cannot be reached or does not have it, or what came is not what it should be.
    pub fn pull_image(&self, name: &str) -> Result<Loaded, Error> {
        self.pull_image_with(name, &self.config.registry)
    }

    /// The same with other settings for this one call.
    ///
    /// # Errors
    /// As [`Engine::pull_image`].
    pub fn pull_image_with(&self, name: &str, config: &RegistryConfig) -> Result<Loaded, Error> {
        let progress: &dyn Progress = &*self.progress;
        Ok(registry::pull(&self.store()?, name, config, progress)?)
    }

    /// Sees to it that the store has the image, as far as `policy` allows. What neither the store
    /// nor a registry can have is left to the search for it.
    pub(super) fn ensure_image(&self, name: &str, policy: PullPolicy) -> Result<(), Error> {
        let name = registry::without_transport(name);
        if name == embedded::REFERENCE || policy == PullPolicy::Never {
            return Ok(());
        }
        // What is about to be replaced need not be unpacked again after a loss of power.
        let layers = match policy {
            PullPolicy::Missing => Layers::Unpack,
            PullPolicy::Always | PullPolicy::Never => Layers::Foresee,
        };
        match self.find_image(name, layers) {
            Ok(_) if policy == PullPolicy::Missing => return Ok(()),
            // One that is incomplete is completed.
            Ok(_)
            | Err(Error::Image(StoreError::NotFound { .. } | StoreError::Incomplete { .. })) => {}
            Err(error) => return Err(error),
        }
        match self.pull_image(name) {
            Ok(_) | Err(Error::Registry(RegistryError::NoRepository { .. })) => Ok(()),
            Err(Error::Registry(source)) if policy == PullPolicy::Missing => {
                Err(Error::NotPulled { name: name.to_owned(), source: Box::new(source) })
            }
            Err(error) => Err(error),
        }
    }
}
