//! IPv4 forwarding on the device that leads out; the bundles' replies come in through it.
//!
//! Where it is on already, the host is a router by somebody's wish, and stays one. Where carboy
//! turns it on, the device goes into the firewall's set of guarded devices first, which keeps the
//! host from routing for others. It is turned on with the value 2, which the kernel takes as on:
//! so whose doing it was is known even after somebody's `nft flush ruleset`, or after somebody
//! wrote a 1 there because the host is to be a router after all.
//!
//! A device belongs to the bridges that go out through it, which the firewall's set of uplinks
//! tells. The caller must hold the host-wide lock that [`net`](crate::net) asks for.

use std::collections::HashSet;

use crate::names::IfName;
use crate::net::diff::Differences;
use crate::net::elements;
use crate::net::error::{Error, Refusal};
use crate::net::facts::{self, Link};
use crate::net::link;
use crate::net::netlink::{self, Route};
use crate::net::nft::{self, Transaction};
use crate::net::nft_read::Reader;
use crate::net::ruleset::{
    Element, Family, GUARDED, UPLINKS, guarded_element, ifname_of, uplink_of,
};
use crate::net::spec::Uplink;
use crate::presence::{Creation, Drift, Presence, Removal};

const FEATURE: &str = "IPv4 forwarding by netlink";

/// The value of `net.ipv4.conf.<device>.forwarding` that says that carboy turned it on.
pub const FORWARDING_MARK: u32 = 2;

/// How forwarding stands on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Off,
    Ours,
    Theirs,
}

fn mode(link: &Link) -> Mode {
    match link.forwarding.map(u32::try_from) {
        None | Some(Ok(0)) => Mode::Off,
        Some(Ok(FORWARDING_MARK)) => Mode::Ours,
        Some(_) => Mode::Theirs,
    }
}

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
        if mode(&link) != Mode::Off {
            return Ok(Creation::Exists);
        }
        guard(&spec.device)?;
        route.all(vec![link::set_forwarding(link.index, FORWARDING_MARK, None)]).await?;
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

fn is_guarded(device: &IfName) -> Result<bool, Error> {
    Ok(Reader::open()?.look_up(&[guarded_element(device)])? != [None])
}

/// Present if forwarding is on, and guarded if and only if carboy turned it on.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn observe(spec: &Uplink) -> Result<Presence, Error> {
    netlink::run(&object(&spec.device), FEATURE, async |route| {
        let link = find(route, &spec.device).await?;
        let mode = link.as_ref().map_or(Mode::Off, mode);
        if mode == Mode::Off {
            return Ok(Presence::Absent);
        }
        let guarded = is_guarded(&spec.device)?;
        Ok(differences(&spec.device, mode, guarded).into_presence())
    })
}

fn differences(device: &IfName, mode: Mode, guarded: bool) -> Differences<()> {
    let word = |is: bool| if is { "present" } else { "absent" };
    let mut found = Differences::new();
    let resource = format!("device {device} in set {GUARDED}");
    found.expect((), resource, word(mode == Mode::Ours), Some(word(guarded)));
    found
}

/// Guards the device, or guards it no longer. If forwarding is off by now, as [`create`].
///
/// # Errors
/// As for [`create`].
pub fn repair(spec: &Uplink, _drift: &[Drift]) -> Result<(), Error> {
    if create(spec)? == Creation::Created {
        return Ok(());
    }
    let mode = netlink::run(&object(&spec.device), FEATURE, async |route| {
        Ok(find(route, &spec.device).await?.map_or(Mode::Off, |link| mode(&link)))
    })?;
    match mode {
        Mode::Ours => guard(&spec.device),
        Mode::Theirs => {
            let object = object(&spec.device);
            elements::remove(&object, &vec![guarded_element(&spec.device)].into()).map(|_| ())
        }
        Mode::Off => Ok(()),
    }
}

/// Devices through which no bridge goes out any more.
pub(crate) struct Unused {
    pub(crate) devices: Vec<IfName>,
    /// Those of them that are guarded.
    pub(crate) elements: Vec<Element>,
}

/// Of the devices in the set `guarded`, and this one, those that the set `uplinks` does not speak of.
pub(crate) fn unused(
    guarded: &'static str,
    uplinks: &'static str,
    device: &IfName,
) -> Result<Unused, Error> {
    let reader = Reader::open()?;
    let used: Vec<_> = reader.elements(Family::Inet, uplinks)?;
    let used: HashSet<_> = used.iter().filter_map(|e| uplink_of(&e.key)).collect();
    let is_used = |device: &IfName| used.contains(device);
    let mut elements = reader.elements(Family::Inet, guarded)?;
    elements.retain(|e| !ifname_of(&e.key).is_some_and(|device| is_used(&device)));
    let mut devices: Vec<_> = elements.iter().filter_map(|e| ifname_of(&e.key)).collect();
    if !devices.contains(device) && !is_used(device) {
        devices.push(device.clone());
    }
    Ok(Unused { devices, elements })
}

/// Turns forwarding off again where carboy turned it on, once no bridge goes out through the device.
/// That holds for every device, not only the spec's: the default route may have moved. A device that
/// is gone is forgotten.
///
/// After somebody's `nft flush ruleset` nobody is known to use a device. That takes no way out from
/// anybody: without the firewall's masquerade there is none until the bottle's next `up`.
///
/// # Errors
/// What the kernel said.
pub fn remove(spec: &Uplink) -> Result<Removal, Error> {
    let Unused { devices, elements } = unused(GUARDED, UPLINKS, &spec.device)?;
    let turned_off = netlink::run(&object(&spec.device), FEATURE, async |route| {
        let mut any = false;
        for device in &devices {
            let Some(link) = find(route, device).await? else { continue };
            if mode(&link) == Mode::Ours {
                route.all(vec![link::set_forwarding(link.index, 0, None)]).await?;
                any = true;
            }
        }
        Ok(any)
    })?;
    let forgotten = elements::remove(&object(&spec.device), &elements.into())?;
    Ok(if turned_off { Removal::Removed } else { forgotten })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_says_who_turned_it_on() {
        let cases = [
            (None, Mode::Off),
            (Some(0), Mode::Off),
            (Some(1), Mode::Theirs),
            (Some(2), Mode::Ours),
            (Some(-1), Mode::Theirs),
        ];
        for (forwarding, expected) in cases {
            let link = Link { forwarding, ..Link::default() };
            assert_eq!(mode(&link), expected, "{forwarding:?}");
        }
    }

    #[test]
    fn only_what_carboy_turned_on_is_guarded() {
        let device: IfName = "eth0".parse().unwrap();
        for (mode, guarded, right) in [
            (Mode::Ours, true, true),
            (Mode::Ours, false, false),
            (Mode::Theirs, false, true),
            (Mode::Theirs, true, false),
        ] {
            let found = differences(&device, mode, guarded).into_presence();
            assert_eq!(found == Presence::Present, right, "{mode:?} {guarded}");
        }
    }
}
