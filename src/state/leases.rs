//! Which network has which address range, whatever the kernel says: a bridge that somebody deleted
//! keeps its range for the next `up`.
//!
//! A lease is an empty file whose name says all, `<address>-<prefix>@<network>`, so that one
//! listing of the directory answers every question. It is made after the network's record and
//! goes before it: without a record a lease means nothing.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use ipnet::IpNet;

use super::{State, StateError, entries};
use crate::fsutil::{self, PathContext};
use crate::names::NetworkName;

/// A range and the network that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The range.
    pub subnet: IpNet,
    /// The network.
    pub network: NetworkName,
}

impl Lease {
    fn file_name(&self) -> String {
        let Self { subnet, network } = self;
        format!("{}-{}@{network}", subnet.addr(), subnet.prefix_len())
    }

    fn parse(file_name: &str) -> Option<Self> {
        let (subnet, network) = file_name.split_once('@')?;
        let (address, prefix) = subnet.split_once('-')?;
        let subnet = IpNet::new(address.parse().ok()?, prefix.parse().ok()?).ok()?;
        Some(Self { subnet, network: NetworkName::new(network).ok()? })
    }

    /// Whether the ranges have an address in common.
    pub fn overlaps(&self, subnet: IpNet) -> bool {
        self.subnet.contains(&subnet) || subnet.contains(&self.subnet)
    }
}

impl State {
    /// Notes that the network has the range; it may be noted already.
    ///
    /// # Errors
    /// What the file system said.
    pub fn lease(&self, lease: &Lease) -> Result<(), StateError> {
        let directory = self.leases_dir();
        fsutil::create_private_dir(&directory)?;
        let path = directory.join(lease.file_name());
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e).at("make", &path)?,
            _ => Ok(()),
        }
    }

    /// The leases of all other networks.
    ///
    /// # Errors
    /// What the file system said.
    pub fn leases_of_others(&self, own: &NetworkName) -> Result<Vec<Lease>, StateError> {
        let all = entries(&self.leases_dir())?;
        let all = all.iter().filter_map(|name| Lease::parse(name));
        Ok(all.filter(|lease| lease.network != *own).collect())
    }

    /// Gives back what the network has.
    pub(super) fn forget_leases(&self, network: &NetworkName) -> Result<(), StateError> {
        let directory = self.leases_dir();
        for name in entries(&directory)? {
            if Lease::parse(&name).is_some_and(|lease| lease.network == *network) {
                fsutil::remove_file(&directory.join(name))?;
            }
        }
        Ok(())
    }

    pub(super) fn leases_dir(&self) -> PathBuf {
        self.root.join("leases")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(subnet: &str, network: &str) -> Lease {
        Lease { subnet: subnet.parse().unwrap(), network: network.parse().unwrap() }
    }

    #[test]
    fn a_files_name_says_all() {
        for lease in [lease("192.168.7.0/24", "p-bundle-a_b"), lease("fd00:1::/64", "p-bundle-c-1")]
        {
            assert_eq!(Lease::parse(&lease.file_name()), Some(lease));
        }
        for bad in ["", "x", "192.168.7.0@n", "192.168.7.0-33@n", "192.168.7.0-24@"] {
            assert_eq!(Lease::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn leases_are_given_back_by_network() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(dir.path().join("state"));
        let (one, two) = (lease("10.0.0.0/24", "one"), lease("10.0.1.0/24", "two"));
        let six = lease("fd00::/64", "one");
        for lease in [&one, &two, &six, &one] {
            state.lease(lease).unwrap();
        }
        assert_eq!(state.leases_of_others(&one.network).unwrap(), std::slice::from_ref(&two));
        assert_eq!(state.leases_of_others(&two.network).unwrap().len(), 2);
        assert!(two.overlaps("10.0.0.0/16".parse().unwrap()));
        assert!(two.overlaps("10.0.1.128/25".parse().unwrap()));
        assert!(!two.overlaps("10.0.2.0/24".parse().unwrap()));
        state.forget_leases(&one.network).unwrap();
        assert!(state.leases_of_others(&two.network).unwrap().is_empty());
        state.forget_leases(&two.network).unwrap();
        state.tidy().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
