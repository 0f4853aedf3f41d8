//! `carboy port`.

use std::process::ExitCode;

use carboy::engine::{Port, PortAddress};
use carboy::{Engine, Slug};

use super::exit::Failure;
use super::output::Output;

/// Print where a port of a bundle is reached: at its own address, there is no proxy
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bottle
    slug: Slug,
    /// The port; all that the image exposes unless given
    #[arg(value_name = "PORT[/PROTO]")]
    port: Option<Port>,
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        match self.port {
            Some(port) => {
                let port = engine.port(&self.slug, port)?;
                output.data(&port, || lines(&port, ""));
            }
            None => {
                let ports = engine.ports(&self.slug)?;
                output.data(&ports, || {
                    ports.iter().map(|p| lines(p, &format!("{} -> ", p.port))).collect()
                });
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A line for each family.
fn lines(port: &PortAddress, before: &str) -> String {
    let addresses = std::iter::once(port.address).chain(port.address6);
    addresses.map(|address| format!("{before}{address}\n")).collect()
}
