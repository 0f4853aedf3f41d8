//! The sysctls that no netlink message can set: IPv6 off. Paths below /proc/sys/net belong to the
//! network namespace of the thread that uses them.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::net::error::Error;

fn disable_ipv6_path(interface: &str) -> PathBuf {
    PathBuf::from(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"))
}

/// Turns IPv6 off on an interface, or on `all` or `default`, of the thread's namespace: no
/// link-local address, no multicast listener reports, nothing on the wire.
///
/// A kernel without IPv6 has nothing to turn off.
pub(crate) fn disable_ipv6(object: &str, interface: &str) -> Result<(), Error> {
    match fs::write(disable_ipv6_path(interface), "1") {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::sysctl(object, "turn IPv6 off for", e))
        }
        _ => Ok(()),
    }
}

/// Whether IPv6 is off; `None` if the kernel has no IPv6.
pub(crate) fn ipv6_is_disabled(object: &str, interface: &str) -> Result<Option<bool>, Error> {
    match fs::read_to_string(disable_ipv6_path(interface)) {
        Ok(value) => Ok(Some(value.trim() == "1")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::sysctl(object, "read whether IPv6 is off for", e)),
    }
}
