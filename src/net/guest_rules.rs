//! What the shared firewall tables hold about a guest's port: the one bundle it may reach, and that
//! bundle's open ports.
//!
//! Unlike a bundle's entries these are read by listing the guests' sets: an entry too many would
//! open a port, and only a list shows it.

use crate::net::diff::Differences;
use crate::net::elements;
use crate::net::error::{Error, Refusal};
use crate::net::nft::{self, Transaction};
use crate::net::ruleset::{Element, Family, GUEST_SETS, guest_elements, guest_words, ifname_of};
use crate::net::spec::GuestRules;
use crate::presence::{Creation, Drift, Presence, Removal};

fn object(spec: &GuestRules) -> String {
    format!("firewall entries of guest port {}", spec.veth)
}

/// Adds the guest's elements if none is there.
///
/// # Errors
/// [`Error::Missing`] without the tables, else what the kernel said; nothing was added then.
pub fn create(spec: &GuestRules) -> Result<Creation, Error> {
    elements::create(&object(spec), &guest_elements(spec))
}

/// Everything in the tables that is the guest's.
fn present(spec: &GuestRules) -> Result<Vec<Element>, Error> {
    let mut all = Vec::new();
    for set in GUEST_SETS {
        let listed = nft::elements(Family::Bridge, set)?;
        all.extend(listed.into_iter().filter(|e| ifname_of(&e.key).as_ref() == Some(&spec.veth)));
    }
    for element in guest_elements(spec).into_iter().filter(|e| e.family == Family::Inet) {
        if nft::has_element(&element)? {
            all.push(element);
        }
    }
    Ok(all)
}

/// The elements that should be there or are, the wanted ones first, and their differences by place.
fn differences(spec: &GuestRules, present: &[Element]) -> (Vec<Element>, Differences<usize>) {
    let mut all = guest_elements(spec);
    let wanted = all.len();
    let unwanted: Vec<_> = present.iter().filter(|e| !all.contains(e)).cloned().collect();
    all.extend(unwanted);
    let mut found = Differences::new();
    for (place, element) in all.iter().enumerate() {
        let resource = format!("{}: {}", object(spec), guest_words(element));
        let want = if place < wanted { "present" } else { "absent" };
        let is = if present.contains(element) { "present" } else { "absent" };
        found.expect(place, resource, want, Some(is));
    }
    (all, found)
}

/// Compares the guest's elements with the spec.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn observe(spec: &GuestRules) -> Result<Presence, Error> {
    let present = present(spec)?;
    if present.is_empty() {
        return Ok(Presence::Absent);
    }
    let (_, found) = differences(spec, &present);
    Ok(found.into_presence())
}

/// Adds what is missing and deletes what is too much, in one transaction.
///
/// # Errors
/// What the kernel said.
pub fn repair(spec: &GuestRules, drift: &[Drift]) -> Result<(), Error> {
    let object = object(spec);
    let present = present(spec)?;
    let (all, found) = differences(spec, &present);
    let mut transaction = Transaction::new(&object, "repair");
    for element in found.parts(drift).into_iter().map(|place| &all[place]) {
        match present.contains(element) {
            true => transaction.delete_element(element),
            false => transaction.add_element(element, false),
        }
    }
    match transaction.commit()? {
        Ok(()) => Ok(()),
        Err(Refusal { errno: libc::ENOENT, .. }) => Err(elements::missing_table()),
        Err(refusal) => Err(nft::refused(&object, "repair", refusal)),
    }
}

/// Deletes all that is the guest's, whatever its spec was.
///
/// # Errors
/// What the kernel said.
pub fn remove(spec: &GuestRules) -> Result<Removal, Error> {
    elements::remove(&object(spec), &present(spec)?)
}
