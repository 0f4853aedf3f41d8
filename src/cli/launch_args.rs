//! The options of a launch, shared by `plan`, `up` and `start`; named as Docker's.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use carboy::spec::{LimitOptions, PullPolicy, Readiness};
use carboy::{BottleSpec, LaunchOptions, RunOptions, Slug};
use clap::Args;

use super::exit::Failure;
use super::health_args::HealthArgs;
use super::network_args::NetworkArgs;

/// The image every bottle runs unless another is named.
const DEFAULT_IMAGE: &str = carboy::oci::embedded::REFERENCE;

/// When the image is fetched.
#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// Fetch the image from its registry: each time, if it is missing in the store, or never
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pull: When,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum When {
    Always,
    Missing,
    Never,
}

impl PullArgs {
    pub(super) fn policy(&self) -> PullPolicy {
        match self.pull {
            When::Always => PullPolicy::Always,
            When::Missing => PullPolicy::Missing,
            When::Never => PullPolicy::Never,
        }
    }
}

/// How the bundle runs.
#[derive(Debug, Args)]
pub(super) struct LaunchArgs {
    /// Set a variable, or take its value from carboy's own environment
    #[arg(short = 'e', long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Show a file or directory of the host inside
    #[arg(short = 'v', long = "volume", value_name = "SRC:DST[:ro]")]
    volume: Vec<String>,
    /// The daemons of the embedded image to start, separated by commas; all unless given
    #[arg(long, value_name = "CSV")]
    daemons: Option<String>,
    /// Limit memory, swap included: 512m, 1g
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Limit processes and threads
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<String>,
    /// Limit processor time: 1.5 is one processor and a half
    #[arg(long, value_name = "N")]
    cpus: Option<String>,
    /// Run as this user of the image: name, uid, name:group or uid:gid
    #[arg(short = 'u', long, value_name = "USER")]
    user: Option<String>,
    /// Run in this directory of the image
    #[arg(short = 'w', long, value_name = "DIR")]
    workdir: Option<String>,
    /// Run this program of the image instead of its entrypoint and command
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Note something about the bundle
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Let nothing write to the root file system
    #[arg(long)]
    read_only: bool,
    /// Run a small init as PID 1, which reaps and passes on signals
    #[arg(long)]
    init: bool,
    /// Start it again when it ends by itself: no, on-failure[:N], always (unless-stopped is the same)
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    #[command(flatten)]
    health: HealthArgs,
}

impl LaunchArgs {
    /// The options with the command that stands apart on the command line.
    pub(super) fn options(self, command: Vec<String>) -> Result<LaunchOptions, Failure> {
        let mut labels = BTreeMap::new();
        for label in self.label {
            let (key, value) = label.split_once('=').unwrap_or((&label, ""));
            if key.is_empty() {
                return Err(Failure::usage(format!("label {label:?} has no key")));
            }
            labels.insert(key.to_owned(), value.to_owned());
        }
        let run = RunOptions {
            command,
            entrypoint: self.entrypoint,
            user: self.user,
            workdir: self.workdir,
            limits: LimitOptions { memory: self.memory, pids: self.pids_limit, cpus: self.cpus },
            labels,
            read_only: self.read_only,
            init: self.init,
            restart: self.restart,
            health: self.health.options(),
            ready: Readiness::default(),
            pull: PullPolicy::default(),
        };
        Ok(LaunchOptions {
            daemons_csv: self.daemons,
            environment: self.env,
            volumes: self.volume,
            run,
        })
    }
}

/// What makes a bottle: `plan` and `up` take the same.
#[derive(Debug, Args)]
pub(super) struct BottleArgs {
    /// The bottle
    slug: Slug,
    /// The image: a name; `up` also takes a place as `image load` does, and loads it
    #[arg(long, value_name = "NAME", default_value = DEFAULT_IMAGE)]
    image: String,
    #[command(flatten)]
    network: NetworkArgs,
    /// The bundle's address; the second of the range unless given
    #[arg(long, value_name = "IP")]
    ip: Option<Ipv4Addr>,
    /// The bundle's IPv6 address; the second of the range unless given
    #[arg(long, value_name = "IP")]
    ip6: Option<Ipv6Addr>,
    #[command(flatten)]
    launch: LaunchArgs,
    /// The command to run instead of the image's
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl BottleArgs {
    /// The bottle's name.
    pub(super) fn slug(&self) -> &Slug {
        &self.slug
    }

    /// The bottle that was asked for.
    pub(super) fn spec(self) -> Result<BottleSpec, Failure> {
        let wish = self.network.wish()?;
        Ok(BottleSpec {
            slug: self.slug,
            subnet: wish.subnet,
            gateway: wish.gateway,
            bundle_ip: self.ip,
            subnet6: wish.subnet6,
            gateway6: wish.gateway6,
            bundle_ip6: self.ip6,
            policy: wish.policy,
            mtu: wish.mtu,
            image: self.image,
            options: self.launch.options(self.command)?,
        })
    }
}
