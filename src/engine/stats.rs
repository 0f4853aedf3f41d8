//! What bundles use.

use serde::Serialize;

use super::{Engine, Error};
use crate::names::{ContainerName, Slug};
use crate::net::counters::{self, Counters};
use crate::net::drops::Drops;
use crate::oci::usage::{self, Usage};

/// What a bundle has used since its start, and uses now. The rate of anything is the difference of
/// two of them by the time between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BottleStats {
    /// The bottle.
    pub slug: Slug,
    /// The container.
    pub container: ContainerName,
    /// Processor, memory, processes and disks.
    #[serde(flatten)]
    pub usage: Usage,
    /// Its port; `None` if that is gone.
    pub network: Option<Counters>,
    /// What the firewall dropped of its traffic, by reason.
    pub drops: Drops,
}

impl Engine {
    /// What a running bundle uses.
    ///
    /// # Errors
    /// There is no such bottle, it does not run, or the host cannot be read.
    pub fn stats(&self, slug: &Slug) -> Result<BottleStats, Error> {
        self.running(slug)?;
        let view = self.inspect(slug)?.view;
        let drops = self.drops(&view)?;
        let name = view.container;
        Ok(BottleStats {
            slug: slug.clone(),
            usage: usage::of(&name)?,
            network: counters::of(&name.veth())?,
            container: name,
            drops,
        })
    }
}
