//! `carboy start`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;

use carboy::{BundleLaunchSpec, Engine, LaunchOptions, NetworkName, STOP_GRACE, Slug};
use serde_json::json;

use super::attach;
use super::exit::Failure;
use super::image::load::image_name;
use super::launch_args::{LaunchArgs, PullArgs};
use super::output::Output;

/// Start a bundle on a network that exists, and return when it runs; with --attach its exit code is
/// carboy's (125: carboy's own fault, 126: it cannot be run, 127: it is not there, 128+n: ended by
/// signal n)
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
    /// Stay until it ends: print what it writes, pass signals on, end with its exit code
    #[arg(short, long)]
    attach: bool,
    /// Remove it when it has ended
    #[arg(long, requires = "attach")]
    rm: bool,
    #[command(flatten)]
    pull: PullArgs,
    #[command(flatten)]
    launch: LaunchArgs,
}

impl Args {
    /// Whether the bundle's program has this one's exit code.
    pub(super) fn is_attached(&self) -> bool {
        self.attach
    }

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
        let signals = self.attach.then(attach::take_signals).transpose()?;
        let started = engine.start(&spec, &super::inherited);
        let report = match signals {
            None => started?,
            Some(_) => started.map_err(Failure::of_program)?,
        };
        output.notes(&report.notes);
        if let Some(signals) = signals {
            let end = attach::until_end(engine, output, &report.slug, &signals);
            if self.rm {
                engine.stop(&report.slug, STOP_GRACE)?;
            }
            return end;
        }
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
