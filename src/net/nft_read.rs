//! What nf_tables has: elements with their counters, chains and rules.

use netlink_packet_core::{NLA_HEADER_SIZE, NLM_F_ACK, NLM_F_DUMP, NlaBuffer, NlasIterator};
use netlink_packet_core::{NetlinkPayload, Parseable};
use netlink_packet_netfilter::NetfilterMessageInner;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook, NfTablesMessage, RuleAttribute, RuleMessage,
    SetElementList, SetElementMessage,
};
use serde::{Deserialize, Serialize};

use crate::net::error::{Error, Refusal};
use crate::net::netlink::sentence;
use crate::net::nft::{self, comment, element_message, message};
use crate::net::nft_expr;
use crate::net::nft_socket::{self, Connection, Message};
use crate::net::ruleset::{Element, Expression, Family, Rule, TABLE, Way};

/// `NFNL_SUBSYS_NFTABLES` and `NFT_MSG_NEWRULE`.
const NEW_RULE: u16 = 10 << 8 | 6;

/// `NFNL_SUBSYS_NFTABLES` and `NFT_MSG_NEWSETELEM`.
const NEW_SET_ELEMENT: u16 = 10 << 8 | 12;

/// How many objects are asked for at once: the answers must fit in a socket's usual buffer.
const AT_ONCE: usize = 16;

/// A socket to ask over, as often as one likes.
pub(crate) struct Reader {
    object: String,
    connection: Connection,
}

/// An answer as it came, and as it is understood.
type Answer = (Vec<u8>, Message);

/// An element that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeenElement {
    /// What the map has for it.
    pub(crate) way: Option<Way>,
    /// What it has counted.
    pub(crate) count: Option<Count>,
}

/// Packets and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// How many packets.
    pub packets: u64,
    /// How many bytes they had, from the network header on.
    pub bytes: u64,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// A chain that is there.
#[derive(Default)]
pub(crate) struct SeenChain {
    pub(crate) name: String,
    /// Kind, hook, priority and policy.
    pub(crate) base: Option<(String, u32, i32, u32)>,
    pub(crate) rules: Vec<SeenRule>,
}

/// A rule that is there.
pub(crate) struct SeenRule {
    comment: Vec<u8>,
    expressions: Vec<Option<Expression>>,
}

impl SeenRule {
    pub(crate) fn is(&self, want: &Rule) -> bool {
        self.comment == comment(&want.comment)
            && self.expressions.len() == want.expressions.len()
            && want.expressions.iter().zip(&self.expressions).all(|(w, h)| Some(w) == h.as_ref())
    }
}

impl Reader {
    /// Opens a socket in the caller's network namespace.
    pub(crate) fn open() -> Result<Self, Error> {
        Self::open_for(format!("firewall table {TABLE}"))
    }

    /// The same for other tables; `object` is for errors.
    pub(crate) fn open_for(object: String) -> Result<Self, Error> {
        let connection = Connection::open(&object, "read")?;
        Ok(Self { object, connection })
    }

    /// Asks for one object, or for all with `NLM_F_DUMP`; `None` if what it belongs to is missing.
    pub(crate) fn query(
        &self,
        from: Family,
        get: NfTablesMessage,
        flags: u16,
    ) -> Result<Option<Vec<NfTablesMessage>>, Error> {
        let request = message(nft::family(from), 0, get, flags);
        let mut messages = Vec::new();
        for reply in self.connection.exchange(&self.object, "read", vec![request])? {
            match (self.is_missing(&reply)?, reply.payload) {
                (true, _) => return Ok(None),
                (false, NetlinkPayload::InnerMessage(m)) => {
                    if let NetfilterMessageInner::NfTables(m) = m.inner {
                        messages.push(m);
                    }
                }
                _ => {}
            }
        }
        Ok(Some(messages))
    }

    /// Whether the reply says that there is no such thing; the error if it says anything worse.
    fn is_missing(&self, reply: &Message) -> Result<bool, Error> {
        match (nft_socket::errno_of(reply), &reply.payload) {
            (None | Some(0), _) => Ok(false),
            (Some(libc::ENOENT), _) => Ok(true),
            (Some(errno), NetlinkPayload::Error(e)) => {
                let refusal = Refusal { errno, said: sentence(&e.header) };
                Err(nft::refused(&self.object, "read", refusal))
            }
            (Some(errno), _) => {
                let refusal = Refusal { errno, said: String::new() };
                Err(nft::refused(&self.object, "read", refusal))
            }
        }
    }

    /// What is there of each of the elements, looked up by key; nothing of those whose set or table
    /// is missing.
    pub(crate) fn look_up(&self, elements: &[Element]) -> Result<Vec<Option<SeenElement>>, Error> {
        let requests = elements.iter().map(|element| {
            let place = Element { way: None, ..element.clone() };
            let get = NfTablesMessage::GetSetElement(element_message(&place));
            message(nft::family(element.family), 0, get, NLM_F_ACK)
        });
        let answers = self.answers(requests.collect())?;
        Ok(answers.into_iter().map(|a| a.map(|(raw, _)| seen_element(&raw))).collect())
    }

