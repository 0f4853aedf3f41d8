//! Registries: images are pulled from a real one, trusted and believed as far as they should be.

mod access;
mod interrupted;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::bottle::{WEB, assert_answers, down, up};
use crate::common::images::{Image, busybox, layered};
use crate::common::registry::{HOST, Protocol, Registry};
use crate::common::{TestHost, netns, poll};

fn oci(image: &Image) -> String {
    format!("oci:{}:{}", image.layout.display(), image.name)
}

/// A host whose registry has `test/busybox:1` and `test/layers:1`, and is trusted and logged in to.
fn ready(protocol: Protocol) -> (TestHost, Registry) {
    let mut host = TestHost::new();
    trust_nobody(&mut host);
    let registry = Registry::new(&host, protocol);
    registry.push(&host, &oci(&busybox()), "test/busybox:1");
    registry.push(&host, &oci(&layered()), "test/layers:1");
    if protocol == Protocol::Tls {
        registry.log_in(&host, "secret");
        let at = host.path(format!("/etc/docker/certs.d/{HOST}"));
        fs::create_dir_all(&at).unwrap();
        fs::copy(registry.ca().join("ca.crt"), at.join("ca.crt")).unwrap();
    }
    host.take_baseline();
    (host, registry)
}

/// Gives the host an `/etc` of its own: what the machine trusts must not reach a test, nor a test
/// write there.
fn trust_nobody(host: &mut TestHost) {
    let script = "mkdir -p /run/etc/upper /run/etc/work && mount -t overlay \
                  -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work none /etc && \
                  rm -rf /etc/docker /etc/containers/certs.d && mkdir -p /etc/carboy";
    host.run(["sh", "-c", script]).ok();
    host.allow("/run/etc");
}

/// Nothing may be left but the registry, which ends now.
fn done(mut host: TestHost, registry: Registry) {
    host.assert_clean();
    host.forget_leaks();
    drop(registry);
}

fn name(rest: &str) -> String {
    format!("{HOST}/{rest}")
}

#[track_caller]
fn pull(host: &TestHost, name: &str) -> Value {
    host.carboy(&["image", "pull", "--json", name]).ok().stdout_json()
}

/// The digest skopeo tells for an image in a layout.
fn digest_of(host: &TestHost, image: &Image) -> String {
    let words = ["skopeo", "inspect", "--format", "{{.Digest}}", &oci(image)];
    host.run(words).ok().stdout().trim().to_owned()
}

#[test]
fn an_image_is_pulled_by_tag_and_by_digest() {
    let (host, registry) = ready(Protocol::Tls);
    let digest = digest_of(&host, &layered());
    let pulled = pull(&host, &name("test/layers:1"));
    assert_eq!(pulled["digest"], digest.as_str());
    assert_eq!(
        (&pulled["changed"], pulled["reference"].as_str()),
        (&true.into(), Some(&*name("test/layers:1")))
    );
    let asked = registry.asked();
    assert_eq!(asked.len(), 1 + 4, "the manifest, the configuration, three layers: {asked:?}");

    let again = pull(&host, &format!("docker://{}", name("test/layers:1")));
    assert_eq!((&again["changed"], &again["digest"]), (&false.into(), &pulled["digest"]));
    let pinned = name(&format!("test/layers@{digest}"));
    assert_eq!(pull(&host, &pinned)["digest"], digest.as_str());
    assert_eq!(registry.blobs().len(), 4, "no blob is asked for twice");
    let listed = host.carboy(&["image", "ls"]).ok().stdout();
    assert!(listed.contains(&name("test/layers:1")) && listed.contains(&pinned), "{listed}");
    done(host, registry);
}

