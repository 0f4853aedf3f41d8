//! The way past other firewalls of the host.
//!
//! An accept of carboy's tables does not overrule another table's drop. Docker sets the policy of
//! `ip filter FORWARD` to drop and keeps a chain for the administrator, `DOCKER-USER`; firewalld
//! ends its chains with a reject. At the head of these chains stand rules that accept what comes
//! from bundles' bridges or goes to them, once for all bottles. That opens nothing that carboy
//! closes: its own chains come first (priority −5), and what they drop gets to no other chain.
//!
//! Where there is no such chain there is nothing to do. Rules are known by their comment, so that
//! they are found wherever the administrator has moved them, and nothing else is touched.

use std::fs;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, NfTablesMessage, RuleAttribute, RuleMessage, TableAttribute,
    TableFlags, TableMessage,
};

use crate::names::BRIDGE_IFNAME_PREFIX;
use crate::net::bridge;
use crate::net::diff::Differences;
use crate::net::error::{Error, Refusal};
use crate::net::nft::{self, Transaction};
use crate::net::nft_expr;
use crate::net::nft_read::Reader;
use crate::net::ruleset::{BRIDGES, Expression, Family, Meta};
use crate::net::spec::Passage;
use crate::presence::{Creation, Drift, Presence, Removal};

/// A chain of another firewall that packets of bundles have to get through.
#[derive(Debug)]
struct Gate {
    family: Family,
    table: &'static str,
    chain: &'static str,
    ways: &'static [Way],
}

/// Which packets a rule accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    FromBundles,
    ToBundles,
}

const BOTH_WAYS: &[Way] = &[Way::FromBundles, Way::ToBundles];

/// `DOCKER-USER` is documented as the administrator's place, which dockerd leaves alone; firewalld
/// offers none in its own table, so its rules go when it reloads. Its input chain would reject what
/// goes to the host's ports that are open to bundles.
const GATES: [Gate; 4] = [
    Gate { family: Family::Ip, table: "filter", chain: "DOCKER-USER", ways: BOTH_WAYS },
    Gate { family: Family::Ip6, table: "filter", chain: "DOCKER-USER", ways: BOTH_WAYS },
    Gate { family: Family::Inet, table: "firewalld", chain: "filter_FORWARD", ways: BOTH_WAYS },
    Gate {
        family: Family::Inet,
        table: "firewalld",
        chain: "filter_INPUT",
        ways: &[Way::FromBundles],
    },
];

impl Way {
    /// The rule's comment, which iptables shows, too.
    fn comment(self) -> &'static str {
        match self {
            Self::FromBundles => "carboy: from bundles",
            Self::ToBundles => "carboy: to bundles",
        }
    }

    /// What `iptables -i cb-+ -j ACCEPT` makes, so that `iptables -S` and `iptables-save` can read
    /// it: they give up on a chain with an expression that they do not know.
    fn expressions(self) -> Vec<Expression> {
        let key = match self {
            Self::FromBundles => Meta::Iifname,
            Self::ToBundles => Meta::Oifname,
        };
        vec![
            Expression::Meta { key, to: 0 },
            Expression::Equal(BRIDGE_IFNAME_PREFIX.into()),
            Expression::Counter,
            Expression::Accept,
        ]
    }
}

impl Gate {
    fn name(&self) -> String {
        format!("{} {} {}", self.family.name(), self.table, self.chain)
    }

    fn place(&self) -> Vec<RuleAttribute> {
        vec![
            RuleAttribute::Table(self.table.to_owned()),
            RuleAttribute::Chain(self.chain.to_owned()),
        ]
    }

    fn rule(&self, way: Way) -> String {
        format!("rule \"{}\" of chain {}", way.comment(), self.name())
    }

    fn query(
        &self,
        reader: &Reader,
        get: NfTablesMessage,
        flags: u16,
    ) -> Result<Vec<NfTablesMessage>, Error> {
        Ok(reader.query(self.family, get, flags)?.unwrap_or_default())
    }

    fn exists(&self, reader: &Reader) -> Result<bool, Error> {
        let attributes = vec![
            ChainAttribute::Table(self.table.to_owned()),
            ChainAttribute::Name(self.chain.to_owned()),
        ];
        let get = NfTablesMessage::GetChain(ChainMessage { attributes });
        Ok(!self.query(reader, get, NLM_F_ACK)?.is_empty())
    }

    /// Whether a process holds the table for itself (`flags owner`): the kernel lets nobody else
    /// change it. firewalld 2.1 and later may do so.
    fn is_owned(&self, reader: &Reader) -> Result<bool, Error> {
        let attributes = vec![TableAttribute::Name(self.table.to_owned())];
        let get = NfTablesMessage::GetTable(TableMessage { attributes });
        Ok(self.query(reader, get, NLM_F_ACK)?.iter().any(|m| match m {
            NfTablesMessage::NewTable(table) => table.attributes.iter().any(
                |a| matches!(a, TableAttribute::Flags(flags) if flags.contains(TableFlags::Owner)),
            ),
            _ => false,
        }))
    }

