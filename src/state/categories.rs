//! Which bundle has which pair of SELinux categories (`shares.rs`). Bundles that asked for one and the
//! same level have one each.

use std::path::PathBuf;

use super::shares::Shares;
use super::{State, StateError};
use crate::names::ContainerName;
use crate::oci::selinux::mcs::Pair;

impl State {
    /// Notes that the container has the pair; it may be noted already.
    ///
    /// # Errors
    /// What the file system said.
    pub fn lease_categories(
        &self,
        pair: Pair,
        container: &ContainerName,
    ) -> Result<(), StateError> {
        self.categories().lease(pair, container)
    }

    /// Whether it is noted that the container has the pair.
    ///
    /// # Errors
    /// What the file system said.
    pub fn has_categories(
        &self,
        pair: Pair,
        container: &ContainerName,
    ) -> Result<bool, StateError> {
        self.categories().has(pair, container)
    }

    /// The pairs of all other containers.
    ///
    /// # Errors
    /// What the file system said.
    pub fn categories_of_others(&self, own: &ContainerName) -> Result<Vec<Pair>, StateError> {
        self.categories().of_others(own, Pair::parse)
    }

    /// Gives back what the container has.
    pub(super) fn forget_categories(&self, container: &ContainerName) -> Result<(), StateError> {
        self.categories().forget(container)
    }

    pub(super) fn categories_dir(&self) -> PathBuf {
        self.root.join("categories")
    }

    fn categories(&self) -> Shares {
        Shares(self.categories_dir())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_leased_and_given_back_by_container() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(dir.path().join("state"));
        let [one, two] = ["p-sidecars-a", "p-sidecars-b"].map(|n| ContainerName::new(n).unwrap());
        let [first, second] = ["c1,c2", "c3,c4"].map(|text| Pair::parse(text).unwrap());
        for (pair, container) in [(first, &one), (second, &two), (first, &one)] {
            state.lease_categories(pair, container).unwrap();
        }
        assert_eq!(state.categories_of_others(&one).unwrap(), [second]);
        assert_eq!(state.categories_of_others(&two).unwrap(), [first]);
        assert!(state.has_categories(first, &one).unwrap());
        assert!(!state.has_categories(first, &two).unwrap());
        state.forget_categories(&one).unwrap();
        assert!(!state.has_categories(first, &one).unwrap());
        assert_eq!(state.categories_of_others(&two).unwrap(), []);
        state.forget_categories(&two).unwrap();
        state.tidy().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
