//! `carboy events`.

use std::process::ExitCode;
use std::time::Duration;

use carboy::oci::events::Event;
use carboy::{Engine, Slug, readiness};
use jiff::Timestamp;

use super::exit::Failure;
use super::output::Output;

/// How often events that are followed are looked for.
const INTERVAL: Duration = Duration::from_millis(50);

/// Print what happened to bundles: created, started, ready, healthy, unhealthy, died, restarted,
/// stopped, removed, drift; with --json an object a line
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bottles; all unless given
    #[arg(value_name = "SLUG")]
    slugs: Vec<Slug>,
    /// Go on as more happens
    #[arg(short, long)]
    follow: bool,
    /// Begin at this time (RFC 3339), or so long ago: 10m, 1h30m
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        let mut reader = engine.events();
        loop {
            while let Some(event) = reader.next_event()? {
                if self.is_wanted(&event) && !print(&event, output) {
                    // Nobody reads any more.
                    return Ok(ExitCode::SUCCESS);
                }
            }
            if !self.follow {
                return Ok(ExitCode::SUCCESS);
            }
            std::thread::sleep(INTERVAL);
        }
    }

    fn is_wanted(&self, event: &Event) -> bool {
        let of_bottle = self.slugs.is_empty() || self.slugs.contains(&event.slug);
        let time = event.time.parse::<Timestamp>();
        of_bottle && self.since.is_none_or(|since| time.is_ok_and(|time| time >= since))
    }
}

fn print(event: &Event, output: &Output) -> bool {
    if output.is_json() {
        let line = serde_json::to_string(event).expect("text and numbers encode");
        return output.bytes(format!("{line}\n").as_bytes());
    }
    let mut line = format!("{} {} {}", event.time, event.slug, event.event.name());
    if let Some(code) = event.exit_code {
        line.push_str(&format!(" ({code})"));
    }
    if event.oom_killed {
        line.push_str(", out of memory");
    }
    if let Some(detail) = &event.detail {
        // What a bundle said may be anything: a line stays a line, and a terminal's commands text.
        line.push_str(&format!(": {}", detail.escape_debug()));
    }
    output.bytes(format!("{line}\n").as_bytes())
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let ago = readiness::parse_time(text).map_err(|_| "neither RFC 3339 nor a time".to_owned())?;
    let ago = jiff::SignedDuration::try_from(ago).map_err(|e| e.to_string())?;
    Timestamp::now().checked_sub(ago).map_err(|e| e.to_string())
}
