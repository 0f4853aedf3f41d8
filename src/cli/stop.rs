//! `carboy stop`, and what it shares with the other verbs that end things.

use std::process::ExitCode;
use std::time::Duration;

use carboy::{Engine, STOP_GRACE, Slug};
use serde_json::{Value, json};

use super::exit::Failure;
use super::output::Output;

/// How long a bundle may take to end.
#[derive(Debug, clap::Args)]
pub(super) struct Grace {
    /// Seconds until a bundle that does not end is killed
    #[arg(short = 't', long, value_name = "SECONDS", default_value_t = STOP_GRACE.as_secs())]
    time: u64,
    /// Kill it at once
    #[arg(short, long)]
    force: bool,
}

impl Grace {
    /// The time that is given.
    pub(super) fn duration(&self) -> Duration {
        // A year is for ever, and cannot overflow any clock.
        const LONGEST: u64 = 365 * 24 * 3600;
        if self.force { Duration::ZERO } else { Duration::from_secs(self.time.min(LONGEST)) }
    }
}

/// Stop bundles and remove them; their names are free then, their networks stay
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bottles
    #[arg(required = true, value_name = "SLUG")]
    slugs: Vec<Slug>,
    #[command(flatten)]
    grace: Grace,
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        each(&self.slugs, output, |slug| {
            let report = engine.stop(slug, self.grace.duration())?;
            if !report.changed {
                output.note(&format!("bottle {slug} has no bundle"));
            }
            Ok((json!({ "slug": slug, "changed": report.changed }), slug.to_string()))
        })
    }
}

/// Does something to each name and goes on past errors; prints one object for one name, an array
/// for more.
pub(super) fn each<T>(
    names: &[T],
    output: &Output,
    mut act: impl FnMut(&T) -> Result<(Value, String), Failure>,
) -> Result<ExitCode, Failure> {
    let mut done = Vec::new();
    let mut failed = None;
    for name in names {
        match act(name) {
            Ok((value, text)) => {
                if !output.is_json() {
                    output.text(&text);
                }
                done.push(value);
            }
            Err(failure) => {
                // One is told at the end, and gives the exit code; the others here.
                if let Some(earlier) = failed.replace(failure) {
                    let _: ExitCode = Failure::report(earlier, output);
                }
            }
        }
    }
    if output.is_json() {
        match (names.len(), done.pop()) {
            (1, Some(only)) => output.json(&only),
            (1, None) => {}
            (_, last) => {
                done.extend(last);
                output.json(&done);
            }
        }
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}
