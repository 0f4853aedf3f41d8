//! A bundle's ports, as callers outside of it reach them: at the pinned address, with nothing in
//! between.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::Serialize;

use super::{Engine, Error};
use crate::names::Slug;
use crate::net::policy::{HostPort, PolicyError, Protocol};
use crate::oci::spec::Container;

/// A port with its protocol, as Docker writes it: `8080/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Port {
    /// Its number.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

impl FromStr for Port {
    type Err = PolicyError;

    /// A number alone is TCP's.
    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let with_protocol =
            if text.contains('/') { text.parse() } else { format!("{text}/tcp").parse() };
        let HostPort { protocol, port } = with_protocol?;
        Ok(Self { port, protocol })
    }
}

/// Where a port is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortAddress {
    /// The port.
    #[serde(flatten)]
    pub port: Port,
    /// The pinned address with the port.
    pub address: SocketAddr,
    /// The same for IPv6, if the bundle has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address6: Option<SocketAddr>,
}

impl Engine {
    /// Where a port of the bundle is reached. Whether anything listens there is the bundle's
    /// business.
    ///
    /// # Errors
    /// There is no such bottle, or it has no bundle.
    pub fn port(&self, slug: &Slug, port: Port) -> Result<PortAddress, Error> {
        Ok(address_of(&self.bundle_of(slug)?, port))
    }

    /// Where the ports are reached that the bundle's image exposes, in order.
    ///
    /// # Errors
    /// As [`Engine::port`], or the image cannot be read.
    pub fn ports(&self, slug: &Slug) -> Result<Vec<PortAddress>, Error> {
        let container = self.bundle_of(slug)?;
        // By its digest: the name may be another image's by now.
        let image = self.find_image_of(&container)?;
        let exposed = image.config.config().as_ref().and_then(|c| c.exposed_ports().clone());
        // What cannot be read was not meant for a port.
        let mut ports: Vec<Port> =
            exposed.unwrap_or_default().iter().filter_map(|text| text.parse().ok()).collect();
        ports.sort_unstable();
        ports.dedup();
        Ok(ports.into_iter().map(|port| address_of(&container, port)).collect())
    }

    fn bundle_of(&self, slug: &Slug) -> Result<Container, Error> {
        let status = self.inspect(slug)?;
        status.container.ok_or_else(|| Error::NoBottle { slug: slug.to_string() })
    }
}

fn address_of(container: &Container, port: Port) -> PortAddress {
    PortAddress {
        port,
        address: SocketAddr::from((container.ip, port.port)),
        address6: container.ip6.map(|ip6| SocketAddr::from((ip6, port.port))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_docker_writes_them() {
        for (text, canonical) in [
            ("8080", "8080/tcp"),
            ("8080/tcp", "8080/tcp"),
            ("53/udp", "53/udp"),
            ("tcp/1", "1/tcp"),
        ] {
            assert_eq!(text.parse::<Port>().unwrap().to_string(), canonical);
        }
        for bad in ["", "0", "65536", "tcp", "8080/sctp", "80-90/tcp", "+80"] {
            assert!(bad.parse::<Port>().is_err(), "{bad}");
        }
    }
}
