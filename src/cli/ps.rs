//! `carboy ps`.

use std::process::ExitCode;

use carboy::Engine;
use carboy::engine::{BottleState, BottleStatus, Listing};
use carboy::net::drops::Drops;
use serde::Serialize;

use super::exit::Failure;
use super::output::{Output, table};

/// List the bottles
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Show also how many packets of each bottle, and to it, were dropped
    #[arg(long)]
    wide: bool,
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        let Listing { items: bottles, notes } = engine.bottles()?;
        output.notes(&notes);
        if !self.wide {
            output.data(&bottles, || lines(&TITLES, bottles.iter().map(row)));
            return Ok(ExitCode::SUCCESS);
        }
        let bottles = bottles
            .into_iter()
            .map(|bottle| Ok(WideStatus { drops: engine.drops(&bottle.view)?, bottle }))
            .collect::<Result<Vec<_>, Failure>>()?;
        output.data(&bottles, || {
            let titles = [&TITLES[..], &["DROPPED"]].concat();
            lines(&titles, bottles.iter().map(WideStatus::row))
        });
        Ok(ExitCode::SUCCESS)
    }
}

const TITLES: [&str; 5] = ["SLUG", "STATE", "BUNDLE IP", "IMAGE", "STARTED"];

/// A bottle with what was dropped.
#[derive(Serialize)]
struct WideStatus {
    #[serde(flatten)]
    bottle: BottleStatus,
    drops: Drops,
}

impl WideStatus {
    fn row(&self) -> Vec<String> {
        let packets: u64 = self.drops.values().map(|count| count.packets).sum();
        let mut row = row(&self.bottle);
        row.push(packets.to_string());
        row
    }
}

fn lines(titles: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let titles = titles.iter().map(|t| (*t).to_owned()).collect();
    table(&[titles].into_iter().chain(rows).collect::<Vec<_>>())
}

fn row(bottle: &BottleStatus) -> Vec<String> {
    let mut state = match (bottle.state, bottle.exit_code) {
        (BottleState::Exited, Some(code)) if bottle.oom_killed => format!("exited ({code}, OOM)"),
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
