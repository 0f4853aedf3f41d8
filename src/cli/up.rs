//! `carboy up`.

use std::process::ExitCode;
use std::time::Duration;

use carboy::readiness::{self, Condition};
use carboy::spec::Readiness;
use carboy::{Engine, Slug};

use super::exit::Failure;
use super::health_args::time;
use super::image::load::image_name;
use super::launch_args::{BottleArgs, PullArgs};
use super::notify;
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
    /// Wait at most this long until it is ready; it stays up if it is not
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, value_parser = time)]
    wait: Option<Option<Duration>>,
    /// What holds once it is ready: tcp:PORT, exec:COMMAND or log:PATTERN; all of several. Unless
    /// given: the daemons that the image declares take connections, and its health check succeeds
    #[arg(long, value_name = "CONDITION", value_parser = readiness::parse)]
    ready: Vec<Condition>,
}

impl Args {
    /// The bottle.
    pub(super) fn slug(&self) -> &Slug {
        self.bottle.slug()
    }

    /// Refuses what cannot be brought up on any host; whether `--wait` was given.
    pub(super) fn check(self) -> Result<bool, Failure> {
        let waits = self.wait.is_some();
        self.bottle.spec().map(|_| waits)
    }

    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        let mut spec = self.bottle.spec()?;
        spec.options.run.pull = self.pull.policy();
        spec.options.run.ready = Readiness {
            conditions: self.ready,
            healthy: self.wait.is_some(),
            timeout: self.wait.flatten(),
        };
        spec.image = image_name(engine, output, spec.image)?;
        let report = engine.up(&spec, self.replace, &super::inherited)?;
        output.notes(&report.plan.notes);
        // Before anything that may fail for want of a reader.
        if let Err(e) = notify::ready(&format!("bottle {} is up", report.plan.view.slug)) {
            output.notes(&[format!("the service manager could not be told: {e}")]);
        }
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
