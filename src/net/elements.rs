//! What the tables hold about one bridge or port as a resource: elements of the shared sets, and
//! chains of its own.

use crate::names::IfName;
use crate::net::chain_diff::{self, chain_name};
use crate::net::diff::Differences;
use crate::net::error::{Error, Refusal};
use crate::net::nft::{self, Transaction};
use crate::net::nft_read::{Reader, SeenElement};
use crate::net::ruleset::{Chain, DROPS, Element, Entries, Family, Reason, TABLE, Way, ifname_of};
use crate::presence::{Creation, Drift, Presence, Removal};

/// Adds all entries in one transaction, if none is there.
pub(crate) fn create(object: &str, wanted: &Entries) -> Result<Creation, Error> {
    let mut transaction = Transaction::new(object, "create");
    for (family, chain) in &wanted.chains {
        add_chain(&mut transaction, *family, chain, true);
    }
    for element in &wanted.elements {
        transaction.add_element(element, true);
    }
    match transaction.commit()? {
        Ok(()) => Ok(Creation::Created),
        Err(Refusal { errno: libc::EEXIST, .. }) => Ok(Creation::Exists),
        Err(Refusal { errno: libc::ENOENT, .. }) => Err(missing_table()),
        Err(refusal) => Err(nft::refused(object, "create", refusal)),
    }
}

fn add_chain(transaction: &mut Transaction, family: Family, chain: &Chain, exclusive: bool) {
    transaction.add_chain(family, chain, exclusive);
    if !exclusive {
        transaction.flush_chain(family, &chain.name);
    }
    for rule in &chain.rules {
        transaction.add_rule(family, chain, rule);
    }
}

/// The error for entries whose table or set is not there.
pub(crate) fn missing_table() -> Error {
    Error::Missing { object: format!("firewall table {TABLE}") }
}

/// What is repaired as one: an element or a chain, by its place among those wanted, then those
/// unwanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Element(usize),
    Chain(usize),
}

/// Where the entries differ, and whether there is any.
struct Look {
    differences: Differences<Part>,
    elements: Vec<Option<SeenElement>>,
    chains: Vec<bool>,
}

impl Look {
    fn any(&self) -> bool {
        self.elements.iter().any(Option::is_some) || self.chains.contains(&true)
    }
}

fn look(object: &str, wanted: &Entries, unwanted: &Entries) -> Result<Look, Error> {
    let reader = Reader::open()?;
    let mut found = Differences::new();
    let all: Vec<Element> = [&wanted.elements[..], &unwanted.elements[..]].concat();
    let seen = reader.look_up(&all)?;
    for (number, (element, is)) in all.iter().zip(&seen).enumerate() {
        let want = (number < wanted.elements.len()).then_some(element);
        let resource = format!("{object}: {}", element_name(element, want.is_some()));
        let (part, is) = (Part::Element(number), is.as_ref().map(|is| is.way.as_ref()));
        found.expect(part, resource, word(want.map(|e| e.way.as_ref())), Some(word(is)));
    }
    let mut chains = Vec::new();
    let planned: Vec<_> = wanted.chains.iter().chain(&unwanted.chains).collect();
    let seen_chains = reader.chains(&names(&planned))?;
    for (number, ((family, chain), have)) in planned.into_iter().zip(seen_chains).enumerate() {
        chains.push(have.is_some());
        let part = Part::Chain(number);
        if number < wanted.chains.len() {
            chain_diff::expect(&mut found, part, *family, chain, have.as_ref());
        } else if have.is_some() {
            found.expect(part, chain_name(*family, &chain.name), "absent", Some("present"));
        }
    }
    Ok(Look { differences: found, elements: seen, chains })
}

fn names<'a>(chains: &[&'a (Family, Chain)]) -> Vec<(Family, &'a str)> {
    chains.iter().map(|(family, chain)| (*family, chain.name.as_ref())).collect()
}

/// As in differences: whether it is there, and where it leads if it is of a map.
fn word(element: Option<Option<&Way>>) -> String {
    match element {
        None => "absent".to_owned(),
        Some(None) => "present".to_owned(),
        Some(Some(way)) => way.to_string(),
    }
}

