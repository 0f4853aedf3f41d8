//! Looks whether a condition of a bundle's readiness holds.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, Timespec, poll};

use super::{Engine, Error};
use crate::oci::health::HealthStatus;
use crate::oci::helper::check::{Check, CheckEnd};
use crate::oci::log::LogReader;
use crate::plan::BottleView;
use crate::readiness::Condition;

/// How long one attempt to connect may take; the pinned address answers or refuses at once.
const CONNECT: Duration = Duration::from_millis(250);

/// What a bundle lacks for which the condition does not hold, as a predicate.
pub(super) fn lacks(condition: &Condition) -> String {
    match condition {
        Condition::Tcp(port) => format!("does not answer on port {port}"),
        Condition::Exec(command) => format!("does not pass {command:?}"),
        Condition::Healthy => "is not healthy".to_owned(),
        Condition::Log(pattern) => format!("has written no line that matches {pattern:?}"),
    }
}

/// Attempts at one condition, with what one leaves to the next.
pub(super) struct Attempts<'a> {
    engine: &'a Engine,
    view: &'a BottleView,
    condition: &'a Condition,
    deadline: Instant,
    /// What was read of the log does not have to be read again.
    log: Option<(LogReader, String)>,
}

impl<'a> Attempts<'a> {
    /// Attempts that none of lasts beyond `deadline`.
    pub(super) fn new(
        engine: &'a Engine,
        view: &'a BottleView,
        condition: &'a Condition,
        deadline: Instant,
    ) -> Self {
        Self { engine, view, condition, deadline, log: None }
    }

    /// The pause after the first attempt.
    pub(super) fn first_pause(&self) -> Duration {
        match self.condition {
            Condition::Exec(_) => Duration::from_millis(20),
            _ => Duration::from_micros(200),
        }
    }

    /// The longest pause between two.
    pub(super) fn longest_pause(&self) -> Duration {
        match self.condition {
            // It costs a process each.
            Condition::Exec(_) => Duration::from_millis(500),
            _ => Duration::from_millis(10),
        }
    }

    /// Whether the condition holds now, or else why not.
    pub(super) fn attempt(&mut self) -> Result<(), io::Error> {
        match self.condition {
            Condition::Tcp(port) => {
                let address = SocketAddr::from((self.view.bundle_ip, *port));
                TcpStream::connect_timeout(&address, CONNECT).map(drop)
            }
            Condition::Exec(command) => self.passes(command),
            Condition::Healthy => {
                let health = self.engine.inspect(&self.view.slug).map_err(io::Error::other)?.health;
                let status = health.map_or(HealthStatus::Starting, |health| health.status);
                match status {
                    HealthStatus::Healthy => Ok(()),
                    other => Err(io::Error::other(format!("its health is {}", other.name()))),
                }
            }
            Condition::Log(pattern) => {
                let pattern = regex_lite::Regex::new(pattern).map_err(io::Error::other)?;
                match self.has_line(&pattern).map_err(io::Error::other)? {
                    true => Ok(()),
                    false => Err(io::Error::other("no such line")),
                }
            }
        }
    }

    fn passes(&self, command: &str) -> io::Result<()> {
        let engine = self.engine;
        let (container, started) = engine.running(&self.view.slug).map_err(io::Error::other)?;
        let args = ["/bin/sh", "-c", command].map(str::to_owned).to_vec();
        let mut check = Check::begin(&engine.config.helper, &container, &started, args)?;
        while !check.pump() {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut fds = check.fds().collect::<Vec<PollFd<'_>>>();
            // However it returns: what is there is looked at, and the time.
            let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
        }
        match check.end() {
            CheckEnd { exit_code: Some(0), .. } => Ok(()),
            CheckEnd { exit_code, output } => {
                let code =
                    exit_code.map_or("not run".to_owned(), |code| format!("exit code {code}"));
                Err(io::Error::other(format!("{code}: {}", output.trim())))
            }
        }
    }

    fn has_line(&mut self, pattern: &regex_lite::Regex) -> Result<bool, Error> {
        let started = self.engine.inspect(&self.view.slug)?.started_at.unwrap_or_default();
        // A bundle that was started again meanwhile has to say it again.
        if self.log.as_ref().is_none_or(|(_, since)| *since != started) {
            self.log = Some((self.engine.log(&self.view.slug)?, started));
        }
        let Some((reader, since)) = &mut self.log else { return Ok(false) };
        while let Some(line) = reader.next_line()? {
            // Both are in UTC with as many digits.
            if line.time >= *since && pattern.is_match(&String::from_utf8_lossy(&line.text)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
