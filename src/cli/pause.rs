//! `carboy pause` and `carboy unpause`.

use std::process::ExitCode;

use carboy::engine::ChangeReport;
use carboy::{Engine, Error, Slug};
use serde_json::json;

use super::exit::Failure;
use super::output::Output;
use super::stop::each;

/// Stop the processes of bundles where they are; what comes to their addresses waits
#[derive(Debug, clap::Args)]
pub(super) struct PauseArgs {
    /// The bottles
    #[arg(required = true, value_name = "SLUG")]
    slugs: Vec<Slug>,
}

/// Let paused bundles go on
#[derive(Debug, clap::Args)]
pub(super) struct UnpauseArgs {
    /// The bottles
    #[arg(required = true, value_name = "SLUG")]
    slugs: Vec<Slug>,
}

impl PauseArgs {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        change(engine, &self.slugs, output, "is paused already", |slug| engine.pause(slug))
    }
}

impl UnpauseArgs {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        change(engine, &self.slugs, output, "is not paused", |slug| engine.unpause(slug))
    }
}

fn change(
    engine: &Engine,
    slugs: &[Slug],
    output: &Output,
    already: &str,
    act: impl Fn(&Slug) -> Result<ChangeReport, Error>,
) -> Result<ExitCode, Failure> {
    each(slugs, output, |slug| {
        super::adopt(engine, output, slug);
        let report = act(slug)?;
        if !report.changed {
            output.note(&format!("bottle {slug} {already}"));
        }
        Ok((json!({ "slug": slug, "changed": report.changed }), slug.to_string()))
    })
}
