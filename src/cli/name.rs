//! `carboy name`.

use std::process::ExitCode;

use carboy::{Engine, Slug};
use clap::ValueEnum;
use serde_json::json;

use super::exit::Failure;
use super::output::Output;

/// Print a name that follows from a slug
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which name
    #[arg(value_enum)]
    kind: Kind,
    /// The bottle
    slug: Slug,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// The bottle's network
    Network,
    /// The bottle's container
    Container,
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        let prefix = &engine.config().prefix;
        let name = match self.kind {
            Kind::Network => prefix.network(&self.slug).to_string(),
            Kind::Container => prefix.container(&self.slug).to_string(),
        };
        output.data(&json!({ "name": name }), || name.clone());
        Ok(ExitCode::SUCCESS)
    }
}
