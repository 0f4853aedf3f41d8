//! Side by side with a real dockerd on one host: its FORWARD policy is DROP.

use std::time::Duration;

use crate::common::bottle::{HEALTH, assert_answers, down, inspect, text, up};
use crate::common::spawned::Spawned;
use crate::common::uplink::HOST;
use crate::common::{TestHost, poll};

const SOCKET: &str = "unix:///run/docker.sock";
const PUBLISHED: u16 = 8088;

/// An image with nothing but busybox.
const IMPORT: &str = "mkdir -p /run/rootfs/bin && cp \"$(command -v busybox)\" /run/rootfs/bin/ && \
                      tar -C /run/rootfs -c . | docker import - test-busybox";

/// dockerd with all its files in memory, containerd included.
struct Docker<'a> {
    host: &'a TestHost,
    daemon: Spawned,
}

impl<'a> Docker<'a> {
    fn start(host: &'a TestHost) -> Self {
        let daemon = host.spawn([
            "dockerd",
            "--host",
            SOCKET,
            "--data-root",
            "/run/docker-data",
            "--exec-root",
            "/run/docker-exec",
            "--pidfile",
            "/run/docker.pid",
            "--storage-driver",
            "vfs",
            "--live-restore",
        ]);
        let docker = Self { host, daemon };
        let ready = poll(Duration::from_secs(40), || docker.run("docker version").is_ok());
        assert!(ready, "dockerd does not start (Debian package docker.io)");
        docker
    }

    /// Ends dockerd alone: with live-restore its containers go on.
    fn stop(mut self) {
        let script = "kill $(cat /run/docker.pid)";
        self.host.run(["sh", "-c", script]).ok();
        let ended = poll(Duration::from_secs(20), || self.daemon.ended());
        assert!(ended, "dockerd does not end");
    }

    fn run(&self, script: &str) -> Result<String, String> {
        let output = self.host.run(["env", &format!("DOCKER_HOST={SOCKET}"), "sh", "-c", script]);
        match output.exit_code() {
            Some(0) => Ok(output.stdout().trim().to_owned()),
            _ => Err(output.to_string()),
        }
    }

    /// A container that serves, with a published port; its address.
    fn serve(&self) -> String {
        self.run(IMPORT).unwrap();
        let publish = format!("-p {PUBLISHED}:80");
        self.run(&format!(
            "docker run -d --name web {publish} test-busybox /bin/busybox httpd -f -p 80 -h /bin"
        ))
        .unwrap();
        let format = "'{{.NetworkSettings.IPAddress}}'";
        self.run(&format!("docker inspect -f {format} web")).unwrap()
    }

    /// Asks an HTTP server from inside the container; the last line of its answer. (Not by wget,
    /// which looks the word http up in a file that the image does not have.)
    fn ask(&self, server: &str) -> Result<String, String> {
        let (ip, port) = server.split_once(':').unwrap();
        let script =
            format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | /bin/busybox nc -w 3 {ip} {port}");
        let answer = self.run(&format!("docker exec web /bin/busybox sh -c \"{script}\""))?;
        Ok(answer.lines().last().unwrap_or_default().trim().to_owned())
    }

    /// What Docker promises: its container gets out, and its published port is reached.
    #[track_caller]
    fn assert_works(&self, server: &str) {
        assert_eq!(self.ask(server).unwrap(), HOST.to_string());
        let published = (HOST, PUBLISHED);
        let reached =
            poll(Duration::from_secs(5), || self.host.existing_uplink().tcp(published).is_ok());
        assert!(reached, "the published port does not answer");
    }
}

/// Fetches from inside the bottle's namespace; whose address the server saw.
fn fetch(host: &TestHost, slug: &str, server: &str) -> Option<String> {
    let netns = format!("claude-bottle-sidecars-{slug}");
    let url = format!("http://{server}");
    let output = host.netns_run(&netns, ["timeout", "3", "busybox", "wget", "-q", "-O", "-", &url]);
    (output.exit_code() == Some(0)).then(|| output.stdout().trim().to_owned())
}

/// All of iptables' rules, both families, without counters and comments.
fn saved(host: &TestHost) -> Vec<String> {
    let text = host.run(["sh", "-c", "iptables-save && ip6tables-save"]).ok().stdout();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(" [").next().unwrap_or(line).to_owned()).collect()
}

const OUT: &str = "-A DOCKER-USER -i cb-+ -m comment --comment \"carboy: from bundles\" -j ACCEPT";
const IN: &str = "-A DOCKER-USER -o cb-+ -m comment --comment \"carboy: to bundles\" -j ACCEPT";

