//! carboy makes sidecar bundles: for each micro-VM ("bottle") one container at a pinned address
//! that is known before anything starts, without a daemon.

pub mod config;
pub mod error;
pub mod fsutil;
pub mod names;
pub mod net;
pub mod oci;
pub mod plan;
pub mod presence;
pub mod reconcile;
pub mod resource;
pub mod spec;
pub mod state;
