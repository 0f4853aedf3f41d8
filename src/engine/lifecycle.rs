//! What is done to a bundle that is there: wait for its end, signal it, start it again, pause it.

use std::io;
use std::time::{Duration, Instant};

use super::bundle::surroundings;
use super::{Engine, Error, settle};
use crate::names::{ContainerName, Slug};
use crate::oci::identity::ProcessHandle;
use crate::oci::spec::Container;
use crate::oci::status::{ContainerState, Ended, Started};
use crate::oci::{RuntimeError, container, freezer, life};
use crate::readiness::Readiness;
use crate::state::BundleRecord;

/// How long a monitor may take to write down how its container ended; it writes its output first.
const MONITOR_PATIENCE: Duration = Duration::from_secs(3);

/// How often to look at a bundle that is about to be started again.
const RESTART_LOOK: Duration = Duration::from_millis(20);

/// How long a killed bundle may take to end.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Whether a bundle had to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeReport {
    /// The bottle.
    pub slug: Slug,
    /// False if it was so already.
    pub changed: bool,
}

/// A bundle that was started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestartReport {
    /// The bottle.
    pub slug: Slug,
    /// Its first process.
    pub pid: i32,
    /// What the user should know.
    pub notes: Vec<String>,
}

impl Engine {
    /// Waits until the bundle has ended, and is not started again by its policy; its exit code, or
    /// 128 + the signal that ended it.
    ///
    /// # Errors
    /// There is no such bottle, it was never started, or nobody knows the exit code.
    pub fn wait(&self, slug: &Slug) -> Result<i32, Error> {
        let container = self.container_of(slug)?;
        loop {
            let exit_code = wait_for_run(&container)?;
            let waits = || {
                Ok::<_, Error>(
                    container::is_restarting(&container)? && container::is_watched(&container)?,
                )
            };
            match container::settled(&container)? {
                // It has been started again just now.
                ContainerState::Running(_) => {}
                _ if !waits()? => return Ok(exit_code),
                _ => {
                    while waits()? {
                        std::thread::sleep(RESTART_LOOK);
                    }
                }
            }
        }
    }

    /// Sends the bundle's first process a signal, by number. After SIGKILL it has ended when this
    /// returns, paused or not; a paused one goes on after its stop signal too, as Docker's.
    ///
    /// Takes no lock: it reaches a bundle that another call waits for.
    ///
    /// # Errors
    /// There is no such bottle, it does not run, or it does not die.
    pub fn kill(&self, slug: &Slug, signal: i32) -> Result<(), Error> {
        Self::require_bundle_privileges()?;
        let (container, started) = self.running(slug)?;
        let not_running = || RuntimeError::NotRunning { container: container.name.to_string() };
        let process = open(&container, &started)?.ok_or_else(not_running)?;
        let ends = signal == libc::SIGKILL || signal == container.stop_signal;
        if ends {
            // As Docker: whoever ends it does not want it to be started again.
            life::want_end(&container.state)?;
        }
        let sent = process.signal(signal).map_err(process_error("signal", &container, &started))?;
        if !sent {
            return Err(not_running().into());
        }
        if ends {
            freezer::thaw(&container.name)?;
        }
        if signal == libc::SIGKILL {
            let ended = process.wait(Some(KILL_PATIENCE));
            if !ended.map_err(process_error("wait for", &container, &started))? {
                let (container, pid) = (container.name.to_string(), started.init.pid);
                return Err(RuntimeError::Survivor { container, pid }.into());
            }
        }
        Ok(())
    }

    /// Ends the bundle, its stop signal first and SIGKILL after `grace`, and starts it again: at
    /// the same address, with what it wrote to its root file system, and its log goes on.
    ///
    /// # Errors
    /// There is no such bottle, it was never started, or what the host said. If it cannot be
    /// started again nothing of it runs.
    pub fn restart(&self, slug: &Slug, grace: Duration) -> Result<RestartReport, Error> {
        Self::require_bundle_privileges()?;
        let name = self.config.prefix.container(slug);
        self.container_of(slug)?;
        let lock = self.state.lock_bundle(&name)?;
        let restarted = self.restart_locked(slug, grace);
        let released = self.release_bundle(&name, lock);
        let (started, ports, mut notes) = settle(restarted, released)?;
        let view = self.inspect(slug)?.view;
        self.await_wanted(&view, &Readiness::default(), &ports)?;
        notes.extend(self.check_alive(slug)?);
        Ok(RestartReport { slug: slug.clone(), pid: started.init.pid, notes })
    }

