//! Changes of nf_tables over netlink: one datagram is one transaction, which the kernel takes whole
//! or not at all. Each message holds for the caller's network namespace.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, Hook, HookNumber, ListAttribute, NfTablesMessage,
    RuleAttribute, RuleMessage, SetAttribute, SetElementAttribute, SetElementList,
    SetElementMessage, SetFlags, SetMessage, TableAttribute, TableMessage, Verdict,
    VerdictAttribute,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};

use crate::net::error::{Error, Refusal};
use crate::net::netlink::sentence;
use crate::net::nft_expr;
use crate::net::nft_socket::{Connection, Message};
use crate::net::ruleset::{
    Chain, Element, Expression, Family, Holds, Rule, Set, TABLE, TABLE_COMMENT, Way,
};

const FEATURE: &str =
    "nf_tables support (CONFIG_NF_TABLES, _INET, _BRIDGE, NFT_CT, NFT_MASQ, NFT_LIMIT, NFT_LOG)";

/// NF_ACCEPT.
pub(crate) const ACCEPT: u32 = 1;

/// The type of a map's verdicts (`NFT_DATA_VERDICT`).
pub(crate) const VERDICTS: u32 = 0xffff_ff00;

pub(crate) fn family(family: Family) -> NetfilterProtoFamily {
    match family {
        Family::Inet => NetfilterProtoFamily::Inet,
        Family::Bridge => NetfilterProtoFamily::Bridge,
        Family::Ip => NetfilterProtoFamily::IPv4,
        Family::Ip6 => NetfilterProtoFamily::IPv6,
    }
}

pub(crate) fn message(
    family: NetfilterProtoFamily,
    resource: u16,
    inner: impl Into<NetfilterMessageInner>,
    flags: u16,
) -> Message {
    let header = NetfilterHeader::new(family, 0, resource);
    let mut message = NetlinkMessage::from(NetfilterMessage::new(header, inner));
    message.header.flags = NLM_F_REQUEST | flags;
    message
}

/// The comment of a table or a rule, as libnftnl lays user data out: kind 0, length, text with NUL.
pub(crate) fn comment(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len() + 1).unwrap_or(u8::MAX);
    [&[0, length][..], text.as_bytes(), &[0]].concat()
}

/// Changes that happen together or not at all.
pub(crate) struct Transaction {
    object: String,
    operation: &'static str,
    messages: Vec<Message>,
}

impl Transaction {
    /// An empty one; the words are for errors.
    pub(crate) fn new(object: impl Into<String>, operation: &'static str) -> Self {
        Self { object: object.into(), operation, messages: Vec::new() }
    }

    /// Adds a change of any table.
    pub(crate) fn push(&mut self, to: Family, inner: NfTablesMessage, flags: u16) {
        self.messages.push(message(family(to), 0, inner, flags));
    }

    /// Adds a table; with `exclusive` it must not be there.
    pub(crate) fn add_table(&mut self, to: Family, exclusive: bool) {
        let attributes = vec![
            TableAttribute::Name(TABLE.to_owned()),
            TableAttribute::UserData(comment(TABLE_COMMENT)),
        ];
        let flags = NLM_F_CREATE | if exclusive { NLM_F_EXCL } else { 0 };
        self.push(to, NfTablesMessage::NewTable(TableMessage { attributes }), flags);
    }

    pub(crate) fn delete_table(&mut self, from: Family) {
        let attributes = vec![TableAttribute::Name(TABLE.to_owned())];
        self.push(from, NfTablesMessage::DeleteTable(TableMessage { attributes }), 0);
    }