    fn rules(&self, reader: &Reader) -> Result<Vec<SeenRule>, Error> {
        let get = NfTablesMessage::GetRule(RuleMessage { attributes: self.place() });
        let messages = self.query(reader, get, NLM_F_DUMP)?;
        Ok(messages
            .into_iter()
            .filter_map(|m| match m {
                NfTablesMessage::NewRule(rule) => seen_rule(self, rule),
                _ => None,
            })
            .collect())
    }
}

/// A rule of ours.
#[derive(Debug, PartialEq, Eq)]
struct SeenRule {
    handle: u64,
    way: Way,
    as_planned: bool,
}

/// `None` for somebody else's.
fn seen_rule(gate: &Gate, message: RuleMessage) -> Option<SeenRule> {
    let (mut handle, mut way, mut decoded) = (0, None, Vec::new());
    let mut place = gate.place();
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Handle(number) => handle = number,
            RuleAttribute::UserData(data) => {
                way = BOTH_WAYS.iter().find(|way| data == nft::comment(way.comment()));
            }
            RuleAttribute::Expressions(listed) => decoded = nft_expr::decode(&listed),
            other => place.retain(|wanted| *wanted != other),
        }
    }
    let way = *way.filter(|_| place.is_empty())?;
    let wanted: Vec<_> = way.expressions().into_iter().map(Some).collect();
    Some(SeenRule { handle, way, as_planned: decoded == wanted })
}

/// A gate that is there, with the rules of ours in it.
struct Seen {
    gate: &'static Gate,
    rules: Vec<SeenRule>,
}

impl Seen {
    fn has(&self, way: Way) -> bool {
        self.rules.iter().any(|rule| rule.way == way && rule.as_planned)
    }

    fn missing(&self) -> impl DoubleEndedIterator<Item = Way> {
        self.gate.ways.iter().copied().filter(|way| !self.has(*way))
    }
}

fn reader() -> Result<Reader, Error> {
    Reader::open_for("other firewalls".to_owned())
}

/// The gates that are there and can be changed.
fn look() -> Result<Vec<Seen>, Error> {
    let reader = reader()?;
    let mut all = Vec::new();
    for gate in &GATES {
        if gate.exists(&reader)? && !gate.is_owned(&reader)? {
            all.push(Seen { gate, rules: gate.rules(&reader)? });
        }
    }
    Ok(all)
}

/// Changes a chain; one that has gone meanwhile needs nothing any more.
fn change(
    gate: &Gate,
    operation: &'static str,
    adding: impl DoubleEndedIterator<Item = Way>,
    deleting: impl Iterator<Item = u64>,
) -> Result<(), Error> {
    let object = format!("the rules of carboy in chain {}", gate.name());
    let mut transaction = Transaction::new(object.clone(), operation);
    for handle in deleting {
        let attributes = [gate.place(), vec![RuleAttribute::Handle(handle)]].concat();
        let delete = NfTablesMessage::DeleteRule(RuleMessage { attributes });
        transaction.push(gate.family, delete, 0);
    }
    // Each goes to the head, before the one that was added last.
    for way in adding.rev() {
        let rule = vec![
            RuleAttribute::Expressions(nft_expr::encode(&way.expressions())),
            RuleAttribute::UserData(nft::comment(way.comment())),
        ];
        let attributes = [gate.place(), rule].concat();
        let add = NfTablesMessage::NewRule(RuleMessage { attributes });
        transaction.push(gate.family, add, NLM_F_CREATE);
    }
    match transaction.commit()? {
        Ok(()) | Err(Refusal { errno: libc::ENOENT, .. }) => Ok(()),
        Err(refusal) => Err(nft::refused(&object, operation, refusal)),
    }
}

/// Adds the rules to the chains that are there, if none has any of them.
///
/// # Errors
/// What the kernel said.
pub fn create(_spec: &Passage) -> Result<Creation, Error> {
    let gates = look()?;
    if gates.is_empty() || gates.iter().any(|seen| !seen.rules.is_empty()) {
        return Ok(Creation::Exists);
    }
    for seen in &gates {
        change(seen.gate, "add", seen.missing(), std::iter::empty())?;
    }
    Ok(Creation::Created)
}

fn differences(gates: &[Seen]) -> Differences<(usize, Way)> {
    let mut found = Differences::new();
    for (number, seen) in gates.iter().enumerate() {
        for way in seen.gate.ways {
            let there = seen.has(*way).then_some("present");
            found.expect((number, *way), seen.gate.rule(*way), "present", there);
        }
    }
    found
}

