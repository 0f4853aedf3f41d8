//! A list of differences between a spec and the host, each with the part it is about, so that one
//! comparison serves both `observe` and `repair`. Pure.

use std::fmt;

use crate::presence::{Drift, Presence};

/// Differences, each tagged with the part `P` that repairs it.
#[derive(Debug)]
pub(crate) struct Differences<P>(Vec<(P, Drift)>);

impl<P: Copy + PartialEq> Differences<P> {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// Notes a difference unless `found` is `want`.
    pub(crate) fn expect<T: PartialEq + fmt::Display>(
        &mut self,
        part: P,
        resource: impl Into<String>,
        want: T,
        found: Option<T>,
    ) {
        match found {
            Some(found) if found == want => {}
            Some(found) => self.0.push((part, Drift::new(resource, want, found))),
            None => self.0.push((part, Drift::new(resource, want, "absent"))),
        }
    }

    /// As `expect`, for what not every kernel reports: unknown is no difference.
    pub(crate) fn expect_if_known<T: PartialEq + fmt::Display>(
        &mut self,
        part: P,
        resource: impl Into<String>,
        want: T,
        found: Option<T>,
    ) {
        if found.is_some() {
            self.expect(part, resource, want, found);
        }
    }

    /// The parts to repair: those whose differences the caller was told of.
    pub(crate) fn parts(&self, drift: &[Drift]) -> Vec<P> {
        let mut parts = Vec::new();
        for (part, difference) in &self.0 {
            let told = drift.iter().any(|d| d.resource == difference.resource);
            if told && !parts.contains(part) {
                parts.push(*part);
            }
        }
        parts
    }

    /// What to tell the caller.
    pub(crate) fn into_presence(self) -> Presence {
        if self.0.is_empty() {
            return Presence::Present;
        }
        Presence::Drifted(self.0.into_iter().map(|(_, drift)| drift).collect())
    }
}

/// A switch, in the words of `ip`.
pub(crate) fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_differences_the_caller_knows_are_repaired() {
        let mut found = Differences::new();
        found.expect('a', "mtu", 1500, Some(1500));
        found.expect('b', "alias", "x", Some("y"));
        found.expect('c', "route", "r", None);
        found.expect_if_known('d', "locked", "on", None);
        let told = [Drift::new("route", "r", "absent")];
        assert_eq!(found.parts(&told), vec!['c']);
        let expected = vec![Drift::new("alias", "x", "y"), Drift::new("route", "r", "absent")];
        assert_eq!(found.into_presence(), Presence::Drifted(expected));
        assert_eq!(Differences::<char>::new().into_presence(), Presence::Present);
    }
}