    pub(crate) fn add_set(&mut self, to: Family, set: &Set, id: u32) {
        // NFTNL_UDATA_SET_KEYBYTEORDER = 1 (host): with it `nft list` shows names, not numbers.
        const NAMES_IN_HOST_ORDER: [u8; 6] = [0, 4, 1, 0, 0, 0];
        let flags = match set.holds {
            Holds::Keys => SetFlags::empty(),
            Holds::Counters => SetFlags::Expression,
            Holds::Verdicts => SetFlags::Map,
        };
        let mut attributes = vec![
            SetAttribute::Table(TABLE.to_owned()),
            SetAttribute::Name(set.name.to_owned()),
            SetAttribute::Flags(flags),
            SetAttribute::KeyType(set.key_type()),
            SetAttribute::KeyLen(set.key_length()),
            SetAttribute::Id(id),
            SetAttribute::UserData(NAMES_IN_HOST_ORDER.to_vec()),
        ];
        match set.holds {
            Holds::Keys => {}
            // Each element gets a copy.
            Holds::Counters => attributes
                .push(SetAttribute::ListExpressions(nft_expr::encode(&[Expression::Counter]))),
            Holds::Verdicts => {
                attributes.extend([SetAttribute::DataType(VERDICTS), SetAttribute::DataLen(0)]);
            }
        }
        self.push(to, NfTablesMessage::NewSet(SetMessage { attributes }), NLM_F_CREATE);
    }

    pub(crate) fn delete_set(&mut self, from: Family, name: &str) {
        let attributes =
            vec![SetAttribute::Table(TABLE.to_owned()), SetAttribute::Name(name.to_owned())];
        self.push(from, NfTablesMessage::DeleteSet(SetMessage { attributes }), 0);
    }

    /// Adds a chain, without its rules: they may jump to chains that come later. With `exclusive` it
    /// must not be there.
    pub(crate) fn add_chain(&mut self, to: Family, chain: &Chain, exclusive: bool) {
        let mut attributes = chain_name(&chain.name);
        if let Some(base) = &chain.base {
            attributes.extend([
                ChainAttribute::Hook(vec![
                    Hook::Number(HookNumber::Other(base.hook)),
                    Hook::Priority(base.priority.cast_unsigned()),
                ]),
                ChainAttribute::Policy(ACCEPT),
                ChainAttribute::Type(base.kind.to_owned()),
            ]);
        }
        let flags = NLM_F_CREATE | if exclusive { NLM_F_EXCL } else { 0 };
        self.push(to, NfTablesMessage::NewChain(ChainMessage { attributes }), flags);
    }

    pub(crate) fn delete_chain(&mut self, from: Family, name: &str) {
        let attributes = chain_name(name);
        self.push(from, NfTablesMessage::DeleteChain(ChainMessage { attributes }), 0);
    }

    pub(crate) fn add_rule(&mut self, to: Family, chain: &Chain, rule: &Rule) {
        let attributes = vec![
            RuleAttribute::Table(TABLE.to_owned()),
            RuleAttribute::Chain(chain.name.to_string()),
            RuleAttribute::Expressions(nft_expr::encode(&rule.expressions)),
            RuleAttribute::UserData(comment(&rule.comment)),
        ];
        let inner = NfTablesMessage::NewRule(RuleMessage { attributes });
        self.push(to, inner, NLM_F_CREATE | NLM_F_APPEND);
    }

    /// Deletes all rules of a chain.
    pub(crate) fn flush_chain(&mut self, from: Family, name: &str) {
        let attributes =
            vec![RuleAttribute::Table(TABLE.to_owned()), RuleAttribute::Chain(name.to_owned())];
        self.push(from, NfTablesMessage::DeleteRule(RuleMessage { attributes }), 0);
    }

    /// Adds an element; with `exclusive` it must not be there.
    pub(crate) fn add_element(&mut self, element: &Element, exclusive: bool) {
        let inner = NfTablesMessage::NewSetElement(element_message(element));
        let flags = NLM_F_CREATE | if exclusive { NLM_F_EXCL } else { 0 };
        self.push(element.family, inner, flags);
    }

