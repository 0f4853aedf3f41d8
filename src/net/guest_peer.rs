//! The bundle's neighbour entry for the guest: ARP between them is dropped, so that neither can
//! take an address of the other.

use crate::net::diff::Differences;
use crate::net::error::Error;
use crate::net::netlink::{self, Route};
use crate::net::spec::{CONTAINER_IFNAME, GuestPeer, MacAddr};
use crate::net::{facts, link, netns};
use crate::presence::{Creation, Drift, Presence, Removal};

const FEATURE: &str = "neighbour tables (CONFIG_INET)";

fn object(spec: &GuestPeer) -> String {
    format!("neighbour {} in {}", spec.guest.ip, spec.netns.display())
}

/// Runs `work` inside with the index of `eth0`; `None` without the namespace or the interface.
fn inside<T: Send>(
    spec: &GuestPeer,
    work: impl AsyncFnOnce(&mut Route, u32) -> Result<T, Error> + Send,
) -> Result<Option<T>, Error> {
    let object = object(spec);
    let namespace = match netns::open(&spec.netns) {
        Ok(namespace) => namespace,
        Err(Error::Missing { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    netlink::run_in(&object, FEATURE, &namespace, async |route| {
        let answer = route.one(link::get_by_name(CONTAINER_IFNAME)).await?;
        match facts::link(route, "look up", answer)? {
            Some(link) => work(route, link.index).await.map(Some),
            None => Ok(None),
        }
    })
}

fn missing(spec: &GuestPeer) -> Error {
    Error::Missing { object: format!("{CONTAINER_IFNAME} in {}", spec.netns.display()) }
}

async fn read(route: &mut Route, index: u32, spec: &GuestPeer) -> Result<Option<MacAddr>, Error> {
    Ok(facts::pinned_neighbour(route.one(link::get_neighbour(index, spec.guest.ip)).await?))
}

async fn write(route: &mut Route, index: u32, spec: &GuestPeer) -> Result<(), Error> {
    route.all(vec![link::set_neighbour(index, spec.guest.ip, spec.guest.mac)]).await
}

/// Adds the entry if there is none.
///
/// # Errors
/// [`Error::Missing`] without the bundle's link, else what the kernel said.
pub fn create(spec: &GuestPeer) -> Result<Creation, Error> {
    inside(spec, async |route, index| {
        if read(route, index, spec).await?.is_some() {
            return Ok(Creation::Exists);
        }
        write(route, index, spec).await?;
        Ok(Creation::Created)
    })?
    .ok_or_else(|| missing(spec))
}

fn differences(spec: &GuestPeer, mac: Option<MacAddr>) -> Differences<()> {
    let mut found = Differences::new();
    found.expect((), object(spec), spec.guest.mac, mac);
    found
}

/// Compares the entry with the spec.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn observe(spec: &GuestPeer) -> Result<Presence, Error> {
    let mac = inside(spec, async |route, index| read(route, index, spec).await)?.flatten();
    Ok(match mac {
        None => Presence::Absent,
        mac => differences(spec, mac).into_presence(),
    })
}

/// Puts the entry right.
///
/// # Errors
/// [`Error::Missing`] without the bundle's link, else what the kernel said.
pub fn repair(spec: &GuestPeer, drift: &[Drift]) -> Result<(), Error> {
    if drift.is_empty() {
        return Ok(());
    }
    inside(spec, async |route, index| write(route, index, spec).await)?.ok_or_else(|| missing(spec))
}

/// Removes the entry; it goes with its link and its namespace, too.
///
/// # Errors
/// What the kernel said.
pub fn remove(spec: &GuestPeer) -> Result<Removal, Error> {
    let removed = inside(spec, async |route, index| {
        if read(route, index, spec).await? != Some(spec.guest.mac) {
            return Ok(Removal::Absent);
        }
        route.all(vec![link::delete_neighbour(index, spec.guest.ip)]).await?;
        Ok(Removal::Removed)
    })?;
    Ok(removed.unwrap_or(Removal::Absent))
}
