//! The daemons. To add one: write its file beside these, with a `pub(crate) const DAEMON`, and name
//! it in [`ALL`]. images/README.md has all the steps.

mod echo;
mod health;

use std::io;

/// A daemon of the bundle.
pub(crate) struct Daemon {
    /// Its name in the list of daemons and before its lines; lower case, no `,`, `;` or blank.
    pub(crate) name: &'static str,
    /// Its stdin is a pipe that brings the states of all daemons, a [`crate::state`] table a line.
    /// Otherwise it is empty.
    pub(crate) reads_states: bool,
    /// Runs in a process of its own until SIGTERM. All signals are blocked when it starts: it has
    /// to take them with [`crate::signals::Signals`], as [`crate::serve::run`] does.
    pub(crate) run: fn() -> io::Result<()>,
}

/// All daemons, in the order in which they start if no list is given.
pub(crate) const ALL: &[Daemon] = &[health::DAEMON, echo::DAEMON];
