//! The guest side: who is in it reaches its bundle's open ports, and nothing and nobody else.

mod wire;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use self::wire::{SYN, SYN_ACK, Wire, ethernet, ipv4, mac, marked, tcp, udp};
use crate::common::bottle::{ECHO, HEALTH, assert_answers, bundle_ip, down, inspect, text, up};
use crate::common::uplink::HOST;
use crate::common::{TestHost, netns, poll};

const GUEST: &str = "claude-bottle-guest-demo";
const BUNDLE: &str = "claude-bottle-sidecars-demo";
const ONLY_HEALTH: [&str; 4] = ["demo", "--guest", "--allow-port", "tcp/9000"];
const BROADCAST: [u8; 6] = [0xff; 6];

fn guest_ip(bottle: &Value) -> Ipv4Addr {
    text(&bottle["guest"], "ip").parse().unwrap()
}

fn attach(host: &TestHost, arguments: &[&str]) -> Value {
    let all = [&["guest", "attach", "--json"], arguments].concat();
    host.carboy(&all).ok().stdout_json()
}

/// One attempt to connect from inside the guest side.
fn reaches(host: &TestHost, ip: impl Into<std::net::IpAddr>, port: u16) -> bool {
    let to = SocketAddr::new(ip.into(), port);
    netns::connect(&host.netns(Some(GUEST)), to, Duration::from_millis(700)).is_ok()
}

fn bridge_netfilter(host: &TestHost, on: bool) {
    let path = host.path("/proc/sys/net/bridge/bridge-nf-call-iptables");
    // A machine without the module needs no switch.
    if path.exists() {
        for tables in ["iptables", "ip6tables", "arptables"] {
            let value = format!("net.bridge.bridge-nf-call-{tables}={}", u8::from(on));
            host.run(["sysctl", "-qw", &value]).ok();
        }
    }
}

/// The host end of the guest's pair, as `ip` finds it by its altname.
fn host_end(host: &TestHost) -> Value {
    host.json(["ip", "-d", "-j", "link", "show", GUEST])[0].clone()
}

