//! Commands in a running bundle.

use super::{Engine, Error};
use crate::names::Slug;
use crate::oci::helper::ExecRequest;
use crate::oci::helper::session::{self, ExecEnd, ExecSession, ExecStreams};
use crate::oci::{RuntimeError, freezer};

impl Engine {
    /// Starts a command in the bundle; it runs when this returns.
    ///
    /// # Errors
    /// There is no such bottle, it does not run or is paused, or the command cannot be run.
    pub fn exec_start(
        &self,
        slug: &Slug,
        request: ExecRequest,
        streams: ExecStreams,
    ) -> Result<ExecSession, Error> {
        Self::require_command_privileges()?;
        let (container, started) = self.running(slug)?;
        if freezer::is_frozen(&container.name)? {
            // It would be born frozen, and its caller wait until the bundle goes on.
            return Err(RuntimeError::Paused { container: container.name.to_string() }.into());
        }
        Ok(session::start(&self.config.helper, &container, &started, request, streams)?)
    }

    /// Runs a command in the bundle and waits for it.
    ///
    /// # Errors
    /// As [`Engine::exec_start`].
    pub fn exec(
        &self,
        slug: &Slug,
        request: ExecRequest,
        streams: ExecStreams,
    ) -> Result<ExecEnd, Error> {
        Ok(self.exec_start(slug, request, streams)?.wait()?)
    }
}
