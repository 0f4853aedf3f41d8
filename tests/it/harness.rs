//! The harness itself: hosts are separate, leaks are seen, and nothing of a host outlives it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::common::host::OWN_CGROUP;
use crate::common::uplink::{DEVICE, HOST};
use crate::common::{TestHost, cgroups, poll};

#[test]
fn two_hosts_with_the_same_names_do_not_see_each_other() {
    let (mut one, mut two) = (TestHost::new(), TestHost::new());
    for host in [&mut one, &mut two] {
        host.forget_leaks();
        host.run(["ip", "netns", "add", "demo"]).ok();
        host.run(["ip", "link", "add", "cb-demo", "type", "bridge"]).ok();
        host.run(["nft", "add", "table", "inet", "demo"]).ok();
        host.run(["sh", "-c", "mkdir /run/demo && mkdir /sys/fs/cgroup/$0/demo", &v2_mount(host)])
            .ok();
    }
    one.run(["ip", "netns", "del", "demo"]).ok();
    one.run(["ip", "link", "del", "cb-demo"]).ok();
    one.run(["nft", "delete", "table", "inet", "demo"]).ok();
    one.run(["sh", "-c", "rmdir /run/demo && rmdir /sys/fs/cgroup/$0/demo", &v2_mount(&one)]).ok();
    assert_eq!(two.run(["ip", "netns", "list"]).ok().stdout().trim(), "demo");
    assert_eq!(two.json(["ip", "-j", "link", "show", "cb-demo"])[0]["ifname"], "cb-demo");
    assert!(two.run(["nft", "list", "tables"]).ok().stdout().contains("inet demo"));
    assert!(two.path("/run/demo").is_dir());
    assert_eq!(two.cgroups().below().iter().filter(|c| c.ends_with("/demo")).count(), 1);
    assert_eq!(one.cgroups().below().iter().filter(|c| c.ends_with("/demo")).count(), 0);
}

#[test]
fn each_kind_of_leak_is_seen_and_its_end_too() {
    let host = TestHost::new();
    let cgroup = format!("/sys/fs/cgroup/{}/left", v2_mount(&host));
    let mkdir = format!("mkdir {cgroup}");
    let rmdir = format!("rmdir {cgroup}");
    let cases = [
        ("+ link left ()", "ip link add left type bridge", "ip link del left"),
        ("+ link lo ()", "ip netns add left", "ip netns del left"),
        (
            "+ address 198.51.100.1/24 on lo",
            "ip address add 198.51.100.1/24 dev lo",
            "ip address del 198.51.100.1/24 dev lo",
        ),
        ("+ netns left", "ip netns add left", "ip netns del left"),
        ("+ mount /mnt (tmpfs)", "mount -t tmpfs tmpfs /mnt", "umount /mnt"),
        ("+ cgroup ", &mkdir, &rmdir),
        ("+ nft {\"table\":", "nft add table inet left", "nft delete table inet left"),
        (
            "+ process sleep `sleep 4242 `",
            "setsid sleep 4242 >/dev/null 2>&1 &",
            "kill $(busybox pidof sleep)",
        ),
        ("+ file /run/left", "echo >/run/left", "rm /run/left"),
        ("+ file /var/lib/carboy/x", "mkdir -p /var/lib/carboy/x", "rmdir /var/lib/carboy/x"),
        (
            "+ sysctl net.ipv4.conf.lo.forwarding=1",
            "echo 1 >/proc/sys/net/ipv4/conf/lo/forwarding",
            "echo 0 >/proc/sys/net/ipv4/conf/lo/forwarding",
        ),
    ];
    for (line, make, undo) in cases {
        host.assert_clean();
        host.run(["sh", "-c", make]).ok();
        let leaks = host.differences();
        assert!(leaks.iter().any(|l| l.starts_with(line)), "{make}: {leaks:#?}");
        host.run(["sh", "-c", undo]).ok();
        host.assert_clean();
    }
}

