//! `verify` names each thing that somebody changed from outside, `up` repairs exactly it, and
//! `verify` is clean again.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::common::TestHost;
use crate::common::bottle::{HEALTH, assert_answers, down, inspect, text, up};

const NETWORK: &str = "claude-bottle-bundle-demo";
const CONTAINER: &str = "claude-bottle-sidecars-demo";
const WISH: [&str; 3] = ["demo", "--subnet", "10.77.1.0/24"];

/// A shell command that breaks something, what `verify` must name, and which of the things in
/// [`identities`] is made anew by the repair.
type Breakage<'a> = (&'a str, &'a [&'a str], &'static [&'static str]);

const NOTHING: &[&str] = &[];

fn breaks(host: &TestHost, breakages: &[Breakage<'_>]) {
    breaks_of(host, &WISH, breakages);
}

/// `$BR`, `$VE`, `$NET` and `$CTR` stand for the bridge, the veth pair's host end and the two names.
fn breaks_of(host: &TestHost, wish: &[&str], breakages: &[Breakage<'_>]) {
    let bottle = up(host, wish);
    let bridge = text(&bottle, "bridge").to_owned();
    let veth = host.json(["ip", "-j", "link", "show", CONTAINER]);
    let veth = text(&veth[0], "ifname").to_owned();
    let put = |text: &str| {
        let names = [("$BR", &*bridge), ("$VE", &veth), ("$NET", NETWORK), ("$CTR", CONTAINER)];
        names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    };
    assert_verified(host, "a fresh bottle");
    for (command, resources, remade) in breakages {
        let before = identities(host, &bridge, &veth);
        host.run(["sh", "-c", &put(command)]).ok();
        let report = host.carboy(&["verify", "--json", "demo"]).code(1).stdout_json();
        assert_eq!(report["ok"], false, "{command}");
        let drift = report["drift"].as_array().unwrap();
        let named: BTreeSet<String> =
            drift.iter().map(|d| text(d, "resource").to_owned()).collect();
        let expected: BTreeSet<String> = resources.iter().map(|r| put(r)).collect();
        assert_eq!(named, expected, "`{command}`: {report}");
        for difference in drift {
            assert_ne!(text(difference, "want"), text(difference, "found"), "`{command}`");
        }
        assert_eq!(up(host, wish)["changed"], true, "`{command}` is repaired");
        assert_verified(host, command);
        let after = identities(host, &bridge, &veth);
        for ((what, was), (_, is)) in before.iter().zip(&after) {
            assert_eq!(was != is, remade.contains(what), "`{command}`: {what} was {was}, is {is}");
        }
        assert_answers(host, &bottle, HEALTH);
    }
    down(host, "demo");
}

#[track_caller]
fn assert_verified(host: &TestHost, after: &str) {
    let output = host.carboy(&["verify", "--json", "demo"]);
    assert_eq!(output.exit_code(), Some(0), "after {after}: {output}");
    let report = output.stdout_json();
    assert_eq!(report["ok"], true, "after {after}: {report}");
    assert_eq!(report["drift"].as_array().map(Vec::len), Some(0), "after {after}: {report}");
}

/// What shows whether a thing is still the same one.
fn identities(host: &TestHost, bridge: &str, veth: &str) -> Vec<(&'static str, String)> {
    let index =
        |name: &str| host.run(["cat", &format!("/sys/class/net/{name}/ifindex")]).ok().stdout();
    let bottle = inspect(host, "demo");
    let pid = bottle["pid"].to_string();
    let inside = host
        .run(["nsenter", "-t", &pid, "-n", "ip", "-j", "link", "show", "eth0"])
        .ok()
        .stdout_json();
    vec![
        ("bridge", index(bridge)),
        ("veth", index(veth)),
        ("eth0", inside[0]["ifindex"].to_string()),
        ("netns", host.run(["readlink", &format!("/proc/{pid}/ns/net")]).ok().stdout()),
        ("container", format!("{pid} {}", bottle["started_at"])),
    ]
}

#[test]
fn of_the_bridge() {
    let mut host = TestHost::new();
    host.uplink();
    breaks(
        &host,
        &[
            (
                "ip address del 10.77.1.1/24 dev $BR",
                &["bridge $BR inet", "bridge $BR route", "neighbour 10.77.1.2 on $BR"],
                NOTHING,
            ),
            (
                "ip link set $BR down",
                &[
                    "bridge $BR state",
                    "bridge $BR route",
                    "veth $VE port",
                    "neighbour 10.77.1.2 on $BR",
                ],
                NOTHING,
            ),
            ("ip route del 10.77.1.0/24 dev $BR", &["bridge $BR route"], NOTHING),
            ("ip address add 10.78.0.1/24 dev $BR", &["bridge $BR inet 10.78.0.1/24"], NOTHING),
            ("ip address add 10.77.1.9/24 dev $BR", &["bridge $BR inet 10.77.1.9/24"], NOTHING),
            ("ip link set $BR mtu 1400", &["bridge $BR mtu"], NOTHING),
            (
                "ip link set $BR address 02:00:00:00:00:01",
                &["bridge $BR address", "neighbour 10.77.1.2 on $BR"],
                NOTHING,
            ),
            ("ip link set $BR group 5", &["bridge $BR group"], NOTHING),
            ("ip link set $BR alias other", &["bridge $BR alias"], NOTHING),
            ("ip link property del dev $BR altname $NET", &["bridge $BR altname"], NOTHING),
            (
                "ip link set $BR type bridge stp_state 1",
                &["bridge $BR stp_state", "bridge $BR forward_delay"],
                NOTHING,
            ),
            (
                "ip link set $BR type bridge mcast_snooping 1",
                &["bridge $BR mcast_snooping"],
                NOTHING,
            ),
            ("ip link set $BR addrgenmode eui64", &["bridge $BR IPv6 link-local"], NOTHING),
            (
                "ip link del $BR",
                &["bridge $BR ($NET)", "veth $VE master", "neighbour 10.77.1.2 on $BR"],
                &["bridge"],
            ),
        ],
    );
}

#[test]
fn of_sysctls() {
    let mut host = TestHost::new();
    host.uplink();
    breaks(
        &host,
        &[
            ("sysctl -qw net.ipv4.conf.$BR.forwarding=0", &["bridge $BR forwarding"], NOTHING),
            ("sysctl -qw net.ipv4.conf.$BR.rp_filter=0", &["bridge $BR rp_filter"], NOTHING),
            ("sysctl -qw net.ipv6.conf.$BR.disable_ipv6=0", &["bridge $BR IPv6"], NOTHING),
            ("sysctl -qw net.ipv6.conf.$VE.disable_ipv6=0", &["veth $VE IPv6"], NOTHING),
            ("sysctl -qw net.ipv4.conf.up0.forwarding=0", &["forwarding on up0"], NOTHING),
            (
                "ip netns exec $CTR sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0",
                &["eth0 of $CTR IPv6"],
                NOTHING,
            ),
            (
                "ip netns exec $CTR sysctl -qw net.ipv6.conf.default.disable_ipv6=0",
                &["netns $CTR IPv6 default"],
                NOTHING,
            ),
            (
                "ip netns exec $CTR sysctl -qw net.ipv6.conf.lo.disable_ipv6=0",
                &["netns $CTR IPv6 lo"],
                NOTHING,
            ),
        ],
    );
}

#[test]
fn of_the_port() {
    let host = TestHost::new();
    breaks(
        &host,
        &[
            ("ip link set $VE down", &["veth $VE state"], NOTHING),
            ("ip link set $VE nomaster", &["veth $VE master"], NOTHING),
            // A bridge whose MTU nobody has set follows its ports.
            ("ip link set $VE mtu 1400", &["veth $VE mtu", "bridge $BR mtu"], NOTHING),
            ("ip link set $VE address 02:00:00:00:00:02", &["veth $VE address"], NOTHING),
            ("ip link set $VE group 0", &["veth $VE group"], NOTHING),
            ("ip link property del dev $VE altname $CTR", &["veth $VE altname"], NOTHING),
            ("ip link set $VE addrgenmode eui64", &["veth $VE IPv6 link-local"], NOTHING),
            ("bridge link set dev $VE isolated off", &["veth $VE isolated"], NOTHING),
            ("bridge link set dev $VE learning on", &["veth $VE learning"], NOTHING),
            ("bridge link set dev $VE locked off", &["veth $VE locked"], NOTHING),
            ("bridge link set dev $VE hairpin on", &["veth $VE hairpin"], NOTHING),
            ("bridge link set dev $VE flood on", &["veth $VE flood"], NOTHING),
            ("bridge link set dev $VE mcast_flood on", &["veth $VE mcast_flood"], NOTHING),
            ("bridge link set dev $VE bcast_flood on", &["veth $VE bcast_flood"], NOTHING),
            ("bridge link set dev $VE state 0", &["veth $VE port"], NOTHING),
            ("bridge fdb del 02:b2:0a:4d:01:02 dev $VE master", &["veth $VE fdb"], NOTHING),
            ("ip neigh del 10.77.1.2 dev $BR", &["neighbour 10.77.1.2 on $BR"], NOTHING),
            (
                "ip neigh replace 10.77.1.2 dev $BR lladdr 02:00:00:00:00:09 nud permanent",
                &["neighbour 10.77.1.2 on $BR"],
                NOTHING,
            ),
            ("ip link del $VE", &["veth pair $VE ($CTR)"], &["veth", "eth0"]),
        ],
    );
}

#[test]
fn inside_the_bundles_namespace() {
    let host = TestHost::new();
    const NEIGHBOUR: &str = "neighbour 10.77.1.1 on eth0 of $CTR";
    breaks(
        &host,
        &[
            (
                "ip -n $CTR link set eth0 down",
                &["eth0 of $CTR state", "eth0 of $CTR route default", NEIGHBOUR],
                NOTHING,
            ),
            ("ip -n $CTR link set eth0 mtu 1400", &["eth0 of $CTR mtu"], NOTHING),
            (
                "ip -n $CTR link set eth0 address 02:00:00:00:00:03",
                &["eth0 of $CTR address", NEIGHBOUR],
                NOTHING,
            ),
            (
                "ip -n $CTR address del 10.77.1.2/24 dev eth0",
                &["eth0 of $CTR inet", "eth0 of $CTR route default", NEIGHBOUR],
                NOTHING,
            ),
            (
                "ip -n $CTR address add 10.77.1.9/32 dev eth0",
                &["eth0 of $CTR inet 10.77.1.9/32"],
                NOTHING,
            ),
            ("ip -n $CTR route del default", &["eth0 of $CTR route default"], NOTHING),
            ("ip -n $CTR route replace default dev eth0", &["eth0 of $CTR route default"], NOTHING),
            ("ip -n $CTR neigh del 10.77.1.1 dev eth0", &[NEIGHBOUR], NOTHING),
            ("ip -n $CTR link set lo down", &["netns $CTR lo"], NOTHING),
            // The container runs on in a namespace that has lost its name.
            ("umount /run/netns/$CTR", &["netns $CTR", "eth0 of $CTR"], NOTHING),
            ("ip netns del $CTR", &["network namespace $CTR", "eth0 of $CTR"], NOTHING),
            (
                "ip netns exec $CTR sysctl -qw net.ipv6.conf.default.disable_ipv6=0; \
                 ip netns del $CTR; ip link del $VE",
                &["network namespace $CTR", "veth pair $VE ($CTR)"],
                &["veth", "eth0"],
            ),
            ("ip -n $CTR link del eth0", &["veth pair $VE ($CTR)"], &["veth", "eth0"]),
        ],
    );
}

#[test]
fn of_ipv6() {
    let host = TestHost::new();
    const DUAL: [&str; 5] = ["demo", "--subnet", "10.77.1.0/24", "--subnet", "fd00:77:1::/64"];
    breaks_of(
        &host,
        &DUAL,
        &[
            ("ip address del fd00:77:1::1/64 dev $BR", &["bridge $BR inet6"], NOTHING),
            ("ip -6 route del fd00:77:1::/64 dev $BR", &["bridge $BR route6"], NOTHING),
            (
                "ip address add fd00:77:2::1/64 dev $BR nodad",
                &["bridge $BR inet6 fd00:77:2::1/64"],
                NOTHING,
            ),
            (
                "ip -n $CTR address add fd00:77:1::9/64 dev eth0 nodad",
                &["eth0 of $CTR inet6 fd00:77:1::9/64"],
                NOTHING,
            ),
            ("sysctl -qw net.ipv6.conf.$BR.accept_ra=1", &["bridge $BR accept_ra"], NOTHING),
            ("ip neigh del fd00:77:1::2 dev $BR", &["neighbour fd00:77:1::2 on $BR"], NOTHING),
            ("ip -n $CTR address del fd00:77:1::2/64 dev eth0", &["eth0 of $CTR inet6"], NOTHING),
            ("ip -n $CTR -6 route del default", &["eth0 of $CTR route6 default"], NOTHING),
            (
                "ip -n $CTR neigh del fd00:77:1::1 dev eth0",
                &["neighbour fd00:77:1::1 on eth0 of $CTR"],
                NOTHING,
            ),
            (
                "ip netns exec $CTR sysctl -qw net.ipv6.conf.eth0.accept_ra=1",
                &["eth0 of $CTR accept_ra"],
                NOTHING,
            ),
        ],
    );
    host.assert_clean();
}

#[test]
fn of_the_guest_side() {
    let host = TestHost::new();
    const GUEST: &str = "claude-bottle-guest-demo";
    const WITH_GUEST: [&str; 6] =
        ["demo", "--subnet", "10.77.1.0/24", "--guest", "--allow-port", "tcp/9000"];
    up(&host, &WITH_GUEST);
    let end = host.json(["ip", "-j", "link", "show", GUEST]);
    let end = text(&end[0], "ifname").to_owned();
    let put = |text: &str| text.replace("$GE", &end).replace("$GUEST", GUEST);
    down(&host, "demo");
    const NEIGHBOUR: &str = "neighbour 10.77.1.2 on eth0 of $GUEST";
    let breakages: [(&str, &[&str]); 6] = [
        ("ip -n $CTR neigh del 10.77.1.3 dev eth0", &["neighbour 10.77.1.3 in /run/netns/$CTR"]),
        (
            "ip -n $GUEST link set eth0 address 02:00:00:00:00:04",
            &["eth0 of $GUEST address", NEIGHBOUR],
        ),
        ("ip -n $GUEST neigh del 10.77.1.2 dev eth0", &[NEIGHBOUR]),
        ("ip -n $GUEST link set lo down", &["netns $GUEST lo"]),
        ("bridge link set dev $GE locked off", &["veth $GE locked"]),
        ("ip link del $GE", &["veth pair $GE ($GUEST)"]),
    ];
    for (command, resources) in breakages {
        let resources: Vec<String> = resources.iter().map(|r| put(r)).collect();
        let resources: Vec<&str> = resources.iter().map(String::as_str).collect();
        breaks_of(&host, &WITH_GUEST, &[(&put(command), &resources, NOTHING)]);
    }
    up(&host, &WITH_GUEST);
    host.run(["ip", "link", "del", &end]).ok();
    host.carboy(&["reload", "demo"]).ok();
    assert_verified(&host, "reload");
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn of_the_firewall() {
    let mut host = TestHost::new();
    host.uplink();
    const BRIDGE: &str = "firewall entries of bridge $BR";
    const PORT: &str = "firewall entries of port $VE";
    breaks(
        &host,
        &[
            (
                "nft delete element inet carboy guarded '{ up0 }'",
                &["device up0 in set guarded"],
                NOTHING,
            ),
            (
                "nft delete element inet carboy ways '{ $BR }'; \
                 nft add element inet carboy ways '{ $BR : drop }'",
                &["firewall entries of bridge $BR: set ways"],
                NOTHING,
            ),
            // What is too much would open something.
            (
                "nft add element inet carboy uplinks '{ $BR . docker0 }'",
                &["firewall entries of bridge $BR: set uplinks $BR . docker0"],
                NOTHING,
            ),
            (
                "nft add element inet carboy bridged '{ $BR . cb-other }'",
                &["firewall entries of bridge $BR: set bridged $BR . cb-other"],
                NOTHING,
            ),
            (
                "nft add element inet carboy src4 '{ $BR . 192.0.2.9 }'; \
                 nft add element bridge carboy l2 '{ $VE . 02:b2:0a:4d:01:02 . 192.0.2.9 }'",
                &[
                    "firewall entries of port $VE: set src4 $BR . 192.0.2.9",
                    "firewall entries of port $VE: set l2 $VE . 02:b2:0a:4d:01:02 . 192.0.2.9",
                ],
                NOTHING,
            ),
            (
                "nft add element inet carboy src6 '{ $BR . fd00::9 }'; \
                 nft add element bridge carboy l2_6 '{ $VE . 02:b2:0a:4d:01:02 . fd00::9 }'",
                &[
                    "firewall entries of port $VE: set src6 $BR . fd00::9",
                    "firewall entries of port $VE: set l2_6 $VE . 02:b2:0a:4d:01:02 . fd00::9",
                ],
                NOTHING,
            ),
            ("nft add rule inet carboy to accept", &["rules of chain inet carboy to"], NOTHING),
            (
                "nft flush chain bridge carboy prerouting",
                &[
                    "rule \"from bundles\" of chain bridge carboy prerouting",
                    "rules of chain bridge carboy prerouting",
                ],
                NOTHING,
            ),
            ("nft delete chain inet carboy input", &["chain inet carboy input"], NOTHING),
            (
                "nft delete table inet carboy; nft delete table bridge carboy",
                &["firewall table", "device up0 in set guarded", BRIDGE, PORT],
                NOTHING,
            ),
            (
                "nft flush ruleset",
                &["firewall table", "device up0 in set guarded", BRIDGE, PORT],
                NOTHING,
            ),
        ],
    );
}

/// A bottle that has an entry of every kind.
const RESTRICTED: [&str; 8] = [
    "demo",
    "--subnet",
    "10.77.1.0/24",
    "--egress",
    "192.0.2.0/24:80/tcp",
    "--host-port",
    "tcp/53",
    "--log-drops",
];

/// Each element of each set and map is deleted, one after the other.
#[test]
fn of_every_element() {
    let mut host = TestHost::new();
    host.uplink();
    let bottle = up(&host, &RESTRICTED);
    let mut elements = Vec::new();
    let ruleset = host.json(["nft", "-j", "list", "ruleset"]);
    for object in ruleset["nftables"].as_array().unwrap() {
        let Some(set) = object.get("set").or(object.get("map")) else { continue };
        for element in set["elem"].as_array().into_iter().flatten() {
            let place = format!("{} carboy {}", text(set, "family"), text(set, "name"));
            elements.push((place, text(set, "name").to_owned(), key(element)));
        }
    }
    assert!(elements.len() > 8, "{elements:?}");
    for (place, set, key) in &elements {
        let delete = format!("nft delete element {place} '{{ {key} }}'");
        host.run(["sh", "-c", &delete]).ok();
        let report = host.carboy(&["verify", "--json", "demo"]).code(1).stdout_json();
        let drift = report["drift"].as_array().unwrap();
        assert_eq!(drift.len(), 1, "{delete}: {report}");
        let resource = text(&drift[0], "resource");
        assert!(resource.contains(&format!("set {set}")), "{delete}: {resource}");
        assert_eq!(up(&host, &RESTRICTED)["changed"], true, "{delete}");
        assert_verified(&host, &delete);
    }
    assert_answers(&host, &bottle, HEALTH);
    down(&host, "demo");
}

/// An element's key as nft(8) takes it: of a map the first half, of several parts with dots.
fn key(element: &Value) -> String {
    match element {
        Value::Array(pair) => key(&pair[0]),
        Value::Object(object) => match (object.get("elem"), object.get("concat")) {
            (Some(inner), _) => key(&inner["val"]),
            (_, Some(Value::Array(parts))) => parts.iter().map(key).collect::<Vec<_>>().join(" . "),
            _ => panic!("{element}"),
        },
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Each rule of each chain is deleted, one after the other.
#[test]
fn of_every_rule() {
    let host = TestHost::new();
    let bottle = up(&host, &RESTRICTED);
    let mut rules = Vec::new();
    for family in ["inet", "bridge"] {
        let listed = host.json(["nft", "-j", "list", "table", family, "carboy"]);
        for rule in listed["nftables"].as_array().unwrap().iter().filter_map(|o| o.get("rule")) {
            let (chain, comment) = (text(rule, "chain"), text(rule, "comment"));
            rules.push((family, chain.to_owned(), comment.to_owned()));
        }
    }
    assert!(rules.len() > 10, "{rules:?}");
    for (family, chain, comment) in &rules {
        let listed =
            host.run(["nft", "-a", "list", "chain", family, "carboy", chain]).ok().stdout();
        let comment_and_handle = format!("comment \"{comment}\" # handle ");
        let handle = listed.lines().find_map(|l| l.split_once(&comment_and_handle)).unwrap().1;
        host.run(["nft", "delete", "rule", family, "carboy", chain, "handle", handle]).ok();
        let report = host.carboy(&["verify", "--json", "demo"]).code(1).stdout_json();
        let named = format!("rule \"{comment}\" of chain {family} carboy {chain}");
        let drift = report["drift"].as_array().unwrap();
        assert!(drift.iter().any(|d| text(d, "resource") == named), "{named}: {report}");
        assert_eq!(up(&host, &RESTRICTED)["changed"], true, "{named}");
        assert_verified(&host, &named);
    }
    assert_answers(&host, &bottle, HEALTH);
    down(&host, "demo");
}

#[test]
fn of_the_passage() {
    let mut host = TestHost::new();
    host.run(["sh", "-c", FOREIGN]).ok();
    host.take_baseline();
    const OUT: &str = "rule \"carboy: from bundles\" of chain ip filter DOCKER-USER";
    const IN: &str = "rule \"carboy: to bundles\" of chain ip filter DOCKER-USER";
    breaks(
        &host,
        &[
            ("nft flush chain ip filter DOCKER-USER", &[OUT, IN], NOTHING),
            (
                "nft flush chain ip6 filter DOCKER-USER",
                &[
                    "rule \"carboy: from bundles\" of chain ip6 filter DOCKER-USER",
                    "rule \"carboy: to bundles\" of chain ip6 filter DOCKER-USER",
                ],
                NOTHING,
            ),
            (
                "h=$(nft -a list chain ip filter DOCKER-USER | sed -n 's/.*iifname.*handle //p'); \
                 nft delete rule ip filter DOCKER-USER handle $h",
                &[OUT],
                NOTHING,
            ),
            (
                "h=$(nft -a list chain ip filter DOCKER-USER | sed -n 's/.*oifname.*handle //p'); \
                 nft replace rule ip filter DOCKER-USER handle $h \
                 oifname cb-none counter drop comment '\"carboy: to bundles\"'",
                &[IN],
                NOTHING,
            ),
        ],
    );
    host.assert_clean();
}

/// The chains that Docker would have made.
const FOREIGN: &str = "nft add table ip filter; nft add chain ip filter DOCKER-USER; \
                       nft add table ip6 filter; nft add chain ip6 filter DOCKER-USER";

#[test]
fn of_the_container() {
    let host = TestHost::new();
    breaks(&host, &[]);
    up(&host, &WISH);
    let pid = inspect(&host, "demo")["pid"].to_string();
    host.run(["kill", "-9", &pid]).ok();
    let ended = crate::common::poll(std::time::Duration::from_secs(10), || {
        inspect(&host, "demo")["state"] == "exited"
    });
    assert!(ended, "{}", inspect(&host, "demo"));
    let report = host.carboy(&["verify", "--json", "demo"]).code(1).stdout_json();
    assert_eq!(report["drift"][0]["resource"], format!("container {CONTAINER}"));
    assert_eq!(report["drift"][0]["want"], "running");
    let found = text(&report["drift"][0], "found");
    assert!(found.starts_with("exited"), "{report}");
    up(&host, &WISH);
    assert_verified(&host, "kill");
    down(&host, "demo");
    host.carboy(&["verify", "--json", "demo"]).error(3, "not-found");
    host.assert_clean();
}
