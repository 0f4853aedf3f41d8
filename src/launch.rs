//! From what a user wishes and an image to the container that is wanted. Everything wrong with a
//! wish is found here, before anything changes.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use oci_spec::image::ImageConfiguration;

use crate::config::Config;
use crate::error::{Classify, ErrorKind};
use crate::names::Slug;
use crate::oci::health::{Health, HealthError};
use crate::oci::healthcheck::Healthcheck;
use crate::oci::limits::{self, LimitError};
use crate::oci::process::{self, Overrides, ProcessError};
use crate::oci::restart::{self, RestartPolicyError};
use crate::oci::signal::{self, SignalError};
use crate::oci::spec::{Container, ImageRef, Limits, Volume};
use crate::oci::volume::{self, VolumeArg, VolumeError};
use crate::plan;
use crate::spec::{DAEMONS_VARIABLE, LaunchOptions};

/// The variable that tells a bundle which bottle it serves.
const SLUG_VARIABLE: &str = "CARBOY_SLUG";

/// The image label that names the daemons: `name`, or `name=port/tcp` for one that takes connections,
/// separated by commas.
const DAEMONS_LABEL: &str = "dev.carboy.daemons";

/// Where `--init` puts the init inside: `/sidecars` of the embedded image.
const INIT_PATH: &str = "/.carboy-init";

/// Volumes an image may declare; each is a mount.
const IMAGE_VOLUMES_MAX: usize = 64;

/// A wish that makes no container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The program or its environment.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A volume.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// A bound.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The image's stop signal.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// The restart policy.
    #[error(transparent)]
    Restart(#[from] RestartPolicyError),
    /// The health check.
    #[error(transparent)]
    Health(#[from] HealthError),
    /// A daemon that the image does not have.
    #[error("the image has no daemon {name:?}; it has {known}")]
    UnknownDaemon {
        /// As given.
        name: String,
        /// The names it has.
        known: String,
    },
    /// An image that declares more volumes than any real one.
    #[error("the image declares {count} volumes, at most {IMAGE_VOLUMES_MAX} are allowed")]
    ImageVolumes {
        /// How many.
        count: usize,
    },
    /// A volume's source that is not there.
    #[error("volume source {} does not exist", path.display())]
    NoVolumeSource {
        /// As given.
        path: PathBuf,
    },
    /// A volume's source that cannot be looked at.
    #[error("look at volume source {}", path.display())]
    VolumeSource {
        /// As given.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl Classify for LaunchError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Process(e) => e.kind(),
            Self::Volume(e) => e.kind(),
            Self::Limit(e) => e.kind(),
            Self::Signal(e) => e.kind(),
            Self::Restart(e) => e.kind(),
            Self::Health(e) => e.kind(),
            Self::UnknownDaemon { .. } | Self::ImageVolumes { .. } => ErrorKind::Invalid,
            Self::NoVolumeSource { .. } => ErrorKind::NotFound,
            Self::VolumeSource { .. } => ErrorKind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Process(e) => e.hint(),
            Self::Volume(e) => e.hint(),
            Self::Limit(e) => e.hint(),
            Self::Signal(e) => e.hint(),
            Self::Restart(e) => e.hint(),
            Self::Health(e) => e.hint(),
            Self::NoVolumeSource { .. } => {
                Some("carboy makes no directory on the host: create it first".to_owned())
            }
            Self::UnknownDaemon { .. } | Self::ImageVolumes { .. } | Self::VolumeSource { .. } => {
                None
            }
        }
    }
}

/// The image a container is launched from.
pub(crate) struct LaunchImage<'a> {
    pub(crate) image: ImageRef,
    pub(crate) config: &'a ImageConfiguration,
    pub(crate) healthcheck: Option<&'a Healthcheck>,
    pub(crate) layers: Vec<PathBuf>,
    /// The init's program on the host, if one is wanted.
    pub(crate) init: Option<PathBuf>,
}

/// Where a container stands in its network.
pub(crate) struct Place {
    pub(crate) ip: Ipv4Addr,
    pub(crate) ip6: Option<Ipv6Addr>,
    pub(crate) internal: bool,
}

