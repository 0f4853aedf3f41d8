//! Tells the service manager that asked for it (`NOTIFY_SOCKET`, sd_notify(3)).

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

/// Says that the bottle is ready; `status` is for people. Without a service manager that listens it
/// does nothing.
///
/// # Errors
/// What the kernel said.
pub(super) fn ready(status: &str) -> io::Result<()> {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match socket.as_bytes() {
        [] => return Ok(()),
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(Path::new(&socket))?,
    };
    let message = format!("READY=1\nSTATUS={}", status.replace('\n', " "));
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address).map(drop)
}
