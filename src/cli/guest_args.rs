//! The options of a guest side, for `plan` and `up` and for `guest attach`.

use std::net::IpAddr;

use carboy::net::policy::HostPort;
use carboy::spec::GuestRequest;
use clap::Args;

use super::exit::Failure;

/// The guest side, where it is a part of a bottle.
#[derive(Debug, Args)]
pub(super) struct GuestArgs {
    /// Attach a guest side: a namespace for a VMM, from which the bundle alone is reached
    #[arg(long)]
    guest: bool,
    /// The guest side's address; the third of the range unless given. A second one for IPv6
    #[arg(long, value_name = "IP", requires = "guest")]
    guest_ip: Vec<IpAddr>,
    /// Let the guest side reach this port of the bundle alone; may be given more than once
    #[arg(long, value_name = "PROTO/PORT", requires = "guest")]
    allow_port: Vec<HostPort>,
}

impl GuestArgs {
    /// What was asked for, if anything.
    pub(super) fn request(self) -> Result<Option<GuestRequest>, Failure> {
        if !self.guest {
            return Ok(None);
        }
        request("guest-ip", self.guest_ip, self.allow_port).map(Some)
    }
}

/// The addresses told apart; `option` names theirs.
pub(super) fn request(
    option: &str,
    addresses: Vec<IpAddr>,
    allow_ports: Vec<HostPort>,
) -> Result<GuestRequest, Failure> {
    let (mut ip, mut ip6) = (None, None);
    for address in addresses {
        let twice = match address {
            IpAddr::V4(address) => ip.replace(address).is_some(),
            IpAddr::V6(address) => ip6.replace(address).is_some(),
        };
        if twice {
            let text = format!("--{option} is given twice for one family of addresses");
            return Err(Failure::usage(text));
        }
    }
    Ok(GuestRequest { ip, ip6, allow_ports })
}
