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
    /// Loads these bytes into the first word.
    Load(Vec<u8>),
    /// Makes the first word the packet's mark.
    SetMark,
    /// Masks the first word or words.
    Mask(Vec<u8>),
    /// Goes on if the first words equal the bytes.
    Equal(Vec<u8>),
    /// Goes on if the first words differ from the bytes.
    Differs(Vec<u8>),
    /// Goes on if the first words, as a number of the network's byte order, are not less.
    AtLeast(Vec<u8>),
    /// Goes on if what begins in the first word is in the set.
    In(String),
    /// Goes on if what begins in the first word is not in the set.
    NotIn(String),
    /// Ends with, or jumps to, what the map has for what begins in the first word; goes on if it
    /// has nothing.
    VerdictOf(String),
    /// Goes on at most so often.
    Limit {
        /// Packets in a second.
        rate: u64,
        /// How many may come at once.
        burst: u32,
    },
    /// Tells a netlink group of the packet.
    Log {
        /// The group.
        group: u16,
        /// How many bytes of it.
        snaplen: u32,
    },
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
    /// The outgoing interface's kind, as in `ip -d link`; one without a kind matches nothing.
    Oifkind,
    /// IPv4 or IPv6.
    Nfproto,
    /// The protocol in the IP header, in IPv6 behind the extension headers.
    L4proto,
    /// The mark.
    Mark,
}

/// Where a payload's offset is counted from (`NFT_PAYLOAD_*_HEADER`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The Ethernet header.
    Link,
    /// The IPv4, IPv6 or ARP header.
    Network,
    /// The TCP, UDP or ICMP header; a later fragment has none, and no rule that asks for it matches.
    Transport,
}

/// A property of a connection (`NFT_CT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conntrack {
    /// New, established and so on, as bits.
    State,
    /// From the side that began it (0), or the answer (1); one byte.
    Direction,
    /// Among others whether it was translated, as bits.
    Status,
}
