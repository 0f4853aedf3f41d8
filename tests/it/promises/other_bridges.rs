//! A bundle does not reach what is behind the host's other bridges (containers, virtual machines),
//! unless its list of destinations names it. The way out may be a bridge itself.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use super::{Bottle, FORBIDDEN, LAST, PORT};
use crate::common::bottle::down;
use crate::common::uplink::OUTSIDE;
use crate::common::wire::contains;
use crate::common::{TestHost, netns};

const INSIDE: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);
const INSIDE6: &str = "fd00:17::2";

fn run(host: &TestHost, lines: &[&str]) {
    for words in lines {
        host.run(words.split(' ').collect::<Vec<_>>()).ok();
    }
}

/// A container as others make it: behind `docker0`, which is a bridge, with what it serves.
fn container(host: &TestHost) -> [SocketAddr; 2] {
    run(
        host,
        &[
            "ip netns add box",
            "ip link add docker0 type bridge",
            "ip address add 172.17.0.1/16 dev docker0",
            "ip -6 address add fd00:17::1/64 dev docker0 nodad",
            "ip link set docker0 up",
            "ip link add box0 type veth peer name eth0 netns box",
            "ip link set box0 master docker0 up",
            "ip -n box address add 172.17.0.2/16 dev eth0",
            "ip -n box -6 address add fd00:17::2/64 dev eth0 nodad",
            "ip -n box link set eth0 up",
            "ip -n box route add default via 172.17.0.1",
            "ip -n box -6 route add default via fd00:17::1",
            // As Docker sets it.
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
        ],
    );
    let serve = |address: SocketAddr| {
        let inside = || TcpListener::bind(address).unwrap();
        let listener = netns::inside(&host.netns(Some("box")), inside);
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || listener.incoming().for_each(drop));
        address
    };
    [serve((INSIDE, 0).into()), serve((INSIDE6.parse::<std::net::Ipv6Addr>().unwrap(), 0).into())]
}

const DUAL: [&str; 2] = ["--subnet", "fd00:9:7::/64"];

#[test]
fn containers_are_not_reached_unless_listed() {
    let mut host = TestHost::new();
    let server = host.uplink().serve_peer_address();
    let [inside, inside6] = container(&host);
    host.take_baseline();
    let plain = Bottle::up(&host, "plain", &DUAL);
    assert!(host.tcp(inside).is_ok() && host.tcp(inside6).is_ok());
    assert!(plain.connects(server));
    assert!(!plain.connects(inside) && !plain.connects(inside6));
    let bridge = crate::common::wire::Wire::new(&host.netns(None), "docker0");
    let before = plain.dropped(&host, "other-bridge");
    plain.wire().send(&plain.datagram(INSIDE, PORT, FORBIDDEN));
    let free = Bottle::up(&host, "free", &["--egress", "172.17.0.0/16"]);
    free.wire().send(&free.datagram(INSIDE, PORT, LAST));
    assert!(bridge.until(LAST, |frame| contains(frame, FORBIDDEN)).is_empty());
    assert_eq!(plain.dropped(&host, "other-bridge"), before + 1);
    assert!(before > 0);
    assert!(free.connects(inside) && !free.connects(server));
    let both = ["--egress", "0.0.0.0/0", "--egress", "::/0"];
    let open = Bottle::up(&host, "open", &[&both[..], &["--subnet", "fd00:9:8::/64"]].concat());
    assert!(open.connects(inside) && open.connects(inside6) && open.connects(server));
    for slug in ["plain", "free", "open"] {
        down(&host, slug);
    }
    host.assert_clean();
}

/// Who came by a DNAT rule of somebody else is answered, wherever it came from.
#[test]
fn what_others_publish_is_answered() {
    let mut host = TestHost::new();
    container(&host);
    host.take_baseline();
    let bottle = Bottle::up(&host, "demo", &[]);
    let dnat = format!(
        "table ip published {{ chain pre {{ type nat hook prerouting priority -100; \
         ip daddr 172.17.0.1 tcp dport 9000 dnat to {}:9000; }}; }}",
        bottle.ip
    );
    host.run(["nft", &dnat]).ok();
    let limit = std::time::Duration::from_secs(2);
    let from = host.netns(Some("box"));
    let published = (Ipv4Addr::new(172, 17, 0, 1), 9000).into();
    netns::connect(&from, published, limit).unwrap();
    assert!(netns::connect(&from, (bottle.ip, 9000).into(), limit).is_err());
    host.run(["nft", "delete", "table", "ip", "published"]).ok();
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn a_bridge_that_leads_out_is_open() {
    let mut host = TestHost::new();
    let server = host.uplink().serve_peer_address();
    run(
        &host,
        &[
            "ip link add br0 type bridge",
            "ip link set br0 up",
            "ip address del 192.0.2.2/24 dev up0",
            "ip link set up0 master br0",
            "ip address add 192.0.2.2/24 dev br0",
            "ip route add default via 192.0.2.1",
        ],
    );
    host.take_baseline();
    let [inside, _] = container(&host);
    host.take_baseline();
    let bottle = Bottle::up(&host, "demo", &[]);
    assert!(bottle.connects(server));
    assert!(!bottle.connects(inside));
    host.carboy(&["verify", "demo"]).ok();
    let uplinks = host.run(["nft", "list", "set", "inet", "carboy", "uplinks"]).ok().stdout();
    assert!(uplinks.contains(&format!("\"{}\" . \"br0\"", bottle.bridge)), "{uplinks}");
    // Not longer than it leads out.
    run(&host, &["ip route del default"]);
    assert_eq!(host.carboy(&["up", "--json", "demo"]).ok().stdout_json()["changed"], true);
    assert!(!bottle.connects((OUTSIDE, server.port())));
    down(&host, "demo");
    run(&host, &["ip route add default via 192.0.2.1"]);
    host.assert_clean();
}