#[test]
fn up_pulls_what_the_store_lacks_and_nothing_else() {
    let (host, registry) = ready(Protocol::Tls);
    let image = name("test/busybox:1");
    let never = host.carboy(&["up", "--json", "demo", "--image", &image, "--pull", "never"]);
    never.error(3, "not-found");
    assert!(registry.asked().is_empty());
    host.assert_clean();

    let bottle = up(&host, &["demo", "--image", &image]);
    assert_answers(&host, &bottle, WEB);
    assert_eq!(registry.asked().len(), 1 + 2);
    let again = up(&host, &["demo", "--image", &image]);
    assert_eq!(again["changed"], false);
    assert_eq!(registry.asked().len(), 3, "what is in the store is not asked for");
    let always = up(&host, &["demo", "--image", &image, "--pull", "always"]);
    assert_eq!(always["changed"], false);
    assert_eq!(registry.asked().len(), 4, "only the manifest");

    // Another image under the same tag.
    registry.push(&host, &oci(&layered()), "test/busybox:1");
    assert_eq!(up(&host, &["demo", "--image", &image])["changed"], false);
    let replace = ["demo", "--image", &image, "--pull", "always"];
    host.carboy(&[&["up", "--json"], &replace[..]].concat()).error(4, "conflict");
    let replaced = up(&host, &[&replace[..], &["--replace"]].concat());
    assert_eq!(replaced["image"]["digest"], digest_of(&host, &layered()).as_str());
    down(&host, "demo");
    done(host, registry);
}

#[test]
fn start_pulls_and_an_absent_image_leaves_nothing() {
    let (host, registry) = ready(Protocol::Tls);
    let network = "claude-bottle-bundle-demo";
    let create =
        ["network", "create", "--subnet", "10.77.1.0/24", "--gateway", "10.77.1.1", network];
    host.carboy(&create).ok();
    let start = |image: &str| {
        let place = ["--network", network, "--ip", "10.77.1.2"];
        host.carboy(&[&["start", "--json"], &place[..], &["demo", image]].concat())
    };
    let error = start(&name("test/none:1")).error(3, "not-found");
    assert!(error["causes"].to_string().contains("manifest 1"), "{error}");
    start(&name("test/busybox:1")).ok();
    down(&host, "demo");
    host.assert_clean();
    done(host, registry);
}

#[test]
fn an_index_is_resolved_for_this_host() {
    let (host, registry) = ready(Protocol::Tls);
    let layout = host.dir().join("multi");
    let from = format!("oci:{}", layout.display());
    host.run(["skopeo", "copy", "--quiet", &oci(&busybox()), &format!("{from}:b")]).ok();
    host.run(["skopeo", "copy", "--quiet", &oci(&layered()), &format!("{from}:l")]).ok();
    let index: Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let digest = |n: usize| index["manifests"][n]["digest"].as_str().unwrap().to_owned();
    let entry = |n: usize, architecture: &str, variant: &str| {
        let size = &index["manifests"][n]["size"];
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":{size},
                "platform":{{"os":"linux","architecture":"{architecture}","variant":"{variant}"}}}}"#,
            digest(n)
        )
    };
    let entries = [entry(0, own, "v99"), entry(0, "s390x", ""), entry(1, own, "")].join(",");
    let multi = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{entries}]}}"#
    );
    let multi_digest = put_blob(&layout, &multi);
    let outer = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.index.v1+json",
            "digest":"{multi_digest}","size":{}}}]}}"#,
        multi.len()
    );
    fs::write(layout.join("index.json"), outer).unwrap();
    registry.push(&host, &from, "test/multi:1");

    for reference in ["test/multi:1".to_owned(), format!("test/multi@{multi_digest}")] {
        let pulled = pull(&host, &name(&reference));
        assert_eq!(pulled["digest"], digest(1).as_str(), "{reference}");
        let plan = host.carboy(&["plan", "--json", "demo", "--image", &name(&reference)]);
        assert_eq!(plan.ok().stdout_json()["image"]["digest"], digest(1).as_str());
    }
    done(host, registry);
}

/// Writes a blob into a layout; its digest, which an independent tool says.
fn put_blob(layout: &Path, text: &str) -> String {
    let path = layout.join("blob");
    fs::write(&path, text).unwrap();
    let output = std::process::Command::new("sha256sum").arg(&path).output().unwrap();
    let hex = String::from_utf8(output.stdout).unwrap()[..64].to_owned();
    fs::rename(path, layout.join("blobs/sha256").join(&hex)).unwrap();
    format!("sha256:{hex}")
}