    pub(crate) fn delete_element(&mut self, element: &Element) {
        let place = Element { way: None, ..element.clone() };
        let inner = NfTablesMessage::DeleteSetElement(element_message(&place));
        self.push(element.family, inner, 0);
    }

    /// Commits; nothing has changed if it is refused.
    pub(crate) fn commit(self) -> Result<Result<(), Refusal>, Error> {
        /// The subsystem a batch is for stands in the header's resource id.
        const NFNL_SUBSYS_NFTABLES: u16 = 10;
        let Self { object, operation, messages } = self;
        if messages.is_empty() {
            return Ok(Ok(()));
        }
        if messages.iter().any(is_deletion) {
            Connection::deletes();
        }
        let control = |inner: ControlMessage| {
            message(NetfilterProtoFamily::Unspec, NFNL_SUBSYS_NFTABLES, inner, 0)
        };
        let mut batch = vec![control(ControlMessage::BatchBegin)];
        batch.extend(messages);
        // An acknowledgement of the last change says that the batch was read to its end.
        if let Some(last) = batch.last_mut() {
            last.header.flags |= NLM_F_ACK;
        }
        batch.push(control(ControlMessage::BatchEnd));
        let mut acknowledged = false;
        let connection = Connection::open(&object, operation)?;
        for reply in connection.exchange(&object, operation, batch)? {
            if let NetlinkPayload::Error(e) = reply.payload {
                match e.code {
                    None => acknowledged = true,
                    Some(code) => {
                        let said = sentence(&e.header);
                        return Ok(Err(Refusal { errno: -code.get(), said }));
                    }
                }
            }
        }
        if acknowledged { Ok(Ok(())) } else { Err(Error::answer(&object, "no acknowledgement")) }
    }

    /// Commits; a refusal becomes the error.
    pub(crate) fn commit_all(self) -> Result<(), Error> {
        let (object, operation) = (self.object.clone(), self.operation);
        self.commit()?.map_err(|refusal| refused(&object, operation, refusal))
    }
}

/// The error of a refused transaction. ENOENT while adding chains and rules means that the kernel
/// lacks a chain type or an expression; elsewhere, that the table or a set is missing.
pub(crate) fn refused(object: &str, operation: &'static str, refusal: Refusal) -> Error {
    Error::netlink(object, operation, FEATURE, refusal)
}

fn chain_name(name: &str) -> Vec<ChainAttribute> {
    vec![ChainAttribute::Table(TABLE.to_owned()), ChainAttribute::Name(name.to_owned())]
}

fn is_deletion(message: &Message) -> bool {
    let NetlinkPayload::InnerMessage(m) = &message.payload else { return false };
    matches!(
        m.inner,
        NetfilterMessageInner::NfTables(
            NfTablesMessage::DeleteTable(_)
                | NfTablesMessage::DeleteSet(_)
                | NfTablesMessage::DeleteChain(_)
                | NfTablesMessage::DeleteRule(_)
                | NfTablesMessage::DeleteSetElement(_)
        )
    )
}

/// The message about an element; whether it adds, deletes or reads stands around it.
pub(crate) fn element_message(element: &Element) -> SetElementMessage {
    let mut attributes = vec![SetElementAttribute::Key(DataAttribute::Value(element.key.clone()))];
    attributes.extend(element.way.as_ref().map(|way| {
        let verdict = match way {
            Way::Accept => vec![VerdictAttribute::Code(Verdict::Other(ACCEPT))],
            Way::Jump(chain) => {
                vec![VerdictAttribute::Code(Verdict::Jump), VerdictAttribute::Chain(chain.clone())]
            }
        };
        SetElementAttribute::Data(DataAttribute::Verdict(verdict))
    }));
    SetElementMessage {
        attributes: vec![
            SetElementList::Table(TABLE.to_owned()),
            SetElementList::Set(element.set.to_owned()),
            SetElementList::Elements(vec![ListAttribute::Element(attributes)]),
        ],
    }
}
