//! `carboy restart`.

use std::process::ExitCode;

use carboy::{Engine, Slug};
use serde_json::json;

use super::exit::Failure;
use super::output::Output;
use super::stop::{Grace, each};

/// End bundles and start them again, with their address, log and root file system
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
            let report = engine.restart(slug, self.grace.duration())?;
            output.notes(&report.notes);
            let value = json!({ "slug": slug, "pid": report.pid, "changed": true });
            Ok((value, slug.to_string()))
        })
    }
}
