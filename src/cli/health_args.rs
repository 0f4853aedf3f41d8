//! The options of a health check, named as Docker's.

use std::time::Duration;

use carboy::readiness::{self, ReadinessError};
use carboy::spec::HealthOptions;
use clap::Args;

/// How the bundle's health is checked.
#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// Check its health with this command, run by its /bin/sh
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// From one check to the next: 30s unless the image says otherwise
    #[arg(long, value_name = "TIME", value_parser = time)]
    health_interval: Option<Duration>,
    /// How long a check may take: 30s
    #[arg(long, value_name = "TIME", value_parser = time)]
    health_timeout: Option<Duration>,
    /// Failures in a row that make it unhealthy: 3
    #[arg(long, value_name = "N")]
    health_retries: Option<u32>,
    /// How long after the start failures do not count: 0s
    #[arg(long, value_name = "TIME", value_parser = time)]
    health_start_period: Option<Duration>,
    /// From one check to the next in that time: 5s
    #[arg(long, value_name = "TIME", value_parser = time)]
    health_start_interval: Option<Duration>,
    /// Check nothing, whatever the image says
    #[arg(long)]
    no_healthcheck: bool,
}

impl HealthArgs {
    /// What was asked for.
    pub(super) fn options(self) -> HealthOptions {
        HealthOptions {
            command: self.health_cmd,
            interval: self.health_interval,
            timeout: self.health_timeout,
            retries: self.health_retries,
            start_period: self.health_start_period,
            start_interval: self.health_start_interval,
            off: self.no_healthcheck,
        }
    }
}

/// Reads a time: `30s`, `500ms`, `1h30m`.
pub(super) fn time(text: &str) -> Result<Duration, ReadinessError> {
    readiness::parse_time(text)
}
