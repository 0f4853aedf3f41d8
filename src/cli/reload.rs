//! `carboy reload`, and the choice of bottles that it shares with `verify`.

use std::process::ExitCode;

use carboy::engine::ReloadReport;
use carboy::{Engine, Slug};
use serde_json::{Value, json};

use super::exit::Failure;
use super::output::Output;
use super::stop;

/// Put the network of bottles back after somebody else flushed or reloaded the firewall
///
/// Containers go on as they are; nothing that is right is touched.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    bottles: Bottles,
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        self.bottles.choose(engine, output)?.each(output, |slug| {
            let ReloadReport { changed, notes, .. } = engine.reload(slug)?;
            output.notes(&notes);
            let title = if changed { "is in place again" } else { "was in place" };
            let value = json!({ "slug": slug, "changed": changed });
            Ok((value, format!("the network of bottle {slug} {title}")))
        })
    }
}

/// The bottles a verb is for.
#[derive(Debug, clap::Args)]
pub(super) struct Bottles {
    /// The bottles; all of this prefix if none is named
    #[arg(value_name = "SLUG")]
    slugs: Vec<Slug>,
}

/// The bottles that were named, or all there are.
pub(super) struct Chosen {
    slugs: Vec<Slug>,
    all: bool,
    /// Some record could not be read; the user knows.
    pub(super) unreadable: bool,
}

impl Bottles {
    pub(super) fn choose(self, engine: &Engine, output: &Output) -> Result<Chosen, Failure> {
        if !self.slugs.is_empty() {
            return Ok(Chosen { slugs: self.slugs, all: false, unreadable: false });
        }
        let listing = engine.bottles()?;
        output.notes(&listing.notes);
        let slugs = listing.items.into_iter().map(|bottle| bottle.view.slug).collect();
        Ok(Chosen { slugs, all: true, unreadable: !listing.notes.is_empty() })
    }
}

impl Chosen {
    /// Does something to each bottle; of all bottles programs get an array, however many there are.
    pub(super) fn each(
        &self,
        output: &Output,
        act: impl FnMut(&Slug) -> Result<(Value, String), Failure>,
    ) -> Result<ExitCode, Failure> {
        stop::each_of(&self.slugs, self.all, output, act)
    }
}
