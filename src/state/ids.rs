//! Which bundle has which ids of the host, by the first of them (`shares.rs`).

use std::path::PathBuf;

use super::shares::Shares;
use super::{State, StateError};
use crate::names::ContainerName;
use crate::oci::id_range::{IdRange, SIZE};

impl State {
    /// Notes that the container has the range; it may be noted already.
    ///
    /// # Errors
    /// What the file system said.
    pub fn lease_ids(&self, range: IdRange, container: &ContainerName) -> Result<(), StateError> {
        self.ids().lease(range.first, container)
    }

    /// The ranges of all other containers.
    ///
    /// # Errors
    /// What the file system said.
    pub fn ids_of_others(&self, own: &ContainerName) -> Result<Vec<IdRange>, StateError> {
        let range = |first: &str| Some(IdRange { first: first.parse().ok()?, size: SIZE });
        self.ids().of_others(own, range)
    }

    /// Gives back what the container has.
    pub(super) fn forget_ids(&self, container: &ContainerName) -> Result<(), StateError> {
        self.ids().forget(container)
    }

    pub(super) fn ids_dir(&self) -> PathBuf {
        self.root.join("ids")
    }

    fn ids(&self) -> Shares {
        Shares(self.ids_dir())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_leased_once_and_given_back_by_container() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(dir.path().join("state"));
        let [one, two] = ["p-sidecars-a", "p-sidecars-b"].map(|n| ContainerName::new(n).unwrap());
        let [first, second] = [SIZE * 8, SIZE * 9].map(|first| IdRange { first, size: SIZE });
        for (range, container) in [(first, &one), (second, &two), (first, &one)] {
            state.lease_ids(range, container).unwrap();
        }
        assert_eq!(state.ids_of_others(&one).unwrap(), [second]);
        assert_eq!(state.ids_of_others(&two).unwrap(), [first]);
        state.forget_ids(&one).unwrap();
        assert_eq!(state.ids_of_others(&two).unwrap(), []);
        state.forget_ids(&two).unwrap();
        state.tidy().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