/// Present where every chain that is there has its rules; a host without such a chain needs none.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn observe(_spec: &Passage) -> Result<Presence, Error> {
    Ok(differences(&look()?).into_presence())
}

/// Adds what is missing, in place of what somebody has changed.
///
/// # Errors
/// What the kernel said.
pub fn repair(_spec: &Passage, drift: &[Drift]) -> Result<(), Error> {
    let gates = look()?;
    let parts = differences(&gates).parts(drift);
    for (number, seen) in gates.iter().enumerate() {
        let ways: Vec<Way> =
            parts.iter().filter(|(n, _)| *n == number).map(|(_, way)| *way).collect();
        let changed = seen.rules.iter().filter(|r| ways.contains(&r.way)).map(|r| r.handle);
        change(seen.gate, "put back", ways.iter().copied(), changed)?;
    }
    Ok(())
}

/// Deletes the rules, unless a bottle's element or bridge is left.
///
/// # Errors
/// What the kernel said.
pub fn remove(_spec: &Passage) -> Result<Removal, Error> {
    let gates: Vec<Seen> = look()?.into_iter().filter(|seen| !seen.rules.is_empty()).collect();
    let in_use = || {
        let bridges = Reader::open()?.elements(Family::Inet, BRIDGES)?;
        Ok(!bridges.is_empty() || bridge::any_left()?)
    };
    if gates.is_empty() || in_use()? {
        return Ok(Removal::Absent);
    }
    for seen in &gates {
        let handles = seen.rules.iter().map(|rule| rule.handle);
        change(seen.gate, "remove", std::iter::empty(), handles)?;
    }
    Ok(Removal::Removed)
}

/// What stands in the way of bundles and cannot be changed from here: a sentence each, with what
/// the administrator can do.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn obstacles() -> Result<Vec<String>, Error> {
    let reader = reader()?;
    let mut all = Vec::new();
    for gate in GATES.iter().filter(|gate| gate.ways == BOTH_WAYS) {
        if gate.exists(&reader)? && gate.is_owned(&reader)? {
            all.push(format!(
                "the firewall table {} {} lets nobody but its owner change it; if bundles do not \
                 get out: firewall-cmd --zone=trusted --add-interface={BRIDGE_IFNAME_PREFIX}+",
                gate.family.name(),
                gate.table
            ));
        }
    }
    if has_legacy_filter() {
        all.push(format!(
            "this host has rules of iptables-legacy, which carboy leaves alone; if they drop \
             forwarded packets: iptables-legacy -I FORWARD -i {BRIDGE_IFNAME_PREFIX}+ -j ACCEPT, \
             and the same with -o"
        ));
    }
    Ok(all)
}

/// The tables of x_tables, which nf_tables netlink does not show. The file is absent where the
/// kernel has none of them.
fn has_legacy_filter() -> bool {
    let names = fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    names.lines().any(|name| name == "filter")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(gate: &Gate, comment: &str, expressions: &[Expression]) -> RuleMessage {
        let mut attributes = gate.place();
        attributes.extend([
            RuleAttribute::Handle(7),
            RuleAttribute::Expressions(nft_expr::encode(expressions)),
            RuleAttribute::UserData(nft::comment(comment)),
        ]);
        RuleMessage { attributes }
    }

    #[test]
    fn a_rule_is_ours_by_its_comment_and_right_by_what_it_does() {
        let gate = &GATES[0];
        let (from, to) = (Way::FromBundles, Way::ToBundles);
        let ours = |way, as_planned| Some(SeenRule { handle: 7, way, as_planned });
        let cases = [
            (from.comment(), from.expressions(), ours(from, true)),
            (to.comment(), to.expressions(), ours(to, true)),
            (to.comment(), from.expressions(), ours(to, false)),
            (from.comment(), vec![Expression::Drop], ours(from, false)),
            ("somebody else's", from.expressions(), None),
        ];
        for (comment, expressions, expected) in cases {
            let seen = seen_rule(gate, message(gate, comment, &expressions));
            assert_eq!(seen, expected, "{comment} {expressions:?}");
        }
        let elsewhere = message(&GATES[2], from.comment(), &from.expressions());
        assert_eq!(seen_rule(gate, elsewhere), None);
    }

    #[test]
    fn each_missing_rule_is_named() {
        let rule = SeenRule { handle: 7, way: Way::ToBundles, as_planned: true };
        let gates = [Seen { gate: &GATES[0], rules: vec![rule] }];
        let resource = "rule \"carboy: from bundles\" of chain ip filter DOCKER-USER";
        let drift = vec![Drift::new(resource, "present", "absent")];
        assert_eq!(differences(&gates).into_presence(), Presence::Drifted(drift));
        assert_eq!(differences(&[]).into_presence(), Presence::Present);
    }
}
