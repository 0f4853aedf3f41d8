//! `carboy kill`.

use std::process::ExitCode;

use carboy::oci::signal;
use carboy::{Engine, Slug};
use serde_json::json;

use super::exit::Failure;
use super::output::Output;
use super::stop::each;

/// Send bundles a signal; they stay, to be looked at or started again
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bottles
    #[arg(required = true, value_name = "SLUG")]
    slugs: Vec<Slug>,
    /// The signal, by name or number: HUP, SIGUSR1, 15, RTMIN+1
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        let signal = signal::parse(&self.signal).map_err(|e| Failure::new(&e))?;
        each(&self.slugs, output, |slug| {
            super::adopt(engine, output, slug);
            engine.kill(slug, signal)?;
            Ok((json!({ "slug": slug, "signal": signal, "changed": true }), slug.to_string()))
        })
    }
}