#[test]
fn something_missing_is_seen() {
    let mut host = TestHost::new();
    host.run(["nft", "add", "table", "inet", "foreign"]).ok();
    host.take_baseline();
    host.run(["nft", "delete", "table", "inet", "foreign"]).ok();
    let leaks = host.leaks();
    assert!(matches!(&leaks[..], [one] if one.starts_with("- nft {\"table\":")), "{leaks:#?}");
    host.forget_leaks();
}

#[test]
fn what_is_allowed_is_no_leak() {
    let mut host = TestHost::new();
    host.allow("/run/kept");
    host.run(["sh", "-c", "mkdir /run/kept /var/lib/carboy; touch /run/kept/file"]).ok();
    host.assert_clean();
}

#[test]
fn orphans_are_reaped() {
    let host = TestHost::new();
    host.run(["sh", "-c", "(sleep 0.1 & sleep 0.2 &) >/dev/null 2>&1"]).ok();
    host.assert_clean();
}

#[test]
fn nothing_remains_of_a_host() {
    let mut host = TestHost::new();
    host.uplink();
    litter(&mut host);
    let traces = Traces::of(&host);
    drop(host);
    traces.assert_gone();
}

#[test]
fn nothing_remains_after_a_panic() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let test = std::thread::Builder::new().name("a test that fails".into());
    let test = test.spawn(move || {
        let mut host = TestHost::new();
        litter(&mut host);
        sender.send(Traces::of(&host)).unwrap();
        panic!("this panic is part of a test");
    });
    assert!(test.unwrap().join().is_err());
    receiver.recv().unwrap().assert_gone();
}

#[test]
fn a_host_that_is_left_dirty_fails_its_test() {
    let test = std::thread::spawn(|| {
        let host = TestHost::new();
        host.run(["touch", "/run/left"]).ok();
    });
    let panic = test.join().unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("+ file /run/left"), "{message}");
}

#[test]
fn the_uplink_carries_traffic_and_says_whom_it_sees() {
    let mut host = TestHost::new();
    let server = host.uplink().serve_peer_address();
    let url = format!("http://{server}/");
    let answer = host.run(["busybox", "wget", "-q", "-O", "-", &url]).ok().stdout();
    assert_eq!(answer.trim(), HOST.to_string());
    let routes = host.json(["ip", "-j", "route", "show", "default"]);
    assert_eq!(routes[0]["dev"], DEVICE);
}

#[test]
fn tcp_is_tried_from_inside_the_host() {
    let host = TestHost::new();
    assert!(host.tcp(([127, 0, 0, 1], 7)).is_err());
    let mut server = host.spawn(["busybox", "httpd", "-f", "-p", "127.0.0.1:7"]);
    assert!(poll(Duration::from_secs(2), || host.tcp(([127, 0, 0, 1], 7)).is_ok()));
    server.kill();
}

#[test]
fn commands_see_a_host_of_their_own() {
    let host = TestHost::new();
    assert_eq!(host.run(["cat", "/proc/1/comm"]).ok().stdout().trim(), "bash");
    let environment = host.run(["env"]).ok().stdout();
    let mut names: Vec<&str> =
        environment.lines().filter_map(|l| l.split_once('=')).map(|(name, _)| name).collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "LC_ALL", "PATH"]);
    let links = host.json(["ip", "-j", "link"]);
    assert_eq!(links.as_array().unwrap().len(), 1, "{links}");
    host.run(["false"]).code(1);
    assert_eq!(host.run(["ls", "/sys/class/net"]).ok().stdout().trim(), "lo");
}

#[test]
fn overlay_upper_directories_work_in_a_host() {
    let host = TestHost::new();
    let script = "cd /var/lib; mkdir l u w m; mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w m; \
                  echo x >m/f; cat u/f; umount m; rm -r l u w m";
    assert_eq!(host.run(["sh", "-c", script]).ok().stdout(), "x\n");
}

#[test]
fn spawned_commands_belong_to_the_hosts_cgroups() {
    for host in [TestHost::new(), TestHost::cgroup2()] {
        let mut sleep = host.spawn(["sleep", "4242"]);
        assert!(poll(Duration::from_secs(2), || sleep.pid().is_some_and(|pid| {
            fs::read(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == b"sleep\n")
        })));
        let pid = sleep.pid().unwrap();
        let seen = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let v2 = seen.lines().find(|l| l.starts_with("0::")).unwrap();
        assert!(v2.contains(host.name()), "{seen}");
        assert!(sleep.kill());
    }
}

