//! How a bundle's health is checked, and what the checks say: Docker's rules
//! (Dockerfile reference, "HEALTHCHECK"). Pure.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::healthcheck::Healthcheck;
use crate::error::{Classify, ErrorKind};

/// Checks whose outcome is kept.
const LOG_LENGTH: usize = 5;

/// What a caller says about the check; what is `None` is as the image has it, or Docker's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthOptions {
    /// A command for `/bin/sh -c` instead of the image's check.
    pub command: Option<String>,
    /// From the end of one check to the beginning of the next.
    pub interval: Option<Duration>,
    /// How long one may take.
    pub timeout: Option<Duration>,
    /// Failures in a row that make the bundle unhealthy.
    pub retries: Option<u32>,
    /// How long after the start failures do not count.
    pub start_period: Option<Duration>,
    /// The interval during that time.
    pub start_interval: Option<Duration>,
    /// No check, whatever the image says.
    pub off: bool,
}

/// A check with everything decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What runs in the bundle: the program and its arguments.
    pub command: Vec<String>,
    /// From the end of one check to the beginning of the next.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// Failures in a row that make the bundle unhealthy; at least one.
    pub retries: u32,
    /// How long after the start failures do not count.
    pub start_period: Duration,
    /// The interval during that time, until the first success.
    pub start_interval: Duration,
}

/// A check that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HealthError {
    /// An interval and the like without a command to run.
    #[error("the image has no health check, and no command was given for one")]
    NoCommand,
    /// A check and none.
    #[error("a health check cannot be both described and left out")]
    Contradiction,
    /// The image's check is of no known kind.
    #[error("the image's health check {kind:?} is neither CMD nor CMD-SHELL")]
    Kind {
        /// As the image has it.
        kind: String,
    },
    /// A time too short to be meant.
    #[error("the health check's {what} is less than a millisecond")]
    TooShort {
        /// `interval`, `timeout`.
        what: &'static str,
    },
}

impl Classify for HealthError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoCommand => Some("give a --health-cmd".to_owned()),
            Self::Kind { .. } => Some("use --health-cmd, or --no-healthcheck".to_owned()),
            Self::Contradiction | Self::TooShort { .. } => None,
        }
    }
}

impl Health {
    /// The check that an image and a caller make; `None` if there is none.
    ///
    /// # Errors
    /// [`HealthError`].
    pub fn new(
        image: Option<&Healthcheck>,
        options: &HealthOptions,
    ) -> Result<Option<Self>, HealthError> {
        let described = HealthOptions { off: false, ..options.clone() } != HealthOptions::default();
        if options.off {
            return if described { Err(HealthError::Contradiction) } else { Ok(None) };
        }
        let shell = |line: &str| ["/bin/sh", "-c", line].map(str::to_owned).to_vec();
        let command = match (&options.command, image.map(|image| image.test.as_slice())) {
            (Some(line), _) => Some(shell(line)),
            (None, None | Some([])) => None,
            (None, Some([kind, words @ ..])) => match (kind.as_str(), words) {
                ("NONE", _) => None,
                ("CMD", words) if !words.is_empty() => Some(words.to_vec()),
                ("CMD-SHELL", [line, ..]) => Some(shell(line)),
                _ => return Err(HealthError::Kind { kind: kind.clone() }),
            },
        };
        let Some(command) = command else {
            return if described { Err(HealthError::NoCommand) } else { Ok(None) };
        };
        let of_image = |time: fn(&Healthcheck) -> Option<Duration>| image.and_then(time);
        let time = |asked: Option<Duration>, image: Option<Duration>, default: u64| {
            // Zero means the default, as in Docker.
            let asked = asked.filter(|time| !time.is_zero());
            asked.or(image).unwrap_or(Duration::from_secs(default))
        };
        let health = Self {
            command,
            interval: time(options.interval, of_image(|i| i.interval), 30),
            timeout: time(options.timeout, of_image(|i| i.timeout), 30),
            retries: options
                .retries
                .filter(|retries| *retries > 0)
                .or(image.and_then(|i| i.retries))
                .unwrap_or(3),
            start_period: time(options.start_period, of_image(|i| i.start_period), 0),
            start_interval: time(options.start_interval, of_image(|i| i.start_interval), 5),
        };
        for (what, time) in [
            ("interval", health.interval),
            ("timeout", health.timeout),
            ("start interval", health.start_interval),
        ] {
            if time < Duration::from_millis(1) {
                return Err(HealthError::TooShort { what });
            }
        }
        Ok(Some(health))
    }
}

/// How a bundle is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// No check has succeeded yet, nor have enough failed.
    #[default]
    Starting,
    /// The last check succeeded, or not enough have failed since one did.
    Healthy,
    /// Too many checks in a row have failed.
    Unhealthy,
}

impl HealthStatus {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One check's outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    /// When it began, in RFC 3339.
    pub start: String,
    /// When it ended, in RFC 3339.
    pub end: String,
    /// Its exit code; -1 if it took too long or could not be run.
    pub exit_code: i32,
    /// The first 4096 bytes of what it wrote, or why it has no exit code.
    pub output: String,
}

