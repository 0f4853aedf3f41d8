//! Who is let in: tokens that a real registry checks, and client certificates that it asks for.

use std::os::unix::fs::symlink;

use nix::sys::signal::Signal;

use super::*;
use crate::common::registry::{KEY, openssl};
use crate::common::tokens;

/// A host with a registry that takes tokens; it and its token server are trusted. Everybody may
/// pull `public/…`, `me` all but `closed/…`.
fn with_tokens(protocol: Protocol) -> (TestHost, Registry) {
    let mut host = TestHost::new();
    trust_nobody(&mut host);
    let registry = Registry::new(&host, protocol);
    for name in ["test/busybox:1", "public/busybox:1", "closed/busybox:1"] {
        registry.push(&host, &oci(&busybox()), name);
    }
    for name in [HOST, tokens::HOST] {
        let at = host.path(format!("/etc/docker/certs.d/{name}"));
        fs::create_dir_all(&at).unwrap();
        fs::copy(registry.ca().join("ca.crt"), at.join("ca.crt")).unwrap();
    }
    host.take_baseline();
    (host, registry)
}

#[track_caller]
fn refused(host: &TestHost, rest: &str) -> Value {
    host.carboy(&["image", "pull", "--json", &name(rest)]).error(6, "permission")
}

#[test]
fn a_token_is_bought_for_reading_one_repository() {
    let (host, registry) = with_tokens(Protocol::Token);
    registry.log_in(&host, "secret");
    let pulled = pull(&host, &name("test/busybox:1"));
    assert_eq!(pulled["digest"], digest_of(&host, &busybox()).as_str());
    let bought = registry.tokens().bought();
    assert_eq!(bought.len(), 1, "one for manifest, configuration and layer: {bought:?}");
    assert_eq!((&*bought[0].method, bought[0].user.as_deref()), ("GET", Some("me")));
    let query = "/token?scope=repository:test/busybox:pull&service=the%20test%27s%20registry";
    assert_eq!(bought[0].path, query);
    // Another repository takes another one.
    pull(&host, &name("public/busybox:1"));
    let bought = registry.tokens().bought();
    assert_eq!(bought.len(), 2, "{bought:?}");
    assert!(bought[1].path.contains("scope=repository:public/busybox:pull&"), "{bought:?}");
    done(host, registry);
}

#[test]
fn whom_the_token_server_or_the_registry_refuses_is_told_why() {
    let (host, registry) = with_tokens(Protocol::Token);
    // Nobody in particular gets a token, and with it what is for everybody.
    pull(&host, &name("public/busybox:1"));
    assert_eq!(registry.tokens().bought()[0].user, None);
    let error = refused(&host, "test/busybox:1");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("anonymous") && message.contains("authentication required"),
        "{error}"
    );
    assert!(error["hint"].as_str().unwrap().contains("docker login"), "{error}");

    registry.log_in(&host, "mistyped");
    let error = refused(&host, "test/busybox:1");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("that is not the password"), "{error}");
    assert!(message.contains("\"me\"") && !error.to_string().contains("mistyped"), "{error}");
    registry.log_in(&host, "secret");
    let error = refused(&host, "closed/busybox:1");
    assert!(error["message"].as_str().unwrap().contains("closed/busybox"), "{error}");
    assert_eq!(registry.blobs().len(), 2, "only those of the public image");
    pull(&host, &name("test/busybox:1"));
    done(host, registry);
}

