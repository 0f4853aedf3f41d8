//! What the kernel has of a firewall table, and how it differs from the one that is wanted.

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_netfilter::nftables::{
    ExpressionAttribute, NfTablesMessage, SetAttribute, SetFlags, SetMessage, TableAttribute,
    TableMessage,
};

use crate::net::chain_diff;
use crate::net::diff::Differences;
use crate::net::error::Error;
use crate::net::nft::{self, VERDICTS};
use crate::net::nft_read::{Reader, SeenChain};
use crate::net::ruleset::{Family, Holds, Set, TABLE, TABLE_COMMENT, Table, tables};

/// What the kernel has of a table.
#[derive(Default)]
pub(crate) struct Seen {
    comment: Vec<u8>,
    sets: Vec<SeenSet>,
    /// Those that every bottle shares; there may be more.
    pub(crate) chains: Vec<SeenChain>,
}

#[derive(Default)]
struct SeenSet {
    name: String,
    key_type: u32,
    key_length: u32,
    holds: Option<Holds>,
    anonymous: bool,
}

impl SeenSet {
    fn is(&self, want: &Set) -> bool {
        self.name == want.name
            && (self.key_type, self.key_length) == (want.key_type(), want.key_length())
            && self.holds == Some(want.holds)
    }
}

impl Seen {
    /// Old kernels (before 5.10) keep no comment with a table: its sets mark it, too.
    pub(crate) fn is_ours(&self) -> bool {
        self.comment == nft::comment(TABLE_COMMENT)
            || tables().iter().any(|t| {
                t.sets.iter().all(|want| self.sets.iter().any(|have| have.name == want.name))
            })
    }

    /// Whether the set is there as it should be.
    pub(crate) fn has(&self, want: &Set) -> bool {
        self.sets.iter().any(|have| have.is(want))
    }

    /// The names of all its sets but those that are part of a rule.
    pub(crate) fn set_names(&self) -> impl Iterator<Item = &str> {
        self.sets.iter().filter(|s| !s.anonymous).map(|s| s.name.as_str())
    }
}

/// Reads the table itself; `None` if it is not there.
pub(crate) fn get_table(
    reader: &Reader,
    family: Family,
) -> Result<Option<Vec<NfTablesMessage>>, Error> {
    let attributes = vec![TableAttribute::Name(TABLE.to_owned())];
    reader.query(family, NfTablesMessage::GetTable(TableMessage { attributes }), NLM_F_ACK)
}

/// Reads a table: its sets and the chains that every bottle shares, but no bottle's own.
pub(crate) fn look(reader: &Reader, table: &Table) -> Result<Option<Seen>, Error> {
    let Some(seen) = look_at_sets(reader, table.family)? else { return Ok(None) };
    let names: Vec<_> = table.chains.iter().map(|c| (table.family, c.name.as_ref())).collect();
    let chains = reader.chains(&names)?.into_iter().flatten().collect();
    Ok(Some(Seen { chains, ..seen }))
}

/// Whether the table is there and ours.
pub(crate) fn is_ours(reader: &Reader, family: Family) -> Result<bool, Error> {
    Ok(look_at_sets(reader, family)?.is_some_and(|seen| seen.is_ours()))
}

fn look_at_sets(reader: &Reader, family: Family) -> Result<Option<Seen>, Error> {
    let Some(answer) = get_table(reader, family)? else { return Ok(None) };
    let mut seen = Seen { comment: table_comment(&answer), ..Seen::default() };
    let attributes = vec![SetAttribute::Table(TABLE.to_owned())];
    let get = NfTablesMessage::GetSet(SetMessage { attributes });
    for message in reader.query(family, get, NLM_F_DUMP)?.unwrap_or_default() {
        if let NfTablesMessage::NewSet(SetMessage { attributes }) = message {
            seen.sets.push(seen_set(attributes));
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
    let (mut flags, mut data, mut counts) = (SetFlags::empty(), None, false);
    for attribute in attributes {
        match attribute {
            SetAttribute::Name(name) => set.name = name,
            SetAttribute::KeyType(number) => set.key_type = number,
            SetAttribute::KeyLen(length) => set.key_length = length,
            SetAttribute::Flags(found) => flags = found,
            SetAttribute::DataType(number) => data = Some(number),
            // A single expression is listed in this form, however it was written.
            SetAttribute::Expression(ExpressionAttribute::Name(name)) => counts = name == "counter",
            _ => {}
        }
    }
    set.anonymous = flags.contains(SetFlags::Anonymous);
    let is_map = flags.contains(SetFlags::Map);
    let special = SetFlags::Interval | SetFlags::Timeout | SetFlags::Constant | SetFlags::Object;
    set.holds = match (is_map, data, counts) {
        _ if flags.intersects(special) => None,
        (false, _, false) => Some(Holds::Keys),
        (false, _, true) => Some(Holds::Counters),
        (true, Some(VERDICTS), false) => Some(Holds::Verdicts),
        (true, ..) => None,
    };
    set
}

/// What is repaired as one: the rest is replaced as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Static,
}

/// Notes how the table differs.
pub(crate) fn expect(found: &mut Differences<Part>, table: &Table, seen: Option<&Seen>) {
    let family = table.family.name();
    let Some(seen) = seen else {
        found.expect(Part::Static, format!("table {family} {TABLE}"), "present", None);
        return;
    };
    for want in &table.sets {
        let have = seen.sets.iter().find(|s| s.name == want.name);
        let words = |number: u32, length: u32, holds: Option<Holds>| {
            let holds = match holds {
                Some(Holds::Keys) => "set",
                Some(Holds::Counters) => "set with counters",
                Some(Holds::Verdicts) => "map of verdicts",
                None => "set of another kind",
            };
            format!("{holds}, key type {number:#x}, {length} bytes")
        };
        found.expect(
            Part::Static,
            format!("set {family} {TABLE} {}", want.name),
            words(want.key_type(), want.key_length(), Some(want.holds)),
            have.map(|s| words(s.key_type, s.key_length, s.holds)),
        );
    }
    for want in &table.chains {
        let have = seen.chains.iter().find(|c| c.name == want.name);
        chain_diff::expect(found, Part::Static, table.family, want, have);
    }
}