/// What the checks have said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthState {
    /// How the bundle is.
    pub status: HealthStatus,
    /// Failures since the last success.
    pub failing_streak: u32,
    /// The last checks, the oldest first.
    pub log: VecDeque<CheckResult>,
}

impl HealthState {
    /// Takes in a check that ended when the bundle had run for `ran`; the new status if it is
    /// another one.
    pub fn take(
        &mut self,
        health: &Health,
        result: CheckResult,
        ran: Duration,
    ) -> Option<HealthStatus> {
        let before = self.status;
        let passed = result.exit_code == 0;
        self.log.push_back(result);
        while self.log.len() > LOG_LENGTH {
            self.log.pop_front();
        }
        if passed {
            self.failing_streak = 0;
            self.status = HealthStatus::Healthy;
        } else if before != HealthStatus::Starting || ran >= health.start_period {
            self.failing_streak = self.failing_streak.saturating_add(1);
            if self.failing_streak >= health.retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        (self.status != before).then_some(self.status)
    }

    /// The pause before the next check of a bundle that has run for `ran`.
    pub fn pause(&self, health: &Health, ran: Duration) -> Duration {
        let starting = self.status == HealthStatus::Starting && ran < health.start_period;
        if starting { health.start_interval.min(health.interval) } else { health.interval }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(test: &[&str]) -> Healthcheck {
        Healthcheck {
            test: test.iter().map(|word| (*word).to_owned()).collect(),
            interval: Some(Duration::from_secs(7)),
            timeout: None,
            start_period: Some(Duration::from_secs(60)),
            start_interval: None,
            retries: Some(2),
        }
    }

    #[test]
    fn the_callers_word_is_over_the_images_and_that_over_the_default() {
        let none = HealthOptions::default();
        assert_eq!(Health::new(None, &none), Ok(None));
        assert_eq!(Health::new(Some(&image(&["NONE"])), &none), Ok(None));
        let of_image = Health::new(Some(&image(&["CMD", "a", "b"])), &none).unwrap().unwrap();
        assert_eq!(of_image.command, ["a", "b"]);
        assert_eq!((of_image.interval.as_secs(), of_image.timeout.as_secs()), (7, 30));
        assert_eq!((of_image.retries, of_image.start_period.as_secs()), (2, 60));
        let options = HealthOptions {
            command: Some("x | y".to_owned()),
            interval: Some(Duration::from_secs(1)),
            retries: Some(0),
            ..none.clone()
        };
        let both = Health::new(Some(&image(&["CMD-SHELL", "z"])), &options).unwrap().unwrap();
        assert_eq!(both.command, ["/bin/sh", "-c", "x | y"]);
        assert_eq!((both.interval.as_secs(), both.retries), (1, 2));
        let off = HealthOptions { off: true, ..none.clone() };
        assert_eq!(Health::new(Some(&image(&["CMD", "a"])), &off), Ok(None));
        for (image, options, error) in [
            (None, HealthOptions { retries: Some(1), ..none.clone() }, HealthError::NoCommand),
            (None, HealthOptions { off: true, ..options.clone() }, HealthError::Contradiction),
            (Some(image(&["CMD"])), none.clone(), HealthError::Kind { kind: "CMD".to_owned() }),
            (
                Some(image(&["CMD", "a"])),
                HealthOptions { timeout: Some(Duration::from_nanos(1)), ..none.clone() },
                HealthError::TooShort { what: "timeout" },
            ),
        ] {
            assert_eq!(Health::new(image.as_ref(), &options), Err(error));
        }
    }

    #[test]
    fn enough_failures_in_a_row_make_it_unhealthy_and_one_success_healthy() {
        let health = Health::new(Some(&image(&["CMD", "a"])), &HealthOptions::default());
        let health = health.unwrap().unwrap();
        let mut state = HealthState::default();
        let mut take = |exit_code, ran| {
            let result = CheckResult {
                start: String::new(),
                end: String::new(),
                exit_code,
                output: String::new(),
            };
            let changed = state.take(&health, result, Duration::from_secs(ran));
            let pause = state.pause(&health, Duration::from_secs(ran)).as_secs();
            (changed, state.failing_streak, state.log.len(), pause)
        };
        let (healthy, unhealthy) = (Some(HealthStatus::Healthy), Some(HealthStatus::Unhealthy));
        // In the start period failures do not count.
        assert_eq!(take(1, 10), (None, 0, 1, 5));
        assert_eq!(take(-1, 20), (None, 0, 2, 5));
        assert_eq!(take(0, 30), (healthy, 0, 3, 7));
        // Once it was healthy they do.
        assert_eq!(take(1, 40), (None, 1, 4, 7));
        assert_eq!(take(0, 50), (None, 0, 5, 7));
        assert_eq!(take(1, 70), (None, 1, 5, 7));
        assert_eq!(take(3, 80), (unhealthy, 2, 5, 7));
        assert_eq!(take(1, 90), (None, 3, 5, 7));
        assert_eq!(take(0, 100), (healthy, 0, 5, 7));
    }
}
