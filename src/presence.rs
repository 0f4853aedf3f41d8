//! What observing, creating and removing a resource can find. Pure words shared by the modules
//! that touch the kernel and by the mechanism that drives them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a resource stands on the host, compared with the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is not there.
    Absent,
    /// It is there, as planned.
    Present,
    /// It is ours, but differs; at least one difference.
    Drifted(Vec<Drift>),
    /// Something that is not ours has its place; the text says what was found.
    Foreign(String),
}

/// One difference between the plan and the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// What differs, in the words of `ip` and `nft`: `bridge cb-… mtu`, `route default`.
    pub resource: String,
    /// What the plan says.
    pub want: String,
    /// What the host says.
    pub found: String,
}

impl Drift {
    /// A difference of `resource`.
    pub fn new(
        resource: impl Into<String>,
        want: impl fmt::Display,
        found: impl fmt::Display,
    ) -> Self {
        Self { resource: resource.into(), want: want.to_string(), found: found.to_string() }
    }
}

/// What an attempt to create found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// It was not there; now it is, in full.
    Created,
    /// Something is there already; nothing was changed. Observe it.
    Exists,
}

/// What an attempt to remove found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Something was there; it is gone.
    Removed,
    /// Nothing was there (or nothing that is ours).
    Absent,
}
