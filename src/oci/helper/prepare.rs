//! What a monitor makes before libcontainer starts the container: the root file system with
//! everything that carboy puts into it, and the specification of what runs on it.

use std::path::Path;

use libcontainer::oci_spec::runtime::Spec;

use super::protocol::StartRequest;
use crate::fsutil::PathContext;
use crate::oci::rootfs::Rootfs;
use crate::oci::runtime_error::RuntimeError;
use crate::oci::runtime_spec::{self, TmpfsPlace};
use crate::oci::selinux::relabel;
use crate::oci::spec::{Container, Volume};
use crate::oci::user::{self, ResolvedUser};
use crate::oci::user_namespace::{Mapping, as_root_of};
use crate::oci::volume::Relabel;
use crate::oci::{apparmor, cgroup, etc_files, process, runtime, secrets, staging};

/// What a container is started from.
pub(super) struct Prepared {
    pub(super) spec: Spec,
    pub(super) env: Vec<String>,
    /// Its user by the host's ids.
    pub(super) on_host: ResolvedUser,
}

/// The root file system with everything carboy puts into it, the specification of what runs on it,
/// and its environment.
///
/// # Errors
/// [`RuntimeError`]: what the image does not fit, or what the kernel said.
pub(super) fn prepare(request: &StartRequest) -> Result<Prepared, RuntimeError> {
    let mut container = request.container.clone();
    let mapping = container.userns.map(Mapping::new).transpose();
    let mapping = mapping.map_err(|source| RuntimeError::UserNamespace { source })?;
    let mapping = mapping.as_ref();
    label_volumes(&container)?;
    let rootfs = Rootfs::mount(&container, mapping)?;
    rootfs.check_mount_points()?;
    owned(mapping, &container, || write_files(&rootfs, request))?;
    let user = resolve_user(&rootfs, &container, &container.process.user)?;
    let on_host = on_host(&container, &user)?;
    let secrets = secrets::provide(&mut container, &request.secrets, &on_host)?;
    container.volumes.extend(secrets);
    let state = container.clone();
    let tmpfs = owned(mapping, &state, || make_places(&rootfs, &mut container))?;
    container.security.apparmor = apparmor::effective(container.security.apparmor.as_deref());
    let staged = mapping.map(|mapping| staging::build(&mut container, mapping)).transpose()?;
    let mount_point = match &staged {
        Some(staged) => staged.rootfs.clone(),
        None => Rootfs::mount_point(&container),
    };
    let cgroup = runtime::cgroups_path(&container)?;
    let mut spec = runtime_spec::build(&container, &user, &cgroup, &mount_point)
        .map_err(|e| RuntimeError::invalid(&container, &e))?;
    runtime_spec::add_tmpfs(&mut spec, &tmpfs, &container);
    if let (Some(staged), Some(range)) = (&staged, container.userns) {
        runtime_spec::in_user_namespace(&mut spec, range, &staged.sysfs);
    }
    if let Ok(possible) = std::fs::read_to_string("/sys/devices/system/cpu/possible") {
        runtime_spec::mask_thermal_throttle(&mut spec, &possible);
    }
    drop_default_pids_limit(&container, &mut spec)?;
    let env = environment(&container, &[], &user.home);
    Ok(Prepared { spec, env, on_host })
}

/// Does something to the root file system whose files belong to root inside.
fn owned<T>(
    mapping: Option<&Mapping>,
    container: &Container,
    act: impl FnOnce() -> Result<T, RuntimeError>,
) -> Result<T, RuntimeError> {
    as_root_of(mapping, act).at("take the ids of root for", &container.storage)?
}

/// Gives the volumes the labels that were asked for, where the container has labels.
fn label_volumes(container: &Container) -> Result<(), RuntimeError> {
    let Some(labels) = &container.selinux else { return Ok(()) };
    for Volume { source, relabel, .. } in &container.volumes {
        let label = match relabel {
            None => continue,
            Some(Relabel::Shared) => labels.shared(),
            Some(Relabel::Private) => labels.file.clone(),
            Some(Relabel::Common) => labels.common.clone(),
        };
        relabel::relabel(source, &label).map_err(|(path, source)| RuntimeError::Relabel {
            path,
            label,
            source,
        })?;
    }
    Ok(())
}

fn write_files(rootfs: &Rootfs, request: &StartRequest) -> Result<(), RuntimeError> {
    let container = &request.container;
    for (path, content) in [
        ("/etc/hosts", etc_files::hosts(container.ip, container.ip6, &container.slug)),
        ("/etc/hostname", etc_files::hostname(&container.slug)),
        ("/etc/resolv.conf", request.surroundings.resolv_conf.clone()),
    ] {
        // The user's own file wins.
        if !container.volumes.iter().any(|v| v.destination == Path::new(path)) {
            rootfs.write(Path::new(path), &content)?;
        }
    }
    Ok(())
}

/// The places of all mounts, and the working directory; what the image's own volumes are like.
fn make_places(
    rootfs: &Rootfs,
    container: &mut Container,
) -> Result<Vec<TmpfsPlace>, RuntimeError> {
    rootfs.place_mounts(container)?;
    let cwd = rootfs.make_working_dir(Path::new(&container.process.cwd))?;
    container.process.cwd = cwd.to_string_lossy().into_owned();
    // After all that is made in the root file system: nothing of it is hidden.
    let mut tmpfs = Vec::new();
    for inside in &container.image_volumes {
        tmpfs.extend(rootfs.tmpfs_place(inside)?);
    }
    if let Some(range) = container.userns {
        for place in &mut tmpfs {
            (place.uid, place.gid) = (range.to_inside(place.uid), range.to_inside(place.gid));
        }
    }
    Ok(tmpfs)
}

/// The user by the host's ids.
///
/// # Errors
/// [`RuntimeError::Invalid`] if the container's range has no such id.
pub(super) fn on_host(
    container: &Container,
    user: &ResolvedUser,
) -> Result<ResolvedUser, RuntimeError> {
    user.on_host(container.userns).map_err(|e| RuntimeError::invalid(container, &e))
}

/// Where the host has no controller for it the limit that nobody asked for is left out.
fn drop_default_pids_limit(container: &Container, spec: &mut Spec) -> Result<(), RuntimeError> {
    let there = cgroup::controllers()?.is_some_and(|all| all.contains("pids"));
    if !there && container.limits.pids.is_none() {
        let linux = spec.linux_mut().as_mut();
        if let Some(resources) = linux.and_then(|l| l.resources_mut().as_mut()) {
            resources.set_pids(None);
        }
    }
    Ok(())
}

/// The user that `text` means in the container's own files.
pub(super) fn resolve_user(
    rootfs: &Rootfs,
    container: &Container,
    text: &str,
) -> Result<ResolvedUser, RuntimeError> {
    let passwd = rootfs.read(Path::new("/etc/passwd"), user::FILE_MAX)?;
    let group = rootfs.read(Path::new("/etc/group"), user::FILE_MAX)?;
    user::resolve(text, &passwd, &group).map_err(|e| RuntimeError::invalid(container, &e))
}

/// The container's environment with `over` on top, and HOME as the user has it unless it is set.
pub(super) fn environment(container: &Container, over: &[String], home: &str) -> Vec<String> {
    let mut env = container.process.env.clone();
    over.iter().for_each(|entry| process::set(&mut env, entry));
    process::complete(&mut env, &[("HOME", home)]);
    env
}
