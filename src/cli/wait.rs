//! `carboy wait`.

use std::process::ExitCode;

use carboy::{Engine, Slug};
use serde_json::json;

use super::exit::Failure;
use super::output::Output;
use super::stop::each;

/// Wait until bundles have ended and print their exit codes
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bottles
    #[arg(required = true, value_name = "SLUG")]
    slugs: Vec<Slug>,
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        each(&self.slugs, output, |slug| {
            super::adopt(engine, output, slug);
            let code = engine.wait(slug)?;
            Ok((json!({ "slug": slug, "exit_code": code }), code.to_string()))
        })
    }
}
