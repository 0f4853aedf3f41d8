//! The options of a launch, shared by `plan`, `up` and `start`; named as Docker's.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use carboy::spec::{LimitOptions, PullPolicy, Readiness, SecurityOptions, Userns};
use carboy::{BottleSpec, LaunchOptions, RunOptions, Slug};
use clap::Args;

use super::exit::Failure;
use super::guest_args::GuestArgs;
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
    #[arg(short = 'v', long = "volume", value_name = "SRC:DST[:ro,idmap,z,Z]")]
    volume: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    security: SecurityArgs,
    /// The daemons of the embedded image to start, separated by commas; all unless given
    #[arg(long, value_name = "CSV")]
    daemons: Option<String>,
    /// Limit memory, swap included: 512m, 1g
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Allow so much memory and swap together; -1 is any; as much as memory unless given
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Limit the reading of a disk, in bytes per second: /dev/sda:10m
    #[arg(long, value_name = "DEVICE:SIZE")]
    device_read_bps: Vec<String>,
    /// Limit the writing of a disk, in bytes per second
    #[arg(long, value_name = "DEVICE:SIZE")]
    device_write_bps: Vec<String>,
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
    /// Bound the log: max-size=10m (of a file), max-file=3
    #[arg(long, value_name = "KEY=VALUE")]
    log_opt: Vec<String>,
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
            limits: LimitOptions {
                memory: self.memory,
                pids: self.pids_limit,
                cpus: self.cpus,
                memory_swap: self.memory_swap,
                device_read_bps: self.device_read_bps,
                device_write_bps: self.device_write_bps,
            },
            log_opts: self.log_opt,
            labels,
            read_only: self.read_only,
            init: self.init,
            env_files: self.files.env_file,
            tmpfs: self.files.tmpfs,
            no_read_only_tmpfs: !self.files.read_only_tmpfs,
            secrets: self.files.secret,
            security: SecurityOptions {
                cap_add: self.security.cap_add,
                cap_drop: self.security.cap_drop,
                security_opt: self.security.security_opt,
                ulimits: self.security.ulimit,
            },
            restart: self.restart,
            health: self.health.options(),
            ready: Readiness::default(),
            pull: PullPolicy::default(),
            userns: self.security.userns.map(Userns::from),
        };
        Ok(LaunchOptions {
            daemons_csv: self.daemons,
            environment: self.env,
            volumes: self.volume,
            run,
        })
    }
}

/// What it finds in files.
#[derive(Debug, Args)]
struct FileArgs {
    /// Set the variables of a file, a NAME=VALUE or NAME on each line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Mount a file system in memory: size=64m,mode=1777,uid=0,gid=0,exec,ro
    #[arg(long, value_name = "DST[:OPTION,…]")]
    tmpfs: Vec<String>,
    /// Show a secret inside as /run/secrets/NAME; it is written to no disk and no record
    #[arg(long, value_name = "NAME=FILE|NAME=env:VARIABLE")]
    secret: Vec<String>,
    /// Mount file systems in memory on /run, /tmp and /var/tmp where the root is read-only
    #[arg(
        long,
        value_name = "BOOL",
        default_value_t = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    read_only_tmpfs: bool,
}

/// How it is confined.
#[derive(Debug, Args)]
struct SecurityArgs {
    /// Give a capability beyond the default ones, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Take a capability away, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// seccomp=unconfined, seccomp=default, apparmor=PROFILE, no-new-privileges, label=disable, or
    /// label=type:T (level:L, user:U, role:R, filetype:F) for SELinux
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Set a resource limit: nofile=1024:4096, core=-1
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// Give it ids of its own, so that root inside is nobody on the host; `host` gives it the host's
    #[arg(
        long,
        value_name = "auto|host",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "auto"
    )]
    userns: Option<UsernsWord>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum UsernsWord {
    Auto,
    Host,
}

impl From<UsernsWord> for Userns {
    fn from(word: UsernsWord) -> Self {
        match word {
            UsernsWord::Auto => Self::Auto,
            UsernsWord::Host => Self::Host,
        }
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
    guest: GuestArgs,
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
            guest: self.guest.request()?,
            image: self.image,
            options: self.launch.options(self.command)?,
        })
    }
}
