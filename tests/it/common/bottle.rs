//! What the tests of the contract ask of a bottle, by tools other than carboy.

use std::fs;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;

use super::images::Image;
use super::{TestHost, poll};

/// The port of the embedded image's health daemon.
pub(crate) const HEALTH: u16 = 9000;

/// The port of the embedded image's echo daemon.
pub(crate) const ECHO: u16 = 9001;

/// The port of the busybox image's web server.
pub(crate) const WEB: u16 = 8080;

/// `carboy up --json ARGUMENTS`, which must succeed.
#[track_caller]
pub(crate) fn up(host: &TestHost, arguments: &[&str]) -> Value {
    let all = [&["up", "--json"], arguments].concat();
    host.carboy(&all).ok().stdout_json()
}

/// `carboy down SLUG`, which must succeed.
#[track_caller]
pub(crate) fn down(host: &TestHost, slug: &str) {
    host.carboy(&["down", slug]).ok();
}

/// `carboy inspect --json SLUG`.
#[track_caller]
pub(crate) fn inspect(host: &TestHost, slug: &str) -> Value {
    host.carboy(&["inspect", "--json", slug]).ok().stdout_json()
}

/// `carboy image load` of its OCI archive.
#[track_caller]
pub(crate) fn load(host: &TestHost, image: &Image) {
    let path = image.oci_archive.display().to_string();
    assert_eq!(host.carboy(&["image", "load", &path]).ok().stdout().trim(), image.name);
}

/// A string field that must be there.
#[track_caller]
pub(crate) fn text<'a>(json: &'a Value, key: &str) -> &'a str {
    json[key].as_str().unwrap_or_else(|| panic!("{key} in {json}"))
}

/// The bottle's pinned address.
#[track_caller]
pub(crate) fn bundle_ip(json: &Value) -> Ipv4Addr {
    text(json, "bundle_ip").parse().unwrap()
}

/// One connection from the host to the pinned address must succeed at the first attempt. Only the
/// web server of the busybox image may take a moment: that image declares no daemons that `up`
/// could wait for.
#[track_caller]
pub(crate) fn assert_answers(host: &TestHost, bottle: &Value, port: u16) {
    let ip = bundle_ip(bottle);
    if port == WEB {
        poll(Duration::from_secs(5), || host.tcp((ip, port)).is_ok());
    }
    if let Err(error) = host.tcp((ip, port)) {
        panic!("{ip}:{port} does not answer at the first attempt: {error}");
    }
}

/// What the echo daemon sends back must be what was sent.
#[track_caller]
pub(crate) fn assert_echoes(host: &TestHost, bottle: &Value) {
    let mut stream = host.tcp((bundle_ip(bottle), ECHO)).unwrap();
    stream.write_all(b"carboy\n").unwrap();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"carboy\n");
}

/// Writes the configuration file.
pub(crate) fn configure(host: &TestHost, content: &str) {
    let path = host.dir().join("config.toml");
    fs::write(&path, content).unwrap();
    let script = "mkdir -p /run/etc/carboy; ! mountpoint -q /etc || umount -l /etc; \
                  cp $0 /run/etc/carboy/config.toml && \
                  mount -t overlay -o lowerdir=/run/etc:/etc none /etc";
    host.run(["sh", "-c", script, &path.display().to_string()]).ok();
}
