//! Why a packet is dropped: the mark it is given, under which it is counted and told of. Pure.

use std::fmt;

use serde::Serialize;

/// Why a packet of a bottle, or to one, is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u32)]
pub enum Reason {
    /// From another source address than the pinned one.
    SpoofedSource = 1,
    /// ARP in another's name.
    ForgedArp = 2,
    /// IPv6 that is not from, or not to, the pinned address: all of it while IPv6 is off.
    Ipv6 = 3,
    /// What only routers and neighbours say: ICMP redirects, neighbour discovery, multicast listener
    /// reports.
    RouterMessage = 4,
    /// Neither IP nor ARP, with a VLAN tag, or with IP options.
    ForeignFrame = 5,
    /// To another bottle.
    OtherBottle = 6,
    /// Out of a network that has no way out.
    InternalNetwork = 7,
    /// To a link-local or multicast address, or to a cloud's metadata service.
    LinkLocal = 8,
    /// Not in the list of destinations.
    NotInEgress = 9,
    /// To the host itself, where no port is open.
    HostService = 10,
    /// To a bundle that did not ask for it.
    UnaskedFor = 11,
    /// From a guest side to anybody or anything but an open port of its bundle.
    FromGuest = 12,
    /// To a guest side, and no answer of its bundle.
    ToGuest = 13,
    /// To a bridge of the host that is no way out: to containers or virtual machines.
    OtherBridge = 14,
}

impl Reason {
    /// All of them, by number.
    pub const ALL: [Self; 14] = [
        Self::SpoofedSource,
        Self::ForgedArp,
        Self::Ipv6,
        Self::RouterMessage,
        Self::ForeignFrame,
        Self::OtherBottle,
        Self::InternalNetwork,
        Self::LinkLocal,
        Self::NotInEgress,
        Self::HostService,
        Self::UnaskedFor,
        Self::FromGuest,
        Self::ToGuest,
        Self::OtherBridge,
    ];

    /// What is told of a port, by the `bridge` table.
    pub const OF_PORT: [Self; 5] =
        [Self::SpoofedSource, Self::ForgedArp, Self::Ipv6, Self::RouterMessage, Self::ForeignFrame];

    /// What is told of a guest's port, by the `bridge` table.
    pub const OF_GUEST: [Self; 2] = [Self::FromGuest, Self::ToGuest];

    /// What is told of a bridge, by the `inet` table.
    pub const OF_BRIDGE: [Self; 8] = [
        Self::SpoofedSource,
        Self::OtherBottle,
        Self::OtherBridge,
        Self::InternalNetwork,
        Self::LinkLocal,
        Self::NotInEgress,
        Self::HostService,
        Self::UnaskedFor,
    ];

    /// The mark of a packet that is dropped for it.
    pub const fn mark(self) -> u32 {
        self as u32
    }

    /// The reason of a mark.
    pub fn of_mark(mark: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.mark() == mark)
    }

    /// Its name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SpoofedSource => "spoofed-source",
            Self::ForgedArp => "forged-arp",
            Self::Ipv6 => "ipv6",
            Self::RouterMessage => "router-message",
            Self::ForeignFrame => "foreign-frame",
            Self::OtherBottle => "other-bottle",
            Self::InternalNetwork => "internal-network",
            Self::LinkLocal => "link-local",
            Self::NotInEgress => "not-in-egress",
            Self::HostService => "host-service",
            Self::UnaskedFor => "unasked-for",
            Self::FromGuest => "from-guest",
            Self::ToGuest => "to-guest",
            Self::OtherBridge => "other-bridge",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_marks_are_one_to_one() {
        for reason in Reason::ALL {
            assert_eq!(Reason::of_mark(reason.mark()), Some(reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.name());
            let all = [&Reason::OF_PORT[..], &Reason::OF_BRIDGE, &Reason::OF_GUEST].concat();
            assert!(all.contains(&reason));
        }
        assert_eq!(Reason::of_mark(0), None);
    }
}