    /// The answer to each request for one object; `None` where there is no such thing.
    fn answers(&self, requests: Vec<Message>) -> Result<Vec<Option<Answer>>, Error> {
        let mut found = Vec::with_capacity(requests.len());
        for some in requests.chunks(AT_ONCE) {
            let start = found.len();
            found.resize_with(start + some.len(), || None);
            for raw in self.connection.exchange_raw(&self.object, "read", some.to_vec())? {
                let reply = nft_socket::parse(&self.object, &raw)?;
                let is_answer = matches!(reply.payload, NetlinkPayload::InnerMessage(_));
                if !self.is_missing(&reply)? && is_answer {
                    let number = nft_socket::number_of(&raw).filter(|n| *n < some.len());
                    let number =
                        number.ok_or_else(|| Error::answer(&self.object, "to another question"))?;
                    found[start + number] = Some((raw, reply));
                }
            }
        }
        Ok(found)
    }

    /// All elements of a set, without what it has for them; none if it is missing.
    ///
    /// The crate takes 80 µs to understand an element, which is too long where every bottle has one.
    pub(crate) fn elements(&self, of: Family, set: &'static str) -> Result<Vec<Element>, Error> {
        let attributes =
            vec![SetElementList::Table(TABLE.to_owned()), SetElementList::Set(set.to_owned())];
        let get = NfTablesMessage::GetSetElement(SetElementMessage { attributes });
        let request = message(nft::family(of), 0, get, NLM_F_DUMP);
        let mut elements = Vec::new();
        for raw in self.connection.exchange_raw(&self.object, "read", vec![request])? {
            if nft_socket::kind_of(&raw) == Some(NEW_SET_ELEMENT) {
                let keys = keys_of(&raw).into_iter();
                elements.extend(keys.map(|key| Element { family: of, set, key, way: None }));
            } else if self.is_missing(&nft_socket::parse(&self.object, &raw)?)? {
                return Ok(Vec::new());
            }
        }
        Ok(elements)
    }

    /// The chains of these names with their rules; the kernel is asked for no others.
    pub(crate) fn chains(&self, names: &[(Family, &str)]) -> Result<Vec<Option<SeenChain>>, Error> {
        let requests = names.iter().map(|(family, name)| {
            let attributes = vec![
                ChainAttribute::Table(TABLE.to_owned()),
                ChainAttribute::Name((*name).to_owned()),
            ];
            let get = NfTablesMessage::GetChain(ChainMessage { attributes });
            message(nft::family(*family), 0, get, NLM_F_ACK)
        });
        let mut chains = Vec::with_capacity(names.len());
        for (answer, (family, name)) in self.answers(requests.collect())?.into_iter().zip(names) {
            let chain = answer.and_then(|(_, answer)| chain_of(answer));
            chains.push(match chain {
                Some(chain) => Some(SeenChain { rules: self.rules(*family, name)?, ..chain }),
                None => None,
            });
        }
        Ok(chains)
    }

    fn rules(&self, of: Family, chain: &str) -> Result<Vec<SeenRule>, Error> {
        let attributes =
            vec![RuleAttribute::Table(TABLE.to_owned()), RuleAttribute::Chain(chain.to_owned())];
        let get = NfTablesMessage::GetRule(RuleMessage { attributes });
        let request = message(nft::family(of), 0, get, NLM_F_DUMP);
        let mut rules = Vec::new();
        for raw in self.connection.exchange_raw(&self.object, "read", vec![request])? {
            if nft_socket::kind_of(&raw) == Some(NEW_RULE) {
                rules.push(seen_rule(&raw));
            } else if self.is_missing(&nft_socket::parse(&self.object, &raw)?)? {
                return Ok(Vec::new());
            }
        }
        Ok(rules)
    }

    /// The names of all chains of the table.
    pub(crate) fn chain_names(&self, of: Family) -> Result<Vec<String>, Error> {
        let ours = ChainAttribute::Table(TABLE.to_owned());
        let get = NfTablesMessage::GetChain(ChainMessage { attributes: vec![ours.clone()] });
        let messages = self.query(of, get, NLM_F_DUMP)?.unwrap_or_default();
        let names = messages.into_iter().filter_map(|message| match message {
            // Older kernels list the chains of all tables.
            NfTablesMessage::NewChain(ChainMessage { attributes })
                if attributes.contains(&ours) =>
            {
                Some(seen_chain(attributes).name)
            }
            _ => None,
        });
        Ok(names.collect())
    }
}

/// The headers of netlink and nfnetlink.
const HEADERS: usize = 16 + 4;
const LIST_ELEMENTS: u16 = 3;
const LIST_ELEMENT: u16 = 1;

