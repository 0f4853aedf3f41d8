//! IPv6 forwarding on the device that leads out; the bundles' replies come in through it.
//!
//! It is turned on for that device alone (`force_forwarding`, Linux 6.17). The older switch,
//! `all.forwarding`, would make the whole host a router, which ignores router advertisements: a
//! host that has its default route from one would lose it. So carboy never touches that one; where
//! it is on, the host is a router by somebody's wish, and there is nothing to do.
//!
//! As for [IPv4](crate::net::uplink), the device is guarded first, and marked: an altname says that
//! carboy turned forwarding on, also after somebody's `nft flush ruleset`. (The setting itself
//! takes no other value than 0 and 1.) It belongs to the bridges that go out through it. The caller
//! must hold the host-wide lock that [`net`](crate::net) asks for.

use crate::names::IfName;
use crate::net::altname;
use crate::net::diff::Differences;
use crate::net::elements;
use crate::net::error::{Error, Refusal};
use crate::net::facts::{self, Link};
use crate::net::link;
use crate::net::netlink::{self, Route};
use crate::net::nft::{self, Transaction};
use crate::net::nft_read::Reader;
use crate::net::ruleset::{GUARDED6, UPLINKS6, guarded6_element};
use crate::net::spec::Uplink6;
use crate::net::sysctl;
use crate::net::uplink::{Unused, unused};
use crate::presence::{Creation, Drift, Presence, Removal};

const FEATURE: &str = "IPv6 forwarding for single devices (Linux 6.17)";

/// The first part of the altname that marks a device; its index follows.
pub const FORWARDING_MARK: &str = "carboy-forwards6-";

/// What the host can do for a network with IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// The kernel has no IPv6.
    NoIpv6,
    /// Packets cannot be forwarded without making the whole host a router.
    NoForwarding,
    /// All that is needed.
    Full,
}

/// Asks the kernel what it can do.
///
/// # Errors
/// If it cannot be asked.
pub fn support() -> Result<Support, Error> {
    if !sysctl::kernel_has_ipv6() {
        return Ok(Support::NoIpv6);
    }
    let forwards = sysctl::can_force_forwarding() || sysctl::forwards_ipv6("the host")?;
    Ok(if forwards { Support::Full } else { Support::NoForwarding })
}

/// How forwarding stands on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Off,
    Ours,
    Theirs,
}

fn mark(link: &Link) -> String {
    format!("{FORWARDING_MARK}{}", link.index)
}

fn is_marked(link: &Link) -> bool {
    link.altnames.iter().any(|name| name.starts_with(FORWARDING_MARK))
}

/// `all` says whether the host forwards between all its devices.
fn mode(link: &Link, all: bool) -> Mode {
    match (link.force_forwarding.unwrap_or(0) != 0, is_marked(link)) {
        (true, true) => Mode::Ours,
        (true, false) => Mode::Theirs,
        (false, _) if all => Mode::Theirs,
        (false, _) => Mode::Off,
    }
}

fn object(device: &IfName) -> String {
    format!("IPv6 forwarding on {device}")
}

async fn find(route: &mut Route, device: &IfName) -> Result<Option<Link>, Error> {
    let answer = route.one(link::get_by_name(device.as_str())).await?;
    facts::link(route, "look up the device of", answer)
}

/// Turns forwarding on, unless it is on.
///
/// # Errors
/// [`Error::Missing`] without the device or the firewall tables, [`Error::Unsupported`] on a kernel
/// that cannot, else what the kernel said.
pub fn create(spec: &Uplink6) -> Result<Creation, Error> {
    let object = object(&spec.device);
    let all = sysctl::forwards_ipv6(&object)?;
    netlink::run(&object, FEATURE, async |route| {
        let Some(link) = find(route, &spec.device).await? else {
            return Err(Error::Missing { object: format!("device {}", spec.device) });
        };
        if mode(&link, all) != Mode::Off {
            return Ok(Creation::Exists);
        }
        if !sysctl::can_force_forwarding() {
            let refusal = Refusal { errno: libc::EOPNOTSUPP, said: String::new() };
            return Err(route.refused("turn on", refusal));
        }
        guard(&spec.device)?;
        if !is_marked(&link) {
            altname::add(route, link.index, &mark(&link)).await?;
        }
        sysctl::force_forwarding(&object, spec.device.as_str(), true)?;
        Ok(Creation::Created)
    })
}

