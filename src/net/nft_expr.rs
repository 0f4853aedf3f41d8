//! The expressions of [`ruleset`](crate::net::ruleset) as the netlink crate's, and back. Pure.

use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute,
    Lookup, Meta as MetaAttribute, MetaKey, Operator, Payload, Register, Verdict, VerdictAttribute,
};

use crate::net::ruleset::{Conntrack, Expression, Header, Meta};

pub(crate) type Listed = ListAttribute<ExpressionAttribute>;

const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
/// NFT_LOOKUP_F_INV.
const INVERTED: u32 = 1;
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFTA_LIMIT_RATE: u16 = 1;
const NFTA_LIMIT_UNIT: u16 = 2;
const NFTA_LIMIT_BURST: u16 = 3;
const NFTA_LOG_GROUP: u16 = 1;
const NFTA_LOG_SNAPLEN: u16 = 3;

/// All expressions of a rule.
pub(crate) fn encode(expressions: &[Expression]) -> Vec<Listed> {
    expressions.iter().map(|e| encode_one(e).into()).collect()
}

/// All expressions of a rule, as far as they are of the kinds carboy uses: `None` stands for one
/// that is not.
pub(crate) fn decode(listed: &[Listed]) -> Vec<Option<Expression>> {
    listed
        .iter()
        .map(|element| {
            let ListAttribute::Element(attributes) = element else { return None };
            attributes.iter().find_map(|a| match a {
                ExpressionAttribute::Data(expression) => decode_one(expression),
                // An expression without attributes has no data, either.
                ExpressionAttribute::Name(name) if name == "masq" => Some(Expression::Masquerade),
                _ => None,
            })
        })
        .collect()
}

fn word(number: u32) -> Register {
    // NFT_REG32_00 is 8.
    Register::from(8 + number)
}

/// The kernel names a register that begins at 16 bytes by its older number, 1 to 4.
fn word_number(register: Register) -> u32 {
    match u32::from(register) {
        n @ 1..=4 => (n - 1) * 4,
        n => n.saturating_sub(8),
    }
}

fn value(bytes: &[u8]) -> DataAttribute {
    DataAttribute::Value(bytes.to_vec())
}

fn compare(op: Operator, bytes: &[u8]) -> Expressions {
    Expressions::Cmp(vec![Cmp::SourceRegister(word(0)), Cmp::Op(op), Cmp::Data(value(bytes))])
}

fn lookup(set: &str, flags: u32) -> Expressions {
    Expressions::Lookup(vec![
        Lookup::Set(set.to_owned()),
        Lookup::SourceRegister(word(0)),
        Lookup::Flags(flags),
    ])
}

fn verdict(code: Verdict, chain: Option<&str>) -> Expressions {
    let mut attributes = vec![VerdictAttribute::Code(code)];
    attributes.extend(chain.map(|c| VerdictAttribute::Chain(c.to_owned())));
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(attributes)),
    ])
}

fn other(name: &str, attributes: &[(u16, u32)]) -> Expressions {
    let attributes = attributes.iter().map(|(kind, value)| attribute_u32(*kind, *value)).collect();
    Expressions::Other { expression_type: name.to_owned(), attributes }
}

/// Attributes the crate has no types for.
fn attribute_u32(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

fn attribute_u64(kind: u16, value: u64) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}

fn meta_key(key: Meta) -> MetaKey {
    match key {
        Meta::Iifname => MetaKey::Iifname,
        Meta::Oifname => MetaKey::Oifname,
        Meta::Oifkind => MetaKey::Oifkind,
        Meta::Nfproto => MetaKey::Nfproto,
        Meta::L4proto => MetaKey::L4Proto,
        Meta::Mark => MetaKey::Mark,
    }
}

