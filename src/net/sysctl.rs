//! The sysctls that no netlink message can set: those of IPv6, and of who may open which sockets.
//! Paths below /proc/sys/net belong to the network namespace of the thread that uses them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::net::error::Error;

/// IPv6 forwarding for what comes in through one device, whatever `all.forwarding` says (Linux
/// 6.17). Unlike `forwarding` it leaves the host a host: router advertisements are still accepted.
const FORCE_FORWARDING: &str = "force_forwarding";

fn path(interface: &str, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/sys/net/ipv6/conf/{interface}/{name}"))
}

/// Whether the kernel has IPv6 at all.
pub(crate) fn kernel_has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Turns IPv6 off on an interface, or on `all` or `default`, of the thread's namespace: no
/// link-local address, no multicast listener reports, nothing on the wire.
///
/// A kernel without IPv6 has nothing to turn off.
pub(crate) fn disable_ipv6(object: &str, interface: &str) -> Result<(), Error> {
    match fs::write(path(interface, "disable_ipv6"), "1") {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::sysctl(object, "turn IPv6 off for", e))
        }
        _ => Ok(()),
    }
}

/// Turns IPv6 on on an interface of the thread's namespace, closed to what its neighbours advertise.
pub(crate) fn enable_ipv6(object: &str, interface: &str) -> Result<(), Error> {
    for (name, value) in [("accept_ra", "0"), ("disable_ipv6", "0")] {
        fs::write(path(interface, name), value)
            .map_err(|e| Error::sysctl(object, "turn IPv6 on for", e))?;
    }
    Ok(())
}

/// Turns IPv6 off, or on.
pub(crate) fn switch_ipv6(object: &str, interface: &str, on: bool) -> Result<(), Error> {
    if on { enable_ipv6(object, interface) } else { disable_ipv6(object, interface) }
}

/// Whether IPv6 is off; `None` if the kernel has no IPv6.
pub(crate) fn ipv6_is_disabled(object: &str, interface: &str) -> Result<Option<bool>, Error> {
    let value = read(object, &path(interface, "disable_ipv6"))?;
    Ok(value.map(|value| value == "1"))
}

/// Whether the host forwards IPv6 between all its interfaces.
pub(crate) fn forwards_ipv6(object: &str) -> Result<bool, Error> {
    Ok(read(object, &path("all", "forwarding"))?.is_some_and(|value| value != "0"))
}

/// Whether the kernel can forward IPv6 for one device alone.
pub(crate) fn can_force_forwarding() -> bool {
    path("all", FORCE_FORWARDING).exists()
}

/// Forwards the IPv6 packets that come in through the device, or no longer. The kernel must be one
/// that [can](can_force_forwarding).
pub(crate) fn force_forwarding(object: &str, device: &str, on: bool) -> Result<(), Error> {
    fs::write(path(device, FORCE_FORWARDING), if on { "1" } else { "0" })
        .map_err(|e| Error::sysctl(object, "set IPv6 forwarding on", e))
}

/// What lets programs without rights over a network namespace bind low ports, and open ICMP datagram
/// sockets (icmp(7)) in place of raw ones; as Docker sets them.
pub(crate) const OPEN_SOCKETS: [(&str, &str); 2] =
    [("ip_unprivileged_port_start", "0"), ("ping_group_range", "0\t2147483647")];

/// Sets them in the thread's namespace.
pub(crate) fn open_sockets(object: &str) -> Result<(), Error> {
    for (name, value) in OPEN_SOCKETS {
        fs::write(ipv4(name), value)
            .map_err(|e| Error::sysctl(object, "open sockets to all programs of", e))?;
    }
    Ok(())
}

/// What such a setting of the thread's namespace is.
pub(crate) fn read_ipv4(object: &str, name: &str) -> Result<Option<String>, Error> {
    read(object, &ipv4(name))
}

fn ipv4(name: &str) -> PathBuf {
    Path::new("/proc/sys/net/ipv4").join(name)
}

fn read(object: &str, path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(value) => Ok(Some(value.trim().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::sysctl(object, "read a setting of", e)),
    }
}
