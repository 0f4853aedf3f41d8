//! `carboy image pull`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use carboy::Engine;
use carboy::oci::registry::RegistryConfig;

use crate::cli::exit::Failure;
use crate::cli::output::Output;
use crate::cli::stop::each;

/// Fetch images from their registries; what is there already is not fetched again
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Their names: NAME[:TAG][@DIGEST]; Docker Hub's unless they begin with a host
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Trust the authorities in this directory (*.crt), too; show its client certificate (*.cert with
    /// *.key) to a registry that asks for one
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Give up on an image after this time
    #[arg(long, value_name = "SECONDS", default_value_t = 3600,
          value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        let config = RegistryConfig {
            cert_dir: self.cert_dir,
            deadline: Duration::from_secs(self.timeout),
            ..engine.config().registry.clone()
        };
        each(&self.names, output, |name| {
            let pulled = engine.pull_image_with(name, &config)?;
            output.notes(&pulled.notes);
            let value = serde_json::to_value(&pulled).expect("text and flags encode");
            Ok((value, pulled.reference))
        })
    }
}
