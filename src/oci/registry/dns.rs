//! Messages of the domain name system, as far as a stub resolver needs them. Pure.
//! Source: RFC 1035, section 4; RFC 3596.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kinds of address there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    V4 = 1,
    V6 = 28,
}

/// The class of the internet.
const IN: u16 = 1;

/// A server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The name's addresses of the kind that was asked for; none is an answer, too.
    Addresses(Vec<IpAddr>),
    /// There is no such name.
    NoName,
    /// The answer does not fit into a datagram.
    Truncated,
    /// The server cannot tell.
    Failed,
}

/// A question for the addresses of `name`; `None` if that is no name.
pub(super) fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.len() > 253 {
        return None;
    }
    let mut message = Vec::with_capacity(name.len() + 18);
    message.extend(id.to_be_bytes());
    // A standard query, recursion desired; one question.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        message.push(length);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend((kind as u16).to_be_bytes());
    message.extend(IN.to_be_bytes());
    Some(message)
}

/// Reads an answer to `question`; `None` if it is to something else, or damaged.
pub(super) fn answer(message: &[u8], question: &[u8], kind: Kind) -> Option<Answer> {
    let head = message.get(..12)?;
    let flags = u16::from_be_bytes([head[2], head[3]]);
    if head[..2] != question[..2] || flags >> 15 != 1 {
        return None;
    }
    if flags & 0x0200 != 0 {
        return Some(Answer::Truncated);
    }
    match flags & 0xf {
        0 => {}
        3 => return Some(Answer::NoName),
        _ => return Some(Answer::Failed),
    }
    // The question is repeated, perhaps in other letters (0x20 encoding is not ours).
    let asked = &question[12..];
    let repeated = message.get(12..12 + asked.len())?;
    if !repeated.eq_ignore_ascii_case(asked) {
        return None;
    }
    let count = u16::from_be_bytes([head[6], head[7]]);
    let mut at = question.len();
    let mut addresses = Vec::new();
    for _ in 0..count {
        at = after_name(message, at)?;
        let fixed = message.get(at..at + 10)?;
        let found = u16::from_be_bytes([fixed[0], fixed[1]]);
        let class = u16::from_be_bytes([fixed[2], fixed[3]]);
        let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        at += 10;
        let data = message.get(at..at + length)?;
        at += length;
        // Aliases on the way have other types.
        if found == kind as u16 && class == IN {
            addresses.push(match kind {
                Kind::V4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?)),
                Kind::V6 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?)),
            });
        }
    }
    Some(Answer::Addresses(addresses))
}

/// Where the name at `at` ends: after a zero, or after a pointer.
fn after_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with an alias and two addresses.
    fn reply(question: &[u8]) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2..4].copy_from_slice(&[0x81, 0x80]);
        message[7] = 3;
        message.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 4, 1, b'x', 0xc0, 12]);
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 1]);
        message.extend([1, b'x', 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 2]);
        message
    }

    #[test]
    fn addresses_are_read() {
        let asked = question(7, "Ghcr.io.", Kind::V4).unwrap();
        assert_eq!(&asked[12..], b"\x04Ghcr\x02io\0\0\x01\0\x01");
        let good = reply(&asked);
        let want = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from).to_vec();
        assert_eq!(answer(&good, &asked, Kind::V4), Some(Answer::Addresses(want)));
        assert_eq!(answer(&good, &asked, Kind::V6), Some(Answer::Addresses(Vec::new())));
        let with = |at: usize, byte: u8| {
            let mut message = good.clone();
            message[at] = byte;
            answer(&message, &asked, Kind::V4)
        };
        assert_eq!(with(2, 0x83), Some(Answer::Truncated));
        assert_eq!(with(3, 0x83), Some(Answer::NoName));
        assert_eq!(with(3, 0x82), Some(Answer::Failed));
        assert_eq!(with(0, 1), None, "another question's");
        assert_eq!(with(13, b'x'), None, "another name's");
        assert_eq!(with(2, 0x01), None, "no answer");
        for length in 0..good.len() {
            assert_eq!(answer(&good[..length], &asked, Kind::V4), None, "{length}");
        }
    }

    #[test]
    fn what_is_no_name_is_not_asked_for() {
        let long = format!("{}.b", "a".repeat(64));
        let longer = "a.".repeat(130);
        for name in ["", "a..b", ".", &long, &longer] {
            assert_eq!(question(1, name, Kind::V6), None, "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_answer_is_too_strange(bytes in proptest::collection::vec(0u8.., 0..300)) {
            let asked = question(0, "a", Kind::V4).unwrap();
            answer(&bytes, &asked, Kind::V4);
            let mut message = asked.clone();
            message[2] = 0x80;
            message[7] = 200;
            message.extend(bytes);
            answer(&message, &asked, Kind::V4);
        }
    }
}
