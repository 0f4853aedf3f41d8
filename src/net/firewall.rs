//! The firewall tables every bottle shares: made with the first, changed in one transaction, gone
//! with the last.
//!
//! `remove` looks whether anybody is left and then removes; the caller must hold the host-wide lock
//! that [`net`](crate::net) asks for, so that nobody adds an element in between.

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook, NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute,
    SetMessage, TableAttribute, TableMessage,
};

use crate::net::bridge;
use crate::net::diff::Differences;
use crate::net::error::{Error, Refusal};
use crate::net::nft::{self, Transaction};
use crate::net::nft_expr;
use crate::net::ruleset::{
    Base, Chain, Expression, Family, Rule, TABLE, TABLE_COMMENT, Table, tables,
};
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
    // EXCL would say the same, but undoing the transaction costs the kernel 15 ms.
    for family in FAMILIES {
        if get_table(family)?.is_some() {
            return Ok(Creation::Exists);
        }
    }
    let mut transaction = Transaction::new(object(), "create");
    for table in tables() {
        transaction.add_table(table.family, true);
        add_sets(&mut transaction, &table, |_| true);
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

fn add_sets(transaction: &mut Transaction, table: &Table, wanted: impl Fn(&str) -> bool) {
    for (id, set) in (1..).zip(&table.sets) {
        if wanted(set.name) {
            transaction.add_set(table.family, set, id);
        }
    }
}

fn add_chains(transaction: &mut Transaction, table: &Table) {
    for chain in &table.chains {
        transaction.add_chain(table.family, chain);
    }
    for chain in &table.chains {
        for rule in &chain.rules {
            transaction.add_rule(table.family, chain, rule);
        }
    }
}

/// What the kernel has of a table.
#[derive(Default)]
struct Seen {
    /// `None` if it is not there.
    comment: Option<Vec<u8>>,
    sets: Vec<SeenSet>,
    chains: Vec<SeenChain>,
}

#[derive(Default)]
struct SeenSet {
    name: String,
    key_type: u32,
    key_length: u32,
}

#[derive(Default)]
struct SeenChain {
    name: String,
    /// Kind, hook, priority and policy.
    base: Option<(String, u32, i32, u32)>,
    rules: Vec<SeenRule>,
}

struct SeenRule {
    comment: Vec<u8>,
    expressions: Vec<Option<Expression>>,
}

impl Seen {
    /// Old kernels (before 5.10) keep no comment with a table: the set of bridges marks it, too.
    fn is_ours(&self) -> bool {
        self.comment.as_deref() == Some(&nft::comment(TABLE_COMMENT)[..])
            || tables().iter().any(|t| {
                t.sets.iter().all(|want| self.sets.iter().any(|have| have.name == want.name))
            })
    }
}

fn get_table(family: Family) -> Result<Option<Vec<NfTablesMessage>>, Error> {
    let attributes = vec![TableAttribute::Name(TABLE.to_owned())];
    nft::query(family, NfTablesMessage::GetTable(TableMessage { attributes }), NLM_F_ACK)
}

fn look(family: Family) -> Result<Option<Seen>, Error> {
    let Some(answer) = get_table(family)? else { return Ok(None) };
    let mut seen = Seen { comment: Some(table_comment(&answer)), ..Seen::default() };

    let attributes = vec![SetAttribute::Table(TABLE.to_owned())];
    let get = NfTablesMessage::GetSet(SetMessage { attributes });
    for message in nft::query(family, get, NLM_F_DUMP)?.unwrap_or_default() {
        if let NfTablesMessage::NewSet(SetMessage { attributes }) = message {
            seen.sets.push(seen_set(attributes));
        }
    }
    let attributes = vec![ChainAttribute::Table(TABLE.to_owned())];
    let get = NfTablesMessage::GetChain(ChainMessage { attributes });
    for message in nft::query(family, get, NLM_F_DUMP)?.unwrap_or_default() {
        if let NfTablesMessage::NewChain(ChainMessage { attributes }) = message {
            // The kernel lists the chains of all tables.
            if attributes.contains(&ChainAttribute::Table(TABLE.to_owned())) {
                seen.chains.push(seen_chain(attributes));
            }
        }
    }
    let attributes = vec![RuleAttribute::Table(TABLE.to_owned())];
    let get = NfTablesMessage::GetRule(RuleMessage { attributes });
    for message in nft::query(family, get, NLM_F_DUMP)?.unwrap_or_default() {
        if let NfTablesMessage::NewRule(RuleMessage { attributes }) = message {
            let (chain, rule) = seen_rule(attributes);
            if let Some(chain) = seen.chains.iter_mut().find(|c| c.name == chain) {
                chain.rules.push(rule);
            }
        }
    }
    Ok(Some(seen))
}

fn table_comment(answer: &[NfTablesMessage]) -> Vec<u8> {
    answer
        .iter()
        .find_map(|m| match m {
            NfTablesMessage::NewTable(table) => table.attributes.iter().find_map(|a| match a {
                TableAttribute::UserData(data) => Some(data.clone()),
                _ => None,
            }),
            _ => None,
        })
        .unwrap_or_default()
}

fn seen_set(attributes: Vec<SetAttribute>) -> SeenSet {
    let mut set = SeenSet::default();
    for attribute in attributes {
        match attribute {
            SetAttribute::Name(name) => set.name = name,
            SetAttribute::KeyType(number) => set.key_type = number,
            SetAttribute::KeyLen(length) => set.key_length = length,
            _ => {}
        }
    }
    set
}

fn seen_chain(attributes: Vec<ChainAttribute>) -> SeenChain {
    let mut chain = SeenChain::default();
    let (mut kind, mut policy, mut hook) = (String::new(), 0, None);
    for attribute in attributes {
        match attribute {
            ChainAttribute::Name(name) => chain.name = name,
            ChainAttribute::Type(name) => kind = name,
            ChainAttribute::Policy(number) => policy = number,
            ChainAttribute::Hook(values) => hook = Some(hook_numbers(&values)),
            _ => {}
        }
    }
    chain.base = hook.map(|(number, priority)| (kind, number, priority, policy));
    chain
}

fn hook_numbers(values: &[Hook]) -> (u32, i32) {
    let (mut number, mut priority) = (0, 0);
    for value in values {
        match value {
            Hook::Number(n) => number = u32::from(*n),
            Hook::Priority(n) => priority = n.cast_signed(),
            _ => {}
        }
    }
    (number, priority)
}

fn seen_rule(attributes: Vec<RuleAttribute>) -> (String, SeenRule) {
    let mut chain = String::new();
    let mut rule = SeenRule { comment: Vec::new(), expressions: Vec::new() };
    for attribute in attributes {
        match attribute {
            RuleAttribute::Chain(name) => chain = name,
            RuleAttribute::UserData(data) => rule.comment = data,
            RuleAttribute::Expressions(listed) => rule.expressions = nft_expr::decode(&listed),
            _ => {}
        }
    }
    (chain, rule)
}

/// What is repaired as one: the rest is replaced as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Static,
}

