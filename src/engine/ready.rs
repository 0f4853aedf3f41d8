//! Waiting until a bundle is ready: what `up` promises when it returns.

use std::io;
use std::time::Instant;

use super::condition::{Attempts, lacks};
use super::{BottleState, Engine, Error};
use crate::names::Slug;
use crate::oci::container;
use crate::plan::BottleView;
use crate::readiness::{Condition, DEFAULT_TIMEOUT, Readiness};

/// How many of the log's last lines go into an error.
const LOG_LINES: usize = 5;

impl Engine {
    /// Waits until a bundle is ready, as its caller wants it or as its image declares.
    ///
    /// # Errors
    /// As [`Engine::await_conditions`].
    pub(super) fn await_wanted(
        &self,
        view: &BottleView,
        wanted: &Readiness,
        ports: &[u16],
    ) -> Result<(), Error> {
        let mut wanted = wanted.clone();
        if wanted.conditions.is_empty() {
            wanted.conditions.extend(ports.iter().map(|port| Condition::Tcp(*port)));
            if wanted.healthy && self.inspect(&view.slug)?.health.is_some() {
                wanted.conditions.push(Condition::Healthy);
            }
        }
        self.await_conditions(view, &wanted)
    }

    /// Waits until all conditions hold, one after the other.
    ///
    /// # Errors
    /// The bundle ended before, or was not ready in time; it is left as it is, to be looked at.
    fn await_conditions(&self, view: &BottleView, wanted: &Readiness) -> Result<(), Error> {
        let deadline = Instant::now() + wanted.timeout.unwrap_or(DEFAULT_TIMEOUT);
        for condition in &wanted.conditions {
            let mut attempts = Attempts::new(self, view, condition, deadline);
            let mut pause = attempts.first_pause();
            let mut why: Option<io::Error> = None;
            while let Err(refusal) = attempts.attempt() {
                // What the time cut short says less than what came before it.
                let refusal = match why {
                    Some(before) if refusal.kind() == io::ErrorKind::TimedOut => before,
                    _ => refusal,
                };
                let status = self.inspect(&view.slug)?;
                // One that is started again by its policy may yet be.
                if !matches!(
                    status.state,
                    BottleState::Running | BottleState::Paused | BottleState::Restarting
                ) {
                    return Err(Error::EndedEarly {
                        slug: view.slug.to_string(),
                        exit_code: status.exit_code,
                        log: self.last_lines(&view.slug),
                    });
                }
                if Instant::now() >= deadline {
                    return Err(Error::NotReady {
                        slug: view.slug.to_string(),
                        lacks: lacks(condition),
                        log: self.last_lines(&view.slug),
                        source: refusal,
                    });
                }
                why = Some(refusal);
                std::thread::sleep(pause);
                pause = (pause * 2).min(attempts.longest_pause());
            }
        }
        Ok(())
    }

    /// Makes sure that the bundle has not failed since it was started; what the user should know
    /// if it has ended well.
    ///
    /// # Errors
    /// It ended with an exit code other than 0.
    pub(super) fn check_alive(&self, slug: &Slug) -> Result<Option<String>, Error> {
        let mut status = self.inspect(slug)?;
        if let (BottleState::Exited, Some(container)) = (status.state, &status.container) {
            // Its monitor may be about to start it again, and has not said so yet.
            container::settled(container)?;
            status = self.inspect(slug)?;
        }
        if status.state != BottleState::Exited {
            return Ok(None);
        }
        match status.exit_code {
            Some(0) => Ok(Some("its program has ended already, with exit code 0".to_owned())),
            exit_code => Err(Error::EndedEarly {
                slug: slug.to_string(),
                exit_code,
                log: self.last_lines(slug),
            }),
        }
    }

    /// The last lines of the log, for an error: best effort.
    fn last_lines(&self, slug: &Slug) -> String {
        let mut lines = std::collections::VecDeque::new();
        let Ok(mut reader) = self.log(slug) else { return String::new() };
        while let Ok(Some(line)) = reader.next_line() {
            lines.push_back(String::from_utf8_lossy(&line.text).into_owned());
            if lines.len() > LOG_LINES {
                lines.pop_front();
            }
        }
        lines.into_iter().collect::<Vec<_>>().join(" | ")
    }
}
