//! `carboy up`.

use std::process::ExitCode;

use carboy::Engine;

use super::exit::Failure;
use super::image::load::image_name;
use super::launch_args::{BottleArgs, PullArgs};
use super::output::Output;
use super::plan;

/// Bring a bottle up: its network, firewall and bundle; what is there already is kept
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    bottle: BottleArgs,
    /// Replace a bundle that was started otherwise
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    pull: PullArgs,
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        let mut spec = self.bottle.spec()?;
        spec.options.run.pull = self.pull.policy();
        spec.image = image_name(engine, output, spec.image)?;
        let report = engine.up(&spec, self.replace, &super::inherited)?;
        output.notes(&report.plan.notes);
        output.data(&report, || {
            let slug = &report.plan.view.slug;
            let title = if report.changed { "is up" } else { "is up already; nothing changed" };
            format!(
                "bottle {slug} {title}\n{}  \
                   logs         carboy logs {slug}\n  \
                   take down    carboy down {slug}\n",
                plan::text(&report.plan)
            )
        });
        Ok(ExitCode::SUCCESS)
    }
}