#[test]
fn an_identity_token_is_posted() {
    let (host, registry) = with_tokens(Protocol::Token);
    registry.log_in_by(&host, r#""auth":"bWU6","identitytoken":"stale""#);
    let error = refused(&host, "test/busybox:1");
    assert!(error["message"].as_str().unwrap().contains("the token of"), "{error}");
    assert!(!error.to_string().contains("stale"), "{error}");
    registry.log_in_by(&host, r#""auth":"bWU6","identitytoken":"identity""#);
    pull(&host, &name("test/busybox:1"));
    let bought = registry.tokens().bought();
    let last = bought.last().unwrap();
    assert_eq!((&*last.method, &*last.path, last.user.as_deref()), ("POST", "/token", Some("me")));
    for part in ["grant_type=refresh_token", "scope=repository:test/busybox:pull", "service="] {
        assert!(last.body.contains(part), "{part}: {last:?}");
    }
    done(host, registry);
}

#[test]
fn a_token_that_ends_during_a_pull_is_renewed() {
    let (host, registry) = with_tokens(Protocol::Token);
    registry.log_in(&host, "secret");
    let image = large(&host, 5, 3);
    registry.push(&host, &image, "test/large:1");
    // Slow enough that layers are still to come when the first of them does.
    let slow = ["tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "40mbit"];
    host.run([&slow[..], &["burst", "256kb", "latency", "400ms"]].concat()).ok();
    let (life, begun) = (Duration::from_secs(8), Instant::now());
    registry.tokens().next_lives(8);
    let image = name("test/large:1");
    let mut call = host.spawn_carboy(&["image", "pull", &image]);
    let came = || {
        let files = fs::read_dir(host.path("/var/lib/carboy/images/partial"));
        let size = |file: fs::DirEntry| Some(file.metadata().ok()?.len());
        files.into_iter().flatten().flatten().filter_map(size).any(|size| size > 1 << 18)
    };
    assert!(poll(Duration::from_secs(30), came), "no layer comes");
    call.signal(Signal::SIGSTOP);
    let left = registry.blobs().len();
    host.run(["tc", "qdisc", "del", "dev", "lo", "root"]).ok();
    // The token is signed after `begun`, and its end has to pass.
    std::thread::sleep((life + Duration::from_secs(2)).saturating_sub(begun.elapsed()));
    while registry.tokens().bought().is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
    call.go_on();
    assert_eq!(call.wait(), Some(0));
    assert!(left < 1 + 5, "all layers were asked for before: {left}");
    let bought = registry.tokens().bought();
    assert_eq!(bought.len(), 2, "{bought:?}");
    assert_eq!(bought[0].path, bought[1].path);
    assert_eq!(registry.blobs().len(), 1 + 5, "{:?}", registry.blobs());
    done(host, registry);
}

#[test]
fn a_client_certificate_is_shown_to_the_registry_alone() {
    let (host, registry) = with_tokens(Protocol::ClientCert);
    let image = "public/busybox:1";
    let error = refused(&host, image);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("localhost:5000 wants a client certificate"), "{error}");
    assert!(error["hint"].as_str().unwrap().contains("certs.d/localhost:5000/client.cert"));

    // By hand, for this call: other hosts trust the authority, and do not see the certificate.
    let certs = registry.certs().display().to_string();
    host.carboy(&["image", "pull", "--cert-dir", &certs, &name(image)]).ok();
    let bought = registry.tokens().bought();
    assert!(!bought.is_empty() && bought.iter().all(|one| !one.client_cert), "{bought:?}");
    host.carboy(&["image", "rm", &name(image)]).ok();

    // In certs.d, for this host; a key that others can read is a key.
    let at = |file: &str| host.path(format!("/etc/docker/certs.d/{HOST}/{file}"));
    let put = |from: &str, to: &str| {
        fs::copy(registry.certs().join(from), at(to)).unwrap();
    };
    put("client.cert", "me.cert");
    put("client.key", "me.key");
    fs::set_permissions(at("me.key"), fs::Permissions::from_mode(0o644)).unwrap();
    pull(&host, &name(image));
    let bought = registry.tokens().bought();
    assert!(bought.iter().all(|one| !one.client_cert), "{bought:?}");
    // Where the token server is to see one, it has a directory of its own.
    let own = host.path(format!("/etc/docker/certs.d/{}", tokens::HOST));
    fs::copy(at("me.cert"), own.join("me.cert")).unwrap();
    fs::copy(at("me.key"), own.join("me.key")).unwrap();
    pull(&host, &name(image));
    assert!(registry.tokens().bought().last().unwrap().client_cert);
    done(host, registry);
}

#[test]
fn a_client_certificate_that_is_no_good_is_told() {
    let (host, registry) = with_tokens(Protocol::ClientCert);
    let at = host.path(format!("/etc/docker/certs.d/{HOST}"));
    let attempt = || host.carboy(&["image", "pull", "--json", &name("public/busybox:1")]);
    let good = registry.certs();
    let invalid = |file: &str, word: &str| {
        let error = attempt().error(2, "invalid");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(file) && message.contains(word), "{file}, {word}: {error}");
    };
    fs::copy(good.join("client.cert"), at.join("client.cert")).unwrap();
    invalid("client.cert", "client.key is missing");
    fs::create_dir(at.join("client.key")).unwrap();
    let error = attempt().error(1, "failed");
    assert!(error["message"].as_str().unwrap().contains("client.key"), "{error}");
    fs::remove_dir(at.join("client.key")).unwrap();
    fs::write(at.join("client.key"), "no key").unwrap();
    invalid("client.key", "no private key");

    // The key of another one; its own; and an authority that the registry does not know.
    let other = host.dir().join("other");
    fs::create_dir(&other).unwrap();
    let words = ["-x509", "-days", "2", "-subj", "/CN=x", "-keyout", "o.key", "-out", "o.cert"];
    openssl(&other, &[&["req"], &KEY[..], &words].concat());
    fs::copy(other.join("o.key"), at.join("client.key")).unwrap();
    invalid("client.cert", "no pair with client.key");
    fs::copy(other.join("o.cert"), at.join("client.cert")).unwrap();
    let error = attempt().error(6, "permission");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("does not accept the client certificate"), "{error}");
    assert!(message.contains("client.cert"), "{error}");

    fs::remove_file(at.join("client.cert")).unwrap();
    invalid("client.key", "client.cert is missing");
    fs::copy(other.join("o.cert"), at.join("client.cert")).unwrap();
    symlink(good.join("client.cert"), at.join("more.cert")).unwrap();
    symlink(good.join("client.key"), at.join("more.key")).unwrap();
    invalid("client.cert", "one of 2");
    fs::remove_file(at.join("client.cert")).unwrap();
    fs::remove_file(at.join("client.key")).unwrap();
    attempt().ok();
    done(host, registry);
}