fn encode_one(expression: &Expression) -> Expressions {
    match expression {
        Expression::Meta { key, to } => Expressions::Meta(vec![
            MetaAttribute::DestinationRegister(word(*to)),
            MetaAttribute::Key(meta_key(*key)),
        ]),
        Expression::Payload { base, offset, length, to } => Expressions::Payload(vec![
            Payload::DestinationRegister(word(*to)),
            Payload::Base(match base {
                Header::Link => 0,
                Header::Network => 1,
                Header::Transport => 2,
            }),
            Payload::Offset(*offset),
            Payload::Len(*length),
        ]),
        Expression::Connection { key, to } => {
            let key = match key {
                Conntrack::State => 0,
                Conntrack::Direction => 1,
                Conntrack::Status => 2,
            };
            other("ct", &[(NFTA_CT_DREG, word(*to).into()), (NFTA_CT_KEY, key)])
        }
        Expression::Load(bytes) => Expressions::Immediate(vec![
            Immediate::DestinationRegister(word(0)),
            Immediate::Data(value(bytes)),
        ]),
        Expression::SetMark => Expressions::Meta(vec![
            MetaAttribute::Key(MetaKey::Mark),
            MetaAttribute::SourceRegister(word(0)),
        ]),
        Expression::Mask(mask) => Expressions::Bitwise(vec![
            Bitwise::SourceRegister(word(0)),
            Bitwise::DestinationRegister(word(0)),
            Bitwise::Length(u32::try_from(mask.len()).unwrap_or(u32::MAX)),
            Bitwise::Mask(value(mask)),
            Bitwise::Xor(value(&vec![0; mask.len()])),
        ]),
        Expression::Equal(bytes) => compare(Operator::Equal, bytes),
        Expression::Differs(bytes) => compare(Operator::NotEqual, bytes),
        Expression::AtLeast(bytes) => compare(Operator::GreatherThanEqual, bytes),
        Expression::In(set) => lookup(set, 0),
        Expression::NotIn(set) => lookup(set, INVERTED),
        Expression::VerdictOf(map) => Expressions::Lookup(vec![
            Lookup::Set(map.clone()),
            Lookup::SourceRegister(word(0)),
            Lookup::DestinationRegister(Register::Verdict),
        ]),
        Expression::Limit { rate, burst } => Expressions::Other {
            expression_type: "limit".to_owned(),
            attributes: vec![
                attribute_u64(NFTA_LIMIT_RATE, *rate),
                // In seconds.
                attribute_u64(NFTA_LIMIT_UNIT, 1),
                attribute_u32(NFTA_LIMIT_BURST, *burst),
            ],
        },
        Expression::Log { group, snaplen } => Expressions::Other {
            expression_type: "log".to_owned(),
            attributes: vec![
                DefaultNla::new(NFTA_LOG_GROUP, group.to_be_bytes().to_vec()),
                attribute_u32(NFTA_LOG_SNAPLEN, *snaplen),
            ],
        },
        Expression::Counter => other("counter", &[]),
        Expression::Accept => verdict(Verdict::Other(NF_ACCEPT), None),
        Expression::Drop => verdict(Verdict::Other(NF_DROP), None),
        Expression::Jump(chain) => verdict(Verdict::Jump, Some(chain)),
        Expression::Masquerade => other("masq", &[]),
    }
}

fn decode_one(expression: &Expressions) -> Option<Expression> {
    match expression {
        Expressions::Meta(attributes) => decode_meta(attributes),
        Expressions::Payload(attributes) => decode_payload(attributes),
        Expressions::Bitwise(attributes) => decode_mask(attributes),
        Expressions::Cmp(attributes) => decode_compare(attributes),
        Expressions::Lookup(attributes) => decode_lookup(attributes),
        Expressions::Immediate(attributes) => decode_immediate(attributes),
        Expressions::Other { expression_type, attributes } => {
            decode_other(expression_type, attributes)
        }
        _ => None,
    }
}