#[test]
fn a_cgroup2_host_can_hand_controllers_to_its_children() {
    let host = TestHost::cgroup2();
    let kinds = host.run(["stat", "-f", "-c", "%T", "/sys/fs/cgroup"]).ok().stdout();
    assert_eq!(kinds.trim(), "cgroup2fs");
    let script = "cd /sys/fs/cgroup; for c in $(cat cgroup.controllers); do \
                  echo +$c >cgroup.subtree_control || exit 1; done; mkdir x; rmdir x; \
                  for c in $(cat cgroup.controllers); do echo -$c >cgroup.subtree_control; done";
    host.run(["sh", "-c", script]).ok();
    assert!(host.path(format!("/sys/fs/cgroup/{OWN_CGROUP}")).is_dir());
}

/// The cgroup2 mount of a host, relative to `/sys/fs/cgroup`.
fn v2_mount(host: &TestHost) -> String {
    let all = cgroups::hierarchies();
    let mount = &all.iter().find(|h| h.v1.is_none()).unwrap().mount;
    assert!(host.path(mount).is_dir());
    let relative = mount.strip_prefix("/sys/fs/cgroup").unwrap().display().to_string();
    if relative.is_empty() { ".".to_owned() } else { relative }
}

/// Leaves one of everything behind.
fn litter(host: &mut TestHost) {
    host.forget_leaks();
    let script = "ip netns add left; ip link add left type veth peer name eth0 netns left; \
                  mount -t tmpfs tmpfs /mnt; nft add table inet left; \
                  mkdir -p /sys/fs/cgroup/$0/a/b; \
                  (echo 0 >/sys/fs/cgroup/$0/a/b/cgroup.procs; \
                  trap '' TERM HUP; exec setsid sleep 4242 >/dev/null 2>&1) &";
    assert_eq!(host.spawn(["sh", "-c", script, &v2_mount(host)]).wait(), Some(0));
}

/// How the machine would still see a host.
struct Traces {
    name: String,
    namespaces: Vec<String>,
    directory: std::path::PathBuf,
}

impl Traces {
    fn of(host: &TestHost) -> Self {
        let namespace = |kind: &str| {
            let link = fs::read_link(format!("/proc/{}/ns/{kind}", host.init())).unwrap();
            link.display().to_string()
        };
        let namespaces = ["net", "mnt", "pid", "cgroup"].map(namespace).to_vec();
        let traces =
            Self { name: host.name().to_owned(), namespaces, directory: host.dir().to_owned() };
        assert!(traces.directory.is_dir());
        assert!(!traces.processes().is_empty());
        assert!(!traces.cgroups().is_empty());
        traces
    }

    /// Processes of the machine in any namespace of the host.
    fn processes(&self) -> Vec<String> {
        let in_host = |process: &Path| {
            ["net", "mnt", "pid", "cgroup"].iter().any(|kind| {
                fs::read_link(process.join("ns").join(kind))
                    .is_ok_and(|link| self.namespaces.contains(&link.display().to_string()))
            })
        };
        let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        all.filter(|path| in_host(path)).map(|path| path.display().to_string()).collect()
    }

    fn cgroups(&self) -> Vec<String> {
        let all = cgroups::hierarchies().into_iter().map(|h| h.mount.join(&self.name));
        all.filter(|path| path.exists()).map(|path| path.display().to_string()).collect()
    }

    fn assert_gone(&self) {
        // The kernel kills a PID namespace's processes with its init, and reaps the last of them
        // on its own time.
        let gone = || self.processes().is_empty();
        assert!(poll(Duration::from_secs(5), gone), "left: {:?}", self.processes());
        assert_eq!(self.cgroups(), Vec::<String>::new());
        assert!(!self.directory.exists());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&self.name), "{mounts}");
    }
}