/// The container, and what the user should know about it.
pub(crate) fn container(
    config: &Config,
    slug: &Slug,
    place: Place,
    image: LaunchImage<'_>,
    options: &LaunchOptions,
    inherited: &impl Fn(&str) -> Option<String>,
) -> Result<(Container, Vec<String>), LaunchError> {
    let name = config.prefix.container(slug);
    let (wanted, unset) = process::environment(&options.environment, inherited)?;
    let mut env = vec![format!("{SLUG_VARIABLE}={slug}")];
    env.extend(options.daemons_csv.iter().map(|csv| format!("{DAEMONS_VARIABLE}={csv}")));
    // The user's own entries come last and win.
    env.extend(wanted);
    let overrides = Overrides {
        entrypoint: options.run.entrypoint.clone().map(|program| vec![program]),
        command: options.run.command.clone(),
        env,
        cwd: options.run.workdir.clone(),
        user: options.run.user.clone(),
    };
    let of_image = image.config.config().as_ref();
    let mut process = process::merge(of_image, &overrides)?;
    let mut volumes = volumes(&options.volumes)?;
    let tmpfs = image_volumes(of_image, &volumes)?;
    if let Some(source) = image.init.clone() {
        volumes.push(Volume { source, destination: INIT_PATH.into(), read_only: true });
        let init = [INIT_PATH, "init", "--"].map(str::to_owned);
        process.args.splice(0..0, init);
    }
    let stop_signal = match of_image.and_then(|c| c.stop_signal().as_deref()) {
        Some(text) => signal::parse(text)?,
        None => libc::SIGTERM,
    };
    let container = Container {
        state: plan::run_dir(&config.state, &name),
        storage: config.storage(&name),
        netns: plan::netns_path(&config.netns, &name),
        name,
        slug: slug.clone(),
        image: image.image,
        layers: image.layers,
        ip: place.ip,
        ip6: place.ip6,
        internal: place.internal,
        ready_ports: ready_ports(of_image, options, &process.env)?,
        process,
        volumes,
        tmpfs,
        limits: parse_limits(options)?,
        read_only: options.run.read_only,
        init: options.run.init,
        stop_signal,
        health: Health::new(image.healthcheck, &options.run.health)?,
        restart: restart::parse(options.run.restart.as_deref().unwrap_or("no"))?,
        labels: options.run.labels.clone(),
    };
    Ok((container, unset.iter().map(|name| process::left_out(name)).collect()))
}

/// The ports of the image's daemons that are selected; none if the image declares no daemons, or
/// if something else is run.
fn ready_ports(
    image: Option<&oci_spec::image::Config>,
    options: &LaunchOptions,
    env: &[String],
) -> Result<Vec<u16>, LaunchError> {
    let label = image.and_then(|c| c.labels().as_ref()?.get(DAEMONS_LABEL));
    let Some(label) = label else { return Ok(Vec::new()) };
    if options.run.entrypoint.is_some() || !options.run.command.is_empty() {
        return Ok(Vec::new());
    }
    let declared: Vec<(&str, &str)> =
        label.split(',').map(str::trim).map(|e| e.split_once('=').unwrap_or((e, ""))).collect();
    let selection = env.iter().find_map(|e| e.strip_prefix(DAEMONS_VARIABLE)?.strip_prefix('='));
    let selected: Vec<&str> = match selection {
        None => declared.iter().map(|(name, _)| *name).collect(),
        Some(csv) => csv.split(',').map(str::trim).filter(|name| !name.is_empty()).collect(),
    };
    let mut ports = Vec::new();
    for name in selected {
        let Some((_, port)) = declared.iter().find(|(known, _)| *known == name) else {
            let known = declared.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", ");
            return Err(LaunchError::UnknownDaemon { name: name.to_owned(), known });
        };
        ports.extend(port.strip_suffix("/tcp").and_then(|port| port.parse::<u16>().ok()));
    }
    Ok(ports)
}

fn parse_limits(options: &LaunchOptions) -> Result<Limits, LaunchError> {
    let wanted = &options.run.limits;
    Ok(Limits {
        memory: wanted.memory.as_deref().map(limits::parse_memory).transpose()?,
        pids: wanted.pids.as_deref().map(limits::parse_pids).transpose()?,
        cpu_milli: wanted.cpus.as_deref().map(limits::parse_cpus).transpose()?,
    })
}

