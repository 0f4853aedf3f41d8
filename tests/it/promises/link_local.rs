//! No bundle reaches link-local addresses, where clouds keep their metadata, nor sends to groups.

use std::net::Ipv4Addr;

use super::{Bottle, FORBIDDEN, LAST, PORT, assert_only_last_passes};
use crate::common::TestHost;
use crate::common::bottle::down;
use crate::common::uplink::OUTSIDE;
use crate::common::wire::{BROADCAST, IPV4, UDP, ethernet, ipv4, udp};

const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

#[test]
fn metadata_services_are_out_of_reach() {
    let mut host = TestHost::new();
    let uplink = host.uplink();
    // As in a cloud: somebody on the uplink answers there, and the host itself gets at it.
    uplink.run(&["ip", "address", "add", "169.254.169.254/32", "dev", "out0"]).ok();
    let server = uplink.serve_peer_address();
    host.run(["ip", "route", "add", "169.254.0.0/16", "dev", "up0"]).ok();
    host.take_baseline();
    for options in [&[][..], &["--egress", "169.254.0.0/16", "--egress", "192.0.2.0/24"]] {
        let bottle = Bottle::up(&host, "demo", options);
        assert!(!bottle.connects((METADATA, server.port())));
        let wire = bottle.wire();
        let outside = host.existing_uplink().wire();
        let to = |ip| bottle.datagram(ip, PORT, FORBIDDEN);
        let frames = [
            ("metadata", to(METADATA)),
            ("another link-local address", to(Ipv4Addr::new(169, 254, 1, 1))),
            ("a group", to(Ipv4Addr::new(224, 0, 0, 251))),
            ("a wider group", to(Ipv4Addr::new(239, 1, 2, 3))),
            ("everybody", to(Ipv4Addr::BROADCAST)),
            (
                "everybody on every wire",
                ethernet(
                    BROADCAST,
                    bottle.mac,
                    IPV4,
                    &ipv4(bottle.ip, Ipv4Addr::BROADCAST, UDP, &[], &udp(PORT, FORBIDDEN)),
                ),
            ),
        ];
        let last = bottle.datagram(OUTSIDE, PORT, LAST);
        assert_only_last_passes(&wire, &frames, &last, &outside);
        assert!(bottle.dropped(&host, "link-local") >= 3);
        down(&host, "demo");
    }
}
