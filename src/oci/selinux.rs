//! SELinux: what the host has of it, the labels a bundle gets, and how they are put on.
//!
//! Two kinds of modules: [`context`], [`mcs`] and [`places`] compute; [`host`], `attribute` and `relabel`
//! are thin layers over `selinuxfs`, `/proc` and extended attributes. libselinux is not used: it is a
//! C library with state of its own, and what is needed of it are five files.

pub(crate) mod attribute;
pub mod context;
pub mod host;
pub mod mcs;
pub mod places;
pub(crate) mod relabel;
