//! `carboy network`.

use std::process::ExitCode;

use carboy::engine::Listing;
use carboy::{Engine, NetworkName, NetworkRequest};
use serde_json::json;

use super::exit::Failure;
use super::network_args::{NetworkArgs, NetworkWish};
use super::output::{Output, table};

/// Create, remove and list networks
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Create a network, or repair it; one that is there as asked for is kept
    Create {
        /// Its name
        name: NetworkName,
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Remove networks
    Rm {
        /// Their names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<NetworkName>,
        /// Stop the bundles on them first
        #[arg(short, long)]
        force: bool,
    },
    /// List the networks
    Ls,
    /// Print all that is known of a network, as JSON
    Inspect {
        /// Its name
        name: NetworkName,
    },
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        match self.verb {
            Verb::Create { name, network } => {
                let seed = name.to_string();
                let NetworkWish { subnet, gateway, subnet6, gateway6, policy, mtu } =
                    network.wish()?;
                let request =
                    NetworkRequest { name, subnet, gateway, subnet6, gateway6, policy, mtu, seed };
                let report = engine.create_network(&request)?;
                let value = json!({ "name": report.name, "changed": report.changed });
                output.data(&value, || report.name.to_string());
            }
            Verb::Rm { names, force } => {
                return super::stop::each(&names, output, |name| {
                    let report = engine.remove_network(name, force)?;
                    if !report.changed {
                        output.note(&format!("network {name} is not there"));
                    }
                    Ok((json!({ "name": name, "changed": report.changed }), name.to_string()))
                });
            }
            Verb::Ls => {
                let Listing { items: networks, notes } = engine.networks()?;
                output.notes(&notes);
                output.data(&networks, || {
                    let titles = ["NAME", "SUBNET", "GATEWAY", "BRIDGE", "BUNDLES"];
                    let mut rows = vec![titles.map(str::to_owned).to_vec()];
                    rows.extend(networks.iter().map(|n| {
                        vec![
                            n.name.to_string(),
                            n.subnet.to_string(),
                            n.gateway.to_string(),
                            n.bridge.clone(),
                            n.bundles.join(","),
                        ]
                    }));
                    table(&rows)
                });
            }
            Verb::Inspect { name } => output.json(&engine.inspect_network(&name)?),
        }
        Ok(ExitCode::SUCCESS)
    }
}
