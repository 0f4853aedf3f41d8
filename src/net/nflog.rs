//! What the kernel tells of denied packets (nfnetlink_log): what to ask for, and how to read it.
//! Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nflog::{ConfigCmd, ConfigMode, ConfigNla, config_request};
use serde::Serialize;

use crate::net::ruleset::Reason;

/// `NETLINK_NETFILTER`.
pub const PROTOCOL: i32 = libc::NETLINK_NETFILTER;

/// Groups below are left to others, who count from 0.
const FIRST_GROUP: u16 = 1024;

/// Enough for the headers of IPv6 with extensions, and TCP.
const COPIED: u32 = 128;

/// A packet that was denied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Denied {
    /// Why; `None` if the kernel did not say.
    pub reason: Option<Reason>,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `arp`, or a number: of an IP protocol, or with `0x` of a type
    /// of frame.
    pub protocol: String,
    /// Where it came from; of ARP the sender.
    pub source: Option<IpAddr>,
    /// Where it was to go; of ARP the address that was asked for.
    pub destination: Option<IpAddr>,
    /// The port it came from, of TCP and UDP.
    pub source_port: Option<u16>,
    /// The port it was for, of TCP and UDP.
    pub port: Option<u16>,
}

/// The groups to choose from, each once, beginning with the one that the name's hash picks.
pub fn groups(seed: u32) -> impl Iterator<Item = u16> {
    let count = u32::from(u16::MAX - FIRST_GROUP) + 1;
    (0..count).map(move |n| {
        let number = (seed % count + n) % count;
        FIRST_GROUP + u16::try_from(number).unwrap_or_default()
    })
}

/// The messages that ask for a group's packets: one at a time, without waiting for more.
pub fn setup(group: u16) -> Vec<Vec<u8>> {
    let requests = [
        vec![ConfigNla::Cmd(ConfigCmd::Bind)],
        vec![ConfigNla::Mode(ConfigMode::new_packet(COPIED)), ConfigNla::QThresh(1)],
    ];
    let bytes = |attributes| {
        let request = config_request(NetfilterProtoFamily::Unspec, group, attributes);
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        bytes
    };
    requests.map(bytes).to_vec()
}

