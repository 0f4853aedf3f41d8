//! The health checks that a monitor makes: one at a time, through the same helper as `exec`, so that
//! a check is confined as the bundle is.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::PollFd;

use super::check::{Check, CheckEnd};
use super::monitor::now;
use crate::names::{ContainerName, Slug};
use crate::oci::events::{Event, EventKind, EventLog};
use crate::oci::health::{CheckResult, Health, HealthState, HealthStatus};
use crate::oci::spec::Container;
use crate::oci::status::Started;
use crate::oci::{freezer, life};

/// The checks of a container that runs.
pub(super) struct Checks {
    health: Health,
    state: PathBuf,
    slug: Slug,
    name: ContainerName,
    events: EventLog,
    started: Started,
    so_far: HealthState,
    /// When the next one begins.
    next: Instant,
    running: Option<Running>,
}

struct Running {
    check: Check,
    /// When it is given up.
    deadline: Instant,
    /// When it began, in RFC 3339.
    start: String,
}

impl Checks {
    /// The checks of a container, if it is to have any.
    pub(super) fn of(container: &Container, started: &Started) -> Option<Self> {
        let mut checks = Self {
            health: container.health.clone()?,
            state: container.state.clone(),
            slug: container.slug.clone(),
            name: container.name.clone(),
            events: EventLog::of_container(container),
            started: started.clone(),
            so_far: life::read_health(&container.state).unwrap_or_default(),
            next: Instant::now(),
            running: None,
        };
        checks.next += checks.so_far.pause(&checks.health, started.ran());
        Some(checks)
    }

    /// What to wait for.
    pub(super) fn fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.running.iter().flat_map(|running| running.check.fds())
    }

    /// How long to wait for it at most.
    pub(super) fn patience(&self) -> Duration {
        let moment = self.running.as_ref().map_or(self.next, |running| running.deadline);
        moment.saturating_duration_since(Instant::now())
    }

    /// Does what is to be done now; true if that is over for a while.
    pub(super) fn tick(&mut self) -> bool {
        let moment = Instant::now();
        match self.running.take() {
            None if moment < self.next => return false,
            None => return self.begin(),
            Some(mut running) => {
                let ended = running.check.pump();
                if !ended && moment < running.deadline {
                    self.running = Some(running);
                    return false;
                }
                if !ended && freezer::is_frozen(&self.name).unwrap_or(false) {
                    // Neither healthy nor not: nothing in it runs.
                    self.next = Instant::now() + self.health.interval;
                    return true;
                }
                let end = running.check.end();
                let late = format!("the check took longer than {:?}", self.health.timeout);
                let end = match ended {
                    true => end,
                    false => CheckEnd { exit_code: None, output: late },
                };
                self.take(running.start, end);
            }
        }
        true
    }

    fn begin(&mut self) -> bool {
        if freezer::is_frozen(&self.name).unwrap_or(false) {
            self.next = Instant::now() + self.health.interval;
            return true;
        }
        let start = now();
        // Not kept: what a container is takes more memory than all else of a monitor.
        let request = life::read_request(&self.state).ok().flatten();
        let command = self.health.command.clone();
        let begun = request
            .map(|request| Check::begin_in_helper(&request.container, &self.started, command));
        match begun {
            Some(Ok(check)) => {
                let deadline = Instant::now() + self.health.timeout;
                self.running = Some(Running { check, deadline, start });
                return false;
            }
            Some(Err(e)) => {
                let output = format!("the check cannot be run: {e}");
                self.take(start, CheckEnd { exit_code: None, output });
            }
            // The directory goes: so does the container.
            None => self.next = Instant::now() + self.health.interval,
        }
        true
    }

    fn take(&mut self, start: String, end: CheckEnd) {
        let exit_code = end.exit_code.unwrap_or(-1);
        let result = CheckResult { start, end: now(), exit_code, output: end.output };
        let said = result.output.clone();
        let ran = self.started.ran();
        let changed = self.so_far.take(&self.health, result, ran);
        // A full tmpfs: the next one may be told again.
        let _ = life::write_health(&self.state, &self.so_far);
        let kind = match changed {
            Some(HealthStatus::Healthy) => Some(EventKind::Healthy),
            Some(HealthStatus::Unhealthy) => Some(EventKind::Unhealthy),
            Some(HealthStatus::Starting) | None => None,
        };
        if let Some(kind) = kind {
            let event = Event::now(&self.slug, &self.name, kind).with_detail(said.trim());
            // A bundle does not depend on whether its events can be told.
            let _ = self.events.append(&event);
        }
        self.next = Instant::now() + self.so_far.pause(&self.health, ran);
    }
}
