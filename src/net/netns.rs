//! A named network namespace, as `ip netns` knows them: a file on which the namespace is mounted.
//!
//! `ip netns add` makes /run/netns itself a shared mount point, so that an unmount reaches other
//! mount namespaces. That mount would stay behind; it is not made here. The bind mount propagates
//! as the directory's own mount does (/run is shared on all systemd hosts), and where copies of it
//! sit in other mount namespaces, unlink(2) of the file detaches them (Linux 3.18).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::statfs;

use crate::net::diff::{Differences, on_off};
use crate::net::error::Error;
use crate::net::facts;
use crate::net::link;
use crate::net::netlink;
use crate::net::spec::Netns;
use crate::net::sysctl;
use crate::presence::{Creation, Drift, Presence, Removal};

const FEATURE: &str = "network namespaces (CONFIG_NET_NS)";

/// `lo` is 1 in every network namespace.
const LOOPBACK: u32 = 1;

/// What marks a namespace as ours: the alias of its `lo`, set before the namespace is mounted.
const ALIAS: &str = "carboy";

/// Where IPv6 is switched: for all, for what comes later, and for the one that is there. In this
/// order, for `all` sets the others too.
const IPV6_SWITCHES: [&str; 3] = ["all", "default", "lo"];

fn object(spec: &Netns) -> String {
    format!("network namespace {}", spec.name)
}

/// Opens a namespace by its path; without a mount on it the file is none.
pub(crate) fn open(path: &Path) -> Result<File, Error> {
    let object = format!("network namespace {}", path.display());
    match File::open(path) {
        Ok(file) if is_namespace(&object, path)? => Ok(file),
        Ok(_) => Err(Error::Missing { object }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::Missing { object }),
        Err(e) => Err(Error::file(&object, "open", e)),
    }
}

/// Makes the namespace if its path is free: IPv6 off inside but for `lo` where it is wanted, `lo`
/// up, sockets open to all programs where that is wanted. `held` is one that lives on though its mount is gone: then that one is mounted there again.
///
/// # Errors
/// What the kernel said; the path is free again then.
pub fn create(spec: &Netns, held: Option<&File>) -> Result<Creation, Error> {
    let object = object(spec);
    if let Some(directory) = spec.path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .map_err(|e| Error::file(&object, "make the directory of", e))?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o444).open(&spec.path) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(Creation::Exists),
        Err(e) => return Err(Error::file(&object, "make the file of", e)),
    }
    if let Err(error) = mount_held_or_new(spec, held) {
        // The first error says what went wrong; a file that stays is half made, which observe and
        // remove know how to handle.
        fs::remove_file(&spec.path).ok();
        return Err(error);
    }
    Ok(Creation::Created)
}

fn mount_held_or_new(spec: &Netns, held: Option<&File>) -> Result<(), Error> {
    let Some(held) = held else { return make(spec) };
    let source = format!("/proc/thread-self/fd/{}", held.as_raw_fd());
    bind(spec, Path::new(&source))?;
    // Nobody could look at it until now.
    match observe(spec)? {
        Presence::Drifted(drift) => repair(spec, &drift, None),
        _ => Ok(()),
    }
}

/// Makes a namespace and mounts it on the file, last of all: what is mounted is complete.
fn make(spec: &Netns) -> Result<(), Error> {
    let object = object(spec);
    netlink::on_thread(&object, || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|e| Error::system(&object, "make", e))?;
        switch_ipv6(spec)?;
        if spec.open_sockets {
            sysctl::open_sockets(&object)?;
        }
        netlink::block_on(&object, FEATURE, async |route| {
            route.all(vec![link::set_up(LOOPBACK), link::set_alias(LOOPBACK, ALIAS)]).await
        })?;
        bind(spec, Path::new("/proc/thread-self/ns/net"))
    })
}

fn bind(spec: &Netns, namespace: &Path) -> Result<(), Error> {
    let none: Option<&str> = None;
    mount(Some(namespace), &spec.path, none, MsFlags::MS_BIND, none)
        .map_err(|e| Error::system(&object(spec), "mount", e))
}