/// The set, and what tells the element from others: for counters the reason; of what is too much,
/// which may be anything, the whole key.
fn element_name(element: &Element, is_wanted: bool) -> String {
    let reason = element.key.last_chunk().map(|mark| u32::from_ne_bytes(*mark));
    match reason.and_then(Reason::of_mark).filter(|_| element.set == DROPS) {
        Some(reason) => format!("set {} {reason}", element.set),
        None if is_wanted => format!("set {}", element.set),
        None => format!("set {} {}", element.set, element.key_words()),
    }
}

/// What the sets have of an interface, whose name their keys begin with, and is not wanted. Only a
/// listing shows it.
pub(crate) fn beside(
    reader: &Reader,
    family: Family,
    sets: &[&'static str],
    interface: &IfName,
    wanted: &Entries,
) -> Result<Vec<Element>, Error> {
    let mut found = Vec::new();
    for set in sets {
        let listed = reader.elements(family, set)?.into_iter();
        let own = listed.filter(|e| ifname_of(&e.key).as_ref() == Some(interface));
        found.extend(own.filter(|e| !wanted.elements.iter().any(|w| w.is_place_of(e))));
    }
    Ok(found)
}

/// Compares what is wanted and what must not be with the tables; absent if there is none of either.
pub(crate) fn observe(
    object: &str,
    wanted: &Entries,
    unwanted: &Entries,
) -> Result<Presence, Error> {
    let look = look(object, wanted, unwanted)?;
    Ok(if look.any() { look.differences.into_presence() } else { Presence::Absent })
}

/// Adds and deletes what differs, in one transaction.
pub(crate) fn repair(
    object: &str,
    wanted: &Entries,
    unwanted: &Entries,
    drift: &[Drift],
) -> Result<(), Error> {
    let look = look(object, wanted, unwanted)?;
    let parts = look.differences.parts(drift);
    let mut transaction = Transaction::new(object, "repair");
    // Elements lead to chains: they go before them and come after them.
    for (number, element) in wanted.elements.iter().chain(&unwanted.elements).enumerate() {
        let there = look.elements.get(number).is_some_and(Option::is_some);
        if parts.contains(&Part::Element(number)) && there {
            transaction.delete_element(element);
        }
    }
    for (number, (family, chain)) in wanted.chains.iter().chain(&unwanted.chains).enumerate() {
        if !parts.contains(&Part::Chain(number)) {
            continue;
        }
        if number < wanted.chains.len() {
            add_chain(&mut transaction, *family, chain, false);
        } else {
            transaction.flush_chain(*family, &chain.name);
            transaction.delete_chain(*family, &chain.name);
        }
    }
    for (number, element) in wanted.elements.iter().enumerate() {
        if parts.contains(&Part::Element(number)) {
            transaction.add_element(element, false);
        }
    }
    match transaction.commit()? {
        Ok(()) => Ok(()),
        Err(Refusal { errno: libc::ENOENT, .. }) => Err(missing_table()),
        Err(refusal) => Err(nft::refused(object, "repair", refusal)),
    }
}

/// Deletes those entries that are there, in one transaction.
pub(crate) fn remove(object: &str, entries: &Entries) -> Result<Removal, Error> {
    let reader = Reader::open()?;
    let mut transaction = Transaction::new(object, "remove");
    let mut removal = Removal::Absent;
    for (element, seen) in entries.elements.iter().zip(reader.look_up(&entries.elements)?) {
        if seen.is_some() {
            transaction.delete_element(element);
            removal = Removal::Removed;
        }
    }
    let planned: Vec<_> = entries.chains.iter().collect();
    for ((family, chain), seen) in planned.iter().zip(reader.chains(&names(&planned))?) {
        if seen.is_some() {
            transaction.flush_chain(*family, &chain.name);
            transaction.delete_chain(*family, &chain.name);
            removal = Removal::Removed;
        }
    }
    transaction.commit_all()?;
    Ok(removal)
}
