//! The firewall tables every bottle shares: made with the first, changed in one transaction, gone
//! with the last.
//!
//! `remove` looks whether anybody is left and then removes; the caller must hold the host-wide lock
//! that [`net`](crate::net) asks for, so that nobody adds an element in between.

use crate::net::bridge;
use crate::net::chain_diff;
use crate::net::diff::Differences;
use crate::net::error::{Error, Refusal};
use crate::net::firewall_look::{self as look, Seen};
use crate::net::nft::{self, Transaction};
use crate::net::nft_read::Reader;
use crate::net::ruleset::{BRIDGES, Chain, Family, TABLE, Table, is_own_chain, tables};
use crate::net::spec::Firewall;
use crate::presence::{Creation, Drift, Presence, Removal};

const FAMILIES: [Family; 2] = [Family::Inet, Family::Bridge];

fn object() -> String {
    format!("firewall table {TABLE}")
}

/// Makes both tables if neither is there.
///
/// # Errors
/// What the kernel said; nothing of the tables remains then.
pub fn create(_spec: &Firewall) -> Result<Creation, Error> {
    let reader = Reader::open()?;
    // EXCL would say the same, but undoing the transaction costs the kernel 15 ms.
    for family in FAMILIES {
        if look::get_table(&reader, family)?.is_some() {
            return Ok(Creation::Exists);
        }
    }
    let mut transaction = Transaction::new(object(), "create");
    for table in tables() {
        transaction.add_table(table.family, true);
        add_sets(&mut transaction, &table, &Seen::default());
        add_chains(&mut transaction, &table);
    }
    match transaction.commit()? {
        Ok(()) => Ok(Creation::Created),
        Err(Refusal { errno: libc::EEXIST, .. }) => Ok(Creation::Exists),
        // All that the transaction refers to is in it: what is not found is not in the kernel.
        Err(Refusal { errno: libc::ENOENT, said }) => {
            Err(nft::refused(&object(), "create", Refusal { errno: libc::EOPNOTSUPP, said }))
        }
        Err(refusal) => Err(nft::refused(&object(), "create", refusal)),
    }
}

/// Adds the sets that are not there as they should be.
fn add_sets(transaction: &mut Transaction, table: &Table, seen: &Seen) {
    for (id, set) in (1..).zip(&table.sets) {
        if !seen.has(set) {
            transaction.add_set(table.family, set, id);
        }
    }
}

fn add_chains(transaction: &mut Transaction, table: &Table) {
    for chain in &table.chains {
        transaction.add_chain(table.family, chain, false);
    }
    for chain in &table.chains {
        for rule in &chain.rules {
            transaction.add_rule(table.family, chain, rule);
        }
    }
}

/// Compares tables, sets, chains and rules with what is wanted; elements and chains of their own
/// are the bottles'.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn observe(_spec: &Firewall) -> Result<Presence, Error> {
    let reader = Reader::open()?;
    let mut found = Differences::new();
    let mut any = false;
    for table in tables() {
        let seen = look::look(&reader, &table)?;
        if let Some(seen) = &seen {
            any = true;
            if !seen.is_ours() {
                let family = table.family.name();
                let found = format!("a table {family} {TABLE} that carboy did not make");
                return Ok(Presence::Foreign(found));
            }
        }
        look::expect(&mut found, &table, seen.as_ref());
    }
    Ok(if any { found.into_presence() } else { Presence::Absent })
}

/// Replaces all rules that bottles share, and the sets that differ, in one transaction: at no moment
/// a packet meets half a firewall. The elements of sets that were right stay, with their counters;
/// those that went with a set are their bottles' to add again, which pass nothing until then.
///
/// # Errors
/// [`Error::Foreign`] if a table of that name is not ours, else what the kernel said.
pub fn repair(spec: &Firewall, drift: &[Drift]) -> Result<(), Error> {
    if let Presence::Foreign(found) = observe(spec)? {
        return Err(Error::Foreign { object: object(), found });
    }
    if drift.is_empty() {
        return Ok(());
    }
    let reader = Reader::open()?;
    let mut transaction = Transaction::new(object(), "repair");
    for table in tables() {
        let seen = look::look(&reader, &table)?.unwrap_or_default();
        transaction.add_table(table.family, false);
        clear_chains(&mut transaction, &table, &seen, reader.chain_names(table.family)?);
        for name in seen.set_names() {
            if !table.sets.iter().any(|want| want.name == name && seen.has(want)) {
                transaction.delete_set(table.family, name);
            }
        }
        add_sets(&mut transaction, &table, &seen);
        add_chains(&mut transaction, &table);
    }
    transaction.commit_all()
}

/// Empties the chains that bottles share, for the bottles' own lead to them, and deletes those that
/// nobody wants or that hang on another hook.
fn clear_chains(transaction: &mut Transaction, table: &Table, seen: &Seen, names: Vec<String>) {
    let stays = |want: &Chain| {
        let have = seen.chains.iter().find(|c| c.name == want.name);
        have.is_some_and(|have| chain_diff::same_hook(want, have))
    };
    let shared: Vec<String> = names.into_iter().filter(|name| !is_own_chain(name)).collect();
    for name in &shared {
        transaction.flush_chain(table.family, name);
    }
    for name in &shared {
        if !table.chains.iter().any(|want| want.name == *name && stays(want)) {
            transaction.delete_chain(table.family, name);
        }
    }
}

/// Removes both tables, unless a bottle's element is left in any set, or a bottle's bridge.
///
/// # Errors
/// What the kernel said.
pub fn remove(_spec: &Firewall) -> Result<Removal, Error> {
    let reader = Reader::open()?;
    if in_use(&reader)? || bridge::any_left()? {
        return Ok(Removal::Absent);
    }
    let mut transaction = Transaction::new(object(), "remove");
    let mut there = false;
    for family in FAMILIES {
        if look::is_ours(&reader, family)? {
            there = true;
            transaction.delete_table(family);
        }
    }
    if !there {
        return Ok(Removal::Absent);
    }
    match transaction.commit()? {
        Ok(()) => Ok(Removal::Removed),
        Err(Refusal { errno: libc::ENOENT, .. }) => Ok(Removal::Absent),
        Err(refusal) => Err(nft::refused(&object(), "remove", refusal)),
    }
}

/// Whether any set has an element; the first to be looked at is that of the bridges.
fn in_use(reader: &Reader) -> Result<bool, Error> {
    if !reader.elements(Family::Inet, BRIDGES)?.is_empty() {
        return Ok(true);
    }
    for table in tables() {
        for set in &table.sets {
            if !reader.elements(table.family, set.name)?.is_empty() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
