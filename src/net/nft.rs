//! nf_tables over netlink: one datagram is one transaction, which the kernel takes whole or not
//! at all. Each message holds for the caller's network namespace.
//!
//! The kernel answers inside sendmsg(2), so the socket never waits: what is not in its queue when
//! the call returns will not come.

use std::io;
use std::thread;

use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DataAttribute, Hook, HookNumber, ListAttribute, NfTablesMessage,
    RuleAttribute, RuleMessage, SetAttribute, SetElementAttribute, SetElementList,
    SetElementMessage, SetFlags, SetMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use crate::net::error::{Error, Refusal};
use crate::net::netlink::sentence;
use crate::net::nft_expr;
use crate::net::ruleset::{Chain, Element, Family, Rule, Set, TABLE, TABLE_COMMENT};

const FEATURE: &str = "nf_tables support (CONFIG_NF_TABLES, _INET, _BRIDGE, NFT_CT, NFT_MASQ)";

/// NF_ACCEPT.
const ACCEPT: u32 = 1;

type Message = NetlinkMessage<NetfilterMessage>;

fn family(family: Family) -> NetfilterProtoFamily {
    match family {
        Family::Inet => NetfilterProtoFamily::Inet,
        Family::Bridge => NetfilterProtoFamily::Bridge,
        Family::Ip => NetfilterProtoFamily::IPv4,
        Family::Ip6 => NetfilterProtoFamily::IPv6,
    }
}

