//! Which of the host's ids a bundle gets as its own.

use std::fs;
use std::io;
use std::path::Path;

use super::{Engine, Error};
use crate::fsutil::PathContext;
use crate::names::ContainerName;
use crate::oci::id_range::{self, IdRange};
use crate::oci::spec::Container;
use crate::spec::Userns;
use crate::state::{BundleRecord, StateError};

/// Whom the host gives ids to: subuid(5), subgid(5).
const SUBIDS: [&str; 2] = ["/etc/subuid", "/etc/subgid"];
/// Who has an id of the host: passwd(5), group(5).
const ACCOUNTS: [&str; 2] = ["/etc/passwd", "/etc/group"];

impl Engine {
    /// The ids of the container, if it is to have some of its own: those that it has, or some that
    /// nobody has now. Only reads; [`Engine::claim_ids`] makes them its own.
    pub(super) fn ids_for(
        &self,
        name: &ContainerName,
        wanted: Option<Userns>,
    ) -> Result<Option<IdRange>, Error> {
        if wanted.unwrap_or(self.config.userns) == Userns::Host {
            return Ok(None);
        }
        let record = match self.state.bundle(name) {
            Err(StateError::Unreadable { .. }) => None,
            other => other?,
        };
        match record.as_ref().and_then(BundleRecord::container).and_then(|c| c.userns) {
            Some(range) => Ok(Some(range)),
            None => self.choose_ids(name).map(Some),
        }
    }

    fn choose_ids(&self, name: &ContainerName) -> Result<IdRange, Error> {
        let mut taken = self.state.ids_of_others(name)?;
        for (paths, read) in [
            (SUBIDS, id_range::of_subids as fn(&str) -> Vec<IdRange>),
            (ACCOUNTS, id_range::of_accounts),
        ] {
            for path in paths {
                taken.extend(read(&content(Path::new(path))?));
            }
        }
        id_range::choose(name.as_str(), &taken).ok_or(Error::NoIds)
    }

    /// Sees to it that the container's ids are its own: another bottle may have claimed them since
    /// they were chosen, then it gets others. The caller holds the host's lock.
    pub(super) fn claim_ids(&self, container: &mut Container) -> Result<(), Error> {
        let Some(range) = container.userns else { return Ok(()) };
        let others = self.state.ids_of_others(&container.name)?;
        if others.into_iter().any(|other| other.overlaps(range)) {
            container.userns = Some(self.choose_ids(&container.name)?);
        }
        Ok(())
    }
}

/// Of a file that is not there, nothing.
fn content(path: &Path) -> Result<String, Error> {
    match fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => Ok(String::from_utf8_lossy(&other.at("read", path)?).into_owned()),
    }
}
