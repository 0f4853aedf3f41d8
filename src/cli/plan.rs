//! `carboy plan`.

use std::process::ExitCode;

use carboy::Engine;
use carboy::engine::PlanReport;

use super::exit::Failure;
use super::launch_args::BottleArgs;
use super::output::Output;

/// Show what `up` would make, and change nothing
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    bottle: BottleArgs,
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        let plan = engine.plan(&self.bottle.spec()?, &super::inherited)?;
        output.notes(&plan.notes);
        output.data(&plan, || text(&plan));
        Ok(ExitCode::SUCCESS)
    }
}

/// The plan for people, without its title.
pub(super) fn text(plan: &PlanReport) -> String {
    let view = &plan.view;
    let guest = view.guest.as_ref().map(super::guest::line).unwrap_or_default();
    let allow: Vec<String> = view.allow_cidrs.iter().map(ToString::to_string).collect();
    format!(
        "  network      {} ({}, gateway {}, bridge {})\n  \
           container    {}\n  \
           image        {} ({})\n  \
           bundle IP    {}\n  \
           allow_cidrs  {}\n{guest}",
        view.network,
        view.subnet,
        view.gateway,
        view.bridge,
        view.container,
        plan.image.reference,
        plan.image.digest.short(),
        view.bundle_ip,
        allow.join(", "),
    )
}
