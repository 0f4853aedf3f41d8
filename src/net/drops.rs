//! What was dropped of a bottle's traffic, by reason: read from the counters of its own elements.

use std::collections::BTreeMap;

use crate::names::IfName;
use crate::net::error::Error;
use crate::net::nft_read::Reader;
use crate::net::ruleset::{Family, Reason, drop_element};

pub use crate::net::nft_read::Count;

/// The drops of a bottle, each reason that can occur there with its count. Empty while the firewall
/// has no entries of the bottle.
pub type Drops = BTreeMap<Reason, Count>;

/// Reads what was dropped of a bridge and of a port. The counters of other bottles are not read.
///
/// Counts begin when the entries are made, and again when they have to be made anew.
///
/// # Errors
/// If the kernel cannot be asked: it takes CAP_NET_ADMIN.
pub fn read(bridge: &IfName, port: &IfName) -> Result<Drops, Error> {
    let of_bridge = Reason::OF_BRIDGE.map(|r| (r, drop_element(Family::Inet, bridge, r)));
    let of_port = Reason::OF_PORT.map(|r| (r, drop_element(Family::Bridge, port, r)));
    let (reasons, elements): (Vec<_>, Vec<_>) = of_bridge.into_iter().chain(of_port).unzip();
    let mut drops = Drops::new();
    for (reason, seen) in reasons.into_iter().zip(Reader::open()?.look_up(&elements)?) {
        if let Some(count) = seen.and_then(|seen| seen.count) {
            *drops.entry(reason).or_default() += count;
        }
    }
    Ok(drops)
}
