//! carboy makes sidecar bundles: for each micro-VM ("bottle") one container at a pinned address
//! that is known before anything starts, without a daemon.

pub mod error;
pub mod names;
pub mod net;
pub mod oci;
pub mod presence;
pub mod resource;
