//! What a container is given of the host's files, of memory and of secrets. Asks the file system
//! where a source is, and reads the files that hold variables and secrets.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Labelling, LaunchError, Place};
use crate::names::ContainerName;
use crate::oci::env_file;
use crate::oci::secret::{self, Secret, SecretError, SecretSource};
use crate::oci::selinux::places;
use crate::oci::spec::{Container, Volume};
use crate::oci::tmpfs::{self, Tmpfs};
use crate::oci::volume::{self, VolumeArg, VolumeError};
use crate::spec::LaunchOptions;

/// Volumes an image may declare; each is a mount.
pub(super) const IMAGE_VOLUMES_MAX: usize = 64;

/// Everything that is mounted at the user's wish, or at the image's.
pub(super) struct Mounts {
    /// The outer ones before those that lie in them.
    pub(super) volumes: Vec<Volume>,
    pub(super) image_volumes: Vec<PathBuf>,
    pub(super) tmpfs: Vec<Tmpfs>,
    pub(super) secrets: Vec<Secret>,
}

impl Mounts {
    /// Reads and checks all wishes, also against each other.
    pub(super) fn of(
        image: Option<&oci_spec::image::Config>,
        options: &LaunchOptions,
        name: &ContainerName,
        place: &Place,
        inherited: &impl Fn(&str) -> Option<String>,
    ) -> Result<Self, LaunchError> {
        let (run, userns) = (&options.run, place.userns);
        let parsed: Vec<VolumeArg> =
            options.volumes.iter().map(|v| volume::parse(v)).collect::<Result<_, _>>()?;
        let mut tmpfs: Vec<Tmpfs> =
            run.tmpfs.iter().map(|t| tmpfs::parse(t)).collect::<Result<_, _>>()?;
        let mut taken: Vec<PathBuf> = parsed.iter().map(|v| v.destination.clone()).collect();
        taken.extend(tmpfs.iter().map(|t| t.destination.clone()));
        volume::check(taken.iter().map(PathBuf::as_path))?;
        let secrets = secrets(&run.secrets, name, inherited)?;
        let hidden = taken.iter().find(|d| !secrets.is_empty() && secret::is_in_the_way(d));
        if let Some(destination) = hidden {
            let (destination, reason) = (destination.clone(), "the secrets are there");
            return Err(VolumeError::Reserved { destination, reason }.into());
        }
        taken.extend((!secrets.is_empty()).then(|| PathBuf::from(secret::DIRECTORY)));
        let image_volumes = image_volumes(image, &taken)?;
        if run.read_only && !run.no_read_only_tmpfs {
            taken.extend(image_volumes.iter().cloned());
            tmpfs.extend(tmpfs::of_read_only_root(&taken));
        }
        for Tmpfs { uid, gid, .. } in &tmpfs {
            userns.map(|range| range.to_host("user", *uid)).transpose()?;
            userns.map(|range| range.to_host("group", *gid)).transpose()?;
        }
        tmpfs.sort_by(|a, b| a.destination.cmp(&b.destination));
        let mut volumes = Vec::with_capacity(parsed.len());
        for VolumeArg { source, destination, read_only, idmap, relabel } in parsed {
            if idmap && userns.is_none() {
                return Err(LaunchError::NothingToMap { path: source });
            }
            let relabel = match place.selinux {
                Labelling::On(_) => relabel,
                // Asking is no mistake there, as with Docker, and makes no other bundle.
                Labelling::Off => None,
                Labelling::Unknown if relabel.is_none() => None,
                Labelling::Unknown => return Err(LaunchError::NoContainerLabels),
            };
            let source = resolve(&source)?;
            if source == Path::new("/") {
                return Err(VolumeError::HostRoot.into());
            }
            if relabel.is_some() && places::is_refused(&source) {
                return Err(LaunchError::RefusedRelabel { path: source });
            }
            volumes.push(Volume { source, destination, read_only, idmap, relabel });
        }
        volumes.sort_by_key(|v| v.destination.components().count());
        Ok(Self { volumes, image_volumes, tmpfs, secrets })
    }
}

/// The volumes that the image declares, as far as they get a file system of their own.
fn image_volumes(
    image: Option<&oci_spec::image::Config>,
    taken: &[PathBuf],
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

/// The entries of all files, in order.
pub(super) fn environment_files(files: &[PathBuf]) -> Result<Vec<String>, LaunchError> {
    let mut entries = Vec::new();
    for path in files {
        let content = read("environment file", path, env_file::FILE_MAX)?;
        if content.len() > env_file::FILE_MAX {
            return Err(LaunchError::LargeEnvFile { path: path.clone() });
        }
        let parsed = env_file::parse(&content);
        entries
            .extend(parsed.map_err(|source| LaunchError::EnvFile { path: path.clone(), source })?);
    }
    Ok(entries)
}

fn secrets(
    wanted: &[String],
    name: &ContainerName,
    inherited: &impl Fn(&str) -> Option<String>,
) -> Result<Vec<Secret>, LaunchError> {
    let parsed = secret::parse_all(wanted)?;
    if parsed.is_empty() {
        return Ok(Vec::new());
    }
    let salt = salt(name)?;
    let mut secrets = Vec::with_capacity(parsed.len());
    for arg in parsed {
        let content = match arg.source {
            SecretSource::File(path) => read("secret", &path, secret::SIZE_MAX)?,
            SecretSource::Variable(variable) => match inherited(&variable) {
                Some(value) => value.into_bytes(),
                None => return Err(SecretError::Unset { name: arg.name, variable }.into()),
            },
        };
        secrets.push(Secret::new(arg.name, content, &salt)?);
    }
    Ok(secrets)
}

/// Random, and the same until the next boot: no record outlives that.
fn salt(name: &ContainerName) -> Result<Vec<u8>, LaunchError> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let mut salt = fs::read(path).map_err(|source| LaunchError::File {
        what: "the salt",
        path: path.to_owned(),
        source,
    })?;
    salt.extend_from_slice(name.as_str().as_bytes());
    Ok(salt)
}

/// At most one byte more than `limit`, so that a longer file is seen as one.
fn read(what: &'static str, path: &Path, limit: usize) -> Result<Vec<u8>, LaunchError> {
    let failed = |source| LaunchError::File { what, path: path.to_owned(), source };
    let mut content = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(limit as u64 + 1).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}

pub(super) fn tmpfs_list(container: &Container) -> String {
    let one = |t: &Tmpfs| format!("{}:{}", t.destination.display(), t.options().join(","));
    let all: Vec<String> = container.tmpfs.iter().map(one).collect();
    format!("[{}]", all.join(" "))
}

pub(super) fn secret_list(container: &Container) -> String {
    let all: Vec<&str> = container.secrets.iter().map(|s| s.name.as_str()).collect();
    format!("[{}]", all.join(" "))
}

/// The secrets of both that have another content.
pub(super) fn changed_secrets(there: &Container, wanted: &Container) -> Option<String> {
    let differs = |s: &&Secret| there.secrets.iter().any(|t| t.name == s.name && t != *s);
    let names: Vec<&str> = wanted.secrets.iter().filter(differs).map(|s| s.name.as_str()).collect();
    (!names.is_empty()).then(|| format!("another content of secret {}", names.join(", ")))
}
