//! The verbs: lock, plan, reconcile, record.
//!
//! A verb takes the locks of what it touches, writes down what it is about to do, drives the one
//! mechanism of [`crate::reconcile`], and writes down the outcome. All of it is synchronous.

mod adopt;
mod bottle;
mod bundle;
mod bundle_removal;
mod choice;
mod command;
mod condition;
mod denied;
mod error;
mod events;
mod guest;
mod host_checks;
mod ids;
mod images;
mod labels;
mod lifecycle;
mod network;
mod network_removal;
mod ports;
mod pull;
mod ready;
mod stats;
mod verify;
mod view;

use std::path::Path;
use std::sync::Arc;

use crate::config::Config;
use crate::fsutil::LockFile;
use crate::host::KernelHost;
use crate::names::{ContainerName, NetworkName};
use crate::oci::registry::{Progress, Quiet};
use crate::state::State;
use crate::{privileges, reconcile};

pub use self::bottle::{PlanReport, UpReport};
pub use self::bundle::{StartReport, StopReport};
pub use self::denied::{DeniedFlow, DeniedReader};
pub use self::error::Error;
pub use self::guest::{DetachReport, GuestReport};
pub use self::lifecycle::{ChangeReport, RestartReport};
pub use self::network::{NetworkReport, NetworkRequest};
pub use self::ports::{Port, PortAddress};
pub use self::stats::BottleStats;
pub use self::verify::{ReloadReport, VerifyReport};
pub use self::view::{BottleState, BottleStatus, Listing, NetworkStatus};

/// An installation of carboy on this host. Making one does nothing.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    state: State,
    progress: Arc<dyn Progress>,
}

impl Engine {
    /// An engine with these settings.
    pub fn new(config: Config) -> Self {
        // Helper processes run in another directory.
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let config = Config {
            state: absolute(&config.state),
            root: absolute(&config.root),
            netns: absolute(&config.netns),
            ..config
        };
        let state = State::new(&config.state);
        Self { config, state, progress: Arc::new(Quiet) }
    }

    /// The same engine; `progress` is told how images are pulled.
    #[must_use]
    pub fn with_progress(self, progress: Arc<dyn Progress>) -> Self {
        Self { progress, ..self }
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn host(&self) -> KernelHost<'_> {
        KernelHost::new(&self.config.helper)
    }

    /// Refuses to begin what this process may not finish.
    fn require_privileges(missing: Vec<String>) -> Result<(), Error> {
        if missing.is_empty() { Ok(()) } else { Err(Error::MissingCapability { missing }) }
    }

    fn require_bundle_privileges() -> Result<(), Error> {
        if privileges::in_user_namespace() {
            return Err(Error::UserNamespace);
        }
        Self::require_privileges(privileges::missing_for_bundles())
    }

    fn require_command_privileges() -> Result<(), Error> {
        Self::require_privileges(privileges::missing_for_commands())
    }

    fn require_network_privileges() -> Result<(), Error> {
        Self::require_privileges(privileges::missing_for_networks())
    }

    /// Takes a network's lock and a bundle's, in the order that everybody takes them in.
    fn lock_both(
        &self,
        network: &NetworkName,
        bundle: &ContainerName,
    ) -> Result<(LockFile, LockFile), Error> {
        let network_lock = self.state.lock_network(network)?;
        match self.state.lock_bundle(bundle) {
            Ok(bundle_lock) => Ok((network_lock, bundle_lock)),
            Err(e) => settle(Err(e.into()), self.release_network(network, network_lock)),
        }
    }

    /// Gives both back, as [`Engine::release_network`] and [`Engine::release_bundle`] do.
    fn release_both(
        &self,
        network: &NetworkName,
        bundle: &ContainerName,
        (network_lock, bundle_lock): (LockFile, LockFile),
    ) -> Result<(), Error> {
        let released = self.release_bundle(bundle, bundle_lock);
        released.and(self.release_network(network, network_lock))
    }

    /// Gives a network's lock back, and leaves no trace of it if the network is no more.
    fn release_network(&self, name: &NetworkName, lock: LockFile) -> Result<(), Error> {
        if !self.state.has_network(name) {
            lock.remove()?;
            self.state.tidy()?;
        }
        Ok(())
    }

    /// Gives a bundle's lock back, and leaves no trace of it if the bundle is no more.
    fn release_bundle(&self, name: &ContainerName, lock: LockFile) -> Result<(), Error> {
        if !self.state.has_bundle(name) {
            lock.remove()?;
            self.state.tidy()?;
        }
        Ok(())
    }
}

/// The outcome of a verb once its locks are given back: its own error before one of the locks.
fn settle<T>(result: Result<T, Error>, released: Result<(), Error>) -> Result<T, Error> {
    let value = result?;
    released.map(|()| value)
}

/// The error of a failed attempt, with what could not be taken back.
fn rolled_back(
    action: &'static str,
    error: Error,
    left: Vec<reconcile::RemoveError<crate::host::HostError>>,
) -> Error {
    if left.is_empty() { error } else { Error::RollBack { action, source: Box::new(error), left } }
}
