//! `carboy start`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;

use carboy::{BundleLaunchSpec, Engine, LaunchOptions, NetworkName, Slug};
use serde_json::json;

use super::exit::Failure;
use super::image::load::image_name;
use super::launch_args::{LaunchArgs, PullArgs};
use super::output::Output;

/// Start a bundle on a network that exists
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bottle
    slug: Slug,
    /// The image: a name, or a place as `image load` takes it
    image: String,
    /// The command to run instead of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// The network
    #[arg(long, value_name = "NAME")]
    network: NetworkName,
    /// The bundle's address
    #[arg(long, value_name = "IP")]
    ip: Ipv4Addr,
    /// The bundle's IPv6 address; the second of the network's range unless given
    #[arg(long, value_name = "IP")]
    ip6: Option<Ipv6Addr>,
    #[command(flatten)]
    pull: PullArgs,
    #[command(flatten)]
    launch: LaunchArgs,
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        let network = engine.inspect_network(&self.network)?;
        let LaunchOptions { daemons_csv, environment, volumes, mut run } =
            self.launch.options(self.command)?;
        run.pull = self.pull.policy();
        let spec = BundleLaunchSpec {
            slug: self.slug,
            network: self.network,
            subnet: network.subnet,
            gateway: network.gateway,
            bundle_ip: self.ip,
            bundle_ip6: self.ip6,
            daemons_csv,
            environment,
            volumes,
            image: image_name(engine, output, self.image)?,
            run,
        };
        let report = engine.start(&spec, &super::inherited)?;
        output.notes(&report.notes);
        let value = json!({
            "slug": report.slug,
            "container": report.container,
            "network": spec.network,
            "bundle_ip": spec.bundle_ip,
            "pid": report.pid,
            "changed": true,
        });
        output.data(&value, || report.container.to_string());
        Ok(ExitCode::SUCCESS)
    }
}