fn message(
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
        let attributes = vec![
            SetAttribute::Table(TABLE.to_owned()),
            SetAttribute::Name(set.name.to_owned()),
            SetAttribute::Flags(SetFlags::empty()),
            SetAttribute::KeyType(set.key_type()),
            SetAttribute::KeyLen(set.key_length()),
            SetAttribute::Id(id),
            SetAttribute::UserData(NAMES_IN_HOST_ORDER.to_vec()),
        ];
        self.push(to, NfTablesMessage::NewSet(SetMessage { attributes }), NLM_F_CREATE);
    }

    pub(crate) fn delete_set(&mut self, from: Family, name: &str) {
        let attributes =
            vec![SetAttribute::Table(TABLE.to_owned()), SetAttribute::Name(name.to_owned())];
        self.push(from, NfTablesMessage::DeleteSet(SetMessage { attributes }), 0);
    }

    /// Adds a chain, without its rules: they may jump to chains that come later.
    pub(crate) fn add_chain(&mut self, to: Family, chain: &Chain) {
        let mut attributes = chain_name(chain.name);
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
        self.push(to, NfTablesMessage::NewChain(ChainMessage { attributes }), NLM_F_CREATE);
    }

    pub(crate) fn delete_chain(&mut self, from: Family, name: &str) {
        let attributes = chain_name(name);
        self.push(from, NfTablesMessage::DeleteChain(ChainMessage { attributes }), 0);
    }

    pub(crate) fn add_rule(&mut self, to: Family, chain: &Chain, rule: &Rule) {
        let attributes = vec![
            RuleAttribute::Table(TABLE.to_owned()),
            RuleAttribute::Chain(chain.name.to_owned()),
            RuleAttribute::Expressions(nft_expr::encode(&rule.expressions)),
            RuleAttribute::UserData(comment(rule.comment)),
        ];
        let inner = NfTablesMessage::NewRule(RuleMessage { attributes });
        self.push(to, inner, NLM_F_CREATE | NLM_F_APPEND);
    }

    /// Deletes all rules of the table.
    pub(crate) fn flush_rules(&mut self, from: Family) {
        let attributes = vec![RuleAttribute::Table(TABLE.to_owned())];
        self.push(from, NfTablesMessage::DeleteRule(RuleMessage { attributes }), 0);
    }

    /// Adds an element; with `exclusive` it must not be there.
    pub(crate) fn add_element(&mut self, element: &Element, exclusive: bool) {
        let inner = NfTablesMessage::NewSetElement(element_message(element));
        let flags = NLM_F_CREATE | if exclusive { NLM_F_EXCL } else { 0 };
        self.push(element.family, inner, flags);
    }

    pub(crate) fn delete_element(&mut self, element: &Element) {
        let inner = NfTablesMessage::DeleteSetElement(element_message(element));
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
        for reply in exchange(&object, operation, batch)? {
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

fn element_message(element: &Element) -> SetElementMessage {
    let key = SetElementAttribute::Key(DataAttribute::Value(element.key.clone()));
    SetElementMessage {
        attributes: vec![
            SetElementList::Table(TABLE.to_owned()),
            SetElementList::Set(element.set.to_owned()),
            SetElementList::Elements(vec![ListAttribute::Element(vec![key])]),
        ],
    }
}

/// Whether an element is there; not so either if its set or table is missing.
pub(crate) fn has_element(element: &Element) -> Result<bool, Error> {
    let get = NfTablesMessage::GetSetElement(element_message(element));
    Ok(query(element.family, get, NLM_F_ACK)?.is_some())
}

/// All elements of a set; none if it is missing.
pub(crate) fn elements(of: Family, set: &'static str) -> Result<Vec<Element>, Error> {
    let attributes =
        vec![SetElementList::Table(TABLE.to_owned()), SetElementList::Set(set.to_owned())];
    let get = NfTablesMessage::GetSetElement(SetElementMessage { attributes });
    let messages = query(of, get, NLM_F_DUMP)?.unwrap_or_default();
    let mut elements = Vec::new();
    for message in messages {
        let NfTablesMessage::NewSetElement(SetElementMessage { attributes }) = message else {
            continue;
        };
        for attribute in attributes {
            let SetElementList::Elements(list) = attribute else { continue };
            elements.extend(list.into_iter().filter_map(|element| key_of(element, of, set)));
        }
    }
    Ok(elements)
}

fn key_of(
    element: ListAttribute<SetElementAttribute>,
    family: Family,
    set: &'static str,
) -> Option<Element> {
    let ListAttribute::Element(attributes) = element else { return None };
    attributes.into_iter().find_map(|a| match a {
        SetElementAttribute::Key(DataAttribute::Value(key)) => Some(Element { family, set, key }),
        _ => None,
    })
}

/// Asks for one object, or for all with `NLM_F_DUMP`; `None` if what it belongs to is missing.
pub(crate) fn query(
    from: Family,
    get: NfTablesMessage,
    flags: u16,
) -> Result<Option<Vec<NfTablesMessage>>, Error> {
    query_about(&format!("firewall table {TABLE}"), from, get, flags)
}

/// The same of another table; `object` is for errors.
pub(crate) fn query_about(
    object: &str,
    from: Family,
    get: NfTablesMessage,
    flags: u16,
) -> Result<Option<Vec<NfTablesMessage>>, Error> {
    let mut messages = Vec::new();
    for reply in exchange(object, "read", vec![message(family(from), 0, get, flags)])? {
        match reply.payload {
            NetlinkPayload::InnerMessage(m) => {
                if let NetfilterMessageInner::NfTables(m) = m.inner {
                    messages.push(m);
                }
            }
            NetlinkPayload::Error(e) if e.code.is_some() => {
                let refusal = Refusal { errno: -e.raw_code(), said: sentence(&e.header) };
                if refusal.errno == libc::ENOENT {
                    return Ok(None);
                }
                return Err(refused(object, "read", refusal));
            }
            _ => {}
        }
    }
    Ok(Some(messages))
}

/// Sends the messages in one datagram and reads all replies.
fn exchange(
    object: &str,
    operation: &'static str,
    messages: Vec<Message>,
) -> Result<Vec<Message>, Error> {
    let dump = messages.iter().any(|m| m.header.flags & NLM_F_DUMP == NLM_F_DUMP);
    let failed = |source: io::Error| {
        let errno = source.raw_os_error().unwrap_or(libc::EIO);
        refused(object, operation, Refusal { errno, said: String::new() })
    };
    let closing_waits = messages.iter().any(is_deletion);
    let connection = Connection::open(closing_waits).map_err(failed)?;
    let socket = connection.get();
    socket.send(&serialize(messages), 0).map_err(failed)?;
    let mut replies = Vec::new();
    loop {
        let datagram = match socket.recv_from_full() {
            Ok((datagram, _)) => datagram,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(replies),
            Err(e) => return Err(failed(e)),
        };
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let reply =
                Message::deserialize(rest).map_err(|e| Error::answer(object, e.to_string()))?;
            let length = usize::try_from(reply.header.length).unwrap_or(usize::MAX);
            rest = rest.get(length.next_multiple_of(4).max(16)..).unwrap_or_default();
            if dump && matches!(reply.payload, NetlinkPayload::Done(_)) {
                return Ok(replies);
            }
            replies.push(reply);
        }
    }
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

/// A socket that nobody waits for when it is closed.
///
/// After something was deleted, closing the socket waits for the kernel to free it, which takes
/// an RCU grace period: 7 to 25 ms. The change itself is done when it is acknowledged, so the
/// closing is left to a thread of its own.
struct Connection {
    socket: Option<Socket>,
    closing_waits: bool,
}

impl Connection {
    fn open(closing_waits: bool) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket: Some(socket), closing_waits })
    }

    fn get(&self) -> &Socket {
        self.socket.as_ref().expect("the socket is there until the drop")
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(socket) = self.socket.take().filter(|_| self.closing_waits) else { return };
        // Without a thread to be had the closure, and with it the socket, is dropped right here.
        let _ =
            thread::Builder::new().name("carboy-nft-close".to_owned()).spawn(move || drop(socket));
    }
}

fn serialize(messages: Vec<Message>) -> Vec<u8> {
    let mut buffer = Vec::new();
    for (number, mut message) in (1..).zip(messages) {
        message.header.sequence_number = number;
        message.finalize();
        let start = buffer.len();
        buffer.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut buffer[start..]);
    }
    buffer
}

/// An attribute the crate has no type for.
pub(crate) fn attribute_u32(kind: u16, value: u32) -> DefaultNla {
    DefaultNla::new(kind, value.to_be_bytes().to_vec())
}
