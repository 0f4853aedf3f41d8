//! IPv4 forwarding on the device that leads out; the bundles' replies come in through it.
//!
//! Where it is on already, the host is a router by somebody's wish, and stays one. Where carboy
//! turns it on, the device goes into the firewall's set of guarded devices first, which keeps the
//! host from routing for others and remembers whose doing it was. The caller must hold the
//! host-wide lock that [`net`](crate::net) asks for.

use crate::names::IfName;
use crate::net::elements;
use crate::net::error::{Error, Refusal};
use crate::net::facts::{self, Link};
use crate::net::link;
use crate::net::netlink::{self, Route};
use crate::net::nft::{self, Transaction};
use crate::net::ruleset::{BRIDGES, Family, GUARDED, guarded_element, ifname_of};
use crate::net::spec::Uplink;
use crate::presence::{Creation, Drift, Presence, Removal};

const FEATURE: &str = "IPv4 forwarding by netlink";

fn object(device: &IfName) -> String {
    format!("forwarding on {device}")
}

async fn find(route: &mut Route, device: &IfName) -> Result<Option<Link>, Error> {
    let answer = route.one(link::get_by_name(device.as_str())).await?;
    facts::link(route, "look up the device of", answer)
}

/// Turns forwarding on, unless it is on.
///
/// # Errors
/// [`Error::Missing`] without the device or the firewall tables, else what the kernel said.
pub fn create(spec: &Uplink) -> Result<Creation, Error> {
    netlink::run(&object(&spec.device), FEATURE, async |route| {
        let Some(link) = find(route, &spec.device).await? else {
            return Err(Error::Missing { object: format!("device {}", spec.device) });
        };
        if link.forwarding == Some(true) {
            return Ok(Creation::Exists);
        }
        guard(&spec.device)?;
        route.all(vec![link::set_forwarding(link.index, true, None)]).await?;
        Ok(Creation::Created)
    })
}

/// Guards the device, which it may be already after a crash.
fn guard(device: &IfName) -> Result<(), Error> {
    let mut transaction = Transaction::new(object(device), "guard");
    transaction.add_element(&guarded_element(device), false);
    match transaction.commit()? {
        Ok(()) => Ok(()),
        Err(Refusal { errno: libc::ENOENT, .. }) => Err(elements::missing_table()),
        Err(refusal) => Err(nft::refused(&object(device), "guard", refusal)),
    }
}

/// Present if forwarding is on, whoever turned it on.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn observe(spec: &Uplink) -> Result<Presence, Error> {
    netlink::run(&object(&spec.device), FEATURE, async |route| {
        let link = find(route, &spec.device).await?;
        Ok(match link.and_then(|l| l.forwarding) {
            Some(true) => Presence::Present,
            _ => Presence::Absent,
        })
    })
}

/// As `create`: forwarding is on or off, there is nothing between.
///
/// # Errors
/// As for [`create`].
pub fn repair(spec: &Uplink, _drift: &[Drift]) -> Result<(), Error> {
    create(spec).map(|_| ())
}

/// Turns forwarding off again, once no bottle's bridge is left, on every device on which carboy
/// turned it on: the default route may have moved between two bottles. A device that is gone is
/// forgotten.
///
/// # Errors
/// What the kernel said.
pub fn remove(spec: &Uplink) -> Result<Removal, Error> {
    if !nft::elements(Family::Inet, BRIDGES)?.is_empty() {
        return Ok(Removal::Absent);
    }
    let guarded = nft::elements(Family::Inet, GUARDED)?;
    if guarded.is_empty() {
        return Ok(Removal::Absent);
    }
    netlink::run(&object(&spec.device), FEATURE, async |route| {
        for device in guarded.iter().filter_map(|element| ifname_of(&element.key)) {
            let Some(link) = find(route, &device).await? else { continue };
            if link.name == device.as_str() {
                route.all(vec![link::set_forwarding(link.index, false, None)]).await?;
            }
        }
        Ok(())
    })?;
    let mut transaction = Transaction::new(object(&spec.device), "forget the guard of");
    for element in &guarded {
        transaction.delete_element(element);
    }
    transaction.commit_all()?;
    Ok(Removal::Removed)
}