#[test]
fn a_guest_reaches_the_open_ports_of_its_bundle_and_nobody_else() {
    let mut host = TestHost::new();
    let outside = host.uplink().serve_peer_address();
    let mut server = host.spawn(["busybox", "httpd", "-f", "-p", "0.0.0.0:8081", "-h", "/proc"]);
    assert!(poll(Duration::from_secs(5), || host.tcp((Ipv4Addr::LOCALHOST, 8081)).is_ok()));
    let other = up(&host, &["other"]);
    let bottle = up(&host, &ONLY_HEALTH);
    let (ip, gateway) = (bundle_ip(&bottle), text(&bottle, "gateway").parse::<Ipv4Addr>().unwrap());
    for on in [false, true] {
        bridge_netfilter(&host, on);
        assert!(reaches(&host, ip, HEALTH), "br_netfilter {on}");
        assert!(!reaches(&host, ip, ECHO), "br_netfilter {on}");
        assert!(!reaches(&host, gateway, 8081));
        assert!(!reaches(&host, HOST, 8081));
        assert!(!reaches(&host, outside.ip(), outside.port()));
        assert!(!reaches(&host, bundle_ip(&other), HEALTH));
        // Nor is it reached: not by the host, to which the same bundle answers.
        assert_answers(&host, &bottle, HEALTH);
        let inside = host.netns(Some(GUEST));
        let listener = netns::inside(&inside, || std::net::TcpListener::bind("0.0.0.0:9000"));
        assert!(host.tcp((guest_ip(&bottle), 9000)).is_err());
        drop(listener);
    }
    let routes = host.netns_run(GUEST, ["ip", "-j", "route", "show", "default"]);
    assert_eq!(routes.ok().stdout_json(), serde_json::json!([]));
    server.kill();
    down(&host, "other");
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn without_named_ports_every_tcp_port_is_open_and_no_other() {
    let host = TestHost::new();
    let bottle = up(&host, &["demo", "--guest"]);
    for port in [HEALTH, ECHO] {
        assert!(reaches(&host, bundle_ip(&bottle), port), "{port}");
    }
    let lines = Frames::of(&host, &bottle);
    let mut guest = Wire::open(&host.netns(Some(GUEST)), "eth0");
    let mut bundle = Wire::open(&host.netns(Some(BUNDLE)), "eth0");
    guest.send(&lines.to_bundle(17, 0, &udp(5, HEALTH, "udp")));
    // The second half of a segment has no ports to look at.
    guest.send(&lines.to_bundle(6, 3, b"<second half>"));
    guest.send(&lines.to_bundle(6, 0, &tcp(5, 7, SYN, "control")));
    assert_eq!(bundle.marks_until("control"), ["control"]);
    down(&host, "demo");
}

#[test]
fn with_ipv6_the_same_holds_for_it() {
    let host = TestHost::new();
    let ranges = ["--subnet", "10.77.9.0/24", "--subnet", "fd00:77::/64"];
    let bottle = up(&host, &[&ONLY_HEALTH[..], &ranges].concat());
    assert_eq!(text(&bottle["guest"], "ip6"), "fd00:77::3");
    let bind = |namespace: &str, at: &str| {
        netns::inside(&host.netns(Some(namespace)), || std::net::TcpListener::bind(at).unwrap())
    };
    let _closed = bind(BUNDLE, "[fd00:77::2]:9002");
    let _guest = bind(GUEST, "[fd00:77::3]:9000");
    let gateway = netns::inside(&host.netns(None), || {
        std::net::TcpListener::bind("[fd00:77::1]:9000").unwrap()
    });
    for on in [false, true] {
        bridge_netfilter(&host, on);
        let six = |ip: &str| ip.parse::<std::net::Ipv6Addr>().unwrap();
        assert!(reaches(&host, six("fd00:77::2"), HEALTH), "br_netfilter {on}");
        assert!(reaches(&host, bundle_ip(&bottle), HEALTH), "br_netfilter {on}");
        assert!(!reaches(&host, six("fd00:77::2"), 9002));
        assert!(!reaches(&host, six("fd00:77::1"), HEALTH));
        assert!(host.tcp((six("fd00:77::2"), HEALTH)).is_ok());
        assert!(host.tcp((six("fd00:77::3"), HEALTH)).is_err());
        let to = (six("fd00:77::3"), HEALTH).into();
        let limit = Duration::from_millis(700);
        assert!(netns::connect(&host.netns(Some(BUNDLE)), to, limit).is_err());
    }
    drop(gateway);
    let again = attach(&host, &["demo", "--allow-port", "tcp/9000"]);
    assert_eq!(again["changed"], false);
    down(&host, "demo");
    host.assert_clean();
}

/// The addresses of a bottle's bridge, for frames.
struct Frames {
    guest: ([u8; 6], Ipv4Addr),
    bundle: ([u8; 6], Ipv4Addr),
    gateway: ([u8; 6], Ipv4Addr),
}

impl Frames {
    fn of(host: &TestHost, bottle: &Value) -> Self {
        let bridge = host.json(["ip", "-j", "link", "show", text(bottle, "bridge")]);
        Self {
            guest: (mac(text(&bottle["guest"], "mac")), guest_ip(bottle)),
            bundle: (mac(text(bottle, "mac")), bundle_ip(bottle)),
            gateway: (mac(text(&bridge[0], "address")), text(bottle, "gateway").parse().unwrap()),
        }
    }

    fn to_bundle(&self, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let packet = ipv4(self.guest.1, self.bundle.1, protocol, fragment, payload);
        [ethernet(self.bundle.0, self.guest.0, 0x0800), packet].concat()
    }

    fn to_guest(&self, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
        let packet = ipv4(self.bundle.1, self.guest.1, protocol, fragment, payload);
        [ethernet(self.guest.0, self.bundle.0, 0x0800), packet].concat()
    }

    /// A segment to the open port, with other addresses than it should have.
    fn forged(
        &self,
        (from_mac, from): ([u8; 6], Ipv4Addr),
        (to_mac, to): ([u8; 6], Ipv4Addr),
        mark: &str,
    ) -> Vec<u8> {
        let packet = ipv4(from, to, 6, 0, &tcp(5, HEALTH, SYN, mark));
        [ethernet(to_mac, from_mac, 0x0800), packet].concat()
    }

    /// Who has `target`? asked by `sender`.
    fn arp(
        &self,
        to: [u8; 6],
        sender: ([u8; 6], Ipv4Addr),
        target: Ipv4Addr,
        mark: &str,
    ) -> Vec<u8> {
        let mut frame = ethernet(to, sender.0, 0x0806);
        frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend([&sender.0[..], &sender.1.octets(), &[0; 6], &target.octets()].concat());
        marked(frame, mark)
    }
}

#[test]
fn nothing_else_leaves_a_guest() {
    for on in [false, true] {
        let host = TestHost::new();
        bridge_netfilter(&host, on);
        let other = up(&host, &["other"]);
        let bottle = up(&host, &ONLY_HEALTH);
        let f = Frames::of(&host, &bottle);
        let inside = host.netns(Some(GUEST));
        let mut guest = Wire::open(&inside, "eth0");
        let mut bundle = Wire::open(&host.netns(Some(BUNDLE)), "eth0");
        let mut bridge = Wire::open(&host.netns(None), text(&bottle, "bridge"));
        let mut elsewhere = Wire::open(&host.netns(Some("claude-bottle-sidecars-other")), "eth0");
        let stranger = Ipv4Addr::from(u32::from(f.guest.1) + 40);
        let stranger_mac = mac("02:00:00:00:00:09");
        let lldp = mac("01:80:c2:00:00:0e");
        let vlan = [&ethernet(f.bundle.0, f.guest.0, 0x8100)[..], &[0, 0, 8, 0]].concat();
        let open = ipv4(f.guest.1, f.bundle.1, 6, 0, &tcp(5, HEALTH, SYN, "VLAN tag"));
        let second = ipv4(f.guest.1, f.bundle.1, 6, 0, &tcp(5, HEALTH, SYN, "two VLAN tags"));
        let double =
            [&ethernet(f.bundle.0, f.guest.0, 0x88a8)[..], &[0, 1, 0x81, 0, 0, 2, 8, 0]].concat();
        let six = [&[0x60, 0, 0, 0, 0, 0, 59, 64][..], &[0xfe; 32]].concat();
        let multicast = mac("33:33:00:00:00:01");
        for frame in [
            f.to_bundle(6, 0, &tcp(5, ECHO, SYN, "closed port")),
            f.to_bundle(17, 0, &udp(5, HEALTH, "UDP")),
            f.to_bundle(1, 0, &[&[8, 0, 0, 0, 0, 0, 0, 1][..], b"<ping>"].concat()),
            f.to_bundle(6, 2, b"<second half>"),
            f.forged((f.guest.0, stranger), f.bundle, "forged IP"),
            f.forged((stranger_mac, f.guest.1), f.bundle, "forged MAC"),
            f.forged(f.bundle, f.bundle, "the bundle's own addresses"),
            f.forged(f.guest, f.gateway, "gateway"),
            f.forged(f.guest, (f.gateway.0, f.bundle.1), "the bundle through the gateway"),
            f.forged(f.guest, (f.bundle.0, f.gateway.1), "the gateway through the bundle"),
            f.forged(f.guest, (f.gateway.0, bundle_ip(&other)), "other bottle"),
            f.forged(f.guest, (BROADCAST, Ipv4Addr::BROADCAST), "broadcast"),
            f.forged(f.guest, (mac("01:00:5e:00:00:fb"), "224.0.0.251".parse().unwrap()), "mDNS"),
            f.forged(f.guest, (lldp, f.gateway.1), "reserved group"),
            f.arp(BROADCAST, f.guest, f.gateway.1, "ARP for the gateway"),
            f.arp(BROADCAST, f.guest, f.bundle.1, "ARP for the bundle"),
            f.arp(f.bundle.0, (f.guest.0, f.gateway.1), f.bundle.1, "ARP as the gateway"),
            f.arp(f.gateway.0, (f.guest.0, f.bundle.1), f.gateway.1, "ARP as the bundle"),
            marked([ethernet(f.bundle.0, f.guest.0, 0x86dd), six.clone()].concat(), "IPv6"),
            marked([ethernet(multicast, f.guest.0, 0x86dd), six].concat(), "IPv6 multicast"),
            marked(ethernet(f.bundle.0, f.guest.0, 0x88b5), "raw"),
            marked(ethernet(f.gateway.0, f.guest.0, 0x88b5), "raw to the gateway"),
            marked(ethernet(lldp, f.guest.0, 0x88cc), "LLDP"),
            marked(ethernet(mac("01:80:c2:00:00:00"), f.guest.0, 0x0027), "BPDU"),
            [vlan, open].concat(),
            [double, second].concat(),
        ] {
            guest.send(&frame);
        }
        guest.send(&f.to_bundle(6, 0, &tcp(5, HEALTH, SYN, "control")));
        assert_eq!(bundle.marks_until("control"), ["control"], "br_netfilter {on}");
        // The sniffers themselves see what comes: the host's own frames to the bundles.
        for (address, sniffer) in [(&bottle, &mut bridge), (&other, &mut elsewhere)] {
            let to = (bundle_ip(address), 9);
            let control = "host's control";
            let datagram = format!("<{control}>");
            netns::inside(&host.netns(None), || {
                let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.send_to(datagram.as_bytes(), to).unwrap();
            });
            assert_eq!(sniffer.marks_until(control), [control], "br_netfilter {on}");
        }
        down(&host, "other");
        down(&host, "demo");
    }
}

#[test]
fn nothing_but_answers_reaches_a_guest() {
    for on in [false, true] {
        let host = TestHost::new();
        bridge_netfilter(&host, on);
        let bottle = up(&host, &ONLY_HEALTH);
        let f = Frames::of(&host, &bottle);
        let mut guest = Wire::open(&host.netns(Some(GUEST)), "eth0");
        let mut bundle = Wire::open(&host.netns(Some(BUNDLE)), "eth0");
        let mut bridge = Wire::open(&host.netns(None), text(&bottle, "bridge"));
        let syn = tcp(HEALTH, 5, SYN, "");
        for frame in [
            f.to_guest(6, 0, &tcp(HEALTH, 5, SYN, "new connection")),
            f.to_guest(6, 0, &tcp(ECHO, 5, SYN_ACK, "from a closed port")),
            f.to_guest(17, 0, &udp(HEALTH, 5, "UDP")),
            // A first segment in parts: its flags are in the second.
            f.to_guest(6, 0x2000, &[&syn[..8], b""].concat()),
            f.to_guest(6, 1, &[&syn[8..], b"<in parts>"].concat()),
            f.forged((f.bundle.0, f.gateway.1), f.guest, "as the gateway"),
            f.arp(BROADCAST, f.bundle, f.guest.1, "ARP"),
            f.arp(f.guest.0, f.bundle, f.guest.1, "ARP to its face"),
            marked(ethernet(f.guest.0, f.bundle.0, 0x88b5), "raw"),
        ] {
            bundle.send(&frame);
        }
        bridge.send(&f.forged(f.gateway, f.guest, "from the host"));
        bridge.send(&f.forged(f.bundle, f.guest, "from the host as the bundle"));
        bundle.send(&f.to_guest(6, 0, &tcp(HEALTH, 5, SYN_ACK, "control")));
        assert_eq!(guest.marks_until("control"), ["control"], "br_netfilter {on}");
        down(&host, "demo");
    }
}

#[test]
fn a_guest_is_attached_once_and_stands_where_the_names_say() {
    let host = TestHost::new();
    up(&host, &["demo"]);
    let first = attach(&host, &["demo", "--allow-port", "tcp/9000"]);
    assert_eq!(first["changed"], true);
    let index = host_end(&host)["ifindex"].clone();
    let again = attach(&host, &["demo", "--allow-port", "9000/tcp"]);
    assert_eq!(again["changed"], false);
    assert_eq!(host_end(&host)["ifindex"], index);
    assert_eq!(first["guest"], again["guest"]);
    assert_eq!(inspect(&host, "demo")["guest"], first["guest"]);
    assert_eq!(up(&host, &["demo"])["changed"], false);
    assert_eq!(up(&host, &ONLY_HEALTH)["changed"], false);

    let names = host.run(["ip", "netns", "list"]).ok().stdout();
    assert!(names.lines().any(|l| l.split(' ').next() == Some(GUEST)), "{names}");
    assert!(text(&host_end(&host), "ifname").starts_with("cg-"));
    let bundle_ip = bundle_ip(&inspect(&host, "demo"));
    assert_eq!(guest_ip(&first), Ipv4Addr::from(u32::from(bundle_ip) + 1));
    let link = host.netns_run(GUEST, ["ip", "-j", "link", "show", "eth0"]).ok().stdout_json();
    assert_eq!(link[0]["address"], first["guest"]["mac"]);
    for (inside, peer) in [(GUEST, bundle_ip), (BUNDLE, guest_ip(&first))] {
        let show = ["ip", "-j", "neigh", "show", "to", &peer.to_string()];
        let entries = host.netns_run(inside, show).ok().stdout_json();
        assert_eq!(entries[0]["state"], serde_json::json!(["PERMANENT"]), "{inside}");
    }

    let other = ["guest", "attach", "--json", "demo"];
    host.carboy(&other).error(4, "conflict");
    let up_other = ["up", "--json", "demo", "--guest", "--allow-port", "tcp/1"];
    host.carboy(&up_other).error(4, "conflict");
    assert!(!reaches(&host, bundle_ip, ECHO));
    let replaced = attach(&host, &["demo", "--replace"]);
    assert_eq!(replaced["changed"], true);
    assert_eq!(host_end(&host)["ifindex"], index, "ports are changed in place");
    assert!(reaches(&host, bundle_ip, ECHO));
    let moved = Ipv4Addr::from(u32::from(bundle_ip) + 50).to_string();
    attach(&host, &["demo", "--replace", "--ip", &moved]);
    assert!(reaches(&host, bundle_ip, ECHO));
    assert_eq!(text(&inspect(&host, "demo")["guest"], "ip"), moved);
    assert_eq!(attach(&host, &["demo"])["changed"], false, "an address that is there is kept");

    host.carboy(&["guest", "detach", "demo"]).ok();
    assert!(inspect(&host, "demo").get("guest").is_none());
    let gone = host.carboy(&["guest", "detach", "--json", "demo"]).ok().stdout_json();
    assert_eq!(gone["changed"], false);
    assert_eq!(up(&host, &["demo"])["changed"], false);
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn what_cannot_be_is_refused_before_anything_changes() {
    let host = TestHost::new();
    host.carboy(&["guest", "attach", "--json", "demo"]).error(3, "not-found");
    let bottle = up(&host, &["demo"]);
    let (ip, gateway) = (text(&bottle, "bundle_ip"), text(&bottle, "gateway"));
    for (bad, exit, code) in [
        (vec!["--ip", ip], 2, "invalid"),
        (vec!["--ip", gateway], 2, "invalid"),
        (vec!["--ip", "203.0.113.9"], 2, "invalid"),
        (vec!["--ip", "fd00::9"], 2, "invalid"),
        (vec!["--allow-port", "tcp/0"], 2, "usage"),
        (vec!["--allow-port", "9000"], 2, "usage"),
    ] {
        let all = [&["guest", "attach", "--json", "demo"], &bad[..]].concat();
        host.carboy(&all).error(exit, code);
    }
    host.carboy(&["up", "--json", "demo", "--allow-port", "tcp/1"]).error(2, "usage");
    assert!(inspect(&host, "demo").get("guest").is_none());
    let before = host.differences();
    let plan = host.carboy(&["plan", "--json", "demo", "--guest"]).ok().stdout_json();
    assert_eq!(plan["guest"]["name"], GUEST);
    assert_eq!(host.differences(), before);
    down(&host, "demo");
}

#[test]
fn a_guest_may_come_before_its_bundle() {
    let host = TestHost::new();
    let network = "claude-bottle-bundle-demo";
    let range = ["--subnet", "10.77.8.0/24", "--gateway", "10.77.8.1"];
    host.carboy(&[&["network", "create", network], &range[..]].concat()).ok();
    let attached = attach(&host, &["demo"]);
    assert_eq!(text(&attached["guest"], "ip"), "10.77.8.3");
    let start = |ip: &str| {
        let words = ["start", "--json", "demo", "--network", network, "--ip", ip];
        let words = [&words[..], &["embedded:sidecars"]].concat();
        host.carboy(&words)
    };
    start("10.77.8.3").error(4, "conflict");
    start("10.77.8.2").ok();
    let answers =
        |ip: [u8; 4]| poll(Duration::from_secs(10), || reaches(&host, Ipv4Addr::from(ip), HEALTH));
    assert!(answers([10, 77, 8, 2]));
    host.carboy(&["stop", "-f", "demo"]).ok();
    // The guest follows its bundle to another address.
    start("10.77.8.9").ok();
    assert!(answers([10, 77, 8, 9]));
    assert_eq!(attach(&host, &["demo"])["changed"], false);
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn up_and_attach_repair_what_is_damaged() {
    let host = TestHost::new();
    let bottle = up(&host, &ONLY_HEALTH);
    let ip = bundle_ip(&bottle);
    let end = text(&host_end(&host), "ifname").to_owned();
    let index = host_end(&host)["ifindex"].clone();
    let guest = guest_ip(&bottle).to_string();
    let element = format!("{{ \"{end}\" . tcp . 9000 }}");
    let too_much = format!("{{ \"{end}\" . tcp . 9001 }}");
    let inside = |name, command: &'static str| ["ip", "netns", "exec", name, "sh", "-c", command];
    let damage: [Vec<&str>; 9] = [
        vec!["nft", "delete", "element", "bridge", "carboy", "guest_ports", &element],
        vec!["nft", "add", "element", "bridge", "carboy", "guest_ports", &too_much],
        vec!["nft", "flush", "set", "bridge", "carboy", "guests"],
        vec!["nft", "flush", "set", "inet", "carboy", "bridged"],
        vec!["nft", "flush", "chain", "bridge", "carboy", "guest_from"],
        vec!["ip", "link", "set", &end, "down"],
        vec!["bridge", "link", "set", "dev", &end, "isolated", "on"],
        inside(GUEST, "ip neigh flush nud permanent dev eth0").to_vec(),
        vec!["ip", "netns", "exec", BUNDLE, "ip", "neigh", "del", &guest, "dev", "eth0"],
    ];
    for (command, verb) in damage.iter().zip([true, false].into_iter().cycle()) {
        host.run(command).ok();
        let repaired = match verb {
            true => up(&host, &["demo"]),
            false => attach(&host, &["demo", "--allow-port", "tcp/9000"]),
        };
        assert_eq!(repaired["changed"], true, "{command:?}");
        assert_eq!(up(&host, &["demo"])["changed"], false, "{command:?}");
        assert!(reaches(&host, ip, HEALTH), "{command:?}");
        assert!(!reaches(&host, ip, ECHO), "{command:?}");
        assert_eq!(host_end(&host)["ifindex"], index, "{command:?}");
    }
    // What is gone altogether is made anew.
    for command in [vec!["ip", "link", "del", &end], vec!["ip", "netns", "del", GUEST]] {
        host.run(&command).ok();
        assert_eq!(up(&host, &["demo"])["changed"], true, "{command:?}");
        assert!(reaches(&host, ip, HEALTH), "{command:?}");
    }
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn who_is_in_a_guest_when_it_goes_stays_without_a_network() {
    for verb in [&["down", "demo"][..], &["guest", "detach", "demo"]] {
        let mut host = TestHost::new();
        let bottle = up(&host, &["demo", "--guest"]);
        let ip = bundle_ip(&bottle);
        let mut vmm = host.spawn(["ip", "netns", "exec", GUEST, "sleep", "60"]);
        let path = host.netns(Some(GUEST));
        let is_in = || {
            let own = vmm.pid().map(netns::of_pid).and_then(|p| std::fs::metadata(p).ok());
            let named = std::fs::metadata(&path).ok();
            let inode =
                |m: Option<std::fs::Metadata>| m.map(|m| std::os::unix::fs::MetadataExt::ino(&m));
            own.is_some() && inode(own) == inode(named)
        };
        assert!(poll(Duration::from_secs(5), is_in));
        let inside: PathBuf = netns::of_pid(vmm.pid().unwrap());
        let to = (ip, HEALTH).into();
        assert!(netns::connect(&inside, to, Duration::from_secs(2)).is_ok());
        let said = host.carboy(verb).ok().stderr();
        assert!(said.contains(GUEST) && said.contains("without a network"), "{said}");
        assert!(!vmm.ended());
        assert!(netns::connect(&inside, to, Duration::from_secs(2)).is_err());
        vmm.kill();
        if verb[0] == "guest" {
            assert_answers(&host, &bottle, HEALTH);
            down(&host, "demo");
        }
        host.assert_clean();
        host.take_baseline();
    }
}

#[test]
fn after_a_crash_or_a_lost_record_the_next_call_converges() {
    const POINTS: [u64; 8] = [2, 5, 8, 12, 16, 25, 40, 70];
    let killed_after = |host: &TestHost, milliseconds: u64, arguments: &[&str]| {
        let mut call = host.spawn_carboy(arguments);
        let began = poll(Duration::from_secs(5), || {
            let comm = call.pid().map(|pid| std::fs::read(format!("/proc/{pid}/comm")));
            matches!(comm, Some(Ok(comm)) if comm == b"carboy\n") || call.ended()
        });
        assert!(began);
        std::thread::sleep(Duration::from_millis(milliseconds));
        call.kill()
    };
    let host = TestHost::new();
    let bottle = up(&host, &["demo"]);
    let ip = bundle_ip(&bottle);
    let mut killed = 0;
    for point in POINTS {
        killed += usize::from(killed_after(&host, point, &["guest", "attach", "demo"]));
        attach(&host, &["demo"]);
        assert!(reaches(&host, ip, HEALTH), "{point} ms");
        assert_eq!(attach(&host, &["demo"])["changed"], false, "{point} ms");
        killed += usize::from(killed_after(&host, point, &["guest", "detach", "demo"]));
        up(&host, &["demo"]);
        assert_eq!(up(&host, &["demo"])["changed"], false, "{point} ms");
        host.carboy(&["guest", "detach", "demo"]).ok();
        assert!(!host.path("/run/netns").join(GUEST).exists());
    }
    assert!(killed > 0, "no call was killed before its end");
    for damage in
        ["rm -rf /run/carboy", "for f in /run/carboy/networks/*.json; do echo { >$f; done"]
    {
        attach(&host, &["demo"]);
        host.run(["sh", "-c", damage]).ok();
        down(&host, "demo");
        host.assert_clean();
        up(&host, &["demo"]);
    }
    killed_after(&host, 30, &["guest", "attach", "demo"]);
    down(&host, "demo");
    host.assert_clean();
}
