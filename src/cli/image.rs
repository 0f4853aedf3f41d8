//! `carboy image`.

use std::path::PathBuf;
use std::process::ExitCode;

use carboy::Engine;
use carboy::oci::digest::Digest;
use carboy::oci::store::ImageSummary;
use serde::Serialize;

use super::exit::Failure;
use super::output::{Output, table};

/// Load, list and remove images
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Load the images of a docker-archive, an OCI archive or an OCI layout directory
    Load {
        /// The file or directory; `-` is standard input
        path: PathBuf,
        /// The image's name; that which the file gives it unless given
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// List the images
    Ls,
    /// Remove images
    Rm {
        /// Their names, or digests as `image ls` shows them
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        match self.verb {
            Verb::Load { path, name } => {
                let stdin = PathBuf::from("/dev/stdin");
                let path = if path.as_os_str() == "-" { stdin } else { path };
                let loaded = engine.load_image(&path, name.as_deref())?;
                for note in loaded.iter().flat_map(|image| &image.notes) {
                    output.note(&format!("note: {note}"));
                }
                output.data(&loaded, || {
                    loaded.iter().map(|image| format!("{}\n", image.reference)).collect()
                });
            }
            Verb::Ls => {
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
            }
            Verb::Rm { names } => {
                return super::stop::each(&names, output, |name| {
                    let removed = engine.remove_image(name)?;
                    let value = serde_json::to_value(&removed).expect("text and numbers encode");
                    Ok((value, removed.references.join("\n")))
                });
            }
        }
        Ok(ExitCode::SUCCESS)
    }
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
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{bytes}B") } else { format!("{value:.1}{unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1}TB")
}
