//! Alternative names of links: the readable, long ones, unique among all links of a namespace.

use crate::net::error::{Error, Refusal};
use crate::net::facts;
use crate::net::link;
use crate::net::netlink::Route;

/// Gives the link an altname.
///
/// # Errors
/// [`Error::Foreign`] if another link has it.
pub(crate) async fn add(route: &mut Route, index: u32, name: &str) -> Result<(), Error> {
    let request = link::add_altname(index, name);
    let operation = request.operation;
    match route.one(request).await? {
        Ok(_) => Ok(()),
        Err(Refusal { errno: libc::EEXIST, .. }) => {
            let request = link::get_by_altname(name);
            let operation = request.operation;
            let holder = route.one(request).await?;
            let found = facts::link(route, operation, holder)?
                .map_or_else(|| "another link".to_owned(), |l| l.describe());
            Err(Error::Foreign { object: format!("the altname {name}"), found })
        }
        Err(refusal) => Err(route.refused(operation, refusal)),
    }
}