    fn restart_locked(
        &self,
        slug: &Slug,
        grace: Duration,
    ) -> Result<(Started, Vec<u16>, Vec<String>), Error> {
        // Again: it may have gone while this waited for the lock.
        let container = self.container_of(slug)?;
        if ContainerState::read(&container.state)? == ContainerState::NotStarted {
            let container = container.name.to_string();
            return Err(RuntimeError::NotRunning { container }.into());
        }
        let record = self.state.bundle(&container.name)?;
        let network = record.map(|record| self.state.network(&record.network)).transpose()?;
        let log_group = network.flatten().and_then(|network| network.spec.log_group);
        let (surroundings, note) = surroundings(&container, log_group);
        let started = container::restart(&container, &self.config.helper, &surroundings, grace)?;
        Ok((started, container.ready_ports, note.into_iter().collect()))
    }

    /// Stops the bundle's processes where they are; its addresses stay, and what comes in waits.
    ///
    /// # Errors
    /// There is no such bottle, it does not run, or the host cannot pause it.
    pub fn pause(&self, slug: &Slug) -> Result<ChangeReport, Error> {
        self.with_running(slug, |container| Ok(freezer::freeze(&container.name)?))
    }

    /// Lets a paused bundle go on.
    ///
    /// # Errors
    /// There is no such bottle, or it does not run.
    pub fn unpause(&self, slug: &Slug) -> Result<ChangeReport, Error> {
        self.with_running(slug, |container| Ok(freezer::thaw(&container.name)?))
    }

    fn with_running(
        &self,
        slug: &Slug,
        act: impl FnOnce(&Container) -> Result<bool, Error>,
    ) -> Result<ChangeReport, Error> {
        Self::require_bundle_privileges()?;
        let name = self.config.prefix.container(slug);
        let lock = self.state.lock_bundle(&name)?;
        let done = self.running(slug).and_then(|(container, _)| act(&container));
        let released = self.release_bundle(&name, lock);
        Ok(ChangeReport { slug: slug.clone(), changed: settle(done, released)? })
    }

    /// The bundle's container, whatever state it is in.
    fn container_of(&self, slug: &Slug) -> Result<Container, Error> {
        let name: ContainerName = self.config.prefix.container(slug);
        let record = self.state.bundle(&name)?;
        let container = record.as_ref().and_then(BundleRecord::container).cloned();
        container.ok_or_else(|| Error::NoBottle { slug: slug.to_string() })
    }
}

fn open(container: &Container, started: &Started) -> Result<Option<ProcessHandle>, Error> {
    Ok(started.init.open().map_err(process_error("open", container, started))?)
}

/// What the kernel said about the container's first process.
fn process_error(
    action: &'static str,
    container: &Container,
    started: &Started,
) -> impl FnOnce(io::Error) -> RuntimeError {
    let (container, pid) = (container.name.to_string(), started.init.pid);
    move |source| RuntimeError::Process { action, container, pid, source }
}

/// Waits until a run of the container has ended; its exit code.
fn wait_for_run(container: &Container) -> Result<i32, Error> {
    let name = container.name.to_string();
    let process = match ContainerState::read(&container.state)? {
        ContainerState::NotStarted => {
            return Err(RuntimeError::NotRunning { container: name }.into());
        }
        ContainerState::Exited(_, Some(Ended { exit_code, .. })) => return Ok(exit_code),
        ContainerState::Exited(_, None) => None,
        ContainerState::Running(started) => {
            let process = open(container, &started)?;
            if let Some(process) = &process {
                let ended = process.wait(None);
                ended.map_err(process_error("wait for", container, &started))?;
            }
            process
        }
    };
    let deadline = Instant::now() + MONITOR_PATIENCE;
    let mut pause = Duration::from_micros(200);
    loop {
        let state = ContainerState::read(&container.state)?;
        if let ContainerState::Exited(_, Some(Ended { exit_code, .. })) = state {
            return Ok(exit_code);
        }
        // The directory may be removed already, with what the monitor wrote.
        if let Some(exit_code) = process.as_ref().and_then(ProcessHandle::exit_code) {
            return Ok(exit_code);
        }
        let gone = !matches!(state, ContainerState::Exited(..));
        if gone || Instant::now() >= deadline {
            return Err(RuntimeError::ExitCodeLost { container: name }.into());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(1));
    }
}