/// What the crate has no type for.
fn decode_other(name: &str, attributes: &[DefaultNla]) -> Option<Expression> {
    let number = |wanted: u16| {
        let found = attributes.iter().find(|a| a.kind() == wanted)?;
        let mut bytes = [0; 8];
        let length = found.value_len();
        found.emit_value(bytes.get_mut(..length)?);
        // The number stands in the first bytes; one without any is none.
        u64::from_be_bytes(bytes).checked_shr(8 * (8 - u32::try_from(length).ok()?))
    };
    let number32 = |wanted| u32::try_from(number(wanted)?).ok();
    match name {
        // Its attributes are the counts.
        "counter" => Some(Expression::Counter),
        "masq" => Some(Expression::Masquerade),
        "limit" => Some(Expression::Limit {
            rate: number(NFTA_LIMIT_RATE).filter(|_| number(NFTA_LIMIT_UNIT) == Some(1))?,
            burst: number32(NFTA_LIMIT_BURST)?,
        }),
        "log" => Some(Expression::Log {
            group: u16::try_from(number(NFTA_LOG_GROUP)?).ok()?,
            snaplen: number32(NFTA_LOG_SNAPLEN)?,
        }),
        "ct" => {
            let key = match number(NFTA_CT_KEY)? {
                0 => Conntrack::State,
                1 => Conntrack::Direction,
                2 => Conntrack::Status,
                _ => return None,
            };
            let to = word_number(Register::from(number32(NFTA_CT_DREG)?));
            Some(Expression::Connection { key, to })
        }
        _ => None,
    }
}

fn decode_meta(attributes: &[MetaAttribute]) -> Option<Expression> {
    let (mut key, mut to, mut sets) = (None, None, false);
    for attribute in attributes {
        match attribute {
            MetaAttribute::SourceRegister(r) if word_number(*r) == 0 => sets = true,
            MetaAttribute::Key(MetaKey::Iifname) => key = Some(Meta::Iifname),
            MetaAttribute::Key(MetaKey::Oifname) => key = Some(Meta::Oifname),
            MetaAttribute::Key(MetaKey::Oifkind) => key = Some(Meta::Oifkind),
            MetaAttribute::Key(MetaKey::Nfproto) => key = Some(Meta::Nfproto),
            MetaAttribute::Key(MetaKey::L4Proto) => key = Some(Meta::L4proto),
            MetaAttribute::Key(MetaKey::Mark) => key = Some(Meta::Mark),
            MetaAttribute::DestinationRegister(register) => to = Some(word_number(*register)),
            _ => return None,
        }
    }
    match (key?, to) {
        (key, Some(to)) => Some(Expression::Meta { key, to }),
        (Meta::Mark, None) if sets => Some(Expression::SetMark),
        _ => None,
    }
}

fn decode_payload(attributes: &[Payload]) -> Option<Expression> {
    let (mut base, mut offset, mut length, mut to) = (None, None, None, None);
    for attribute in attributes {
        match attribute {
            Payload::Base(0) => base = Some(Header::Link),
            Payload::Base(1) => base = Some(Header::Network),
            Payload::Base(2) => base = Some(Header::Transport),
            Payload::Offset(n) => offset = Some(*n),
            Payload::Len(n) => length = Some(*n),
            Payload::DestinationRegister(register) => to = Some(word_number(*register)),
            _ => return None,
        }
    }
    Some(Expression::Payload { base: base?, offset: offset?, length: length?, to: to? })
}

fn decode_mask(attributes: &[Bitwise]) -> Option<Expression> {
    let mut mask = None;
    for attribute in attributes {
        match attribute {
            Bitwise::Mask(DataAttribute::Value(bytes)) => mask = Some(bytes.clone()),
            Bitwise::Xor(DataAttribute::Value(bytes)) if bytes.iter().all(|b| *b == 0) => {}
            Bitwise::SourceRegister(r) | Bitwise::DestinationRegister(r)
                if word_number(*r) == 0 => {}
            // NFT_BITWISE_MASK_XOR is 0.
            Bitwise::Length(_) | Bitwise::Op(0) => {}
            _ => return None,
        }
    }
    mask.map(Expression::Mask)
}

