//! Deleting links without waiting for the kernel to be done with them.
//!
//! RTM_DELLINK takes the link and its names away at once, and is answered only when nobody can use
//! the device any more (`rcu_barrier` in `netdev_run_todo`): 15 to 50 ms for each link, one after the
//! other. So each goes on a thread of its own, which ends when the kernel answers, and whoever
//! wanted the link gone goes on when it is: the waits of several links, and of all else that is
//! removed meanwhile, become one. A process that ends waits for its threads' calls.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::net::error::{Error, Refusal};
use crate::net::link;
use crate::net::netlink::{self, Route};
use crate::presence::Removal;

/// How long to wait before the first look whether the link is gone.
const PAUSE: Duration = Duration::from_micros(100);

/// Deletes a link; it is gone when this returns. The words are for errors.
///
/// # Errors
/// What the kernel said: it refuses before it begins, never later.
pub(crate) async fn unlink(
    route: &mut Route,
    object: &str,
    feature: &'static str,
    index: u32,
) -> Result<Removal, Error> {
    let (tell, told) = mpsc::channel();
    let owned = object.to_owned();
    let delete = move || {
        let delete = async |own: &mut Route| own.one(link::delete(index)).await;
        // Nobody listens any more where the link was seen to be gone.
        let _ = tell.send(netlink::block_on(&owned, feature, delete));
    };
    thread::Builder::new()
        .name("carboy-unlink".to_owned())
        .spawn(delete)
        .map_err(|e| Error::system(object, "start a thread for", e))?;
    let mut pause = PAUSE;
    loop {
        match told.recv_timeout(pause) {
            Ok(answer) => {
                return match answer? {
                    Ok(_) => Ok(Removal::Removed),
                    Err(Refusal { errno: libc::ENODEV, .. }) => Ok(Removal::Absent),
                    Err(refusal) => Err(route.refused("delete", refusal)),
                };
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(route.closed()),
        }
        // It waits for the lock under which the link goes.
        if matches!(route.one(link::get(index)).await?, Err(r) if r.errno == libc::ENODEV) {
            return Ok(Removal::Removed);
        }
        pause *= 2;
    }
}
