//! The one mechanism: desired → observed → change. Applying, repairing, verifying, rolling back
//! and removing are all here and nowhere else. Pure: it only talks to a [`Host`].

use crate::error::{Classify, ErrorKind};
use crate::presence::{Creation, Drift, Presence, Removal};
use crate::resource::{Host, Resource};

/// What one call did to one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not there and was made.
    Created(Resource),
    /// It differed and was put right.
    Repaired(Resource, Vec<Drift>),
    /// It was there and was removed.
    Removed(Resource),
}

/// Whether the resources are thought to be there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Try to create, look only where the place is taken: a fresh `up` pays for no observation.
    Fresh,
    /// Look first: a second `up` writes nothing to the kernel.
    Existing,
}

/// A resource could not be brought to its planned state.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError<E: Classify> {
    /// The host refused an operation.
    #[error("{action} {resource}")]
    Host {
        /// `create`, `observe` or `repair`.
        action: &'static str,
        /// The resource, for people.
        resource: String,
        /// What the host said.
        #[source]
        source: Box<E>,
    },
    /// Something that is not ours is in the resource's place.
    #[error("{resource}: its place is taken by {found}, which is not carboy's")]
    Foreign {
        /// The resource, for people.
        resource: String,
        /// What was found there.
        found: String,
    },
    /// The resource comes and goes while it is looked at.
    #[error("{resource}: it appears and vanishes while it is made")]
    Unstable {
        /// The resource, for people.
        resource: String,
    },
}

impl<E: Classify> Classify for ApplyError<E> {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Host { source, .. } => source.kind(),
            Self::Foreign { .. } => ErrorKind::Foreign,
            Self::Unstable { .. } => ErrorKind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Host { source, .. } => source.hint(),
            Self::Foreign { .. } => {
                Some("remove or rename it, or choose another slug or --prefix".to_owned())
            }
            Self::Unstable { .. } => Some("something else changes the host; try again".to_owned()),
        }
    }
}

/// A removal that did not succeed. Others may have.
#[derive(Debug, thiserror::Error)]
#[error("remove {resource}")]
pub struct RemoveError<E: Classify> {
    /// The resource, for people.
    pub resource: String,
    /// What the host said.
    #[source]
    pub source: E,
}

/// The changes of one call, so that they can be taken back.
#[derive(Debug, Default)]
pub struct Transaction {
    changes: Vec<Change>,
}

impl Transaction {
    /// Nothing done yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was done so far, in order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Brings `resources` to their planned state, in order.
    ///
    /// # Errors
    /// The first failure; what was changed before stays until [`Transaction::roll_back`].
    pub fn apply<H: Host>(
        &mut self,
        host: &mut H,
        resources: &[Resource],
        expect: Expect,
    ) -> Result<(), ApplyError<H::Error>> {
        resources.iter().try_for_each(|resource| self.ensure(host, resource, expect))
    }

    fn ensure<H: Host>(
        &mut self,
        host: &mut H,
        resource: &Resource,
        expect: Expect,
    ) -> Result<(), ApplyError<H::Error>> {
        let failed = |action| {
            let resource = resource.to_string();
            move |source| ApplyError::Host { action, resource, source: Box::new(source) }
        };
        let mut look_first = expect == Expect::Existing;
        // A few rounds: between a look and a creation the resource may come or go.
        for _ in 0..3 {
            if !look_first && host.create(resource).map_err(failed("create"))? == Creation::Created
            {
                self.changes.push(Change::Created(resource.clone()));
                return Ok(());
            }
            look_first = false;
            match host.observe(resource).map_err(failed("observe"))? {
                Presence::Present => return Ok(()),
                Presence::Drifted(drift) => {
                    host.repair(resource, &drift).map_err(failed("repair"))?;
                    self.changes.push(Change::Repaired(resource.clone(), drift));
                    return Ok(());
                }
                Presence::Foreign(found) => {
                    return Err(ApplyError::Foreign { resource: resource.to_string(), found });
                }
                Presence::Absent => {}
            }
        }
        Err(ApplyError::Unstable { resource: resource.to_string() })
    }

    /// Removes what this call created, the last first. Repairs stay: they only put right.
    pub fn roll_back<H: Host>(self, host: &mut H) -> Vec<RemoveError<H::Error>> {
        let created: Vec<Resource> = self
            .changes
            .into_iter()
            .filter_map(|change| match change {
                Change::Created(resource) => Some(resource),
                Change::Repaired(..) | Change::Removed(_) => None,
            })
            .collect();
        remove(host, &created).errors
    }
}

/// What removing found.
#[derive(Debug)]
pub struct RemoveReport<E: Classify> {
    /// What was there and is gone.
    pub removed: Vec<Resource>,
    /// What remains, and why.
    pub errors: Vec<RemoveError<E>>,
}

/// Removes `resources`, the last first, and goes on past errors.
pub fn remove<H: Host>(host: &mut H, resources: &[Resource]) -> RemoveReport<H::Error> {
    let mut report = RemoveReport { removed: Vec::new(), errors: Vec::new() };
    for resource in resources.iter().rev() {
        match host.remove(resource) {
            Ok(Removal::Removed) => report.removed.push(resource.clone()),
            Ok(Removal::Absent) => {}
            Err(source) => {
                report.errors.push(RemoveError { resource: resource.to_string(), source });
            }
        }
    }
    report
}

/// Compares `resources` with the host and changes nothing.
///
/// # Errors
/// If the host cannot be read.
pub fn verify<H: Host>(
    host: &mut H,
    resources: &[Resource],
) -> Result<Vec<Drift>, ApplyError<H::Error>> {
    let mut all = Vec::new();
    for resource in resources {
        let presence = host.observe(resource).map_err(|source| ApplyError::Host {
            action: "observe",
            resource: resource.to_string(),
            source: Box::new(source),
        })?;
        match presence {
            Presence::Present => {}
            Presence::Absent => all.push(Drift::new(resource.to_string(), "present", "absent")),
            Presence::Drifted(drift) => all.extend(drift),
            Presence::Foreign(found) => all.push(Drift::new(resource.to_string(), "ours", found)),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
