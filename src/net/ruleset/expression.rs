//! What rules are made of. Pure.

/// An expression of a rule. Registers are counted in words of four bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Loads a property of the packet.
    Meta {
        /// Which.
        key: Meta,
        /// Where to.
        to: u32,
    },
    /// Loads bytes of the packet.
    Payload {
        /// Counted from where.
        base: Header,
        /// In bytes.
        offset: u32,
        /// In bytes.
        length: u32,
        /// Where to.
        to: u32,
    },
    /// Loads a property of the packet's connection.
    Connection {
        /// Which.
        key: Conntrack,
        /// Where to.
        to: u32,
    },
    /// Masks the first word or words.
    Mask(Vec<u8>),
    /// Goes on if the first words equal the bytes.
    Equal(Vec<u8>),
    /// Goes on if the first words differ from the bytes.
    Differs(Vec<u8>),
    /// Goes on if what begins in the first word is in the set.
    In(String),
    /// Goes on if what begins in the first word is not in the set.
    NotIn(String),
    /// Counts packets and bytes.
    Counter,
    /// Ends with this verdict.
    Accept,
    /// Ends with this verdict.
    Drop,
    /// Goes on in another chain, and comes back.
    Jump(String),
    /// Takes the address of the outgoing interface as source.
    Masquerade,
}

/// A property of a packet (`NFT_META_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// The incoming interface's name.
    Iifname,
    /// The outgoing interface's name.
    Oifname,
    /// IPv4 or IPv6.
    Nfproto,
    /// The EtherType.
    Protocol,
    /// The protocol in the IP header, in IPv6 behind the extension headers.
    L4proto,
}

/// Where a payload's offset is counted from (`NFT_PAYLOAD_*_HEADER`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The Ethernet header.
    Link,
    /// The IPv4 or ARP header.
    Network,
    /// The TCP or UDP header; a later fragment has none, and no rule that asks for it matches.
    Transport,
}

/// A property of a connection (`NFT_CT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conntrack {
    /// New, established and so on, as bits.
    State,
    /// Among others whether it was translated, as bits.
    Status,
}
