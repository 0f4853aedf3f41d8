//! An internal network has no way out: no default route, and no packet that gets out without one.

use super::{Bottle, FORBIDDEN, LAST, PORT};
use crate::common::TestHost;
use crate::common::bottle::{HEALTH, assert_answers, down};
use crate::common::uplink::OUTSIDE;
use crate::common::wire::contains;

#[test]
fn nothing_gets_out() {
    let mut host = TestHost::new();
    let server = host.uplink().serve_peer_address();
    let bottle = Bottle::up(&host, "demo", &["--internal"]);
    let free = Bottle::up(&host, "free", &[]);
    let routes = host.netns_run("claude-bottle-sidecars-demo", ["ip", "-j", "route"]);
    let routes = routes.ok().stdout_json();
    assert_eq!(routes.as_array().unwrap().len(), 1, "{routes}");
    assert!(!bottle.connects(server));
    assert!(free.connects(server));
    // A bundle needs no route to put a packet on its wire.
    let outside = host.existing_uplink().wire();
    bottle.wire().send(&bottle.datagram(OUTSIDE, PORT, FORBIDDEN));
    free.wire().send(&free.datagram(OUTSIDE, PORT, LAST));
    assert!(outside.until(LAST, |frame| contains(frame, FORBIDDEN)).is_empty());
    assert_eq!(bottle.dropped(&host, "internal-network"), 1);
    assert_answers(&host, &bottle.up, HEALTH);
    down(&host, "demo");
    down(&host, "free");
}