/// The volumes, the outer ones before those that lie in them.
fn volumes(wanted: &[String]) -> Result<Vec<Volume>, LaunchError> {
    let parsed = wanted.iter().map(|v| volume::parse(v)).collect::<Result<Vec<VolumeArg>, _>>()?;
    volume::check(&parsed)?;
    let mut volumes = Vec::with_capacity(parsed.len());
    for VolumeArg { source, destination, read_only } in parsed {
        volumes.push(Volume { source: resolve(&source)?, destination, read_only });
    }
    volumes.sort_by_key(|v| v.destination.components().count());
    Ok(volumes)
}

/// The volumes that the image declares, as far as they get a file system of their own.
fn image_volumes(
    image: Option<&oci_spec::image::Config>,
    taken: &[Volume],
) -> Result<Vec<PathBuf>, LaunchError> {
    let declared = image.and_then(|config| config.volumes().as_deref()).unwrap_or_default();
    let places = volume::of_image(declared, taken);
    if places.len() > IMAGE_VOLUMES_MAX {
        return Err(LaunchError::ImageVolumes { count: places.len() });
    }
    Ok(places)
}

/// Without symbolic links: what is mounted is what was looked at.
fn resolve(source: &Path) -> Result<PathBuf, LaunchError> {
    fs::canonicalize(source).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => LaunchError::NoVolumeSource { path: source.to_owned() },
        _ => LaunchError::VolumeSource { path: source.to_owned(), source: e },
    })
}

/// What differs between the container that is there and the one that is wanted, for people.
/// Values of environment variables are never told.
pub(crate) fn differences(there: &Container, wanted: &Container) -> Vec<String> {
    let mut all = Vec::new();
    let mut differ = |what: &str, a: String, b: String| {
        if a != b {
            all.push(format!("{what} {a} (wanted: {b})"));
        }
    };
    let join = |args: &[String]| format!("[{}]", args.join(" "));
    differ("image", there.image.digest.to_string(), wanted.image.digest.to_string());
    differ("IP", there.ip.to_string(), wanted.ip.to_string());
    differ("command", join(&there.process.args), join(&wanted.process.args));
    differ("user", quote(&there.process.user), quote(&wanted.process.user));
    differ("working directory", there.process.cwd.clone(), wanted.process.cwd.clone());
    differ("volumes", volume_list(there), volume_list(wanted));
    differ("image's volumes", format!("{:?}", there.tmpfs), format!("{:?}", wanted.tmpfs));
    differ("limits", limit_list(&there.limits), limit_list(&wanted.limits));
    differ("read-only root", there.read_only.to_string(), wanted.read_only.to_string());
    differ("init", there.init.to_string(), wanted.init.to_string());
    differ("restart policy", there.restart.to_string(), wanted.restart.to_string());
    differ("health check", format!("{:?}", there.health), format!("{:?}", wanted.health));
    differ("labels", format!("{:?}", there.labels), format!("{:?}", wanted.labels));
    let variables = differing_variables(&there.process.env, &wanted.process.env);
    if !variables.is_empty() {
        all.push(format!("another value of {}", variables.join(", ")));
    }
    if all.is_empty() && there != wanted {
        all.push("settings of another installation".to_owned());
    }
    all
}

fn quote(text: &str) -> String {
    format!("{text:?}")
}

fn volume_list(container: &Container) -> String {
    let one = |v: &Volume| {
        let mode = if v.read_only { "ro" } else { "rw" };
        format!("{}:{}:{mode}", v.source.display(), v.destination.display())
    };
    let mut all: Vec<String> = container.volumes.iter().map(one).collect();
    all.sort();
    format!("[{}]", all.join(" "))
}

fn limit_list(limits: &Limits) -> String {
    let show = |v: Option<u64>| v.map_or("none".to_owned(), |v| v.to_string());
    format!(
        "memory {}, pids {}, cpu {}",
        show(limits.memory),
        show(limits.pids.map(u64::from)),
        show(limits.cpu_milli.map(u64::from))
    )
}

