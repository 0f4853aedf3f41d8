//! Has the layers that a container uses written to disk for good. A load does not wait for that
//! ([`store::settle`]); a monitor has the time.

use std::path::PathBuf;
use std::thread::Builder;
use std::time::{Duration, Instant};

use crate::oci::spec::Container;
use crate::oci::status::Started;
use crate::oci::store;

/// After so long the kernel has begun by itself, and a container that lives shortly spares the wait.
const DELAY: Duration = Duration::from_secs(10);

/// Enough for a few small files.
const STACK: usize = 128 << 10;

/// A wait that is still to come.
pub(super) struct Settling {
    layers: Vec<PathBuf>,
    due: Option<Instant>,
}

impl Settling {
    /// For a container that runs.
    pub(super) fn of(container: &Container, started: &Started) -> Self {
        let left = DELAY.saturating_sub(started.ran());
        Self { layers: container.layers.clone(), due: Some(Instant::now() + left) }
    }

    /// How long until [`Settling::tick`] has something to do.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Begins when it is time. The disk may take long, so that a thread waits for it.
    pub(super) fn tick(&mut self) {
        if self.due.is_none_or(|due| Instant::now() < due) {
            return;
        }
        self.due = None;
        let layers = std::mem::take(&mut self.layers);
        // Layers that stay marked are unpacked again after the next boot, and nothing else is lost.
        let _ = Builder::new().stack_size(STACK).spawn(move || store::settle(&layers));
    }
}
