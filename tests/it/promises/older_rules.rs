//! The tables of an older carboy become those of this one, at no moment open and with what was
//! right in them kept.

use super::Bottle;
use crate::common::TestHost;
use crate::common::bottle::{HEALTH, assert_answers, down};

/// What the first version made, with sets that are gone by now and one of another key.
const OLDER: &str = r#"
table inet carboy {
    comment "carboy sidecar bundles"
    set src4 { type ifname . ipv4_addr; }
    set internal { type ifname; }
    set bridges { type ifname; }
    set guarded { type ifname; }
    set drops { type ifname; }
    chain local { drop; }
    chain from { iifname @internal drop; accept; }
    chain gone { counter; }
    chain input { type filter hook input priority 5; policy accept; iifname "cb-*" jump local; }
    chain forward { type filter hook forward priority -5; policy accept; iifname "cb-*" jump from; jump gone; }
}
table bridge carboy {
    comment "carboy sidecar bundles"
    set l2 { type ifname . ether_addr . ipv4_addr; }
    chain prerouting { type filter hook prerouting priority -300; policy accept; }
}
"#;

#[test]
fn they_converge() {
    let mut host = TestHost::new();
    let server = host.uplink().serve_peer_address();
    let fresh = Bottle::up(&host, "demo", &[]);
    // Without the elements of other names and the counts, in the order of the listing.
    let listed = || host.run(["nft", "-s", "list", "ruleset"]).ok().stdout();
    let wanted = listed();
    host.run(["nft", "flush", "ruleset"]).ok();
    host.run(["nft", OLDER]).ok();
    let element = format!("add element inet carboy bridges {{ \"{}\" }}", fresh.bridge);
    host.run(["nft", &element]).ok();
    assert_eq!(host.carboy(&["up", "--json", "demo"]).ok().stdout_json()["changed"], true);
    let sorted = |text: String| {
        let mut lines: Vec<_> = text.lines().map(|l| l.trim().to_owned()).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(listed()), sorted(wanted));
    assert_eq!(host.carboy(&["up", "--json", "demo"]).ok().stdout_json()["changed"], false);
    assert!(fresh.connects(server));
    assert_answers(&host, &fresh.up, HEALTH);
    down(&host, "demo");
    host.assert_clean();
}