/// Off for all there is and comes; on for `lo` alone, if at all. The veth pair turns it on for its
/// own end. Works on the thread's namespace.
fn switch_ipv6(spec: &Netns) -> Result<(), Error> {
    let object = object(spec);
    for switch in IPV6_SWITCHES {
        sysctl::disable_ipv6(&object, switch)?;
    }
    if spec.ipv6 { sysctl::enable_ipv6(&object, "lo") } else { Ok(()) }
}

/// What stands at the path.
enum Look {
    Absent,
    /// A file on which nothing is mounted: a creation was cut short.
    HalfMade,
    Namespace(File),
    Foreign(String),
}

fn look(spec: &Netns) -> Result<Look, Error> {
    let object = object(spec);
    let metadata = match fs::symlink_metadata(&spec.path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Look::Absent),
        Err(e) => return Err(Error::file(&object, "look at", e)),
    };
    let path = spec.path.display();
    if !metadata.is_file() {
        return Ok(Look::Foreign(format!("{path}, which is no regular file")));
    }
    if !is_namespace(&object, &spec.path)? {
        return Ok(match metadata.len() {
            0 => Look::HalfMade,
            n => Look::Foreign(format!("{path}, a file of {n} bytes")),
        });
    }
    let file = open(&spec.path)?;
    // An inode of nsfs is the namespace.
    let host = netlink::current_namespace(&object)?;
    let inode =
        |f: &File| f.metadata().map(|m| m.ino()).map_err(|e| Error::file(&object, "look at", e));
    if inode(&file)? == inode(&host)? {
        return Ok(Look::Foreign(format!("{path}, the host's own network namespace")));
    }
    let alias = netlink::run_in(&object, FEATURE, &file, async |route| {
        let answer = route.one(link::get(LOOPBACK)).await?;
        Ok(facts::link(route, "read", answer)?.and_then(|lo| lo.alias))
    });
    match alias {
        Ok(Some(alias)) if alias == ALIAS => Ok(Look::Namespace(file)),
        Ok(_) => Ok(Look::Foreign(format!("{path}, a namespace that somebody else made"))),
        Err(e) if e.errno() == Some(libc::EINVAL) => {
            Ok(Look::Foreign(format!("{path}, a namespace of another kind")))
        }
        Err(e) => Err(e),
    }
}

fn is_namespace(object: &str, path: &Path) -> Result<bool, Error> {
    let found = statfs(path).map_err(|e| Error::system(object, "look at", e))?;
    Ok(found.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
}

/// What is repaired as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Mount,
    Ipv6,
    Sockets,
    Loopback,
}

fn differences(spec: &Netns, namespace: Option<&File>) -> Result<Differences<Part>, Error> {
    let object = object(spec);
    let mut found = Differences::new();
    let Some(namespace) = namespace else {
        found.expect(Part::Mount, format!("netns {}", spec.name), "mounted", None);
        return Ok(found);
    };
    let (switches, sockets, loopback) =
        netlink::run_in(&object, FEATURE, namespace, async |route| {
            let mut switches = Vec::new();
            for switch in IPV6_SWITCHES {
                switches.push((switch, sysctl::ipv6_is_disabled(&object, switch)?));
            }
            let mut sockets = Vec::new();
            for (name, want) in sysctl::OPEN_SOCKETS.into_iter().filter(|_| spec.open_sockets) {
                sockets.push((name, want, sysctl::read_ipv4(&object, name)?));
            }
            let answer = route.one(link::get(LOOPBACK)).await?;
            Ok((switches, sockets, facts::link(route, "read", answer)?))
        })?;
    for (switch, disabled) in switches {
        let resource = format!("netns {} IPv6 {switch}", spec.name);
        found.expect_if_known(
            Part::Ipv6,
            resource,
            on_off(spec.ipv6 && switch == "lo"),
            disabled.map(|disabled| on_off(!disabled)),
        );
    }
    for (name, want, value) in sockets {
        let resource = format!("netns {} net.ipv4.{name}", spec.name);
        // The kernel parts two numbers by a tab.
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        found.expect(Part::Sockets, resource, words(want), value.as_deref().map(words));
    }
    let state = loopback.map(|l| if l.up { "up" } else { "down" });
    found.expect(Part::Loopback, format!("netns {} lo", spec.name), "up", state);
    Ok(found)
}

