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
/// for more. The first error gives the exit code.
pub(super) fn each<T>(
    names: &[T],
    output: &Output,
    act: impl FnMut(&T) -> Result<(Value, String), Failure>,
) -> Result<ExitCode, Failure> {
    each_of(names, false, output, act)
}

/// The same; with `list` even one name makes an array, and none an empty one.
pub(super) fn each_of<T>(
    names: &[T],
    list: bool,
    output: &Output,
    mut act: impl FnMut(&T) -> Result<(Value, String), Failure>,
) -> Result<ExitCode, Failure> {
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    let mut told = None;
    for name in names {
        match act(name) {
            Ok((value, _)) if output.is_json() => done.push(value),
            Ok((_, text)) => output.text(&text),
            // A program gets one object, at the end; people see what went wrong as it does.
            Err(failure) if output.is_json() => failures.push(failure),
            Err(failure) => {
                let code = failure.report(output);
                told.get_or_insert(code);
            }
        }
    }
    match done.as_slice() {
        _ if list && output.is_json() => output.json(&done),
        [] => {}
        [only] if names.len() == 1 => output.json(only),
        _ => output.json(&done),
    }
    match Failure::merge(failures) {
        Some(failure) => Err(failure),
        None => Ok(told.unwrap_or(ExitCode::SUCCESS)),
    }
}
