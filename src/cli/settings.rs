//! Where the settings come from: flag, environment, configuration file, default.

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use carboy::fsutil;
use carboy::oci::registry::RegistryConfig;
use carboy::oci::unpack::Limits;
use carboy::plan::Pool;
use carboy::spec::Userns;
use carboy::{Config, Engine, Prefix};
use clap::Args;
use ipnet::Ipv4Net;
use serde::Deserialize;

use super::exit::Failure;

/// Options that every verb has.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct GlobalArgs {
    /// Print JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// The first part of all names [env: CARBOY_PREFIX] [default: claude-bottle]
    #[arg(long, global = true, value_name = "NAME")]
    prefix: Option<Prefix>,
    /// Records and locks, on tmpfs [env: CARBOY_STATE] [default: /run/carboy]
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Images, writable layers and logs, on disk [env: CARBOY_ROOT] [default: /var/lib/carboy]
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
}

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    prefix: Option<Prefix>,
    state: Option<PathBuf>,
    root: Option<PathBuf>,
    /// The range that bottles are given addresses from.
    pool: Option<Ipv4Net>,
    /// The prefix length of one bottle's subnet.
    pool_prefix: Option<u8>,
    /// What a layer may unpack to, in bytes.
    layer_max_bytes: Option<u64>,
    /// The entries a layer may have.
    layer_max_entries: Option<u64>,
    /// How many times its compressed size a large layer may unpack to.
    layer_max_ratio: Option<NonZeroU64>,
    /// Registries, `host` or `host:port`, that may be spoken to without TLS.
    insecure_registries: Option<Vec<String>>,
    /// `auto`: bundles have ids of their own unless asked for otherwise.
    userns: Option<Userns>,
}

impl GlobalArgs {
    /// The engine with the settings of the command line, the environment and the file.
    pub(super) fn engine(&self) -> Result<Engine, Failure> {
        let defaults = defaults();
        let file = read_file(&defaults.file)?;
        let default = Config::default();
        let pool = pool(&defaults.file, &file, default.pool)?;
        let layer_limits = layer_limits(&file, default.layer_limits);
        let registry = registry(&defaults.file, &file)?;
        let prefix = match &self.prefix {
            Some(prefix) => Some(prefix.clone()),
            None => variable("CARBOY_PREFIX").map(parse_prefix).transpose()?,
        };
        let directory = |flag: &Option<PathBuf>, name: &str| {
            flag.clone().or_else(|| variable(name).map(PathBuf::from))
        };
        let state = directory(&self.state, "CARBOY_STATE");
        let root = directory(&self.root, "CARBOY_ROOT");
        Ok(Engine::new(Config {
            prefix: prefix.or(file.prefix).unwrap_or_default(),
            state: absolute(state.or(file.state).unwrap_or(defaults.state))?,
            root: absolute(root.or(file.root).unwrap_or(defaults.root))?,
            pool,
            layer_limits,
            registry,
            userns: file.userns.unwrap_or(default.userns),
            ..default
        }))
    }
}

/// A variable of the environment; one that is empty counts as unset.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn parse_prefix(value: OsString) -> Result<Prefix, Failure> {
    let wrong = |e: &dyn std::fmt::Display| Failure::usage(format!("CARBOY_PREFIX: {e}"));
    let text = value.into_string().map_err(|value| wrong(&value.display()))?;
    Prefix::new(text).map_err(|e| wrong(&e))
}

struct Defaults {
    state: PathBuf,
    root: PathBuf,
    file: PathBuf,
}

/// The system's directories for root, the user's own (XDG Base Directory Specification) for others.
fn defaults() -> Defaults {
    if nix::unistd::geteuid().is_root() {
        let default = Config::default();
        return Defaults {
            state: default.state,
            root: default.root,
            file: PathBuf::from("/etc/carboy/config.toml"),
        };
    }
    let home = |below: &str| {
        let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
        home.join(below)
    };
    let xdg = |variable: &str, fallback: PathBuf| {
        let set = std::env::var_os(variable).map(PathBuf::from).filter(|p| p.is_absolute());
        set.unwrap_or(fallback).join("carboy")
    };
    let runtime = PathBuf::from(format!("/run/user/{}", nix::unistd::geteuid()));
    Defaults {
        state: xdg("XDG_RUNTIME_DIR", runtime),
        root: xdg("XDG_DATA_HOME", home(".local/share")),
        file: xdg("XDG_CONFIG_HOME", home(".config")).join("config.toml"),
    }
}

fn read_file(path: &Path) -> Result<File, Failure> {
    let Some(content) = fsutil::read_optional(path)? else { return Ok(File::default()) };
    let wrong = |e: &dyn std::fmt::Display| {
        Failure::usage(format!("configuration file {}: {e}", path.display()))
    };
    let text = std::str::from_utf8(&content).map_err(|e| wrong(&e))?;
    toml::from_str(text).map_err(|e| wrong(&e.message()))
}

fn pool(path: &Path, file: &File, default: Pool) -> Result<Pool, Failure> {
    let range = file.pool.unwrap_or(default.range);
    let prefix = file.pool_prefix.unwrap_or(default.prefix);
    if range.trunc() != range || !(range.prefix_len()..=30).contains(&prefix) {
        return Err(Failure::usage(format!(
            "configuration file {}: pool {range} cannot be parted into subnets of prefix /{prefix}",
            path.display()
        )));
    }
    Ok(Pool { range, prefix })
}

fn layer_limits(file: &File, default: Limits) -> Limits {
    Limits {
        bytes: file.layer_max_bytes.unwrap_or(default.bytes),
        entries: file.layer_max_entries.unwrap_or(default.entries),
        ratio: file.layer_max_ratio.map_or(default.ratio, NonZeroU64::get),
        ..default
    }
}

/// How registries are reached, by Docker's settings and the usual variables.
fn registry(path: &Path, file: &File) -> Result<RegistryConfig, Failure> {
    let insecure = file.insecure_registries.clone().unwrap_or_default();
    if let Some(wrong) = insecure.iter().find(|host| host.is_empty() || host.contains(['/', ' '])) {
        return Err(Failure::usage(format!(
            "configuration file {}: insecure_registries has {wrong:?}, wanted is a host or \
             host:port",
            path.display()
        )));
    }
    let home = || variable("HOME").map(|home| Path::new(&home).join(".docker"));
    let docker = variable("DOCKER_CONFIG").map(PathBuf::from).or_else(home);
    let first = |names: [&str; 2]| {
        names.into_iter().find_map(variable).and_then(|value| value.into_string().ok())
    };
    let no_proxy = first(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    Ok(RegistryConfig {
        docker_config: docker.map(|directory| directory.join("config.json")),
        insecure,
        proxy: first(["HTTPS_PROXY", "https_proxy"]),
        no_proxy: no_proxy.split(',').map(|host| host.trim().to_owned()).collect(),
        ..RegistryConfig::default()
    })
}

/// Helper processes run in another directory.
fn absolute(path: PathBuf) -> Result<PathBuf, Failure> {
    std::path::absolute(&path)
        .map_err(|e| Failure::usage(format!("directory {}: {e}", path.display())))
}
