//! What all tests stand on: throwaway hosts, commands inside them, a leak check and test images.

pub(crate) mod bottle;
pub(crate) mod cgroups;
pub(crate) mod host;
pub(crate) mod images;
pub(crate) mod leaks;
pub(crate) mod netns;
pub(crate) mod output;
pub(crate) mod pty;
pub(crate) mod registry;
pub(crate) mod spawned;
pub(crate) mod tokens;
pub(crate) mod uplink;
pub(crate) mod wire;

use std::time::{Duration, Instant};

pub(crate) use host::TestHost;
pub(crate) use output::Output;

/// Polls until `done` answers true; false if it has not within `limit`.
pub(crate) fn poll(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