/// Guards the device, which it may be already after a crash.
fn guard(device: &IfName) -> Result<(), Error> {
    let mut transaction = Transaction::new(object(device), "guard");
    transaction.add_element(&guarded6_element(device), false);
    match transaction.commit()? {
        Ok(()) => Ok(()),
        Err(Refusal { errno: libc::ENOENT, .. }) => Err(elements::missing_table()),
        Err(refusal) => Err(nft::refused(&object(device), "guard", refusal)),
    }
}

fn look(spec: &Uplink6) -> Result<Mode, Error> {
    let object = object(&spec.device);
    let all = sysctl::forwards_ipv6(&object)?;
    netlink::run(&object, FEATURE, async |route| {
        Ok(find(route, &spec.device).await?.map_or(Mode::Off, |link| mode(&link, all)))
    })
}

/// Present if forwarding is on, and guarded if and only if carboy turned it on.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn observe(spec: &Uplink6) -> Result<Presence, Error> {
    let mode = look(spec)?;
    if mode == Mode::Off {
        return Ok(Presence::Absent);
    }
    let guarded = Reader::open()?.look_up(&[guarded6_element(&spec.device)])? != [None];
    Ok(differences(&spec.device, mode, guarded).into_presence())
}

fn differences(device: &IfName, mode: Mode, guarded: bool) -> Differences<()> {
    let word = |is: bool| if is { "present" } else { "absent" };
    let mut found = Differences::new();
    let resource = format!("device {device} in set {GUARDED6}");
    found.expect((), resource, word(mode == Mode::Ours), Some(word(guarded)));
    found
}

/// Guards the device, or guards it no longer. If forwarding is off by now, as [`create`].
///
/// # Errors
/// As for [`create`].
pub fn repair(spec: &Uplink6, _drift: &[Drift]) -> Result<(), Error> {
    if create(spec)? == Creation::Created {
        return Ok(());
    }
    match look(spec)? {
        Mode::Ours => guard(&spec.device),
        Mode::Theirs => {
            let elements = vec![guarded6_element(&spec.device)].into();
            elements::remove(&object(&spec.device), &elements).map(|_| ())
        }
        Mode::Off => Ok(()),
    }
}

/// Turns forwarding off again where carboy turned it on, once no bridge goes out through the device
/// in IPv6, as [`uplink::remove`](crate::net::uplink::remove) does.
///
/// # Errors
/// What the kernel said.
pub fn remove(spec: &Uplink6) -> Result<Removal, Error> {
    let object = object(&spec.device);
    let Unused { devices, elements } = unused(GUARDED6, UPLINKS6, &spec.device)?;
    let turned_off = netlink::run(&object, FEATURE, async |route| {
        let mut any = false;
        for device in &devices {
            let Some(link) = find(route, device).await? else { continue };
            if !is_marked(&link) {
                continue;
            }
            if link.force_forwarding.unwrap_or(0) != 0 {
                sysctl::force_forwarding(&object, &link.name, false)?;
            }
            // The mark goes last: a removal that is cut short is taken up again.
            let marks = link.altnames.iter().filter(|name| name.starts_with(FORWARDING_MARK));
            route.all(marks.map(|name| link::delete_altname(link.index, name)).collect()).await?;
            any = true;
        }
        Ok(any)
    })?;
    let forgotten = elements::remove(&object, &elements.into())?;
    Ok(if turned_off { Removal::Removed } else { forgotten })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_says_who_turned_it_on() {
        let marked = Some(format!("{FORWARDING_MARK}3"));
        let cases = [
            (None, None, false, Mode::Off),
            (Some(0), None, false, Mode::Off),
            (Some(0), marked.clone(), false, Mode::Off),
            (Some(1), marked.clone(), false, Mode::Ours),
            (Some(1), Some("lan".to_owned()), false, Mode::Theirs),
            (Some(0), None, true, Mode::Theirs),
            (Some(1), marked, true, Mode::Ours),
        ];
        for (force_forwarding, altname, all, expected) in cases {
            let altnames = altname.into_iter().collect();
            let link = Link { force_forwarding, altnames, ..Link::default() };
            assert_eq!(mode(&link, all), expected, "{link:?} {all}");
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
