//! Which bundle has which pair of SELinux categories, so that one listing answers for all of them.
//!
//! As with ids a lease is an empty file whose name says all, `<pair>@<container>`. It is made after the
//! bundle's record and goes before it; both under the host's lock, under which it was seen that nobody
//! has the pair. Bundles that asked for one and the same level have one each.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::{State, StateError, entries};
use crate::fsutil::{self, PathContext};
use crate::names::ContainerName;
use crate::oci::selinux::mcs::Pair;

fn parse(file_name: &str) -> Option<(Pair, &str)> {
    let (pair, container) = file_name.split_once('@')?;
    Some((Pair::parse(pair)?, container))
}

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
        let directory = self.categories_dir();
        fsutil::create_private_dir(&directory)?;
        let path = directory.join(format!("{pair}@{container}"));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e).at("make", &path)?,
            _ => Ok(()),
        }
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
        let path = self.categories_dir().join(format!("{pair}@{container}"));
        Ok(path.try_exists().at("look for", &path)?)
    }

    /// The pairs of all other containers.
    ///
    /// # Errors
    /// What the file system said.
    pub fn categories_of_others(&self, own: &ContainerName) -> Result<Vec<Pair>, StateError> {
        let all = entries(&self.categories_dir())?;
        let all = all.iter().filter_map(|name| parse(name));
        Ok(all.filter(|(_, name)| *name != own.as_str()).map(|(pair, _)| pair).collect())
    }

    /// Gives back what the container has.
    pub(super) fn forget_categories(&self, container: &ContainerName) -> Result<(), StateError> {
        let directory = self.categories_dir();
        for name in entries(&directory)? {
            if parse(&name).is_some_and(|(_, of)| of == container.as_str()) {
                fsutil::remove_file(&directory.join(name))?;
            }
        }
        Ok(())
    }

    pub(super) fn categories_dir(&self) -> PathBuf {
        self.root.join("categories")
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