fn decode_compare(attributes: &[Cmp]) -> Option<Expression> {
    let (mut operator, mut bytes) = (None, None);
    for attribute in attributes {
        match attribute {
            Cmp::Op(op) => operator = Some(*op),
            Cmp::Data(DataAttribute::Value(data)) => bytes = Some(data.clone()),
            Cmp::SourceRegister(r) if word_number(*r) == 0 => {}
            _ => return None,
        }
    }
    match operator? {
        Operator::Equal => bytes.map(Expression::Equal),
        Operator::NotEqual => bytes.map(Expression::Differs),
        Operator::GreatherThanEqual => bytes.map(Expression::AtLeast),
        _ => None,
    }
}

fn decode_lookup(attributes: &[Lookup]) -> Option<Expression> {
    let (mut set, mut inverted, mut maps) = (None, false, false);
    for attribute in attributes {
        match attribute {
            Lookup::Set(name) => set = Some(name.clone()),
            Lookup::Flags(flags) => inverted = *flags == INVERTED,
            Lookup::DestinationRegister(Register::Verdict) => maps = true,
            Lookup::SourceRegister(r) if word_number(*r) == 0 => {}
            _ => return None,
        }
    }
    set.map(match (inverted, maps) {
        (false, true) => Expression::VerdictOf,
        (true, _) => Expression::NotIn,
        (false, false) => Expression::In,
    })
}

fn decode_immediate(attributes: &[Immediate]) -> Option<Expression> {
    let loaded = attributes.iter().find_map(|a| match a {
        Immediate::Data(DataAttribute::Value(bytes)) => Some(bytes.clone()),
        _ => None,
    });
    if let Some(bytes) = loaded {
        let first =
            |a: &Immediate| matches!(a, Immediate::DestinationRegister(r) if word_number(*r) == 0);
        return attributes.iter().any(first).then_some(Expression::Load(bytes));
    }
    let data = attributes.iter().find_map(|a| match a {
        Immediate::Data(DataAttribute::Verdict(verdict)) => Some(verdict),
        _ => None,
    })?;
    let (mut code, mut chain) = (None, None);
    for attribute in data {
        match attribute {
            VerdictAttribute::Code(verdict) => code = Some(*verdict),
            VerdictAttribute::Chain(name) => chain = Some(name.clone()),
            _ => return None,
        }
    }
    match code? {
        Verdict::Jump => chain.map(Expression::Jump),
        Verdict::Other(NF_ACCEPT) => Some(Expression::Accept),
        Verdict::Other(NF_DROP) => Some(Expression::Drop),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ruleset::{Rule, tables};

    #[test]
    fn every_rule_reads_back_as_it_was_written() {
        let log = Rule {
            comment: "log".into(),
            expressions: vec![
                Expression::Limit { rate: 50, burst: 100 },
                Expression::Log { group: 7, snaplen: 128 },
            ],
        };
        for table in tables() {
            for rule in table.chains.iter().flat_map(|c| &c.rules).chain([&log]) {
                let expected: Vec<_> = rule.expressions.iter().cloned().map(Some).collect();
                assert_eq!(decode(&encode(&rule.expressions)), expected, "{}", rule.comment);
            }
        }
    }

    #[test]
    fn registers_have_two_numbers() {
        for (register, number) in [
            (Register::Reg1, 0),
            (Register::Reg2, 4),
            (Register::Reg32_00, 0),
            (Register::Reg32_06, 6),
        ] {
            assert_eq!(word_number(register), number);
        }
    }

    #[test]
    fn what_carboy_does_not_use_is_not_mistaken() {
        let foreign = [
            compare(Operator::LessThan, &[1]),
            other("limit", &[]),
            verdict(Verdict::Return, None),
            Expressions::Meta(vec![MetaAttribute::Key(MetaKey::Secmark)]),
        ];
        for expression in foreign {
            assert_eq!(decode_one(&expression), None, "{expression:?}");
        }
    }
}
