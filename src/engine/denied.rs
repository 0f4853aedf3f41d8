//! What a bottle was denied, as far as its monitor has kept it.

use std::collections::VecDeque;

use serde::Serialize;

use super::{Engine, Error};
use crate::names::Slug;
use crate::net::nflog::{self, Denied};
use crate::oci::feed::FeedReader;
use crate::oci::helper::monitor::log_dir;

/// A packet that was denied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeniedFlow {
    /// When it was told of, in RFC 3339.
    pub time: String,
    /// What it was, and why it was denied.
    #[serde(flatten)]
    pub denied: Denied,
}

/// Reads what was denied from the oldest on.
#[derive(Debug)]
pub struct DeniedReader {
    feed: FeedReader,
    /// Of a datagram with more than one packet, those that were not asked for yet.
    rest: VecDeque<DeniedFlow>,
}

impl DeniedReader {
    /// The next packet; `None` at the end, where more may come later.
    ///
    /// # Errors
    /// What the file system said.
    pub fn next_flow(&mut self) -> Result<Option<DeniedFlow>, Error> {
        while self.rest.is_empty() {
            let Some((time, datagram)) = self.feed.next_datagram()? else { return Ok(None) };
            let flows = nflog::parse(&datagram).into_iter();
            self.rest.extend(flows.map(|denied| DeniedFlow { time: time.clone(), denied }));
        }
        Ok(self.rest.pop_front())
    }
}

impl Engine {
    /// A reader of what the bottle was denied.
    ///
    /// # Errors
    /// There is no such bottle, or nothing is kept of it.
    pub fn denied(&self, slug: &Slug) -> Result<DeniedReader, Error> {
        let status = self.inspect(slug)?;
        let network = self.state.network(&status.view.network)?;
        let told = network.is_some_and(|network| network.spec.log_group.is_some());
        match status.container.filter(|_| told) {
            Some(container) => {
                let feed = FeedReader::new(&log_dir(&container));
                Ok(DeniedReader { feed, rest: VecDeque::new() })
            }
            None => Err(Error::NoDeniedLog { slug: slug.to_string() }),
        }
    }
}