fn differences(table: &Table, seen: Option<&Seen>, found: &mut Differences<Part>) {
    let family = table.family;
    let Some(seen) = seen else {
        found.expect(Part::Static, format!("table {family} {TABLE}"), "present", None);
        return;
    };
    for want in &table.sets {
        let have = seen.sets.iter().find(|s| s.name == want.name);
        let key = |number: u32, length: u32| format!("key type {number:#x}, {length} bytes");
        found.expect(
            Part::Static,
            format!("set {family} {TABLE} {}", want.name),
            key(want.key_type(), want.key_length()),
            have.map(|s| key(s.key_type, s.key_length)),
        );
    }
    for want in &table.chains {
        let resource = format!("chain {family} {TABLE} {}", want.name);
        match seen.chains.iter().find(|c| c.name == want.name) {
            None => found.expect(Part::Static, resource, "present", None),
            Some(have) => chain_differences(&resource, want, have, found),
        }
    }
}

fn chain_differences(
    resource: &str,
    want: &Chain,
    have: &SeenChain,
    found: &mut Differences<Part>,
) {
    const ACCEPT: u32 = 1;
    let hook = |kind: &str, hook: u32, priority: i32, policy: u32| {
        format!("type {kind} hook {hook} priority {priority} policy {policy}")
    };
    let wanted = match &want.base {
        Some(Base { kind, hook: number, priority }) => hook(kind, *number, *priority, ACCEPT),
        None => "no hook".to_owned(),
    };
    let base = match &have.base {
        Some((kind, number, priority, policy)) => hook(kind, *number, *priority, *policy),
        None => "no hook".to_owned(),
    };
    found.expect(Part::Static, resource, wanted, Some(base));
    for (position, rule) in want.rules.iter().enumerate() {
        let same = have.rules.get(position).is_some_and(|seen| is_rule(rule, seen));
        let is = if same { "as planned" } else { "another rule or none" };
        let resource = format!("rule \"{}\" of {resource}", rule.comment);
        found.expect(Part::Static, resource, "as planned", Some(is));
    }
    let resource = format!("rules of {resource}");
    found.expect(Part::Static, resource, want.rules.len(), Some(have.rules.len()));
}

