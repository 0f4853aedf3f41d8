//! `carboy down`.

use std::process::ExitCode;

use carboy::{Engine, Slug};
use serde_json::json;

use super::exit::Failure;
use super::output::Output;
use super::stop::Grace;

/// Take a bottle down and remove all that is its own, whatever state it is in
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
        super::stop::each(&self.slugs, output, |slug| {
            let report = engine.down(slug, self.grace.duration())?;
            if !report.changed {
                output.note(&format!("bottle {slug} is not there"));
            }
            output.notes(&report.notes);
            Ok((json!({ "slug": slug, "changed": report.changed }), slug.to_string()))
        })
    }
}
