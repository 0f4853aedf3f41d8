//! What a bottle's network promises, with real packets: a file for each promise. What must not
//! arrive is looked for where it would arrive, and something that may pass is sent behind it: when
//! that has come, the other has not.

mod bottles_apart;
mod drops;
mod egress;
mod host_services;
mod internal;
mod ipv6_off;
mod link_local;
mod older_rules;
mod other_bridges;
mod outside;
mod spoofing;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::common::bottle::{bundle_ip, inspect, text, up};
use crate::common::wire::{self, Mac, Wire, ethernet, ipv4, udp};
use crate::common::{TestHost, netns};

/// The last packet of a series, which may pass.
const LAST: &[u8] = b"this one may pass";

/// What packets that must not arrive have in them.
const FORBIDDEN: &[u8] = b"this one must not";

/// A port where nobody needs to listen.
const PORT: u16 = 4711;

/// A bottle, as one on its wire knows it.
#[derive(Debug)]
struct Bottle {
    slug: String,
    ip: Ipv4Addr,
    mac: Mac,
    gateway: Ipv4Addr,
    gateway_mac: Mac,
    bridge: String,
    netns: PathBuf,
    up: Value,
}

impl Bottle {
    #[track_caller]
    fn up(host: &TestHost, slug: &str, options: &[&str]) -> Self {
        let up = up(host, &[&[slug], options].concat());
        let (ip, gateway) = (bundle_ip(&up), text(&up, "gateway").parse::<Ipv4Addr>().unwrap());
        let mac = |kind, ip: Ipv4Addr| {
            let [a, b, c, d] = ip.octets();
            [2, kind, a, b, c, d]
        };
        Self {
            slug: slug.to_owned(),
            ip,
            mac: mac(0xb2, ip),
            gateway,
            gateway_mac: mac(0xb0, gateway),
            bridge: text(&up, "bridge").to_owned(),
            netns: host.netns(Some(text(&up, "container"))),
            up,
        }
    }

    /// The bundle's own wire.
    fn wire(&self) -> Wire {
        Wire::new(&self.netns, "eth0")
    }

    /// A frame to the gateway with this IPv4 packet.
    fn routed(&self, packet: &[u8]) -> Vec<u8> {
        ethernet(self.gateway_mac, self.mac, wire::IPV4, packet)
    }

    /// A datagram from the bundle's own address.
    fn datagram(&self, to: Ipv4Addr, port: u16, content: &[u8]) -> Vec<u8> {
        self.routed(&ipv4(self.ip, to, wire::UDP, &[], &udp(port, content)))
    }

    /// One attempt to connect from inside the bundle.
    fn connects(&self, to: impl Into<SocketAddr>) -> bool {
        netns::connect(&self.netns, to.into(), Duration::from_millis(700)).is_ok()
    }

    /// How many packets were dropped for the reason.
    #[track_caller]
    fn dropped(&self, host: &TestHost, reason: &str) -> u64 {
        let status = inspect(host, &self.slug);
        let count = &status["drops"][reason]["packets"];
        count.as_u64().unwrap_or_else(|| panic!("{reason} in {}", status["drops"]))
    }
}

/// A UDP socket in a network namespace that waits five seconds for what must come.
fn udp_socket(netns: PathBuf, address: Ipv4Addr, port: u16) -> UdpSocket {
    netns::inside(&netns, || {
        let socket = UdpSocket::bind((address, port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    })
}

/// The next datagram.
fn received(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 2048];
    let length = socket.recv(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

/// Sends the frames, then one that may pass, and asserts that of all that only the last arrives.
#[track_caller]
fn assert_only_last_passes(from: &Wire, frames: &[(&str, Vec<u8>)], last: &[u8], seen_at: &Wire) {
    for (_, frame) in frames {
        from.send(frame);
    }
    from.send(last);
    let arrived = seen_at.until(LAST, |frame| wire::contains(frame, FORBIDDEN));
    assert!(arrived.is_empty(), "arrived: {arrived:02x?}\nof {:?}", names(frames));
}

fn names<'a>(frames: &'a [(&str, Vec<u8>)]) -> Vec<&'a str> {
    frames.iter().map(|(name, _)| *name).collect()
}
