//! What has passed a bundle's port, as the kernel counts it on the host's end of the veth pair
//! (rtnetlink(7), IFLA_STATS64).

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, Stats64};
use serde::Serialize;

use crate::names::IfName;
use crate::net::error::Error;
use crate::net::link;
use crate::net::netlink;
use crate::net::veth_look::FEATURE;

/// Counted since the port was made, and as the bundle sees it: received is what it received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets for it that the port dropped.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets of it that the port dropped.
    pub tx_dropped: u64,
}

/// The counters of the port whose host end has this name; `None` if there is none.
///
/// # Errors
/// What the kernel said.
pub fn of(veth: &IfName) -> Result<Option<Counters>, Error> {
    let object = format!("veth pair {veth}");
    netlink::run(&object, FEATURE, async |route| {
        match route.one(link::get_by_name(veth.as_str())).await? {
            Err(refusal) if refusal.errno == libc::ENODEV => Ok(None),
            Err(refusal) => Err(route.refused("read the counters of", refusal)),
            Ok(messages) => Ok(messages.iter().find_map(counters)),
        }
    })
}

fn counters(message: &RouteNetlinkMessage) -> Option<Counters> {
    let RouteNetlinkMessage::NewLink(link) = message else { return None };
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Stats64(stats) => Some(seen_from_inside(stats)),
        _ => None,
    })
}

/// What the host's end sent is what the bundle received.
fn seen_from_inside(host: &Stats64) -> Counters {
    Counters {
        rx_bytes: host.tx_bytes,
        rx_packets: host.tx_packets,
        rx_dropped: host.tx_dropped,
        tx_bytes: host.rx_bytes,
        tx_packets: host.rx_packets,
        tx_dropped: host.rx_dropped,
    }
}