/// Compares the namespace with the spec.
///
/// # Errors
/// If it cannot be looked at.
pub fn observe(spec: &Netns) -> Result<Presence, Error> {
    Ok(match look(spec)? {
        Look::Absent => Presence::Absent,
        Look::Foreign(found) => Presence::Foreign(found),
        Look::HalfMade => differences(spec, None)?.into_presence(),
        Look::Namespace(file) => differences(spec, Some(&file))?.into_presence(),
    })
}

/// Puts right what differs; a namespace that is there stays the same, and so does one that is
/// `held` though it is not mounted any more.
///
/// # Errors
/// [`Error::Missing`] if it is gone, [`Error::Foreign`] if it is not ours, else what the kernel
/// said.
pub fn repair(spec: &Netns, drift: &[Drift], held: Option<&File>) -> Result<(), Error> {
    let object = object(spec);
    let namespace = match look(spec)? {
        Look::Absent => return Err(Error::Missing { object }),
        Look::Foreign(found) => return Err(Error::Foreign { object, found }),
        Look::HalfMade => return mount_held_or_new(spec, held),
        Look::Namespace(file) => file,
    };
    let parts = differences(spec, Some(&namespace))?.parts(drift);
    netlink::run_in(&object, FEATURE, &namespace, async |route| {
        for part in parts {
            match part {
                Part::Ipv6 => switch_ipv6(spec)?,
                Part::Sockets => sysctl::open_sockets(&object)?,
                Part::Loopback => route.all(vec![link::set_up(LOOPBACK)]).await?,
                // Only a half-made namespace lacks its mount.
                Part::Mount => {}
            }
        }
        Ok(())
    })
}

/// The processes in the namespace at this path, sorted; none if there is no namespace.
///
/// # Errors
/// If /proc cannot be read.
pub fn processes(path: &Path) -> Result<Vec<u32>, Error> {
    let object = format!("network namespace {}", path.display());
    let failed = |e| Error::file(&object, "find the processes in", e);
    let namespace = match open(path) {
        Ok(file) => file.metadata().map_err(failed)?.ino(),
        Err(Error::Missing { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut inside = Vec::new();
    for entry in fs::read_dir("/proc").map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that ended meanwhile is in no namespace.
        let of = fs::metadata(entry.path().join("ns/net"));
        if of.is_ok_and(|of| of.ino() == namespace) {
            inside.push(pid);
        }
    }
    inside.sort_unstable();
    Ok(inside)
}

/// Removes the namespace's mount and file. The namespace itself goes with the last process in it.
///
/// # Errors
/// What the kernel said.
pub fn remove(spec: &Netns) -> Result<Removal, Error> {
    let object = object(spec);
    match look(spec)? {
        Look::Absent | Look::Foreign(_) => return Ok(Removal::Absent),
        Look::HalfMade | Look::Namespace(_) => {}
    }
    match unmount_and_unlink(&object, &spec.path) {
        Err(e) if e.errno() == Some(libc::EBUSY) => unlink_elsewhere(&object, &spec.path)?,
        result => result?,
    }
    Ok(Removal::Removed)
}

fn unmount_and_unlink(object: &str, path: &Path) -> Result<(), Error> {
    // Mounts may lie on top of each other, after a repair of a half-made one for instance.
    while is_namespace(object, path)? {
        umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
            .map_err(|e| Error::system(object, "unmount", e))?;
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::file(object, "unlink the file of", e))
        }
        _ => Ok(()),
    }
}

/// Unlinks the file although a mount on it cannot be reached: where /run is private, `ip netns add`
/// covers the directory with a copy of itself, and the first mount with it.
///
/// In a mount namespace of its own the cover can be taken away without anybody noticing, and
/// unlink(2) then detaches the mount in all others.
fn unlink_elsewhere(object: &str, path: &Path) -> Result<(), Error> {
    let none: Option<&str> = None;
    netlink::on_thread(object, || {
        unshare(CloneFlags::CLONE_NEWNS)
            .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
            .map_err(|e| Error::system(object, "make a mount namespace to unmount", e))?;
        loop {
            let covered = match unmount_and_unlink(object, path) {
                Err(e) if e.errno() == Some(libc::EBUSY) => e,
                result => return result,
            };
            let cover = path.parent().map(|directory| umount2(directory, MntFlags::MNT_DETACH));
            if !matches!(cover, Some(Ok(()))) {
                return Err(covered);
            }
        }
    })
}
