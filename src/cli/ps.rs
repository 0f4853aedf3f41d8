//! `carboy ps`.

use std::process::ExitCode;

use carboy::Engine;
use carboy::engine::{BottleState, BottleStatus, Listing};

use super::exit::Failure;
use super::output::{Output, table};

/// List the bottles
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        let Listing { items: bottles, notes } = engine.bottles()?;
        output.notes(&notes);
        output.data(&bottles, || {
            let titles = ["SLUG", "STATE", "BUNDLE IP", "IMAGE", "STARTED"];
            let mut rows = vec![titles.map(str::to_owned).to_vec()];
            rows.extend(bottles.iter().map(row));
            table(&rows)
        });
        Ok(ExitCode::SUCCESS)
    }
}

fn row(bottle: &BottleStatus) -> Vec<String> {
    let mut state = match (bottle.state, bottle.exit_code) {
        (state @ (BottleState::Exited | BottleState::Restarting), Some(code)) => {
            format!("{state} ({code})")
        }
        (state, _) => state.to_string(),
    };
    if bottle.restarts > 0 {
        state.push_str(&format!(", {}x restarted", bottle.restarts));
    }
    if let (BottleState::Running, Some(health)) = (bottle.state, &bottle.health) {
        state.push_str(&format!(", {}", health.status.name()));
    }
    let image = bottle.image.as_ref().map_or("-", |i| i.reference.as_str());
    // Seconds are enough for people.
    let started = bottle.started_at.as_deref().map_or("-", |t| t.split('.').next().unwrap_or(t));
    vec![
        bottle.view.slug.to_string(),
        state,
        bottle.view.bundle_ip.to_string(),
        image.to_owned(),
        started.to_owned(),
    ]
}
