//! Set elements as resources: what the bridge's and the port's entries have in common.

use crate::net::diff::Differences;
use crate::net::error::{Error, Refusal};
use crate::net::nft::{self, Transaction};
use crate::net::ruleset::{Element, TABLE};
use crate::presence::{Creation, Drift, Presence, Removal};

/// Adds all elements in one transaction, if none is there.
pub(crate) fn create(object: &str, elements: &[Element]) -> Result<Creation, Error> {
    let mut transaction = Transaction::new(object, "create");
    for element in elements {
        transaction.add_element(element, true);
    }
    match transaction.commit()? {
        Ok(()) => Ok(Creation::Created),
        Err(Refusal { errno: libc::EEXIST, .. }) => Ok(Creation::Exists),
        Err(Refusal { errno: libc::ENOENT, .. }) => Err(missing_table()),
        Err(refusal) => Err(nft::refused(object, "create", refusal)),
    }
}

/// The error for elements whose table or set is not there.
pub(crate) fn missing_table() -> Error {
    Error::Missing { object: format!("firewall table {TABLE}") }
}

/// A difference's part is the element's place in the list of those wanted, then of those unwanted.
fn differences(
    object: &str,
    wanted: &[Element],
    unwanted: &[Element],
) -> Result<(Differences<usize>, bool), Error> {
    let mut found = Differences::new();
    let mut any = false;
    for (part, element) in wanted.iter().chain(unwanted).enumerate() {
        let word = |is: bool| if is { "present" } else { "absent" };
        let present = nft::has_element(element)?;
        any |= present;
        let want = word(part < wanted.len());
        found.expect(part, format!("{object}: set {}", element.set), want, Some(word(present)));
    }
    Ok((found, any))
}

/// Compares what is wanted and what must not be with the sets; absent if there is none of either.
pub(crate) fn observe(
    object: &str,
    wanted: &[Element],
    unwanted: &[Element],
) -> Result<Presence, Error> {
    let (found, any) = differences(object, wanted, unwanted)?;
    Ok(if any { found.into_presence() } else { Presence::Absent })
}

/// Adds and deletes what differs, in one transaction.
pub(crate) fn repair(
    object: &str,
    wanted: &[Element],
    unwanted: &[Element],
    drift: &[Drift],
) -> Result<(), Error> {
    let (found, _) = differences(object, wanted, unwanted)?;
    let mut transaction = Transaction::new(object, "repair");
    for part in found.parts(drift) {
        match part.checked_sub(wanted.len()) {
            None => transaction.add_element(&wanted[part], false),
            Some(part) => transaction.delete_element(&unwanted[part]),
        }
    }
    match transaction.commit()? {
        Ok(()) => Ok(()),
        Err(Refusal { errno: libc::ENOENT, .. }) => Err(missing_table()),
        Err(refusal) => Err(nft::refused(object, "repair", refusal)),
    }
}

/// Deletes those elements that are there, in one transaction.
pub(crate) fn remove(object: &str, elements: &[Element]) -> Result<Removal, Error> {
    let mut transaction = Transaction::new(object, "remove");
    let mut removal = Removal::Absent;
    for element in elements {
        if nft::has_element(element)? {
            transaction.delete_element(element);
            removal = Removal::Removed;
        }
    }
    transaction.commit_all()?;
    Ok(removal)
}
