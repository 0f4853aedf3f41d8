//! What the verbs have to tell of the bundles; the monitors tell the rest.

use super::Engine;
use crate::names::Slug;
use crate::oci::events::{Event, EventKind, EventLog, EventReader};
use crate::reconcile::Change;
use crate::resource::Resource;

impl Engine {
    /// A reader of what happened to the bundles of this installation, the oldest that is kept first.
    pub fn events(&self) -> EventReader {
        self.event_log().reader()
    }

    fn event_log(&self) -> EventLog {
        EventLog::of_root(&self.config.root)
    }

    /// Tells of something. That it cannot be told is no reason for a verb to fail.
    pub(super) fn tell(&self, slug: &Slug, kind: EventKind, detail: Option<&str>) {
        let event = Event::now(slug, &self.config.prefix.container(slug), kind);
        let _ = self.event_log().append(&detail.into_iter().fold(event, Event::with_detail));
    }

    /// Tells what was found other than planned, and was put right.
    pub(super) fn tell_drift(&self, slug: &Slug, changes: &[Change]) {
        for change in changes {
            let detail = match change {
                Change::Created(resource) => format!("{resource}: missing"),
                Change::Repaired(_, drift) => {
                    let found = drift.iter().map(|d| format!("{}: {}", d.resource, d.found));
                    found.collect::<Vec<_>>().join("; ")
                }
                Change::Removed(_) => continue,
            };
            self.tell(slug, EventKind::Drift, Some(&detail));
        }
    }

    /// Tells that a bundle was ended, if it ran, and is gone, if its container is.
    pub(super) fn tell_removal(&self, slug: &Slug, removed: &[Resource], ran: bool) {
        if removed.iter().any(|resource| matches!(resource, Resource::Container(_))) {
            if ran {
                self.tell(slug, EventKind::Stopped, None);
            }
            self.tell(slug, EventKind::Removed, None);
        }
    }
}