#[test]
fn who_is_not_trusted_or_not_let_in_is_told_why() {
    let mut host = TestHost::new();
    trust_nobody(&mut host);
    let registry = Registry::new(&host, Protocol::Tls);
    registry.push(&host, &oci(&busybox()), "test/busybox:1");
    fs::write(host.path("/etc/hosts"), "127.0.0.1 localhost registry.test\n").unwrap();
    host.take_baseline();
    let image = name("test/busybox:1");
    let ca = registry.ca().display().to_string();
    let attempt = |extra: &[&str], name: &str| {
        host.carboy(&[&["image", "pull", "--json"], extra, &[name]].concat())
    };
    let error = attempt(&[], &image).error(1, "failed");
    assert!(error["message"].as_str().unwrap().starts_with("TLS with localhost:5000"), "{error}");
    assert!(error["causes"].to_string().contains("UnknownIssuer"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("--cert-dir"), "{error}");
    // Trusted, but under another name.
    let error = attempt(&["--cert-dir", &ca], "127.0.0.2:5000/test/busybox:1").error(1, "failed");
    assert!(error["causes"].to_string().contains("not valid for name"), "{error}");

    let trusted: &[&str] = &["--cert-dir", &ca];
    let error = attempt(trusted, &image).error(6, "permission");
    assert!(error["message"].as_str().unwrap().contains("anonymous"), "{error}");
    registry.log_in(&host, "wrong");
    let error = attempt(trusted, &image).error(6, "permission").to_string();
    assert!(error.contains(r#"\"me\""#) && !error.contains("wrong"), "{error}");
    registry.log_in(&host, "secret");
    let error = attempt(trusted, &name("test/none:1")).error(3, "not-found");
    assert!(error["message"].as_str().unwrap().contains("test/none"), "{error}");
    // A name of `/etc/hosts`; there is no password for it.
    let error = attempt(trusted, "registry.test:5000/test/busybox:1").error(6, "permission");
    assert!(error["message"].as_str().unwrap().contains("anonymous"), "{error}");
    attempt(trusted, "localhost:5001/test/busybox:1").error(1, "failed");
    attempt(trusted, "no-such-host.test/busybox:1").error(1, "failed");
    attempt(trusted, "A B").error(2, "invalid");
    attempt(trusted, "embedded:sidecars").error(2, "invalid");
    attempt(trusted, &image).ok();
    // Of several names all are tried.
    let both =
        host.carboy(&[&["image", "pull"], trusted, &[&name("test/none:1"), &image]].concat());
    both.code(3);
    assert_eq!(both.stdout().trim(), image);
    done(host, registry);
}

#[test]
fn a_helper_gives_the_password() {
    let (host, registry) = ready(Protocol::Tls);
    let bin = host.dir().join("bin");
    fs::create_dir_all(&bin).unwrap();
    let helper = bin.join("docker-credential-test");
    let log = host.dir().join("helper.log");
    let script = format!(
        "#!/bin/sh\necho \"$1 $(cat)\" >>{}\necho '{{\"Username\":\"me\",\"Secret\":\"secret\"}}'\n",
        log.display()
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let docker = host.dir().join("docker");
    fs::create_dir_all(&docker).unwrap();
    let config = format!(r#"{{"credHelpers":{{"{HOST}":"test"}}}}"#);
    fs::write(docker.join("config.json"), config).unwrap();
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display());
    let environment = [("PATH", &*path), ("DOCKER_CONFIG", docker.to_str().unwrap())];
    let words = ["image", "pull", &name("test/busybox:1")];
    host.carboy_with(&words, &environment, None).ok();
    assert_eq!(fs::read_to_string(log).unwrap(), format!("get {HOST}\n"));
    done(host, registry);
}

#[test]
fn plain_http_is_for_this_machine_and_for_hosts_allowed_by_name() {
    let (mut host, registry) = ready(Protocol::Plain);
    let pulled = pull(&host, &name("test/busybox:1"));
    assert_eq!(pulled["digest"], digest_of(&host, &busybox()).as_str());
    host.run(["ip", "address", "add", "198.51.100.7/32", "dev", "lo"]).ok();
    host.take_baseline();
    let far = "198.51.100.7:5000/test/layers:1";
    let error = host.carboy(&["image", "pull", "--json", far]).error(1, "failed");
    assert!(error["message"].as_str().unwrap().contains("does not speak TLS"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("insecure_registries"), "{error}");
    let config = |text: &str| fs::write(host.path("/etc/carboy/config.toml"), text).unwrap();
    config("insecure_registries = [\"http://198.51.100.7\"]\n");
    host.carboy(&["image", "pull", "--json", far]).error(2, "usage");
    config("insecure_registries = [\"198.51.100.7:5000\"]\n");
    assert_eq!(pull(&host, far)["digest"], digest_of(&host, &layered()).as_str());
    done(host, registry);
}

/// Makes an image with so many layers that do not compress.
fn large(host: &TestHost, layers: usize, megabytes: usize) -> String {
    let layout = host.dir().join("large").display().to_string();
    let tagged = format!("{layout}:large");
    host.run(["umoci", "init", "--layout", &layout]).ok();
    host.run(["umoci", "new", "--image", &tagged]).ok();
    let file = host.dir().join("noise").display().to_string();
    let script = format!("head -c {megabytes}M /dev/urandom >{file}");
    for layer in 0..layers {
        host.run(["sh", "-c", &script]).ok();
        let to = format!("/noise{layer}");
        host.run(["umoci", "insert", "--image", &tagged, &file, &to]).ok();
    }
    host.run(["umoci", "config", "--image", &tagged, "--config.cmd", "/noise0"]).ok();
    format!("oci:{tagged}")
}

#[test]
fn progress_is_for_people() {
    let (host, registry) = ready(Protocol::Tls);
    let image = name("test/busybox:1");
    let output = host.carboy(&["image", "pull", &image]);
    assert_eq!(output.ok().stdout().trim(), image);
    assert_eq!(output.stderr().matches("pulled ").count(), 2, "{output}");
    let image = name("test/layers:1");
    let output = host.carboy(&["image", "pull", "--json", &image]);
    assert_eq!(output.ok().stderr(), "");
    host.carboy(&["image", "rm", &image]).ok();
    // On a terminal there are bars, which are drawn over and over.
    let command = format!("{} image pull {image}", env!("CARGO_BIN_EXE_carboy"));
    let terminal = ["env", "TERM=xterm", "script", "--quiet", "--return", "--command"];
    let shown = host.run([&terminal[..], &[&command, "/dev/null"]].concat());
    let text = shown.ok().stdout();
    assert!(text.contains("done") && text.contains("\u{1b}["), "{text:?}");
    done(host, registry);
}

/// A proxy on port 3128 of the host that connects to the registry, whatever host is asked for; gives
/// the first line of each request.
fn proxy(host: &TestHost) -> mpsc::Receiver<String> {
    let namespace = host.netns(None);
    let listener = netns::inside(&namespace, || TcpListener::bind("127.0.0.1:3128").unwrap());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
            let Some(Ok(first)) = lines.next() else { continue };
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let to = ([127, 0, 0, 1], 5000).into();
            let registry = netns::connect(&namespace, to, Duration::from_secs(5)).unwrap();
            (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            // The test may be over.
            drop(sender.send(first));
            for (mut from, mut to) in
                [(client.try_clone().unwrap(), registry.try_clone().unwrap()), (registry, client)]
            {
                std::thread::spawn(move || {
                    drop(std::io::copy(&mut from, &mut to));
                    drop(to.shutdown(Shutdown::Write));
                });
            }
        }
    });
    receiver
}

#[test]
fn a_proxy_is_used_where_it_should_be() {
    let (host, registry) = ready(Protocol::Tls);
    let asked = proxy(&host);
    let ca = registry.ca().display().to_string();
    // A name that only the proxy knows; the certificate is for it.
    let far = "registry.test:5000/test/busybox:1";
    let pull = |name: &str, no_proxy: &str| {
        let words = ["image", "pull", "--json", "--cert-dir", &ca, name];
        let environment = [("HTTPS_PROXY", "http://127.0.0.1:3128"), ("NO_PROXY", no_proxy)];
        host.carboy_with(&words, &environment, None)
    };
    // There is no password for this name.
    pull(far, "").error(6, "permission");
    assert_eq!(asked.recv().unwrap(), "CONNECT registry.test:5000 HTTP/1.1");
    let count = asked.try_iter().count();
    pull(far, "other.test, test").error(1, "failed");
    pull(&name("test/busybox:1"), "").ok();
    assert_eq!(asked.try_iter().count(), 0, "after {count} more at first");
    done(host, registry);
}
