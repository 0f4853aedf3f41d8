//! What containers have of something that is shared out, so that one listing answers for all of them.
//!
//! As with address ranges a lease is an empty file whose name says all, `<share>@<container>`. It is
//! made after the bundle's record and goes before it; both under the host's lock, under which it was
//! seen that nobody has the share.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::{StateError, entries};
use crate::fsutil::{self, PathContext};
use crate::names::ContainerName;

/// The leases of one kind: the directory that has them.
pub(super) struct Shares(pub(super) PathBuf);

impl Shares {
    /// Notes that the container has the share; it may be noted already.
    pub(super) fn lease(
        &self,
        share: impl Display,
        container: &ContainerName,
    ) -> Result<(), StateError> {
        fsutil::create_private_dir(&self.0)?;
        let path = self.path(share, container);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e).at("make", &path)?,
            _ => Ok(()),
        }
    }

    /// Whether it is noted that the container has the share.
    pub(super) fn has(
        &self,
        share: impl Display,
        container: &ContainerName,
    ) -> Result<bool, StateError> {
        let path = self.path(share, container);
        Ok(path.try_exists().at("look for", &path)?)
    }

    /// The shares of all other containers, as far as `parse` understands them.
    pub(super) fn of_others<T>(
        &self,
        own: &ContainerName,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, StateError> {
        let all = entries(&self.0)?;
        let others = all.iter().filter_map(|name| name.split_once('@'));
        let others = others.filter(|(_, container)| *container != own.as_str());
        Ok(others.filter_map(|(share, _)| parse(share)).collect())
    }

    /// Gives back what the container has.
    pub(super) fn forget(&self, container: &ContainerName) -> Result<(), StateError> {
        for name in entries(&self.0)? {
            if name.split_once('@').is_some_and(|(_, of)| of == container.as_str()) {
                fsutil::remove_file(&self.0.join(name))?;
            }
        }
        Ok(())
    }

    fn path(&self, share: impl Display, container: &ContainerName) -> PathBuf {
        self.0.join(format!("{share}@{container}"))
    }
}