fn is_rule(want: &Rule, have: &SeenRule) -> bool {
    have.comment == nft::comment(want.comment)
        && have.expressions.len() == want.expressions.len()
        && want.expressions.iter().zip(&have.expressions).all(|(w, h)| Some(w) == h.as_ref())
}

/// Compares tables, sets, chains and rules with what is wanted; the elements are the bottles'.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn observe(_spec: &Firewall) -> Result<Presence, Error> {
    let mut found = Differences::new();
    let mut any = false;
    for table in tables() {
        let seen = look(table.family)?;
        if let Some(seen) = &seen {
            any = true;
            if !seen.is_ours() {
                let found = format!("a table {} {TABLE} that carboy did not make", table.family);
                return Ok(Presence::Foreign(found));
            }
        }
        differences(&table, seen.as_ref(), &mut found);
    }
    Ok(if any { found.into_presence() } else { Presence::Absent })
}

/// Replaces all rules and chains, and adds the sets that are missing, in one transaction: at no
/// moment a packet meets half a firewall. The elements of sets that were right stay; those that
/// went with a deleted set are their bottles' to add again, which pass nothing until then.
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
    let mut transaction = Transaction::new(object(), "repair");
    for table in tables() {
        let seen = look(table.family)?.unwrap_or_default();
        transaction.add_table(table.family, false);
        transaction.flush_rules(table.family);
        for chain in &seen.chains {
            transaction.delete_chain(table.family, &chain.name);
        }
        let right = |name: &str| {
            table.sets.iter().any(|want| {
                want.name == name
                    && seen.sets.iter().any(|have| {
                        have.name == name
                            && (have.key_type, have.key_length)
                                == (want.key_type(), want.key_length())
                    })
            })
        };
        for set in table.sets.iter().filter(|s| !right(s.name)) {
            if seen.sets.iter().any(|have| have.name == set.name) {
                transaction.delete_set(table.family, set.name);
            }
        }
        add_sets(&mut transaction, &table, |name| !right(name));
        add_chains(&mut transaction, &table);
    }
    transaction.commit_all()
}

/// Removes both tables, unless a bottle's element is left in any set, or a bottle's bridge.
///
/// # Errors
/// What the kernel said.
pub fn remove(_spec: &Firewall) -> Result<Removal, Error> {
    let mut transaction = Transaction::new(object(), "remove");
    let mut there = false;
    for family in FAMILIES {
        let Some(seen) = look(family)? else { continue };
        if !seen.is_ours() {
            continue;
        }
        there = true;
        transaction.delete_table(family);
    }
    if !there || in_use()? || bridge::any_left()? {
        return Ok(Removal::Absent);
    }
    match transaction.commit()? {
        Ok(()) => Ok(Removal::Removed),
        Err(Refusal { errno: libc::ENOENT, .. }) => Ok(Removal::Absent),
        Err(refusal) => Err(nft::refused(&object(), "remove", refusal)),
    }
}

/// Whether any set has an element.
fn in_use() -> Result<bool, Error> {
    for table in tables() {
        for set in &table.sets {
            if !nft::elements(table.family, set.name)?.is_empty() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