/// The keys of all elements in an answer.
fn keys_of(answer: &[u8]) -> Vec<Vec<u8>> {
    const KEY: u16 = 1;
    const DATA_VALUE: u16 = 1;
    let attributes = answer.get(HEADERS..).unwrap_or_default();
    let list = inside(attributes, &[LIST_ELEMENTS]).unwrap_or_default();
    let elements = NlasIterator::new(list).filter_map(Result::ok);
    let elements = elements.filter(|a| a.kind() == LIST_ELEMENT).filter_map(content);
    elements.filter_map(|element| Some(inside(element, &[KEY, DATA_VALUE])?.to_vec())).collect()
}

/// Reads the answer itself: the crate keeps nothing but the name of an element's expression.
fn seen_element(reply: &[u8]) -> SeenElement {
    const DATA: u16 = 2;
    const DATA_VERDICT: u16 = 2;
    const EXPRESSION: u16 = 7;
    const EXPRESSION_DATA: u16 = 2;
    let attributes = reply.get(HEADERS..).unwrap_or_default();
    let element = inside(attributes, &[LIST_ELEMENTS, LIST_ELEMENT]);
    SeenElement {
        way: inside(element.unwrap_or_default(), &[DATA, DATA_VERDICT]).and_then(seen_way),
        count: inside(element.unwrap_or_default(), &[EXPRESSION, EXPRESSION_DATA])
            .and_then(seen_count),
    }
}

fn seen_way(verdict: &[u8]) -> Option<Way> {
    const CODE: u16 = 1;
    const CHAIN: u16 = 2;
    const JUMP: i32 = -3;
    let code = i32::from_be_bytes(*inside(verdict, &[CODE])?.first_chunk()?);
    match code {
        JUMP => {
            let chain = String::from_utf8_lossy(inside(verdict, &[CHAIN])?).into_owned();
            Some(Way::Jump(chain.trim_end_matches('\0').to_owned()))
        }
        _ if code.cast_unsigned() == nft::ACCEPT => Some(Way::Accept),
        _ => None,
    }
}

fn seen_count(counter: &[u8]) -> Option<Count> {
    const BYTES: u16 = 1;
    const PACKETS: u16 = 2;
    let number = |kind| Some(u64::from_be_bytes(*inside(counter, &[kind])?.first_chunk()?));
    Some(Count { packets: number(PACKETS)?, bytes: number(BYTES)? })
}

/// The content of the attribute that the path of nested ones leads to.
fn inside<'a>(attributes: &'a [u8], path: &[u16]) -> Option<&'a [u8]> {
    path.iter().try_fold(attributes, |attributes, kind| {
        let mut all = NlasIterator::new(attributes).filter_map(Result::ok);
        all.find(|a| a.kind() == *kind).and_then(content)
    })
}

fn content(attribute: NlaBuffer<&[u8]>) -> Option<&[u8]> {
    let end = NLA_HEADER_SIZE + attribute.value_length();
    attribute.into_inner().get(NLA_HEADER_SIZE..end)
}

fn chain_of(answer: Message) -> Option<SeenChain> {
    let NetlinkPayload::InnerMessage(m) = answer.payload else { return None };
    match m.inner {
        NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(ChainMessage { attributes })) => {
            Some(seen_chain(attributes))
        }
        _ => None,
    }
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

/// Leaves the crate the single expressions: it writes down the whole rule for each of them, for an
/// error that does not happen. One that it does not understand is missing, as no rule of ours has it.
fn seen_rule(answer: &[u8]) -> SeenRule {
    const EXPRESSIONS: u16 = 4;
    const USER_DATA: u16 = 7;
    let attributes = answer.get(HEADERS..).unwrap_or_default();
    let listed = inside(attributes, &[EXPRESSIONS]).unwrap_or_default();
    let listed = NlasIterator::new(listed).filter_map(Result::ok);
    let listed: Vec<_> = listed.filter_map(|each| nft_expr::Listed::parse(&each).ok()).collect();
    SeenRule {
        comment: inside(attributes, &[USER_DATA]).unwrap_or_default().to_vec(),
        expressions: nft_expr::decode(&listed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + content.len()).unwrap();
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), content].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn keys_are_read_from_an_answer_whatever_is_beside_them() {
        let element = |key: &[u8]| {
            let data = attribute(0x8000 | 1, &attribute(1, key));
            attribute(0x8000 | 1, &[attribute(3, &[0; 4]), data].concat())
        };
        let list = [element(b"one"), attribute(9, b"?"), element(b"three")].concat();
        let answer =
            [vec![0; HEADERS], attribute(1, b"carboy"), attribute(0x8000 | 3, &list)].concat();
        assert_eq!(keys_of(&answer), [b"one".to_vec(), b"three".to_vec()]);
        // What is cut short is read as far as it goes.
        for length in 0..answer.len() {
            assert!(keys_of(&answer[..length]).len() <= 2);
        }
    }
}
