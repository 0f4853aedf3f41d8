//! The bundle's neighbour entry for the guest: ARP between them is dropped, so that neither can
//! take an address of the other.

use std::net::IpAddr;

use crate::net::diff::Differences;
use crate::net::error::Error;
use crate::net::netlink::{self, Route};
use crate::net::spec::{CONTAINER_IFNAME, GuestPeer, MacAddr};
use crate::net::{address, facts, link, netns};
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

/// The guest's addresses.
fn addresses(spec: &GuestPeer) -> Vec<IpAddr> {
    let ip6 = spec.guest.ip6.map(IpAddr::V6);
    [IpAddr::V4(spec.guest.ip)].into_iter().chain(ip6).collect()
}

/// The entries for each of the addresses, as far as they are there.
async fn read(
    route: &mut Route,
    index: u32,
    spec: &GuestPeer,
) -> Result<Vec<(IpAddr, Option<MacAddr>)>, Error> {
    let mut entries = Vec::new();
    for ip in addresses(spec) {
        let entry = route.one(address::get_neighbour(index, ip)).await?;
        entries.push((ip, facts::pinned_neighbour(entry)));
    }
    Ok(entries)
}

async fn write(route: &mut Route, index: u32, spec: &GuestPeer) -> Result<(), Error> {
    let entry = |ip| address::set_neighbour(index, ip, spec.guest.mac);
    route.all(addresses(spec).into_iter().map(entry).collect()).await
}

/// Adds the entry if there is none.
///
/// # Errors
/// [`Error::Missing`] without the bundle's link, else what the kernel said.
pub fn create(spec: &GuestPeer) -> Result<Creation, Error> {
    inside(spec, async |route, index| {
        if read(route, index, spec).await?.iter().any(|(_, mac)| mac.is_some()) {
            return Ok(Creation::Exists);
        }
        write(route, index, spec).await?;
        Ok(Creation::Created)
    })?
    .ok_or_else(|| missing(spec))
}

/// Compares the entries with the spec.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn observe(spec: &GuestPeer) -> Result<Presence, Error> {
    let entries = inside(spec, async |route, index| read(route, index, spec).await)?;
    let entries = entries.unwrap_or_default();
    if !entries.iter().any(|(_, mac)| mac.is_some()) {
        return Ok(Presence::Absent);
    }
    let mut found = Differences::new();
    for (ip, mac) in entries {
        let resource = format!("neighbour {ip} in {}", spec.netns.display());
        found.expect((), resource, spec.guest.mac, mac);
    }
    Ok(found.into_presence())
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
        let ours = read(route, index, spec).await?.into_iter();
        let ours = ours.filter(|(_, mac)| *mac == Some(spec.guest.mac));
        let requests: Vec<_> = ours.map(|(ip, _)| address::delete_neighbour(index, ip)).collect();
        if requests.is_empty() {
            return Ok(Removal::Absent);
        }
        route.all(requests).await?;
        Ok(Removal::Removed)
    })?;
    Ok(removed.unwrap_or(Removal::Absent))
}
