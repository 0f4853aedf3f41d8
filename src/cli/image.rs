//! `carboy image`.

mod export;
pub(super) mod load;
mod pull;

use std::process::ExitCode;

use carboy::Engine;
use carboy::oci::digest::Digest;
use carboy::oci::store::ImageSummary;
use serde::Serialize;
use serde_json::json;

use super::exit::Failure;
use super::output::{Output, table};

/// Load, pull, list, name, export and remove images
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Load(load::Args),
    Pull(pull::Args),
    /// List the images
    Ls,
    /// Print all that is known of images, as JSON
    Inspect {
        /// Their names, or digests as `image ls` shows them
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Give an image a further name
    Tag {
        /// The image
        name: String,
        /// The new name; it is taken from an image that has it
        #[arg(value_name = "NEW")]
        new: String,
    },
    Export(export::Args),
    /// Remove images
    Rm {
        /// Their names, or digests as `image ls` shows them
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Remove images without a name that no bundle uses, and what no image needs
    Prune {
        /// Remove every image that no bundle uses
        #[arg(short, long)]
        all: bool,
        /// Remove nothing, and tell what would be removed
        #[arg(long)]
        dry_run: bool,
    },
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        match self.verb {
            Verb::Load(args) => args.run(engine, output),
            Verb::Pull(args) => args.run(engine, output),
            Verb::Export(args) => args.run(engine, output),
            Verb::Ls => list(engine, output),
            Verb::Prune { all, dry_run } => prune(engine, output, all, dry_run),
            Verb::Inspect { names } => super::stop::each(&names, output, |name| {
                let value = serde_json::to_value(engine.inspect_image(name)?);
                let value = value.expect("text and numbers encode");
                let text = serde_json::to_string_pretty(&value).expect("a value encodes");
                Ok((value, text))
            }),
            Verb::Tag { name, new } => {
                let (digest, changed) = engine.tag_image(&name, &new)?;
                let value = json!({ "reference": new, "digest": digest, "changed": changed });
                output.data(&value, || new.clone());
                Ok(ExitCode::SUCCESS)
            }
            Verb::Rm { names } => super::stop::each(&names, output, |name| {
                let removed = engine.remove_image(name)?;
                let value = serde_json::to_value(&removed).expect("text and numbers encode");
                Ok((value, removed.references.join("\n")))
            }),
        }
    }
}

fn list(engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
    let images: Vec<Row> = engine.images()?.into_iter().flat_map(rows).collect();
    output.data(&images, || {
        let titles = ["NAME", "DIGEST", "SIZE", "LAYERS", "CREATED"];
        let mut rows = vec![titles.map(str::to_owned).to_vec()];
        rows.extend(images.iter().map(|image| {
            vec![
                image.reference.clone().unwrap_or_else(|| "-".to_owned()),
                image.digest.short().to_owned(),
                size(image.size),
                image.layers.to_string(),
                image.created.clone().unwrap_or_else(|| "-".to_owned()),
            ]
        }));
        table(&rows)
    });
    Ok(ExitCode::SUCCESS)
}

fn prune(engine: &Engine, output: &Output, all: bool, dry_run: bool) -> Result<ExitCode, Failure> {
    let pruned = engine.prune_images(all, dry_run)?;
    output.data(&pruned, || {
        let mut text = String::new();
        for image in &pruned.images {
            // An image without a name is known by its digest.
            let name = image.digest.to_string();
            let names = if image.references.is_empty() { &vec![name] } else { &image.references };
            names.iter().for_each(|name| text.extend([name, "\n"]));
        }
        text
    });
    let would = if dry_run { "would be " } else { "" };
    output.note(&format!("{} {would}freed", size(pruned.freed)));
    Ok(ExitCode::SUCCESS)
}

/// An image under one of its names.
#[derive(Debug, Serialize)]
struct Row {
    reference: Option<String>,
    digest: Digest,
    size: u64,
    layers: usize,
    created: Option<String>,
}

/// A row for each name; one for an image that has lost its last.
fn rows(image: ImageSummary) -> Vec<Row> {
    let ImageSummary { references, digest, size, created, layers } = image;
    let row = |reference| Row {
        reference,
        digest: digest.clone(),
        size,
        layers,
        created: created.clone(),
    };
    if references.is_empty() {
        return vec![row(None)];
    }
    references.into_iter().map(|name| row(Some(name))).collect()
}

/// Bytes for people, in powers of 1000 as Docker's.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{bytes}B") } else { format!("{value:.1}{unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1}TB")
}