/// The names of the variables that are not the same in both.
fn differing_variables(a: &[String], b: &[String]) -> Vec<String> {
    let name = |entry: &String| entry.split('=').next().unwrap_or_default().to_owned();
    let only = |x: &[String], y: &[String]| {
        x.iter().filter(|e| !y.contains(e)).map(name).collect::<Vec<_>>()
    };
    let mut names = only(a, b);
    names.extend(only(b, a));
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use oci_spec::image::{ConfigBuilder, ImageConfiguration, ImageConfigurationBuilder};

    use super::*;
    use crate::oci::digest::Digest;
    use crate::spec::RunOptions;

    fn image(labels: &[(&str, &str)]) -> ImageConfiguration {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let config = ConfigBuilder::default()
            .entrypoint(vec!["/sidecars".to_owned()])
            .labels(labels.collect::<std::collections::HashMap<_, _>>())
            .build()
            .unwrap();
        let rootfs =
            oci_spec::image::RootFsBuilder::default().diff_ids(Vec::new()).build().unwrap();
        ImageConfigurationBuilder::default().config(config).rootfs(rootfs).build().unwrap()
    }

    fn made(config: &ImageConfiguration, options: &LaunchOptions) -> Container {
        attempt(config, options).unwrap()
    }

    fn attempt(
        config: &ImageConfiguration,
        options: &LaunchOptions,
    ) -> Result<Container, LaunchError> {
        let digest = Digest::of(b"");
        let image = LaunchImage {
            image: ImageRef { reference: "test".into(), digest },
            config,
            healthcheck: None,
            layers: Vec::new(),
            init: None,
        };
        let place = Place { ip: Ipv4Addr::new(10, 0, 0, 2), ip6: None, internal: false };
        let slug = Slug::new("demo").unwrap();
        let made = container(&Config::default(), &slug, place, image, options, &|_| None);
        made.map(|(container, _)| container)
    }

    #[test]
    fn selected_daemons_are_waited_for() {
        let config = image(&[(DAEMONS_LABEL, "health=9000/tcp, echo=9001/tcp,dns=53/udp,mute")]);
        let with = |daemons: Option<&str>, command: &[&str]| {
            let command = command.iter().map(|c| (*c).to_owned()).collect();
            let daemons_csv = daemons.map(str::to_owned);
            let run = RunOptions { command, ..RunOptions::default() };
            let options = LaunchOptions { daemons_csv, run, ..LaunchOptions::default() };
            made(&config, &options).ready_ports
        };
        assert_eq!(with(None, &[]), [9000, 9001]);
        assert_eq!(with(Some("echo, dns,mute,"), &[]), [9001]);
        assert_eq!(with(Some(""), &[]), [0; 0]);
        assert_eq!(with(None, &["sh"]), [0; 0]);
        assert_eq!(made(&image(&[]), &LaunchOptions::default()).ready_ports, [0; 0]);
    }

    #[test]
    fn a_daemon_the_image_does_not_have_is_named_with_those_it_has() {
        let config = image(&[(DAEMONS_LABEL, "health=9000/tcp,echo=9001/tcp")]);
        let daemons_csv = Some("health,nope".to_owned());
        let error = attempt(&config, &LaunchOptions { daemons_csv, ..LaunchOptions::default() });
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(error.to_string(), "the image has no daemon \"nope\"; it has health, echo");
    }

    #[test]
    fn the_users_environment_wins_over_ours() {
        let environment = vec![format!("{DAEMONS_VARIABLE}=b"), "CARBOY_SLUG=x".to_owned()];
        let daemons_csv = Some("a".to_owned());
        let options = LaunchOptions { daemons_csv, environment, ..LaunchOptions::default() };
        let env = made(&image(&[]), &options).process.env;
        assert!(env.contains(&format!("{DAEMONS_VARIABLE}=b")), "{env:?}");
        assert!(env.contains(&"CARBOY_SLUG=x".to_owned()), "{env:?}");
        assert_eq!(env.iter().filter(|e| e.starts_with("CARBOY_SLUG=")).count(), 1);
    }

    #[test]
    fn differences_name_a_variable_and_never_its_value() {
        let config = image(&[]);
        let with = |value: &str| {
            let environment = vec![format!("TOKEN={value}"), "SAME=1".to_owned()];
            made(&config, &LaunchOptions { environment, ..LaunchOptions::default() })
        };
        let all = differences(&with("hunter2"), &with("hunter3")).join("; ");
        assert!(all.contains("TOKEN") && !all.contains("hunter") && !all.contains("SAME"), "{all}");
        assert!(differences(&with("x"), &with("x")).is_empty());
    }
}
