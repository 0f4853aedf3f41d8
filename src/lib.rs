//! carboy makes sidecar bundles: for each micro-VM ("bottle") one container at a pinned address
//! that is known before anything starts, without a daemon.
//!
//! The library is synchronous and may be used in a threaded program: it never changes the caller's
//! namespaces, signal handlers, umask, working directory or environment, and never prints. A
//! program that embeds it calls [`helper::run_if_requested`] first thing in its `main`.
//!
//! The six primitives stand in for the Docker calls they replace; [`Engine`] has them all, and the
//! verbs made of them.

pub mod config;
pub mod engine;
pub mod error;
pub mod fsutil;
mod host;
mod launch;
pub mod names;
pub mod net;
pub mod oci;
pub mod plan;
pub mod presence;
mod privileges;
pub mod readiness;
pub mod reconcile;
pub mod resource;
pub mod spec;
pub mod spec4;
pub mod spec6;
pub mod state;

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;

pub use self::config::Config;
pub use self::engine::{Engine, Error, NetworkReport, NetworkRequest, StartReport, StopReport};
pub use self::error::{Classify, ErrorKind};
pub use self::names::{ContainerName, NetworkName, Prefix, Slug};
pub use self::oci::helper;
pub use self::spec::{BottleSpec, BundleLaunchSpec, LaunchOptions, PullPolicy, RunOptions};

/// How long a bundle may take to stop before it is killed, as Docker.
pub const STOP_GRACE: Duration = Duration::from_secs(10);

/// The name of a bottle's network.
pub fn bundle_network_name(slug: &Slug) -> NetworkName {
    Prefix::default().network(slug)
}

/// The name of a bottle's container.
pub fn bundle_container_name(slug: &Slug) -> ContainerName {
    Prefix::default().container(slug)
}

/// Creates a network, or repairs it, or finds that it is there (`docker network create`).
///
/// # Errors
/// As [`Engine::create_network`].
pub fn create_bundle_network(
    name: &NetworkName,
    subnet: Ipv4Net,
    gateway: Ipv4Addr,
) -> Result<NetworkReport, Error> {
    Engine::new(Config::default()).create_network(&NetworkRequest {
        name: name.clone(),
        subnet: Some(subnet),
        gateway: Some(gateway),
        subnet6: None,
        gateway6: None,
        policy: net::policy::NetworkPolicy::default(),
        mtu: None,
        seed: name.to_string(),
    })
}

/// Removes a network (`docker network rm`); one that is absent is no error.
///
/// # Errors
/// As [`Engine::remove_network`].
pub fn remove_bundle_network(name: &NetworkName) -> Result<NetworkReport, Error> {
    Engine::new(Config::default()).remove_network(name, false)
}

/// Starts a bundle (`docker run -d`). Bare names in its environment are taken from `env`, so that
/// a secret never stands on a command line.
///
/// # Errors
/// As [`Engine::start`].
pub fn start_bundle(
    spec: &BundleLaunchSpec,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<StartReport, Error> {
    Engine::new(Config::default()).start(spec, env)
}

/// Stops a bundle and removes it (`docker rm -f`, with Docker's grace); an absent one is no error.
///
/// # Errors
/// As [`Engine::stop`].
pub fn stop_bundle(slug: &Slug) -> Result<StopReport, Error> {
    Engine::new(Config::default()).stop(slug, STOP_GRACE)
}

/// The example in the README is compiled with the documentation's tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
