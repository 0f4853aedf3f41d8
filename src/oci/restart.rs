//! When a bundle that has ended is started again, and after which pause: Docker's rules
//! (docs.docker.com, "Start containers automatically"; moby's `restartmanager`). Pure.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Classify, ErrorKind};

/// The pause before the first restart; it doubles with each that follows.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A run of this length counts as a good one: the pauses begin anew.
const GOOD_RUN: Duration = Duration::from_secs(10);

/// Whether a bundle that ends of its own accord is started again. One that `stop`, `down` or
/// `kill` ended never is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// If its exit code is not 0, or is not known.
    OnFailure {
        /// At most so many times; for ever if `None`.
        max: Option<u32>,
    },
    /// Whatever its exit code.
    Always,
}

/// A text that is no restart policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no restart policy")]
pub struct RestartPolicyError {
    /// As given.
    pub text: String,
}

impl Classify for RestartPolicyError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        Some("write no, on-failure, on-failure:N or always".to_owned())
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure { max: None } => f.write_str("on-failure"),
            Self::OnFailure { max: Some(max) } => write!(f, "on-failure:{max}"),
            Self::Always => f.write_str("always"),
        }
    }
}

/// Reads `no`, `on-failure`, `on-failure:N`, `always`, and Docker's `unless-stopped`, which means
/// `always` here: nothing starts a stopped bundle at boot, for a stopped bundle is removed.
///
/// # Errors
/// [`RestartPolicyError`].
pub fn parse(text: &str) -> Result<RestartPolicy, RestartPolicyError> {
    let wrong = || RestartPolicyError { text: text.to_owned() };
    Ok(match text.split_once(':') {
        None => match text {
            "no" => RestartPolicy::No,
            "on-failure" => RestartPolicy::OnFailure { max: None },
            "always" | "unless-stopped" => RestartPolicy::Always,
            _ => return Err(wrong()),
        },
        Some(("on-failure", max)) => {
            let max: u32 = max.parse().map_err(|_| wrong())?;
            // As Docker's: no limit.
            RestartPolicy::OnFailure { max: (max > 0).then_some(max) }
        }
        Some(_) => return Err(wrong()),
    })
}

/// How often a bundle was started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    /// How often since it was first started, the one that is to come included.
    pub count: u32,
    /// The pause before the last one, in milliseconds.
    pub pause_ms: u64,
    /// The bundle has ended, and is about to be started again.
    pub pending: bool,
}

impl Restarts {
    /// What comes after a run of length `ran`: `None` if it is not started again. An exit code that
    /// nobody knows counts as a failure.
    pub fn after(
        self,
        policy: RestartPolicy,
        exit_code: Option<i32>,
        ran: Duration,
    ) -> Option<Self> {
        let again = match policy {
            RestartPolicy::No => false,
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure { max } => {
                exit_code != Some(0) && max.is_none_or(|max| self.count < max)
            }
        };
        let before = if ran >= GOOD_RUN { Duration::ZERO } else { self.pause() };
        let pause = (before * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        again.then(|| Self { count: self.count.saturating_add(1), pause_ms, pending: true })
    }

    /// The pause before the last restart, or the one that is to come.
    pub fn pause(self) -> Duration {
        Duration::from_millis(self.pause_ms).min(LONGEST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_as_dockers() {
        for (text, shown) in [
            ("no", "no"),
            ("on-failure", "on-failure"),
            ("on-failure:3", "on-failure:3"),
            ("on-failure:0", "on-failure"),
            ("always", "always"),
            ("unless-stopped", "always"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), shown, "{text}");
        }
        for bad in ["", "yes", "always:3", "on-failure:", "on-failure:-1", "on-failure:x", "No"] {
            assert_eq!(parse(bad).unwrap_err().text, bad);
        }
    }

    #[test]
    fn only_what_the_policy_says_is_started_again() {
        let at_most = |max| RestartPolicy::OnFailure { max };
        for (policy, count, code, again) in [
            (RestartPolicy::No, 0, Some(1), false),
            (RestartPolicy::Always, 1000, Some(0), true),
            (at_most(None), 1000, Some(1), true),
            (at_most(None), 0, Some(0), false),
            (at_most(None), 0, None, true),
            (at_most(Some(2)), 1, Some(1), true),
            (at_most(Some(2)), 2, Some(1), false),
        ] {
            let before = Restarts { count, ..Restarts::default() };
            let after = before.after(policy, code, Duration::ZERO);
            assert_eq!(after.is_some(), again, "{policy} {count} {code:?}");
            assert!(after.is_none_or(|after| after.count == count + 1 && after.pending));
        }
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew_after_a_good_run() {
        let short = Duration::from_secs(9);
        let mut restarts = Restarts::default();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            restarts = restarts.after(RestartPolicy::Always, Some(1), short).unwrap();
            pauses.push(restarts.pause_ms);
        }
        assert_eq!(pauses[..5], [100, 200, 400, 800, 1600]);
        assert_eq!(pauses[9..], [51_200, 60_000, 60_000]);
        let good = restarts.after(RestartPolicy::Always, Some(1), Duration::from_secs(10)).unwrap();
        assert_eq!((good.count, good.pause_ms), (13, 100));
    }
}
