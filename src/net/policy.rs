//! What a bottle's network may be used for, as asked for: ports of the host, destinations outside,
//! whether what is denied is kept. Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A transport protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The number in the IP header (IANA).
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl FromStr for Protocol {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(PolicyError::Protocol { text: text.to_owned() }),
        }
    }
}

/// A rule as the user wrote it that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Neither `tcp` nor `udp`.
    #[error("{text:?} is neither tcp nor udp")]
    Protocol {
        /// As written.
        text: String,
    },
    /// Not a number from 1 to 65535.
    #[error("{text:?} is no port: a number from 1 to 65535")]
    Port {
        /// As written.
        text: String,
    },
    /// Neither an address nor a range.
    #[error("{text:?} is neither an IP address nor a range of them")]
    Destination {
        /// As written.
        text: String,
    },
    /// A range with bits set behind its prefix.
    #[error("range {range} has host bits set; write {}", range.trunc())]
    HostBits {
        /// As written.
        range: IpNet,
    },
    /// Not of the form that was expected.
    #[error("{text:?} is not of the form {form}")]
    Form {
        /// As written.
        text: String,
        /// What it should look like.
        form: &'static str,
    },
}

fn port(text: &str) -> Result<u16, PolicyError> {
    let wrong = || PolicyError::Port { text: text.to_owned() };
    // `parse` would take a sign.
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    text.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)
}

/// A port of the host, at the network's gateway address, that a bundle may connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol, self.port)
    }
}

impl FromStr for HostPort {
    type Err = PolicyError;

    /// `tcp/8080`; Docker's `8080/tcp` is understood too.
    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let form = "tcp/8080";
        let Some((one, other)) = text.split_once('/') else {
            return Err(PolicyError::Form { text: text.to_owned(), form });
        };
        let swap = one.starts_with(|c: char| c.is_ascii_digit());
        let (protocol, number) = if swap { (other, one) } else { (one, other) };
        Ok(Self { protocol: protocol.parse()?, port: port(number)? })
    }
}

/// A destination outside that a bundle may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Egress {
    /// The addresses.
    pub destination: IpNet,
    /// The port; every one if `None`.
    pub port: Option<u16>,
    /// The protocol; both, or with no port every one there is, if `None`.
    pub protocol: Option<Protocol>,
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.destination, self.port) {
            (IpNet::V6(range), Some(port)) => write!(f, "[{range}]:{port}")?,
            (range, Some(port)) => write!(f, "{range}:{port}")?,
            (range, None) => write!(f, "{range}")?,
        }
        self.protocol.map_or(Ok(()), |protocol| write!(f, "/{protocol}"))
    }
}

impl FromStr for Egress {
    type Err = PolicyError;

    /// `CIDR[:port][/proto]`; an address alone is a range of one. IPv6 with a port stands in
    /// brackets: `[2001:db8::/32]:443/tcp`.
    fn from_str(text: &str) -> Result<Self, PolicyError> {
        // What follows the last slash is a protocol unless it is a prefix length or begins one.
        let (rest, protocol) = match text.rsplit_once('/') {
            Some((rest, last)) if !last.starts_with(|c: char| c.is_ascii_digit()) => {
                (rest, Some(last.parse()?))
            }
            _ => (text, None),
        };
        let (range, number) = split_port(rest)?;
        let number = number.map(port).transpose()?;
        let destination = range
            .parse::<IpNet>()
            .or_else(|_| range.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| PolicyError::Destination { text: range.to_owned() })?;
        if destination.trunc() != destination {
            return Err(PolicyError::HostBits { range: destination });
        }
        Ok(Self { destination, port: number, protocol })
    }
}

/// Parts `RANGE[:PORT]`, where an IPv6 range has colons of its own.
fn split_port(text: &str) -> Result<(&str, Option<&str>), PolicyError> {
    let form = "[2001:db8::/32]:443";
    if let Some(inner) = text.strip_prefix('[') {
        let wrong = || PolicyError::Form { text: text.to_owned(), form };
        let (range, rest) = inner.split_once(']').ok_or_else(wrong)?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((range, Some(port))),
            None if rest.is_empty() => Ok((range, None)),
            None => Err(wrong()),
        };
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Ok((text, None)),
        Some((range, port)) => Ok((range, Some(port))),
        None => Ok((text, None)),
    }
}

macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }

        impl TryFrom<String> for $type {
            type Error = PolicyError;

            fn try_from(text: String) -> Result<Self, PolicyError> {
                text.parse()
            }
        }
    )*};
}

as_text!(HostPort, Egress);

/// What a bottle's network may be used for. The default is Docker's: everything outside, nothing
/// of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPolicy {
    /// No way out at all.
    #[serde(default)]
    pub internal: bool,
    /// The only destinations outside; every one if `None`. Sorted, each once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<Egress>>,
    /// The ports of the host that are open to the bundle. Sorted, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
    /// Whether denied flows are kept to be listed.
    #[serde(default)]
    pub log_drops: bool,
}

impl NetworkPolicy {
    /// The same policy in the one form that can be compared: sorted, nothing twice.
    pub fn normalized(mut self) -> Self {
        if let Some(egress) = &mut self.egress {
            egress.sort_unstable();
            egress.dedup();
        }
        self.host_ports.sort_unstable();
        self.host_ports.dedup();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_ports_read_back_as_written() {
        for (text, canonical) in
            [("tcp/8080", "tcp/8080"), ("udp/53", "udp/53"), ("53/udp", "udp/53")]
        {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), canonical);
        }
        for bad in ["tcp", "tcp/0", "tcp/65536", "sctp/1", "tcp/+1", "/", "tcp/", "8080", "1/2"] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad}");
        }
    }

    #[test]
    fn egress_reads_back_as_written() {
        for (text, canonical) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("1.2.3.4", "1.2.3.4/32"),
            ("1.2.3.4:443", "1.2.3.4/32:443"),
            ("1.2.3.4:443/tcp", "1.2.3.4/32:443/tcp"),
            ("10.0.0.0/8:53/udp", "10.0.0.0/8:53/udp"),
            ("10.0.0.0/8/udp", "10.0.0.0/8/udp"),
            ("0.0.0.0/0:443/tcp", "0.0.0.0/0:443/tcp"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("2001:db8::/32/tcp", "2001:db8::/32/tcp"),
            ("[2001:db8::/32]:443/tcp", "[2001:db8::/32]:443/tcp"),
            ("[2001:db8::1]:443", "[2001:db8::1/128]:443"),
            ("[2001:db8::1]", "2001:db8::1/128"),
        ] {
            let egress = text.parse::<Egress>().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(egress.to_string(), canonical);
            assert_eq!(canonical.parse::<Egress>().unwrap(), egress);
        }
        for bad in [
            "",
            "example.org",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "1.2.3.4:0",
            "1.2.3.4:x",
            "1.2.3.4/icmp",
            "[::1",
            "[::1]443",
            ":443",
            "1.2.3.4:443/",
            "1.2.3.4:",
        ] {
            assert!(bad.parse::<Egress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn order_and_repetition_do_not_matter() {
        let policy = |egress: &[&str]| NetworkPolicy {
            egress: Some(egress.iter().map(|e| e.parse().unwrap()).collect()),
            ..NetworkPolicy::default()
        };
        assert_eq!(
            policy(&["1.2.3.4", "10.0.0.0/8", "1.2.3.4"]).normalized(),
            policy(&["10.0.0.0/8", "1.2.3.4"]).normalized()
        );
    }
}
