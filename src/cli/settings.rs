//! Where the settings come from: flag, environment, configuration file, default.

use std::path::{Path, PathBuf};

use carboy::fsutil;
use carboy::plan::Pool;
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
    json: bool,
    /// The first part of all names [default: claude-bottle]
    #[arg(long, global = true, value_name = "NAME", env = "CARBOY_PREFIX")]
    prefix: Option<Prefix>,
    /// Records and locks, on tmpfs [default: /run/carboy]
    #[arg(long, global = true, value_name = "DIR", env = "CARBOY_STATE")]
    state: Option<PathBuf>,
    /// Images, writable layers and logs, on disk [default: /var/lib/carboy]
    #[arg(long, global = true, value_name = "DIR", env = "CARBOY_ROOT")]
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
}

impl GlobalArgs {
    /// The engine with the settings of the command line, the environment and the file.
    pub(super) fn engine(&self) -> Result<Engine, Failure> {
        let defaults = defaults();
        let file = read_file(&defaults.file)?;
        let default = Config::default();
        let pool = pool(&file, default.pool)?;
        Ok(Engine::new(Config {
            prefix: self.prefix.clone().or(file.prefix).unwrap_or_default(),
            state: absolute(self.state.clone().or(file.state).unwrap_or(defaults.state))?,
            root: absolute(self.root.clone().or(file.root).unwrap_or(defaults.root))?,
            pool,
            ..default
        }))
    }
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

fn pool(file: &File, default: Pool) -> Result<Pool, Failure> {
    let range = file.pool.unwrap_or(default.range);
    let prefix = file.pool_prefix.unwrap_or(default.prefix);
    if range.trunc() != range || !(range.prefix_len()..=30).contains(&prefix) {
        return Err(Failure::usage(format!(
            "pool {range} cannot be parted into subnets of prefix /{prefix}"
        )));
    }
    Ok(Pool { range, prefix })
}

/// Helper processes run in another directory.
fn absolute(path: PathBuf) -> Result<PathBuf, Failure> {
    std::path::absolute(&path)
        .map_err(|e| Failure::usage(format!("directory {}: {e}", path.display())))
}
