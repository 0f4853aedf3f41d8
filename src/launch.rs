//! From what a user wishes and an image to the container that is wanted. Everything wrong with a
//! wish is found here, before anything changes.

mod error;
mod mounts;
mod security;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use oci_spec::image::ImageConfiguration;

pub(crate) use self::error::LaunchError;
use self::mounts::Mounts;
pub(crate) use self::security::{known_labels, label_options, refuse_labels};
use crate::config::Config;
use crate::names::Slug;
use crate::oci::health::Health;
use crate::oci::healthcheck::Healthcheck;
use crate::oci::id_range::IdRange;
use crate::oci::log_opts;
use crate::oci::process::{self, Overrides};
use crate::oci::selinux::context::Labels;
use crate::oci::spec::{Container, ImageRef, Limits, Volume};
use crate::oci::volume::Relabel;
use crate::oci::{restart, signal};
use crate::plan;
use crate::spec::{DAEMONS_VARIABLE, LaunchOptions};

/// The variable that tells a bundle which bottle it serves.
const SLUG_VARIABLE: &str = "CARBOY_SLUG";

/// The image label that names the daemons: `name`, or `name=port/tcp` for one that takes connections,
/// separated by commas.
const DAEMONS_LABEL: &str = "dev.carboy.daemons";

/// Where `--init` puts the init inside: `/sidecars` of the embedded image.
const INIT_PATH: &str = "/.carboy-init";

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
    /// The ids of its own user namespace, if it has one.
    pub(crate) userns: Option<IdRange>,
    /// What SELinux is to it.
    pub(crate) selinux: Labelling,
}

/// What SELinux is to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Labelling {
    /// Nothing: the host has none, or it is not wanted.
    Off,
    /// The host's policy has no labels for it.
    Unknown,
    /// These are its labels.
    On(Labels),
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
    let mut entries = mounts::environment_files(&options.run.env_files)?;
    // What is given by itself wins over the files, as with Docker.
    entries.extend(options.environment.iter().cloned());
    let (wanted, unset) = process::environment(&entries, inherited)?;
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
    let Mounts { mut volumes, image_volumes, tmpfs, secrets } =
        Mounts::of(of_image, options, &name, &place, inherited)?;
    if let Some(source) = image.init.clone() {
        let destination = INIT_PATH.into();
        let relabel = matches!(place.selinux, Labelling::On(_)).then_some(Relabel::Common);
        volumes.push(Volume { source, destination, read_only: true, idmap: false, relabel });
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
        image_volumes,
        tmpfs,
        secrets,
        limits: security::limits(&options.run.limits)?,
        security: security::of(&options.run.security)?,
        userns: place.userns,
        selinux: match place.selinux {
            Labelling::On(labels) => Some(labels),
            Labelling::Off | Labelling::Unknown => None,
        },
        read_only: options.run.read_only,
        init: options.run.init,
        stop_signal,
        log: log_opts::parse(&options.run.log_opts)?,
        health: Health::new(image.healthcheck, &options.run.health)?,
        restart: restart::parse(options.run.restart.as_deref().unwrap_or("no"))?,
        labels: options.run.labels.clone(),
    };
    let mut notes: Vec<String> = unset.iter().map(|name| process::left_out(name)).collect();
    notes.extend(security::without_effect(&container));
    Ok((container, notes))
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
    differ("tmpfs", mounts::tmpfs_list(there), mounts::tmpfs_list(wanted));
    differ("secrets", mounts::secret_list(there), mounts::secret_list(wanted));
    differ(
        "image's volumes",
        format!("{:?}", there.image_volumes),
        format!("{:?}", wanted.image_volumes),
    );
    differ("user namespace", userns(there), userns(wanted));
    differ("SELinux labels", labels(there), labels(wanted));
    differ("limits", limit_list(&there.limits), limit_list(&wanted.limits));
    differ("log", log_list(there), log_list(wanted));
    differ("read-only root", there.read_only.to_string(), wanted.read_only.to_string());
    differ("init", there.init.to_string(), wanted.init.to_string());
    differ("restart policy", there.restart.to_string(), wanted.restart.to_string());
    differ("health check", format!("{:?}", there.health), format!("{:?}", wanted.health));
    differ("labels", format!("{:?}", there.labels), format!("{:?}", wanted.labels));
    all.extend(mounts::changed_secrets(there, wanted));
    all.extend(security::differences(&there.security, &wanted.security));
    let variables = differing_variables(&there.process.env, &wanted.process.env);
    if !variables.is_empty() {
        all.push(format!("another value of {}", variables.join(", ")));
    }
    if all.is_empty() && there != wanted {
        all.push("settings of another installation".to_owned());
    }
    all
}

fn userns(container: &Container) -> String {
    container.userns.map_or_else(|| "of the host".to_owned(), |ids| format!("with the ids {ids}"))
}

fn labels(container: &Container) -> String {
    let both = container.selinux.as_ref().map(|l| format!("{} and {}", l.process, l.file));
    both.unwrap_or_else(|| "none".to_owned())
}

fn quote(text: &str) -> String {
    format!("{text:?}")
}

fn volume_list(container: &Container) -> String {
    let one = |v: &Volume| {
        let mode = if v.read_only { "ro" } else { "rw" };
        let idmap = if v.idmap { ",idmap" } else { "" };
        let label = match v.relabel {
            None | Some(Relabel::Common) => "",
            Some(Relabel::Shared) => ",z",
            Some(Relabel::Private) => ",Z",
        };
        format!("{}:{}:{mode}{idmap}{label}", v.source.display(), v.destination.display())
    };
    let mut all: Vec<String> = container.volumes.iter().map(one).collect();
    all.sort();
    format!("[{}]", all.join(" "))
}

fn log_list(container: &Container) -> String {
    format!("{} files of {} bytes", container.log.max_files, container.log.max_size)
}

fn limit_list(limits: &Limits) -> String {
    let show = |v: Option<u64>| v.map_or("none".to_owned(), |v| v.to_string());
    let mut all = format!(
        "memory {}, pids {}, cpu {}",
        show(limits.memory),
        show(limits.pids.map(u64::from)),
        show(limits.cpu_milli.map(u64::from))
    );
    if let Some(swap) = limits.memory_swap {
        all.push_str(&format!(", memory and swap {swap}"));
    }
    for (what, rates) in [("read", &limits.read_bps), ("write", &limits.write_bps)] {
        for rate in rates {
            all.push_str(&format!(
                ", {what} {} {}/s",
                rate.device.display(),
                rate.bytes_per_second
            ));
        }
    }
    all
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
    use crate::error::{Classify, ErrorKind};
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
        let ip = Ipv4Addr::new(10, 0, 0, 2);
        let selinux = Labelling::Off;
        let place = Place { ip, ip6: None, internal: false, userns: None, selinux };
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
    fn labels_for_volumes_are_nothing_where_there_are_no_labels() {
        let with = |volume: &str| {
            let volumes = vec![volume.to_owned()];
            made(&image(&[]), &LaunchOptions { volumes, ..LaunchOptions::default() })
        };
        let plain = with("/usr:/d");
        for label in ["z", "Z"] {
            let asked = with(&format!("/usr:/d:{label}"));
            assert_eq!(differences(&plain, &asked), [""; 0], "{label}");
        }
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
