//! Which bundle has which ids of the host, so that one listing answers for all of them.
//!
//! As with address ranges a lease is an empty file whose name says all, `<first id>@<container>`. It is
//! made after the bundle's record and goes before it; both under the host's lock, under which it was
//! seen that nobody has the range.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::{State, StateError, entries};
use crate::fsutil::{self, PathContext};
use crate::names::ContainerName;
use crate::oci::id_range::{IdRange, SIZE};

fn file_name(range: IdRange, container: &ContainerName) -> String {
    format!("{}@{container}", range.first)
}

fn parse(file_name: &str) -> Option<(IdRange, &str)> {
    let (first, container) = file_name.split_once('@')?;
    Some((IdRange { first: first.parse().ok()?, size: SIZE }, container))
}

impl State {
    /// Notes that the container has the range; it may be noted already.
    ///
    /// # Errors
    /// What the file system said.
    pub fn lease_ids(&self, range: IdRange, container: &ContainerName) -> Result<(), StateError> {
        let directory = self.ids_dir();
        fsutil::create_private_dir(&directory)?;
        let path = directory.join(file_name(range, container));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e).at("make", &path)?,
            _ => Ok(()),
        }
    }

    /// The ranges of all other containers.
    ///
    /// # Errors
    /// What the file system said.
    pub fn ids_of_others(&self, own: &ContainerName) -> Result<Vec<IdRange>, StateError> {
        let all = entries(&self.ids_dir())?;
        let all = all.iter().filter_map(|name| parse(name));
        Ok(all.filter(|(_, name)| *name != own.as_str()).map(|(range, _)| range).collect())
    }

    /// Gives back what the container has.
    pub(super) fn forget_ids(&self, container: &ContainerName) -> Result<(), StateError> {
        let directory = self.ids_dir();
        for name in entries(&directory)? {
            if parse(&name).is_some_and(|(_, of)| of == container.as_str()) {
                fsutil::remove_file(&directory.join(name))?;
            }
        }
        Ok(())
    }

    pub(super) fn ids_dir(&self) -> PathBuf {
        self.root.join("ids")
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