#[test]
fn bottles_and_containers_work_side_by_side() {
    let mut host = TestHost::new();
    let server = host.uplink().serve_peer_address().to_string();
    let docker = Docker::start(&host);
    let container = docker.serve();
    docker.assert_works(&server);
    let before = saved(&host);
    assert!(before.contains(&":FORWARD DROP".to_owned()), "{before:#?}");

    let bottle = up(&host, &["demo"]);
    assert_eq!(fetch(&host, "demo", &server), Some(HOST.to_string()));
    let with = saved(&host);
    let added: Vec<&String> = with.iter().filter(|line| !before.contains(line)).collect();
    assert_eq!(added, [OUT, IN], "nothing else of Docker's is changed");
    assert_eq!(with.len(), before.len() + 2);
    let user = host.run(["iptables", "-S", "DOCKER-USER"]).ok().stdout();
    assert_eq!(user.lines().collect::<Vec<_>>()[1..3], [OUT, IN], "at the head");
    docker.assert_works(&server);
    // What comes unasked is not let in by the rules in Docker's chain.
    let daemon = format!("{}:{HEALTH}", text(&bottle, "bundle_ip"));
    assert!(docker.ask(&daemon).is_err(), "the container {container} reaches the bottle");
    // The other way is closed as well, to published ports too: those are the host's services.
    let reaches = |slug: &str, server: &str| fetch(&host, slug, &format!("{server}/busybox"));
    let (own, published) = (format!("{container}:80"), format!("{HOST}:{PUBLISHED}"));
    assert_eq!(reaches("demo", &own), None);
    assert_eq!(reaches("demo", &published), None);
    let drops = &inspect(&host, "demo")["drops"]["other-bridge"]["packets"];
    assert!(drops.as_u64().unwrap() >= 2, "{drops}");
    // So are networks that Docker makes later.
    docker.run("docker network create --subnet 172.30.0.0/24 later").unwrap();
    docker.run("docker network connect --ip 172.30.0.9 later web").unwrap();
    assert_eq!(reaches("demo", "172.30.0.9:80"), None);
    docker.run("docker network disconnect later web && docker network rm later").unwrap();
    // Who lists Docker's network reaches it, and is let through by Docker.
    up(&host, &["listed", "--egress", "172.17.0.0/16:80/tcp"]);
    assert!(reaches("listed", &own).is_some(), "{container}");
    assert!(reaches("listed", &published).is_some(), "{container}");
    down(&host, "listed");
    assert_eq!(up(&host, &["demo"])["changed"], false);
    host.carboy(&["verify"]).ok();

    up(&host, &["other"]);
    down(&host, "demo");
    assert_eq!(fetch(&host, "other", &server), Some(HOST.to_string()));
    assert_eq!(saved(&host), with, "they stay for the other bottle");
    down(&host, "other");
    assert_eq!(saved(&host), before, "they go with the last bottle");
    docker.assert_works(&server);
    drop(docker);
    host.forget_leaks();
}

#[test]
fn a_restart_of_dockerd_takes_nothing_away() {
    let mut host = TestHost::new();
    let server = host.uplink().serve_peer_address().to_string();
    let docker = Docker::start(&host);
    docker.serve();
    let bottle = up(&host, &["demo"]);
    let with = saved(&host);
    docker.stop();
    let docker = Docker::start(&host);
    let forward = saved(&host);
    assert!(forward.contains(&OUT.to_owned()) && forward.contains(&IN.to_owned()), "{forward:#?}");
    assert_eq!(forward.len(), with.len());
    assert_eq!(fetch(&host, "demo", &server), Some(HOST.to_string()));
    docker.assert_works(&server);
    assert_answers(&host, &bottle, HEALTH);
    host.carboy(&["verify"]).ok();
    down(&host, "demo");
    drop(docker);
    host.forget_leaks();
}

#[test]
fn a_dockerd_that_comes_later_is_noticed() {
    let mut host = TestHost::new();
    let server = host.uplink().serve_peer_address().to_string();
    let bottle = up(&host, &["demo"]);
    assert_eq!(fetch(&host, "demo", &server), Some(HOST.to_string()));
    let docker = Docker::start(&host);
    let report = host.carboy(&["verify", "--json", "demo"]).code(1).stdout_json();
    for rule in ["carboy: from bundles", "carboy: to bundles"] {
        let named = format!("rule \"{rule}\" of chain ip filter DOCKER-USER");
        let drift = report["drift"].as_array().unwrap();
        assert!(drift.iter().any(|d| text(d, "resource") == named), "{report}");
    }
    assert_eq!(fetch(&host, "demo", &server), None, "Docker's policy drops it");
    let reloaded = host.carboy(&["reload", "--json", "demo"]).ok().stdout_json();
    assert_eq!(reloaded["changed"], true);
    assert_eq!(fetch(&host, "demo", &server), Some(HOST.to_string()));
    host.carboy(&["verify"]).ok();
    assert_answers(&host, &bottle, HEALTH);
    down(&host, "demo");
    assert!(!saved(&host).iter().any(|line| line.contains("carboy")), "{:#?}", saved(&host));
    drop(docker);
    host.forget_leaks();
}

#[test]
fn rules_of_iptables_legacy_are_told_of_and_left_alone() {
    let mut host = TestHost::new();
    let server = host.uplink().serve_peer_address().to_string();
    host.run(["iptables-legacy", "-P", "FORWARD", "DROP"]).ok();
    let output = host.carboy(&["up", "demo"]);
    output.ok();
    assert!(output.stderr().contains("iptables-legacy -I FORWARD -i cb-+"), "{output}");
    assert_eq!(fetch(&host, "demo", &server), None);
    for way in ["-i", "-o"] {
        host.run(["iptables-legacy", "-I", "FORWARD", way, "cb-+", "-j", "ACCEPT"]).ok();
    }
    assert_eq!(fetch(&host, "demo", &server), Some(HOST.to_string()), "what the note advises");
    let kept = host.run(["iptables-legacy", "-S"]).ok().stdout();
    down(&host, "demo");
    assert_eq!(host.run(["iptables-legacy", "-S"]).ok().stdout(), kept);
    // iptables leaves a lock file behind.
    host.forget_leaks();
}