/// The denied packets of a datagram. What is no message about a packet is passed over, and what is
/// missing in one stays unsaid: the bytes come from a file.
pub fn parse(datagram: &[u8]) -> Vec<Denied> {
    const HEADER: usize = 16;
    /// NFNL_SUBSYS_ULOG, and NFULNL_MSG_PACKET in the low byte.
    const PACKET: u16 = 4 << 8;
    let mut found = Vec::new();
    let mut rest = datagram;
    while let Some(length) = rest.first_chunk().map(|b| u32::from_ne_bytes(*b)) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(message) = rest.get(HEADER..length) else { break };
        if rest.get(4..6) == Some(&PACKET.to_ne_bytes()) {
            found.extend(packet(message));
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// A message without its header: four bytes of family, version and group, then attributes
/// (linux/netfilter/nfnetlink_log.h).
fn packet(message: &[u8]) -> Option<Denied> {
    const NFULA_PACKET_HDR: u16 = 1;
    const NFULA_MARK: u16 = 2;
    const NFULA_PAYLOAD: u16 = 9;
    let (mut kind, mut mark, mut payload) = (0, None, &[][..]);
    let mut rest = message.get(4..)?;
    while let Some(&[l0, l1, k0, k1, ..]) = rest.get(..4) {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let Some(value) = rest.get(4..length) else { break };
        match u16::from_ne_bytes([k0, k1]) {
            NFULA_PACKET_HDR => kind = word(value, 0)?,
            NFULA_MARK => mark = value.first_chunk().map(|b| u32::from_be_bytes(*b)),
            NFULA_PAYLOAD => payload = value,
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let reason = mark.and_then(Reason::of_mark);
    Some(Denied { reason, ..flow(kind, payload) })
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

fn ip4(bytes: &[u8], at: usize) -> Option<IpAddr> {
    bytes.get(at..)?.first_chunk::<4>().map(|b| Ipv4Addr::from(*b).into())
}

fn ip6(bytes: &[u8], at: usize) -> Option<IpAddr> {
    bytes.get(at..)?.first_chunk::<16>().map(|b| Ipv6Addr::from(*b).into())
}

/// What the headers say (RFC 791, RFC 8200, RFC 826), as far as they were copied.
fn flow(kind: u16, bytes: &[u8]) -> Denied {
    match kind {
        0x0800 => {
            let header = usize::from(bytes.first().copied().unwrap_or_default() & 0x0f) * 4;
            // A later fragment has no ports.
            let first = word(bytes, 6).is_some_and(|fragment| fragment & 0x1fff == 0);
            let transport = if first { bytes.get(header..) } else { None };
            let ends = (ip4(bytes, 12), ip4(bytes, 16));
            transported(bytes.get(9).copied(), ends, transport)
        }
        0x86dd => {
            let ends = (ip6(bytes, 8), ip6(bytes, 24));
            let (protocol, transport) = behind_extensions(bytes);
            transported(protocol, ends, transport)
        }
        0x0806 => Denied {
            protocol: "arp".to_owned(),
            source: ip4(bytes, 14),
            destination: ip4(bytes, 24),
            ..Denied::default()
        },
        other => Denied { protocol: format!("{other:#06x}"), ..Denied::default() },
    }
}

/// The protocol and what follows the extension headers that can be passed over (RFC 8200, section 4).
fn behind_extensions(bytes: &[u8]) -> (Option<u8>, Option<&[u8]>) {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const DESTINATION: u8 = 60;
    let (mut protocol, mut rest) = (bytes.get(6).copied(), bytes.get(40..));
    while let (Some(HOP_BY_HOP | ROUTING | DESTINATION), Some(&[next, length, ..])) =
        (protocol, rest)
    {
        rest = rest.and_then(|rest| rest.get((usize::from(length) + 1) * 8..));
        protocol = Some(next);
    }
    (protocol, rest)
}

fn transported(
    protocol: Option<u8>,
    (source, destination): (Option<IpAddr>, Option<IpAddr>),
    transport: Option<&[u8]>,
) -> Denied {
    let port = |at| transport.and_then(|bytes| word(bytes, at));
    let has_ports = matches!(protocol, Some(6 | 17));
    let name = match protocol {
        Some(1) => "icmp".to_owned(),
        Some(6) => "tcp".to_owned(),
        Some(17) => "udp".to_owned(),
        Some(58) => "icmpv6".to_owned(),
        Some(number) => number.to_string(),
        None => "ip".to_owned(),
    };
    Denied {
        reason: None,
        protocol: name,
        source,
        destination,
        source_port: port(0).filter(|_| has_ports),
        port: port(2).filter(|_| has_ports),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn datagram(kind: u16, mark: u32, payload: &[u8]) -> Vec<u8> {
        let body = [
            vec![2, 0, 4, 0],
            attribute(1, &[&kind.to_be_bytes()[..], &[3, 0]].concat()),
            attribute(2, &mark.to_be_bytes()),
            attribute(9, payload),
        ]
        .concat();
        let length = u32::try_from(16 + body.len()).unwrap();
        let kind = 0x0400u16;
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], &body].concat()
    }

    fn tcp4() -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 2, 1, 2, 3, 4];
        packet.extend([0x30, 0x39, 0x01, 0xbb]);
        packet
    }

    #[test]
    fn a_packet_says_what_it_was() {
        let denied = parse(&datagram(0x0800, Reason::NotInEgress.mark(), &tcp4()));
        assert_eq!(
            denied,
            [Denied {
                reason: Some(Reason::NotInEgress),
                protocol: "tcp".to_owned(),
                source: Some("10.0.0.2".parse().unwrap()),
                destination: Some("1.2.3.4".parse().unwrap()),
                source_port: Some(12345),
                port: Some(443),
            }]
        );
        let json = serde_json::to_value(&denied[0]).unwrap();
        assert_eq!(json["reason"], "not-in-egress");
        let two = [datagram(0x0800, 1, &tcp4()), datagram(0x88b5, 5, &[])].concat();
        let two = parse(&two);
        assert_eq!(two.len(), 2);
        assert_eq!(
            (two[1].protocol.as_str(), two[1].reason),
            ("0x88b5", Some(Reason::ForeignFrame))
        );
    }

    #[test]
    fn each_kind_of_packet_is_read() {
        let mut later = tcp4();
        later[7] = 1;
        assert_eq!(flow(0x0800, &later).port, None);
        let arp = [&[0; 14][..], &[10, 0, 0, 2], &[0; 6], &[10, 0, 0, 1]].concat();
        let arp = flow(0x0806, &arp);
        assert_eq!(arp.source, Some("10.0.0.2".parse().unwrap()));
        assert_eq!(arp.destination, Some("10.0.0.1".parse().unwrap()));
        let mut six = vec![0x60, 0, 0, 0, 0, 8, 0, 64];
        six.extend([0xfd; 16]);
        six.extend([0xfe; 16]);
        // Eight bytes of hop-by-hop options, then UDP.
        six.extend([17, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 53]);
        let six = flow(0x86dd, &six);
        assert_eq!((six.protocol.as_str(), six.port), ("udp", Some(53)));
    }

    #[test]
    fn every_group_comes_once() {
        let all: Vec<u16> = groups(u32::MAX).collect();
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!((all.len(), distinct.len()), (64512, 64512));
        assert!(all.iter().all(|group| *group >= FIRST_GROUP));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            parse(&bytes);
            packet(&bytes);
            for kind in [0x0800, 0x86dd, 0x0806, 0] {
                flow(kind, &bytes);
                parse(&datagram(kind, 1, &bytes[..bytes.len().min(200)]));
            }
        }
    }
}
